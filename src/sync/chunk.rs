//! What a reader hands to the writer.

use crate::core::batch::Item;
use crate::core::position::Provenance;
use crate::core::schema::Table;
use crate::postgres::queue::Taken;
use std::sync::Arc;
use tokio::time::Instant;

/// A batch on its way to the replica.
pub(in crate::sync) struct Chunk {
    /// Tables to empty first.
    pub emptied: Vec<Arc<Table>>,
    /// What the keys become.
    pub items: Arc<Vec<Item>>,
    /// Image messages that are wholly applied with it.
    pub images: Vec<i64>,
    /// The messages that it came from.
    pub taken: Arc<Vec<Taken>>,
    /// Those of them that name its keys; for pages of a table the name of the step.
    pub provenance: Arc<Provenance>,
    /// Messages left on the queue.
    pub left: i64,
    /// When those were taken that are wholly applied with it, and how old each was then, in seconds.
    pub arriving: Option<(Instant, Vec<f64>)>,
    /// Whether the queue is empty at the snapshot and this is the last of it.
    pub caught_up: bool,
}
