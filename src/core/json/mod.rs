//! JSON files that people write: read with a path for every complaint, and edited without touching the rest.

pub mod edit;
mod node;

pub use node::Node;
