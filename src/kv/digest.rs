//! The digest that replicas compare at equal slots (`rules.md` 27): it runs over each applied entry and what applying
//! it did, so two nodes that differ in either differ in it from then on.
//!
//! A 64-bit mix, not a cryptographic hash: it is to notice our own mistakes and broken memory, not an attacker. Each
//! word goes through `state = xorshift((state ^ word) * odd)`, which for a given word is a bijection of the state: a
//! difference that is in it once does not vanish by what follows, as long as what follows is the same.
//!
//! A second digest is over the content alone, however it came about: a sum of one number for each key, session and kept
//! reply ([`of_key`], [`of_session`], [`of_reply`]), which each change keeps up to date and any order of reading yields.

use super::command::{Answer, Command, Done, Expect, Op, Previous, Refusal, SessionRef, Versioned};
use super::snapshot::SessionHead;
use super::state::Applied;
use super::stored::ValueRef;

/// A running digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        // Any number but zero, which words of zero would leave as it is. These are the first bits of pi's fraction.
        Digest(0x243f_6a88_85a3_08d3)
    }
}

impl Digest {
    /// A digest that goes on from a value.
    pub fn resume(value: u64) -> Digest {
        Digest(value)
    }

    /// Its present value.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Takes in one word.
    pub fn word(&mut self, word: u64) {
        // 2^64 divided by the golden ratio, made odd: the usual multiplier of Fibonacci hashing.
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The multiplication carries only upwards; the shift brings the high bits down again.
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Takes in a string of bytes with its length, so that two strings in a row have one reading: eight bytes at a time,
    /// and what is left of them with zeros behind it.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (chunks, rest) = bytes.as_chunks();
        for chunk in chunks {
            self.word(u64::from_be_bytes(*chunk));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_be_bytes(last));
    }

    /// Takes in the end of a session that expired or had to make room.
    pub fn gone(&mut self, session: SessionRef) {
        self.word(u64::MAX);
        self.session(session);
    }

    fn session(&mut self, session: SessionRef) {
        self.word((session.id >> 64) as u64);
        self.word(session.id as u64);
        self.word(session.opened.0);
    }

    /// Takes in a command.
    pub fn command<B: AsRef<[u8]>>(&mut self, command: &Command<B>) {
        self.session(command.session);
        self.word(command.number);
        self.word(command.low);
        self.op(&command.op);
    }

    /// Takes in what applying a command did. A value that an answer carries stands in it by its revisions: the bytes
    /// went in with the command that wrote them.
    pub fn applied(&mut self, applied: &Applied) {
        let done = match applied {
            Applied::Done(done) => done,
            Applied::Refused(Refusal::SessionExpired) => return self.word(1),
            Applied::Refused(Refusal::NumberForgotten) => return self.word(2),
            Applied::Refused(Refusal::Busy) => return self.word(3),
        };
        self.done(done);
    }

    fn done(&mut self, done: &Done) {
        self.word(match &done.answer {
            Answer::Opened { .. } => 10,
            Answer::Closed => 11,
            Answer::Written {
                previous: Previous::NotAsked,
            } => 12,
            Answer::Written {
                previous: Previous::Absent,
            } => 13,
            Answer::Written {
                previous: Previous::Was(_),
            } => 14,
            Answer::Exists { .. } => 15,
            Answer::NotFound => 16,
            Answer::CasFailed { current: None } => 17,
            Answer::CasFailed { current: Some(_) } => 18,
            Answer::Found(_) => 19,
        });
        self.word(done.slot.0);
        self.word(done.revision);
        if let Some(Versioned { created, version, .. }) = done.answer.carried() {
            self.word(*created);
            self.word(*version);
        }
    }

    fn op<B: AsRef<[u8]>>(&mut self, op: &Op<B>) {
        match op {
            Op::Open => self.word(1),
            Op::Close => self.word(2),
            Op::Put {
                key,
                value,
                if_absent,
                want_previous,
            } => {
                self.word(3 | u64::from(*if_absent) << 8 | u64::from(*want_previous) << 9);
                self.bytes(key.as_ref());
                self.bytes(value.as_ref());
            }
            Op::Del { key, want_previous } => {
                self.word(4 | u64::from(*want_previous) << 9);
                self.bytes(key.as_ref());
            }
            Op::Cas {
                key,
                expect,
                value,
                want_previous,
            } => {
                self.word(5 | u64::from(*want_previous) << 9);
                self.bytes(key.as_ref());
                match expect {
                    Expect::Value(expected) => self.bytes(expected.as_ref()),
                    Expect::Version(version) => self.word(*version),
                }
                self.bytes(value.as_ref());
            }
        }
    }
}

/// What a key with its value adds to the digest of the content.
pub fn of_key(key: &[u8], found: ValueRef<'_>) -> u64 {
    let mut digest = Digest::default();
    digest.bytes(key);
    digest.word(found.created);
    digest.word(found.version);
    digest.bytes(found.value);
    digest.value()
}

/// What a session adds to it, beside its kept replies.
pub fn of_session(head: &SessionHead) -> u64 {
    let mut digest = Digest::default();
    digest.session(head.session);
    digest.word(head.opened_revision);
    digest.word(head.last.slot.0);
    digest.word(head.last.index as u64);
    digest.word(head.last_time.0);
    digest.word(head.low);
    digest.value()
}

/// What a kept reply adds to it.
pub fn of_reply(session: u128, number: u64, done: &Done) -> u64 {
    let mut digest = Digest::default();
    digest.word((session >> 64) as u64);
    digest.word(session as u64);
    digest.word(number);
    digest.done(done);
    if let Some(carried) = done.answer.carried() {
        digest.bytes(&carried.value);
    }
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(parts: &[&[u8]]) -> u64 {
        let mut digest = Digest::default();
        for part in parts {
            digest.bytes(part);
        }
        digest.value()
    }

    #[test]
    fn strings_that_join_to_the_same_bytes_differ() {
        assert_ne!(digest_of(&[b"ab", b"c"]), digest_of(&[b"a", b"bc"]));
        assert_ne!(digest_of(&[b"a"]), digest_of(&[b"a\0"]));
        assert_ne!(digest_of(&[b""]), digest_of(&[]));
        assert_ne!(digest_of(&[b"", b"a"]), digest_of(&[b"a", b""]));
    }

    #[test]
    fn every_bit_of_a_value_counts() {
        let value = *b"seventeen bytes!!";
        let whole = digest_of(&[&value]);
        for bit in 0..value.len() * 8 {
            let mut flipped = value;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest_of(&[&flipped]), whole, "bit {bit}");
        }
    }

    #[test]
    fn the_digest_is_the_same_in_every_build() {
        // A changed mix makes nodes of two versions disagree: change it only with the format's version.
        assert_eq!(digest_of(&[b"synod", b""]), 692_847_949_161_408_136);
    }
}
