//! Damage that looks like more than noise: what a fuzzer changes in an input that was good.

use fastrand::Rng;

/// Longest input: long enough for every shape, short enough for many cases.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// Numbers at which lengths, counts and signs turn.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 62,
    u64::MAX,
];

/// Changes `input` in one to eight ways. `other` is what pieces are spliced in from; `words` what the format is made of.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    for _ in 0..1 + rng.u32(0..8) * rng.u32(0..2) {
        mutate_once(input, other, words, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn mutate_once(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let at = rng.usize(0..=input.len());
    let range = at..(at + rng.usize(0..=16.min(input.len() - at)));
    match rng.u8(0..10) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
        1 if at < input.len() => input[at] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff, rng.clone().u8(..)]).unwrap_or(&0),
        2 => put_number(input, at, rng),
        3 => input.truncate(at),
        4 => drop(input.drain(range)),
        5 => {
            let twice = input[range].to_vec();
            input.splice(at..at, twice);
        }
        6 => {
            let noise: Vec<u8> = (0..rng.usize(1..9)).map(|_| rng.u8(..)).collect();
            input.splice(at..at, noise);
        }
        7 | 8 if !words.is_empty() => {
            let word = words[rng.usize(0..words.len())];
            // In place of something as often as between two things.
            let end = if rng.bool() { range.end } else { at };
            input.splice(at..end, word.bytes());
        }
        _ => {
            let from = rng.usize(0..=other.len());
            let to = rng.usize(from..=other.len());
            input.splice(range, other[from..to].iter().copied());
        }
    }
}

/// Writes a number that is likely a length over what stands at `at`, in one of the widths that fields have.
fn put_number(input: &mut [u8], at: usize, rng: &mut Rng) {
    let width = [1, 2, 4, 8][rng.usize(0..4)];
    if at + width > input.len() {
        return;
    }
    let near = (input.len() as u64).wrapping_add(rng.u64(0..5)).wrapping_sub(2);
    let number = if rng.bool() {
        NUMBERS[rng.usize(0..NUMBERS.len())]
    } else {
        near
    };
    input[at..at + width].copy_from_slice(&number.to_be_bytes()[8 - width..]);
}
