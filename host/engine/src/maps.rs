//! Maps of what is going on: full at one moment, nearly empty at the next.

use std::{collections::HashMap, hash::Hash};

/// Room that is never given back: to make it anew costs more than it takes.
const LEAST: usize = 256;

/// Gives back the room that a map has had since its fullest moment, once most of it is empty.
pub fn give_back_room<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > LEAST && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len().saturating_mul(2).max(LEAST / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_once_and_not_at_every_removal() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let mut moves = 0;
        for n in 0..100_000 {
            map.remove(&n);
            // What was removed may stay taken for a while, so this shrinks by itself too.
            let before = map.capacity();
            give_back_room(&mut map);
            moves += u32::from(map.capacity() != before);
        }
        assert!(map.capacity() <= LEAST, "{}", map.capacity());
        assert!(moves < 20, "{moves} times");
    }
}
