//! Writes `schema.json` from the Postgres catalog. Takes a URL, what is asked for and the text that is
//! there already; gives the new text and a report. Never changes a definition that is there, but for
//! columns that are added at its end when asked; changes nothing in Postgres.

mod catalog;
mod draft;
mod outcome;
mod proposal;
mod select;

pub use crate::core::draft::JSON_SCHEMA;
pub use outcome::InitOptions;
pub use outcome::Outcome;

use crate::core::draft::Document;
use crate::core::error::Error;
use crate::postgres::{Client, PgUrl, Purpose};
use draft::Draft;
use outcome::Failure;
use select::Choice;

/// Reads the catalog and adds to `document` what is asked for.
pub async fn init(postgres: &PgUrl, options: &InitOptions, document: &Document) -> Result<Outcome, Failure> {
    let client = postgres.pinned(Purpose::Init).await?;
    propose(&client, options, document).await
}

/// The same on a connection.
pub(crate) async fn propose(client: &Client, options: &InitOptions, document: &Document) -> Result<Outcome, Failure> {
    let choice = Choice::parse(options)?;
    catalog::begin(client).await?;
    let relations = catalog::relations(client).await?;
    if let Err(e) = choice.check(&relations) {
        client.rollback().await.map_err(Error::from)?;
        return Err(e.into());
    }
    let oids: Vec<u32> = relations.iter().filter(|r| choice.takes(r)).map(|r| r.oid).collect();
    let details = catalog::details(client, &oids).await?;
    client.commit().await.map_err(Error::from)?;

    let mut draft = Draft::new(document, &relations, &details, options.numbers);
    draft.select(&choice);
    draft.finish(&choice, options.add_columns)
}
