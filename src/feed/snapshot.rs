//! What rows see of the source, for those who write there. No IO.

use crate::core::token::Seen;
use std::sync::Arc;

/// What a cut sees of the source, where that is known.
pub type Snapshot = Option<Arc<Seen>>;

/// The one that sees more, of two that are true of the same rows.
pub(super) fn later(one: Option<Seen>, other: Snapshot) -> Snapshot {
    match (one, other) {
        (Some(one), Some(other)) if !one.covers(&other) => Some(other),
        (Some(one), _) => Some(Arc::new(one)),
        (None, other) => other,
    }
}
