//! What either side does to a pull: restored, replaced, emptied, altered.
