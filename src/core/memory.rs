//! Memory that was freed and that the allocator still has.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how the process's allocator gives back what it keeps of freed memory; said once.
pub fn allocator_gives_back_by(how: fn()) {
    GIVE_BACK.get_or_init(|| how);
}

/// Gives it back now: what a large value was collected in would else count beside what it is written from.
pub fn give_back() {
    if let Some(how) = GIVE_BACK.get() {
        how();
    }
}
