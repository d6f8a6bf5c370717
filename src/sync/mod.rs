//! The drain: step after step until the queue is empty or the call's budget is spent. Knows the order
//! of things, and nothing of how any of them is done. `step` is one of them, [`pairing`] what comes
//! before the first.

/// A line in the log for each step, unless there may be a hundred of them a second.
macro_rules! log_step {
    ($session:expr, $($fields:tt)*) => {
        if $session.is_following { tracing::debug!($($fields)*) } else { tracing::info!($($fields)*) }
    };
}

mod alone;
mod apply;
mod aside;
mod beside;
mod chunk;
pub mod circuit;
pub mod compare;
mod comparing;
mod drain;
mod drained;
mod fault;
mod follow;
mod gate;
mod locks;
mod open;
pub mod pairing;
mod patience;
mod session;
mod step;
mod take;
mod worker;

pub use drain::CALL_BUDGET;
pub use drained::{Drained, Totals};
pub use worker::Worker;
