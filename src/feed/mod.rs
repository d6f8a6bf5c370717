//! Changes of the replica to clients, in Electric's shape protocol (<https://electric-sql.com/docs/api/http>): who asks for a
//! [`shape`] at an [`offset`] is given rows by [`answer`], and then what became of them, at the cuts where all tables
//! equalled one moment of the source. A [`herald`] tells those who wait of cuts.

pub mod access;
pub mod answer;
pub mod change;
mod encode;
pub mod filter;
pub mod herald;
pub mod offset;
pub mod shape;
