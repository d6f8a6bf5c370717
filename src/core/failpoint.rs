//! Named places of a step at which tests stop the process, and rules that they leave out to see that it is noticed.
//! Nothing in a released binary: the crate `fail` does something only where its feature `failpoints` is on, as it is for
//! tests.
//!
//! `FAILPOINTS="applied=2*off->return"` ends the process without unwinding when it comes to `applied` for the
//! third time; `return(500)` in place of `return` lets it stall there for so many milliseconds. Both are told.

/// All of them, in the order of a step; then those of a new epoch, and `setup`'s.
pub const NAMES: [&str; 15] = [
    LOCKED, TAKEN, DURABLE, READ, SENT, APPLIED, BURIED, COMPARED, ADVANCED, COMMITTED, ANNOUNCED, RESET, PAIRED, LATE,
    ALTERED,
];

/// Those of a pass, in its order, and of a comparison.
pub const PULL_NAMES: [&str; 6] = [VIEWED, READ, DURABLE, SENT, APPLIED, COMPARED];

/// A pass has opened a view of its source.
pub const VIEWED: &str = "viewed";
/// The definition in force is read, and not yet what Postgres has of it. Not one of a step.
pub(crate) const EFFECTIVE: &str = "effective";
/// A drain is about to give the replica's tables columns that they lack. Not one of each step.
pub const ALTERING: &str = "altering";
/// The snapshot is taken and the progress row locked.
pub const LOCKED: &str = "locked";
/// Messages are taken, and nothing is read.
pub const TAKEN: &str = "taken";
/// What the snapshot saw is on disk.
pub const DURABLE: &str = "durable";
/// Rows are read, and none of them applied.
pub const READ: &str = "read";
/// A batch is about to go to the replica.
pub const SENT: &str = "sent";
/// The replica has committed a batch.
pub const APPLIED: &str = "applied";
/// Dead letters are written.
pub const BURIED: &str = "buried";
/// A part of a table is compared, and repaired where that was asked for.
pub const COMPARED: &str = "compared";
/// The progress is moved, and nothing is committed.
pub const ADVANCED: &str = "advanced";
/// The step is acknowledged.
pub const COMMITTED: &str = "committed";
/// A new epoch is announced in Postgres.
pub const ANNOUNCED: &str = "announced";
/// The replica begins the announced epoch.
pub const RESET: &str = "reset";
/// Postgres has the new epoch, uncommitted.
pub const PAIRED: &str = "paired";
/// A lost acknowledgement is replaced, uncommitted.
pub const LATE: &str = "late";

/// `setup` has altered the replica, and Postgres does not know yet.
pub const ALTERED: &str = "altered";

/// Reads the environment's `FAILPOINTS`, where there are any; they hold as long as what is given back. A released
/// binary does not look at that variable.
pub fn armed() -> Option<impl Drop> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}

/// Tells that the process has come to this place.
pub fn reach(name: &'static str) {
    let _unused_without_the_feature = name;
    fail::fail_point!(name, |stall: Option<String>| match stall.and_then(|ms| ms.parse().ok()) {
        None => {
            eprintln!("failpoint {name}: the process ends");
            std::process::abort();
        }
        Some(ms) => {
            eprintln!("failpoint {name}: the process stalls");
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
    });
}

/// A rule of the step that a test may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A replica that is ahead is believed only if its ledger says that nothing but an acknowledgement was lost.
    Ledger,
    /// One worker at a time.
    SingleFlight,
    /// The replica writes only from the position, of its epoch, that a batch was made for.
    Epoch,
    /// Messages are acknowledged when they are applied.
    AcknowledgeLast,
    /// Images are applied in the order of their ids.
    ImagesInOrder,
    /// How far a copy is, is recorded with the step that applies its page.
    CursorWithPage,
    /// Dead letters are written in the step's transaction.
    LettersWithStep,
    /// What a step has no time for is given back.
    GiveBack,
    /// Marks of a table that cannot be read stay.
    MarksWait,
    /// What the replica shows is on Postgres' disk.
    DurableFirst,
    /// Both sides are compared at a snapshot of which all is applied.
    CompareWhenDrained,
    /// A nuke begins a new epoch.
    NewEpoch,
    /// What others took off the queue is copied again.
    Losses,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Ledger,
        Self::SingleFlight,
        Self::Epoch,
        Self::AcknowledgeLast,
        Self::ImagesInOrder,
        Self::CursorWithPage,
        Self::LettersWithStep,
        Self::GiveBack,
        Self::MarksWait,
        Self::DurableFirst,
        Self::CompareWhenDrained,
        Self::NewEpoch,
        Self::Losses,
    ];

    /// Its fail point.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => "without ledger",
            Self::SingleFlight => "without single flight",
            Self::Epoch => "without epoch",
            Self::AcknowledgeLast => "without acknowledging last",
            Self::ImagesInOrder => "without order of images",
            Self::CursorWithPage => "without cursor in the step",
            Self::LettersWithStep => "without letters in the step",
            Self::GiveBack => "without giving back",
            Self::MarksWait => "without waiting marks",
            Self::DurableFirst => "without durability",
            Self::CompareWhenDrained => "without draining before comparing",
            Self::NewEpoch => "without a new epoch",
            Self::Losses => "without losses",
        }
    }

    /// Whether it holds. In a released binary it does.
    #[inline]
    pub fn holds(self) -> bool {
        holds(self.name())
    }
}

/// A rule of a pull that a test may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullRule {
    /// All that a view reads is of one snapshot.
    OneSnapshot,
    /// Tables are locked before the snapshot is taken.
    LockFirst,
    /// A pass over several views keeps the mark of the first.
    FirstMark,
    /// A mark is the oldest transaction that was open, not the youngest.
    OldestOpen,
    /// A pass over several views begins anew where rows have moved.
    SameFiles,
    /// Leaves that came are read whole.
    NewLeaves,
    /// What is gone is looked for where a count says so.
    Counts,
    /// The replica writes only from the position that a batch was made for.
    Fence,
    /// A source that is another, or was put back, is read anew.
    Origin,
    /// Stamps are looked for behind the newest one.
    LookBack,
    /// A job ends in the transaction of its last batch.
    JobWithBatch,
}

impl PullRule {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OneSnapshot,
        Self::LockFirst,
        Self::FirstMark,
        Self::OldestOpen,
        Self::SameFiles,
        Self::NewLeaves,
        Self::Counts,
        Self::Fence,
        Self::Origin,
        Self::LookBack,
        Self::JobWithBatch,
    ];

    /// Its fail point.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneSnapshot => "pull without one snapshot",
            Self::LockFirst => "pull without locks first",
            Self::FirstMark => "pull without first mark",
            Self::OldestOpen => "pull without oldest open",
            Self::SameFiles => "pull without same files",
            Self::NewLeaves => "pull without new leaves",
            Self::Counts => "pull without counts",
            Self::Fence => "pull without fence",
            Self::Origin => "pull without origin",
            Self::LookBack => "pull without look-back",
            Self::JobWithBatch => "pull without its job in the batch",
        }
    }

    /// Whether it holds. In a released binary it does.
    #[inline]
    pub fn holds(self) -> bool {
        holds(self.name())
    }
}

/// A rule of what clients are fed that a test may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedRule {
    /// A walk leaves out what was touched behind its cut.
    LeaveTouched,
    /// The first row of the log behind a client's cut tells what it has.
    FirstRow,
    /// What a key was decides what a client is told of it.
    Before,
    /// Changes are told at cuts only.
    AtCut,
    /// What a walk may have come by, or not, is deleted before it is inserted.
    Pair,
    /// A table that was emptied is another generation.
    Emptied,
}

impl FeedRule {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::LeaveTouched, Self::FirstRow, Self::Before, Self::AtCut, Self::Pair, Self::Emptied];

    /// Its fail point.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaveTouched => "feed without leaving out",
            Self::FirstRow => "feed without first row",
            Self::Before => "feed without before",
            Self::AtCut => "feed without cut",
            Self::Pair => "feed without pair",
            Self::Emptied => "feed without emptied",
        }
    }

    /// Whether it holds. In a released binary it does.
    #[inline]
    pub fn holds(self) -> bool {
        holds(self.name())
    }
}

/// Whether nobody has left out the rule of this fail point.
#[inline]
fn holds(name: &'static str) -> bool {
    let _unused_without_the_feature = name;
    fail::fail_point!(name, |_| false);
    true
}
