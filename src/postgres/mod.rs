//! All that speaks to Postgres. This file opens connections: URLs as libpq takes them, TLS, and what its errors mean.
//! [`catalog`] and [`rows`] read the source, [`queue`] and [`books`] keep what is to be done and what was, [`capture`]
//! installs, [`init`] proposes definitions, [`drift`] notices what has changed since. Works through a transaction pooler: only
//! [`bell`] and `prepared` rely on a session, which a follower does without where it has none.

pub(crate) mod awake;
pub mod bell;
pub mod books;
pub mod capture;
pub mod catalog;
mod client;
pub mod drift;
mod error;
pub mod init;
pub(crate) mod installing;
pub mod link;
mod prepared;
mod purpose;
pub mod queue;
pub mod rows;
mod tls;
mod url;

pub use client::Client;
pub(crate) use client::{Parameters, Rings, RowStream, WRITTEN_ALIKE};
pub use purpose::Purpose;
pub use url::PgUrl;

use crate::core::error::{Error, Result};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio_postgres::AsyncMessage;

/// Time for all that happens before the first statement, whatever the number of addresses.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);

impl PgUrl {
    /// Opens a connection on which every statement sees an empty `search_path` and every answer has a limit. It has the
    /// name of its purpose. Its driver runs on its own task and ends with the client.
    pub async fn pinned(&self, purpose: Purpose) -> Result<Client> {
        let mut config = self.config.clone();
        let application = config.get_application_name().unwrap_or_default().to_owned();
        config.application_name(format!("{application} {}", purpose.name()));
        let (client, driver, rings) = self.open(&config).await?;
        Ok(Client::new(client, driver, rings, purpose))
    }

    /// Opens a connection as an application would, with the settings of its login. Nothing of the worker uses it.
    pub async fn connect(&self) -> Result<tokio_postgres::Client> {
        self.open(&self.config).await.map(|(client, ..)| client)
    }

    async fn open(&self, config: &tokio_postgres::Config) -> Result<(tokio_postgres::Client, AbortHandle, Arc<Rings>)> {
        let opened = tokio::time::timeout(OPENING_TIMEOUT, config.connect(self.connector()?)).await;
        let (client, mut connection) = opened.map_err(|_| silent())?.map_err(not_connected)?;
        let rings = Arc::new(Rings::default());
        let heard = rings.clone();
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(ring)) => heard.hear(ring.payload()),
                    Ok(_) => {}
                    Err(e) => {
                        tracing::debug!(error = %Error::from(e), "the Postgres connection ended");
                        break;
                    }
                }
            }
            // Whoever sleeps finds out.
            heard.hear("");
        });
        Ok((client, driver.abort_handle(), rings))
    }
}

fn silent() -> Error {
    Error::retry(format!(
        "Postgres cannot be reached: it does not answer within {} s; check PGMQ_URL and that the server is up",
        OPENING_TIMEOUT.as_secs()
    ))
}

/// Why there is no connection. What the configuration causes is the same at the next try.
fn not_connected(error: tokio_postgres::Error) -> Error {
    if error.as_db_error().is_some() {
        return Error::from(error).of_side();
    }
    let cause = std::error::Error::source(&error).map(|c| format!(" ({c})")).unwrap_or_default();
    let text = format!("Postgres cannot be reached: {error}{cause}");
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let made = if has(&["invalid configuration", "authentication error"]) {
        Error::side(format!("{text}; check the user and password in PGMQ_URL"))
    } else if has(&["certificate", "does not support TLS"]) {
        Error::side(format!("{text}; check sslmode and sslrootcert in PGMQ_URL"))
    } else {
        Error::retry(format!("{text}; check PGMQ_URL and that the server is up"))
    };
    made.caused_by(error)
}

/// SQL that gives a time in the one form that pgflume writes times in: UTC, `2026-11-29T18:00:00.123Z`. `expression` is
/// a `timestamptz` of ours.
pub(crate) fn iso_text(expression: &str) -> String {
    format!("pg_catalog.to_char(pg_catalog.timezone('UTC', {expression}), 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
}
