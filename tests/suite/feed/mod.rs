//! What clients are fed at `GET /v1/shape`: by plain requests, and with real clients.

mod attacks;
mod client;
mod clients;
mod contract;
mod copies;
mod lanes;
mod nebula;
mod node;
mod operating;
mod pulled;
mod rx;
mod socket;
mod tokens;
mod web;
pub mod writes;

use crate::parts::Program;
use crate::parts::http::{self, Answer};
use crate::support::{Db, Home, Path, until};
use crate::volume::set_up;
use pgflume::demo::postgres::free_port;
use pgflume::replica::target::Target;
use std::time::Duration;

/// A database, a replica, and a worker that feeds clients.
pub struct Fed {
    pub db: Db,
    pub home: Home,
    pub program: Program,
    pub url: String,
}

impl Fed {
    /// With these tables and definitions.
    pub async fn start(path: Path, tables: &str, json: &str) -> Self {
        Self::with(path, tables, json, &[]).await
    }

    /// The same with these variables.
    pub async fn with(path: Path, tables: &str, json: &str, variables: &[(&str, &str)]) -> Self {
        Self::on(Db::new().await, path, tables, "select", json, variables).await
    }

    /// The same in this database, and with what is done when it is set up.
    pub async fn on(db: Db, path: Path, tables: &str, then: &str, json: &str, variables: &[(&str, &str)]) -> Self {
        let home = Home::new(path);
        db.sql(tables).await;
        set_up(&db.url(), &crate::support::schema(json)).await;
        db.sql(then).await;
        let port = free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut program = Program::new(json, &[("PGMQ_URL", &db.url()), ("FEED_BIND", &address)]);
        match home.target() {
            Target::File(path) => program.set("LIBSQL_URL", path.to_str().unwrap()),
            Target::Remote { url, token } => {
                program.set("LIBSQL_URL", &url);
                program.set("LIBSQL_AUTH_TOKEN", token.unwrap().expose());
            }
            Target::Given(_) => unreachable!("homes are files and servers"),
        }
        variables.iter().for_each(|(name, value)| program.set(name, value));
        program.serve(&["--follow"]);
        Self { db, home, program, url: format!("http://{address}") }
    }

    /// A request with these parameters.
    pub async fn get(&self, query: &str) -> Answer {
        self.get_as(None, query).await
    }

    /// The same with this token.
    pub async fn get_as(&self, token: Option<&str>, query: &str) -> Answer {
        get_as(&self.program, &self.url, token, query).await
    }

    /// The same, once the table is whole.
    pub async fn get_whole(&self, query: &str) -> Answer {
        self.get_whole_as(None, query).await
    }

    /// The same with a token.
    pub async fn get_whole_as(&self, token: Option<&str>, query: &str) -> Answer {
        get_whole_as(&self.program, &self.url, token, query).await
    }
}

/// A request with these parameters of a worker that feeds clients there.
pub async fn get(program: &Program, url: &str, query: &str) -> Answer {
    get_as(program, url, None, query).await
}

/// The same, once the table is whole.
pub async fn get_whole(program: &Program, url: &str, query: &str) -> Answer {
    get_whole_as(program, url, None, query).await
}

async fn get_as(program: &Program, url: &str, token: Option<&str>, query: &str) -> Answer {
    let url = format!("{url}/v1/shape?{query}");
    let token = token.map(|token| format!("Bearer {token}"));
    let asked = move || {
        let headers: Vec<_> = token.into_iter().map(|token| ("authorization".to_owned(), token)).collect();
        http::request("GET", &url, &headers, b"", Duration::from_secs(60))
    };
    let answer = tokio::task::spawn_blocking(asked).await.unwrap();
    answer.unwrap_or_else(|e| panic!("{query}: {e}:\n{}", program.log()))
}

async fn get_whole_as(program: &Program, url: &str, token: Option<&str>, query: &str) -> Answer {
    let answer = std::cell::RefCell::new(None);
    until("the table is fed", async || {
        let got = get_as(program, url, token, query).await;
        let is_whole = got.status != 503;
        answer.replace(Some(got));
        is_whole
    })
    .await;
    answer.into_inner().unwrap()
}

/// A parameter as a URL has it.
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
