//! How much memory a script holds.
//!
//! Rhai limits single values only: a hundred variables may each hold the largest one, and a map grown entry by
//! entry is not measured at all. So every allocation is counted for the thread that makes it, and a script has a
//! thread of its own. What a thread frees for another is counted as freed by it; [`uncounted`] keeps such work of
//! the host out of a script's account.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting. It serves the whole program, because that is how Rust has it; what it adds is
/// one addition to a number of the thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes this thread allocated, less what it freed. Without destructor and made at compile time: reading it never
    /// allocates, and works while a thread ends.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    // A layout never has more than `isize::MAX` bytes.
    HELD.with(|held| held.set(held.get().wrapping_add(bytes.cast_signed().wrapping_mul(sign))));
}

#[allow(
    unsafe_code,
    reason = "every call goes to the system's allocator as it came; counting touches a number of this thread only"
)]
// SAFETY: each method passes on its arguments, for which the caller vouches, to `System` and returns what that returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's pointer came from `System` through this allocator, with this layout.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's pointer came from `System` through this allocator, with this layout.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Bytes this thread holds. Only differences mean something.
pub(crate) fn held() -> isize {
    HELD.with(Cell::get)
}

/// Does work whose memory is not the script's, such as waiting for an answer that other threads allocate. The copy
/// that is returned is made on this account.
pub(crate) fn uncounted<T: Clone>(work: impl FnOnce() -> T) -> T {
    let before = held();
    let theirs = work();
    let between = held();
    let ours = theirs.clone();
    let size = held().wrapping_sub(between);
    drop(theirs);
    HELD.with(|held| held.set(before.wrapping_add(size)));
    ours
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{held, uncounted};

    #[test]
    fn what_a_thread_holds_is_counted() {
        let before = held();
        let mut text = String::with_capacity(1_000);
        assert_eq!(held() - before, 1_000);
        text.reserve_exact(5_000);
        assert_eq!(held() - before, 5_000);
        drop(text);
        assert_eq!(held() - before, 0);
    }

    #[test]
    fn an_answer_of_another_thread_costs_its_size_once() {
        let before = held();
        let answer = uncounted(|| thread::spawn(|| vec![7_u8; 1_000]).join().unwrap_or_default());
        assert_eq!(held() - before, 1_000);
        drop(answer);
        assert_eq!(held() - before, 0);
    }
}
