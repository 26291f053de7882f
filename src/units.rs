//! Sizes and durations as people write them: `64KiB`, `8MiB`, `1GiB` or plain bytes; `50ms`, `5s`, `1m30s`.
//!
//! Every flag, script and debug command reads them through these functions, so that they mean one thing everywhere.

use std::fmt;
use std::time::Duration;

/// Units of size, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a size or a duration was refused; one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// Not a whole number with a known unit.
    Size {
        /// What was written.
        text: String,
    },
    /// A size that does not fit 64 bits.
    SizeTooLarge {
        /// What was written.
        text: String,
    },
    /// Not a number with a unit of time.
    Duration {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Zero where time must pass.
    ZeroDuration,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitError::Size { text } => {
                write!(
                    f,
                    "`{text}` is not a size: write bytes, or a number with KiB, MiB or GiB"
                )
            }
            UnitError::SizeTooLarge { text } => write!(f, "the size `{text}` is too large"),
            UnitError::Duration { text, why } => {
                write!(f, "`{text}` is not a duration such as 50ms, 5s or 1m30s: {why}")
            }
            UnitError::ZeroDuration => write!(f, "the duration must be above zero"),
        }
    }
}

impl std::error::Error for UnitError {}

/// Reads a size in bytes: `4096`, `64KiB`, `8 MiB`, `1GiB`.
///
/// # Errors
/// [`UnitError`] if it is no whole number of a known unit, or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(digits_end);
    let unit = unit.trim_start();
    let bad = || UnitError::Size { text: text.into() };
    let scale = if unit.is_empty() {
        1
    } else {
        SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| *scale)
            .ok_or_else(bad)?
    };
    if digits.is_empty() {
        return Err(bad());
    }
    let too_large = || UnitError::SizeTooLarge { text: text.into() };
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    number.checked_mul(scale).ok_or_else(too_large)
}

/// [`parse_size`] for what is counted in memory.
///
/// # Errors
/// As [`parse_size`], and if it does not fit a `usize`.
pub fn parse_size_in_memory(text: &str) -> Result<usize, UnitError> {
    usize::try_from(parse_size(text)?).map_err(|_| UnitError::SizeTooLarge { text: text.into() })
}

/// Reads a duration with a unit: `50ms`, `5s`, `1m30s`. Zero is allowed.
///
/// # Errors
/// [`UnitError::Duration`] if there is no unit or no number.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text.trim()).map_err(|why| UnitError::Duration {
        text: text.into(),
        why: why.to_string(),
    })
}

/// [`parse_duration`] where zero makes no sense.
///
/// # Errors
/// As [`parse_duration`], and [`UnitError::ZeroDuration`].
pub fn parse_positive_duration(text: &str) -> Result<Duration, UnitError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(UnitError::ZeroDuration),
        duration => Ok(duration),
    }
}

/// Writes a size in its largest unit that is exact: [`parse_size`] reads it back.
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        .map_or_else(
            || bytes.to_string(),
            |(name, scale)| match *scale {
                1 => bytes.to_string(),
                _ => format!("{}{name}", bytes / scale),
            },
        )
}

/// Writes a duration in one word: [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units_and_written_back() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("8MiB", 8 << 20),
            ("1GiB", 1 << 30),
            ("7B", 7),
            (" 2 KiB ", 2048),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(format_size(65_536), "64KiB");
        assert_eq!(format_size(65_537), "65537");
    }

    #[test]
    fn what_is_no_size_is_refused_in_words() {
        for text in ["", "KiB", "-1", "1.5MiB", "5 MB", "5kib", "x"] {
            assert_eq!(parse_size(text), Err(UnitError::Size { text: text.into() }), "{text}");
        }
        for text in ["99999999999999999999", "18446744073709551615GiB"] {
            assert_eq!(
                parse_size(text),
                Err(UnitError::SizeTooLarge { text: text.into() }),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_positive_duration("0s"), Err(UnitError::ZeroDuration));
        for text in ["", "5", "s", "5 parsecs", "-1s"] {
            assert!(
                matches!(parse_duration(text), Err(UnitError::Duration { .. })),
                "{text}"
            );
        }
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1m30s500ms");
    }
}
