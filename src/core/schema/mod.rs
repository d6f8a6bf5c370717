//! What is replicated. [`definition`] is `schema.json` after all checks, [`ddl`] what SQLite is told,
//! [`fit`] which type holds what.

mod checks;
pub mod ddl;
pub mod definition;
mod feed;
mod feed_member;
pub mod fit;
pub mod names;
mod table;
mod writable;
mod writable_member;

pub(crate) use checks::SchemaError;
pub use definition::Schema;
pub use feed::{Feed, Match, Readers};
pub use names::quote;
pub(crate) use names::{SourceName, is_machinery, literal, quoted_list};
pub use table::{Column, ColumnType, Table};
pub use writable::{Conflict, Op, Writable};
