//! Rules that are left out on purpose: the judge has to notice each.

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
    /// The messages of a batch that was not acknowledged are taken to be queued.
    NoWitness,
    /// Postgres is taken to know any step that read pages.
    NoName,
    /// What is kept is put back, whether or not it leads from the replica to what was acknowledged.
    NoChain,
    /// What is kept is put back under new ids.
    NewIds,
    /// A step whose messages name no row sends no batch, which would fence what is on its way.
    NoEmptyBatch,
    /// What others took off the queue is not copied.
    NoLosses,
    /// Nobody knows where the queue's replica is.
    NoAddress,
}
