//! Maps with a fast hash that is the same in every process.
//!
//! The keys are small numbers and names that the server made itself, so nothing here defends against keys
//! chosen to collide. Nothing may depend on the order in which such a map is walked.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use windlass_model::TaskId;

/// A map that is never walked where order matters.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// A map by the number of a task. Numbers are given in order, so what belongs to neighbours lies side by side.
pub(crate) type ByTask<V> = HashMap<TaskId, V, BuildHasherDefault<InOrder>>;

/// Multiply and rotate, one word at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        // The table takes its bits from both ends.
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.word(rest.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }
}

/// The number itself as place in the table. The bits that tell those of one place apart are mixed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InOrder(Mix);

/// The bits of a hash from which a table takes the place.
const PLACE: u64 = (1 << 57) - 1;

impl Hasher for InOrder {
    fn finish(&self) -> u64 {
        self.0.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
    fn write_u64(&mut self, n: u64) {
        let mut mixed = self.0;
        mixed.word(n);
        self.0 = Mix((mixed.0 & !PLACE) | (n & PLACE));
    }
}
