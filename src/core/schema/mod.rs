//! What is replicated. [`definition`] is `schema.json` after all checks, [`ddl`] what SQLite is told,
//! [`fit`] which type holds what.

pub mod ddl;
pub mod definition;
mod feed;
pub mod fit;
pub mod names;
mod table;

pub use definition::Schema;
pub(crate) use definition::SchemaError;
pub use feed::Feed;
pub use names::quote;
pub(crate) use names::{SourceName, is_machinery, literal, quoted_list};
pub use table::{Column, ColumnType, Table};
