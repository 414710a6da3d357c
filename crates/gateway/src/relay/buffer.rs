//! The read buffer: one per thread, shared by all sessions that run on it.

use std::cell::RefCell;

/// Read at once at most; also the most that can wait for the other side.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;

/// Room in front for what was kept of the last read: a head of 14 bytes and 125 of a control frame.
pub(super) const KEPT_BYTES_MAX: usize = 139;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; KEPT_BYTES_MAX + READ_BYTES_MAX].into());
}

/// Lends this thread's buffer. A session gives it back before it waits, so idle sessions hold none.
pub(super) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}
