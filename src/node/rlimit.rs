//! The limit of open files: raised as far as it goes, and told in connections.

use super::limits::{DEBUG_CONNECTIONS_MAX, OTHER_DESCRIPTORS, RESERVED_CONNECTIONS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the node needs beside its clients' connections.
const RESERVED: usize = DEBUG_CONNECTIONS_MAX + RESERVED_CONNECTIONS + OTHER_DESCRIPTORS;

/// Raises the soft limit of descriptors so that `wanted` client connections fit, as far as the hard limit lets it.
/// Answers how many do fit: `wanted` or fewer.
pub fn raise(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted + RESERVED) as u64;
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|soft| soft < needed) {
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!("the limit of open files could not be raised: {error}");
        }
    }
    fitting(wanted, getrlimit(Resource::Nofile).current)
}

/// How many of `wanted` connections fit under a soft limit of descriptors; at least one.
fn fitting(wanted: usize, soft: Option<u64>) -> usize {
    let Some(soft) = soft else { return wanted };
    let soft = usize::try_from(soft).unwrap_or(usize::MAX);
    wanted.min(soft.saturating_sub(RESERVED)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_cut_to_what_the_limit_allows() {
        // wanted, soft limit, fitting
        for (wanted, soft, fits) in [
            (10_000, None, 10_000),
            (10_000, Some(1 << 20), 10_000),
            (10_000, Some(1024), 1024 - RESERVED),
            (100, Some(1024), 100),
            (100, Some(64), 1),
        ] {
            assert_eq!(fitting(wanted, soft), fits, "{wanted} under {soft:?}");
        }
    }
}
