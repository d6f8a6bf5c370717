//! A remote libSQL (sqld, Turso, Bunny Database): one HTTP request a transaction, a Hrana batch whose
//! steps run only while the one before succeeded. Rows travel as JSON arrays that `json_each` unpacks.

use super::arrays::{arrays, is_large, row_slots};
use super::hrana::{BatchStep, Encoding, Garbled, Outcome, When};
use super::refusal::{busy, cause, classify, not_answered, not_sent, refused, unknown};
use super::store::{Encoded, Rows, Statement, Store, Work};
use super::{feed_touched, statements};
use crate::core::batch::{ColumnSet, Item};
use crate::core::crypto;
use crate::core::error::{Error, Result};
use crate::core::schema::Table;
use crate::core::secret::Secret;
use crate::core::value::Cell;
use async_trait::async_trait;
use reqwest::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Time for one request and its answer, beside the time that its body takes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for tables and indexes that are made, copied or dropped. Whoever gives up sooner begins again for ever: the
/// server may drop what it was at.
const LONG_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Bytes a second at which a body is sent at least: a row of 60 MB fits into the time of a step.
const LEAST_BYTES_PER_S: usize = 256 * 1024;

/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the first question, which costs a server nothing.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A libSQL server.
pub struct Remote {
    client: reqwest::Client,
    url: String,
    token: Option<Secret>,
    endpoint: OnceCell<Endpoint>,
}

#[derive(Debug, Clone)]
struct Endpoint {
    url: String,
    encoding: Encoding,
}

/// Longest answer that is read: sqld answers at most 10 MB.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The same of one that refuses, of which a few words are looked at.
const REFUSAL_BYTES: usize = 64 * 1024;

/// Pipelines in the order in which they are tried; Bunny documents v2 only.
const PIPELINES: [(&str, Encoding); 3] =
    [("v3-protobuf/pipeline", Encoding::Protobuf), ("v3/pipeline", Encoding::Json), ("v2/pipeline", Encoding::Json)];

impl Remote {
    /// A server at `url`; it is not asked before the first use.
    pub fn new(url: &str, token: Option<Secret>) -> Result<Self> {
        crypto::install();
        let client = reqwest::Client::builder()
            .no_proxy() // the token is for this server only
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT) // a body is given more
            .redirect(reqwest::redirect::Policy::none()) // a redirect would carry the token elsewhere
            .user_agent(concat!("pgflume/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::halt(format!("HTTP cannot be set up: {e}")))?;
        Ok(Self { client, url: url.to_owned(), token, endpoint: OnceCell::new() })
    }

    /// The same server, spoken to in one encoding only.
    pub fn with_encoding(url: &str, token: Option<Secret>, encoding: Encoding) -> Result<Self> {
        let mut remote = Self::new(url, token)?;
        let path = PIPELINES.iter().find(|(_, e)| *e == encoding).map_or("v2/pipeline", |(path, _)| path);
        remote.endpoint = OnceCell::new_with(Some(Endpoint { url: format!("{url}/{path}"), encoding }));
        Ok(remote)
    }

    async fn endpoint(&self) -> Result<&Endpoint> {
        self.endpoint.get_or_try_init(|| self.probe()).await
    }

    async fn probe(&self) -> Result<Endpoint> {
        for (path, encoding) in PIPELINES {
            let url = format!("{}/{path}", self.url);
            // GET on a pipeline that the server speaks is anything but 404; v2 is taken as given.
            let request = self.client.get(self.url_of_probe(&url)).timeout(PROBE_TIMEOUT);
            let answer = self.authorized(request).send().await.map_err(not_sent)?;
            let status = answer.status();
            // Somebody in front of it, or too busy: it has not said what it speaks, and was sent nothing to do.
            if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
                return Err(busy(status, answer.headers()));
            }
            if status != StatusCode::NOT_FOUND || path == "v2/pipeline" {
                return Ok(Endpoint { url, encoding });
            }
        }
        Err(Error::halt("the libSQL server speaks no known protocol: check LIBSQL_URL"))
    }

    /// The specification's probe is `GET /v3` or `/v3-protobuf`, without `/pipeline`.
    fn url_of_probe<'a>(&self, url: &'a str) -> &'a str {
        url.strip_suffix("/pipeline").unwrap_or(url)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Sends one batch in a transaction: `steps` between BEGIN IMMEDIATE and COMMIT.
    async fn transact(&self, steps: Vec<BatchStep>, patience: Duration) -> Result<Outcome> {
        let steps = in_transaction(steps);
        let commit = steps.len() as u32 - 2;
        let outcome = self.send(steps, patience).await?;
        if outcome.results.contains_key(&commit) {
            return Ok(outcome);
        }
        Err(unknown("it does not say whether it committed".into()))
    }

    /// Sends one batch; the first step that failed is the error.
    async fn send(&self, steps: Vec<BatchStep>, patience: Duration) -> Result<Outcome> {
        let endpoint = self.endpoint().await?;
        let body = endpoint.encoding.encode(steps);
        let request = self.authorized(self.client.post(&endpoint.url));
        let timeout = patience + Duration::from_secs((body.len() / LEAST_BYTES_PER_S) as u64);
        let request = request.timeout(timeout).header("content-type", endpoint.encoding.content_type()).body(body);
        let answer = request.send().await.map_err(not_answered)?;
        let status = answer.status();
        if !status.is_success() {
            let headers = answer.headers().clone();
            let body = bounded(answer, REFUSAL_BYTES).await.unwrap_or_default(); // the status says enough
            return Err(refused(status, &headers, &body));
        }
        let body = bounded(answer, ANSWER_BYTES).await?;
        let outcome =
            endpoint.encoding.decode(&body).map_err(|e: Garbled| unknown(e.to_string()))?.map_err(|f| classify(&f))?;
        match &outcome.error {
            Some((_, failure)) => Err(classify(failure)),
            None => Ok(outcome),
        }
    }
}

#[async_trait]
impl Store for Remote {
    /// In a write transaction, because a read may be answered by a replica that is behind.
    async fn query(&self, statement: Statement) -> Result<Rows> {
        let step = BatchStep { when: When::Always, sql: statement.sql, args: statement.args, want_rows: true };
        Ok(self.transact(vec![step], REQUEST_TIMEOUT).await?.results.remove(&1).unwrap_or_default())
    }

    /// As a batch of one statement: only so may a read replica answer by itself.
    async fn read(&self, statement: Statement) -> Result<Rows> {
        let step = BatchStep { when: When::Always, sql: statement.sql, args: statement.args, want_rows: true };
        Ok(self.send(vec![step], REQUEST_TIMEOUT).await?.results.remove(&0).unwrap_or_default())
    }

    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        let number = statements.len() as u32;
        let read = |Statement { sql, args }| BatchStep { when: When::Always, sql, args, want_rows: true };
        let steps = between("BEGIN", statements.into_iter().map(read).collect());
        let mut results = self.send(steps, REQUEST_TIMEOUT).await?.results;
        let lacks = || unknown("it does not give all that it was asked for".into());
        (1..=number).map(|step| results.remove(&step).ok_or_else(lacks)).collect()
    }

    async fn write(&self, work: Work) -> Result<()> {
        let patience = if work.is_long { LONG_TIMEOUT } else { REQUEST_TIMEOUT };
        self.transact(steps(&work), patience).await.map(|_| ())
    }

    async fn encode(&self, items: &Arc<Vec<Item>>) -> Encoded {
        let items = items.clone();
        // A thread that ends early leaves it to the write.
        tokio::task::spawn_blocking(move || Arc::new(item_steps(&items))).await.unwrap_or_default()
    }
}

fn in_transaction(steps: Vec<BatchStep>) -> Vec<BatchStep> {
    between("BEGIN IMMEDIATE", steps)
}

/// What begins a transaction, the steps, COMMIT, and ROLLBACK unless that succeeded; each only if the one before did.
fn between(begin: &str, mut steps: Vec<BatchStep>) -> Vec<BatchStep> {
    let plain = |when, sql: &str| BatchStep { when, sql: sql.to_owned(), args: Vec::new(), want_rows: false };
    steps.insert(0, plain(When::Always, begin));
    for (before, step) in (0..).zip(&mut steps[1..]) {
        step.when = When::Ok(before);
    }
    let last = steps.len() as u32 - 1;
    steps.push(plain(When::Ok(last), "COMMIT"));
    steps.push(plain(When::NotOk(last + 1), "ROLLBACK"));
    steps
}

/// The body of the request that does `work`.
pub fn body(work: &Work, encoding: Encoding) -> Vec<u8> {
    encoding.encode(in_transaction(steps(work)))
}

fn steps(work: &Work) -> Vec<BatchStep> {
    let mut steps: Vec<BatchStep> = work.before.iter().cloned().map(step).collect();
    steps.extend(work.touching.iter().flat_map(|touching| feed_touched::statements(touching, work.items())).map(step));
    steps.extend(work.emptied.iter().map(|table| step(statements::empty(table).into())));
    if work.range.len() == work.items.len() && !work.encoded.is_empty() {
        steps.extend(work.encoded.iter().cloned());
    } else {
        steps.extend(item_steps(work.items()));
    }
    steps.extend(work.after.iter().cloned().map(step));
    steps
}

fn item_steps(items: &[Item]) -> Vec<BatchStep> {
    let mut steps = Vec::new();
    for group in statements::deletes(items) {
        let kinds: Vec<_> = group.table.key_columns().map(|c| c.kind).collect();
        let (partial, keys): (Vec<&[Cell]>, Vec<&[Cell]>) =
            group.keys.iter().partition(|key| statements::has_null(key));
        for key in partial {
            steps.push(step(Statement::new(statements::delete_key(group.table), key.to_vec())));
        }
        for array in arrays(&kinds, &keys) {
            let sql = statements::delete_json(group.table, array.far_reals);
            steps.push(step(Statement::new(sql, vec![Cell::Text(array.text)])));
        }
    }
    for group in statements::upserts(items) {
        upsert_steps(group.table, group.columns, &group.rows, &mut steps);
    }
    steps
}

fn step(statement: Statement) -> BatchStep {
    BatchStep { when: When::Always, sql: statement.sql, args: statement.args, want_rows: false }
}

/// Rows in arrays; a row too large for one goes alone, its values as parameters.
fn upsert_steps(table: &Table, columns: &ColumnSet, rows: &[&[Cell]], steps: &mut Vec<BatchStep>) {
    let kinds: Vec<_> = columns.iter().map(|&i| table.columns[i].kind).collect();
    let (large, rows): (Vec<&[Cell]>, Vec<&[Cell]>) = rows.iter().partition(|row| is_large(row));
    for array in arrays(&kinds, &rows) {
        let sql = statements::upsert_json(table, columns, array.far_reals);
        steps.push(step(Statement::new(sql, vec![Cell::Text(array.text)])));
    }
    for row in large {
        let sql = statements::upsert_slots(table, columns, row.iter().any(statements::is_far));
        steps.push(step(Statement::new(sql, row_slots(&kinds, row))));
    }
}

/// The answer's body, up to `most` bytes.
async fn bounded(mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) =
        answer.chunk().await.map_err(|e| unknown(format!("its answer was cut off ({})", cause(&e.without_url()))))?
    {
        body.extend_from_slice(&part);
        if body.len() > most {
            return Err(unknown(format!("its answer is longer than {most} bytes")));
        }
    }
    Ok(body)
}
