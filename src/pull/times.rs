//! Times of a source, as it writes them: ISO 8601 in UTC.

use std::time::SystemTime;

/// A time; `None` where it is none.
pub(super) fn read(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(&text.replace("+00:00", "Z")).ok()
}
