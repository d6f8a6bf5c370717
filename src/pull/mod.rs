//! The second engine: what a sync pulls from a source where nothing is installed, brought to the replica. [`Pull`] is
//! what one process knows of a sync; `session` is its connections, `pass` the order of things: in one view of the source
//! after the other, `chunk` brings what is much, and `closing` the rest of all tables in one transaction, with what is
//! gone. Nothing is written but behind the sync's fence, with how far it is.

mod absent;
mod chunk;
mod closing;
mod comparing;
mod cutting;
mod dead;
mod follow;
mod jobs;
mod limiter;
mod nuke;
mod outbox;
mod pass;
mod passed;
mod read;
mod run;
mod service;
mod session;
mod settings;
mod status;
mod times;
mod writer;

pub(crate) use crate::replica::pulls::LetterChoice;
pub use limiter::Limiter;
pub use nuke::Asked;
pub use passed::Passed;
pub use service::{Report, Scheduled, Service};
pub use settings::{Pace, Pull};
pub use status::{PullStatus, TableStatus};
