//! Numbers to come back to, as connections to be read or written: noted often, taken all at once.
//!
//! Noting is a push: nothing is looked for, and a number may be noted again. Taking sorts, and tells each once. A number of
//! a thing that is gone by then finds nothing ([`super::numbered`]), so nothing is ever taken out alone.

/// Numbers that were noted since they were last taken.
#[derive(Debug, Default)]
pub struct Marks {
    noted: Vec<u64>,
}

impl Marks {
    /// Whether no number was noted since the last taking.
    pub fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// Notes a number, again if it was noted already.
    pub fn note(&mut self, number: u64) {
        self.noted.push(number);
    }

    /// Notes each of these.
    pub fn note_all(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.noted.extend(numbers);
    }

    /// All that were noted, ascending and each once, into `into`, whose memory is used again. None is noted then.
    pub fn take(&mut self, into: &mut Vec<u64>) {
        into.clear();
        std::mem::swap(&mut self.noted, into);
        into.sort_unstable();
        into.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_taken_once_each_and_ascending() {
        let (mut marks, mut taken) = (Marks::default(), vec![99]);
        for number in [7, 7, 3, 7, 1] {
            marks.note(number);
        }
        marks.note_all([3, 5]);
        marks.take(&mut taken);
        assert_eq!(taken, [1, 3, 5, 7]);
        assert!(marks.is_empty());
        marks.note(2);
        marks.take(&mut taken);
        assert_eq!(taken, [2], "nothing stays from before");
    }
}
