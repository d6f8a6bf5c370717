//! Named places of a step at which tests stop the process. Nothing in a released binary: the crate `fail`
//! does something only where its feature `failpoints` is on, as it is for tests.
//!
//! `FAILPOINTS="applied=2*off->return"` ends the process without unwinding when it comes to `applied` for the
//! third time; `return(500)` in place of `return` lets it stall there for so many milliseconds. Both are told.

/// All of them, in the order of a step; then those of a new epoch, and `setup`'s.
pub const NAMES: [&str; 15] = [
    LOCKED, TAKEN, DURABLE, READ, SENT, APPLIED, BURIED, COMPARED, ADVANCED, COMMITTED, ANNOUNCED, RESET, PAIRED, LATE,
    ALTERED,
];

/// The definition in force is read, and not yet what Postgres has of it. Not one of a step.
pub const EFFECTIVE: &str = "effective";
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
