//! What people ask for, one file a use case: takes a worker or connections, gives a report.

pub mod alter;
pub(crate) mod arrived;
pub mod dead;
pub mod doctor;
pub mod feed;
pub(crate) mod outbox;
pub mod resync;
pub mod status;
pub mod verify;
