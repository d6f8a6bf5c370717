//! Connections to Postgres: URLs as libpq takes them, TLS, and errors with a class. Takes `PGMQ_URL`,
//! gives a client; holds no SQL of any use case. Works through a transaction pooler: nothing here or
//! above relies on a session or on named statements.

mod client;
mod tls;
mod url;

pub use client::{Client, Parameters};
pub use url::PgUrl;

use crate::error::{Error, Result};

impl PgUrl {
    /// Opens a connection on which every statement sees an empty `search_path`. Its driver runs on its own task and
    /// ends with the client.
    pub async fn pinned(&self) -> Result<Client> {
        self.connect().await.map(Client::new)
    }

    /// Opens a connection as an application would, with the settings of its login. Nothing of the worker uses it.
    pub async fn connect(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = self.config.connect(self.connector()?).await.map_err(not_connected)?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %Error::from(e), "the Postgres connection ended");
            }
        });
        Ok(client)
    }
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
        Error::halt(format!("{text}; check the user and password in PGMQ_URL")).of_side()
    } else if has(&["certificate", "does not support TLS"]) {
        Error::halt(format!("{text}; check sslmode and sslrootcert in PGMQ_URL")).of_side()
    } else {
        Error::retry(format!("{text}; check PGMQ_URL and that the server is up"))
    };
    made.caused_by(error)
}
