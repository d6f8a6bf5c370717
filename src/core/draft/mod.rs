//! What `init` writes, whatever it reads: definitions of tables, the text of a `schema.json` to which they are added, and
//! what is said of it. No IO.

mod definition;
mod document;
mod report;

pub use definition::Definition;
pub(crate) use definition::names_of;
pub(crate) use document::Document;
pub use document::JSON_SCHEMA;
pub use report::InitReport;
