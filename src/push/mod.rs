//! Writes of clients, up to Postgres, from where they come back through capture, replica and feed. `request` reads
//! what was asked, `policy` says what it is compared with, `statement` is its SQL; no IO in these. `journal` keeps
//! what became of each request, `run` is one request: one transaction of Postgres, as the role of the token.

mod answer;
mod apply;
mod change;
mod failure;
mod figures;
mod journal;
mod login;
mod policy;
mod pool;
mod refusal;
mod request;
mod run;
mod statement;
mod turns;

pub use answer::{Answer, Outcome, Status};
pub use failure::Failure;
pub use figures::{Figures, Taken};
pub use request::{Invalid, Push, Writables};
pub use run::Pushes;
