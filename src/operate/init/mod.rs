//! Writes `schema.json` from the Postgres catalog. Takes a URL, what is asked for and the text that is
//! there already; gives the new text and a report. Never changes a definition that is there, but for
//! columns that are added at its end when asked; changes nothing in Postgres.

mod catalog;
mod document;
mod draft;
pub mod file;
mod pattern;
mod propose;
mod report;
mod select;

pub use document::{Document, JSON_SCHEMA};
pub use report::InitReport;

use crate::core::error::Error;
use crate::postgres::{PgUrl, Purpose};
use draft::Draft;
use select::Choice;

/// Whatever a run fails with: a mistake in the arguments, or an [`Error`].
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Patterns of tables; all if there are none.
    pub tables: Vec<String>,
    /// Patterns of tables that are left out.
    pub exclude: Vec<String>,
    /// Whether tables that are there get the columns that they lack.
    pub add_columns: bool,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The new text; the old one to the byte where nothing was added.
    pub text: String,
    /// What was done and what was not.
    pub report: InitReport,
}

/// Reads the catalog and adds to `document` what is asked for.
pub async fn init(postgres: &PgUrl, options: &InitOptions, document: &Document) -> Result<Outcome, Failure> {
    let choice = Choice::parse(options)?;
    let client = postgres.pinned(Purpose::Init).await?;
    catalog::begin(&client).await?;
    let relations = catalog::relations(&client).await?;
    choice.check(&relations)?;
    let oids: Vec<u32> = relations.iter().filter(|r| choice.takes(r)).map(|r| r.oid).collect();
    let details = catalog::details(&client, &oids).await?;
    client.commit().await.map_err(Error::from)?;

    let mut draft = Draft::new(document, &relations, &details);
    draft.select(&choice);
    draft.finish(&choice, options.add_columns)
}
