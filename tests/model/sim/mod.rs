//! The step in a simulator: the very code of `pgflume::sync`, over a Postgres and a libSQL in memory.

mod dice;
mod judge;
mod network;
mod process;
mod settle;
mod store;
mod world;

pub use world::{LENGTH, run};
