//! Changes of the replica to clients, in Electric's shape protocol (<https://electric-sql.com/docs/api/http>): who asks for a
//! [`shape`] at an [`offset`] is given rows by [`answer`], and then what became of them, at the cuts where all tables
//! equalled one moment of the source. A [`herald`] tells those who wait of cuts.

pub mod access;
pub mod answer;
pub mod board;
pub mod body;
pub mod change;
mod changes;
mod delta;
mod encode;
pub mod figures;
pub mod filter;
pub mod follow;
mod grouped;
pub mod herald;
pub mod limits;
mod listeners;
pub mod looking;
pub mod memory;
pub mod offset;
pub mod shape;
mod snapshot;
mod walks;
mod written;
