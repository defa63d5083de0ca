//! How long to wait before trying again, and when to give up.

use std::time::{Duration, Instant};

/// Longest pause between two tries.
const CEILING: Duration = Duration::from_secs(30);

/// Doubling pauses with jitter, within a budget of time.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    until: Instant,
}

impl Backoff {
    pub(crate) fn new(first: Duration, budget: Duration) -> Self {
        Self { next: first, until: Instant::now() + budget }
    }

    /// The next pause; `None` once the budget is used up.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Between half and all of it, so that many who lost the same machine do not come back at once.
        let pause = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(CEILING);
        Some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_and_end() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3600));
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            let pause = backoff.pause().unwrap();
            let full = Duration::from_secs(expected);
            assert!(pause <= full && pause >= full / 2, "{pause:?} for {full:?}");
        }
        assert_eq!(Backoff::new(Duration::from_secs(1), Duration::ZERO).pause(), None);
    }
}
