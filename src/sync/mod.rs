//! How the replica is kept fresh: the order of things, and nothing of how any of them is done. A [`Worker`] is what one
//! process knows. `drain`, `follow` and `comparing` run steps until there is nothing left, for as long as the process
//! lives, or until all is compared; `open` begins a session, [`pairing`] brings both sides together, `step` is one
//! transaction: `take` reads, `apply` writes, [`compare`] looks whether both are equal.

/// A line in the log for each step, unless there may be a hundred of them a second.
macro_rules! log_step {
    ($session:expr, $($fields:tt)*) => {
        if $session.is_following { tracing::debug!($($fields)*) } else { tracing::info!($($fields)*) }
    };
}

mod ahead;
mod alone;
mod apply;
mod attempt;
mod beside;
mod chunk;
pub mod circuit;
pub mod compare;
mod comparing;
mod dead_letters;
mod drain;
mod drained;
mod figures;
mod follow;
mod gate;
mod impatience;
mod kept;
mod locks;
mod lookout;
mod open;
pub mod pairing;
mod patience;
mod session;
mod step;
mod tables;
mod take;
mod telling;
mod told;
mod worker;

pub(crate) use drain::CALL_BUDGET;
pub use drained::Drained;
pub(crate) use drained::Totals;
pub(crate) use figures::{Counts, TableCounts};
pub use worker::Worker;
