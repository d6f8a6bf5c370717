//! What is replicated. [`definition`] is `schema.json` after all checks, [`ddl`] what SQLite is told,
//! [`fit`] which type holds what.

pub mod ddl;
pub mod definition;
mod feed;
mod feed_definition;
pub mod fit;
mod members;
pub mod names;
mod table;

pub use definition::Schema;
pub use feed::{Feed, Match, Readers};
pub(crate) use members::SchemaError;
pub use names::quote;
pub(crate) use names::{SourceName, is_machinery, literal, quoted_list};
pub use table::{Column, ColumnType, Table};
