//! Rules that are left out on purpose: the judge has to miss each.

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing.
    None,
    /// A replica that is ahead is believed, whatever its ledger and Postgres say.
    NoLedger,
    /// Two workers may drain at once.
    NoLock,
    /// The replica writes from wherever it is.
    NoFence,
    /// Messages are gone before they are applied.
    AcknowledgesFirst,
    /// Images are applied in the order in which they were returned.
    UnsortedImages,
    /// What was read may not be flushed yet.
    NotDurable,
    /// Pages of a rebuild are read at the session's first snapshot.
    OldPage,
    /// The ledger does not say which images a batch had.
    NoImageList,
    /// Rebuilds are asked for when an epoch is announced, and not begun anew when it is adopted.
    NoRestart,
    /// No rule but a limit of the rules: a Postgres that went back, by a copy of its disk and not by its own
    /// recovery, gives out transaction ids again, and what such a transaction became says nothing of the first.
    ReusedIds,
}
