//! A remote libSQL (sqld, Turso, Bunny Database): one HTTP request a transaction, a Hrana batch whose
//! steps run only while the one before succeeded. Rows travel as JSON arrays that `json_each` unpacks.

use super::arrays::{arrays, is_large, row_slots};
use super::head;
use super::hrana::{Encoding, Failure, Garbled, Outcome, Step, When};
use super::statements;
use super::store::Encoded;
use super::store::Rows;
use super::store::Statement;
use super::store::Store;
use super::store::Work;
use super::words;
use crate::core::batch::{ColumnSet, Item};
use crate::core::error::{Class, Error, Result};
use crate::core::schema::Table;
use crate::core::secret::Secret;
use crate::core::value::Cell;
use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
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
        install_crypto();
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
    async fn transact(&self, steps: Vec<Step>, patience: Duration) -> Result<Outcome> {
        let steps = in_transaction(steps);
        let commit = steps.len() as u32 - 2;
        let outcome = self.send(steps, patience).await?;
        if outcome.results.contains_key(&commit) {
            return Ok(outcome);
        }
        Err(unknown("it does not say whether it committed".into()))
    }

    /// Sends one batch; the first step that failed is the error.
    async fn send(&self, steps: Vec<Step>, patience: Duration) -> Result<Outcome> {
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
        let step = Step { when: When::Always, sql: statement.sql, args: statement.args, want_rows: true };
        Ok(self.transact(vec![step], REQUEST_TIMEOUT).await?.results.remove(&1).unwrap_or_default())
    }

    /// As a batch of one statement: only so may a read replica answer by itself.
    async fn read(&self, statement: Statement) -> Result<Rows> {
        let step = Step { when: When::Always, sql: statement.sql, args: statement.args, want_rows: true };
        Ok(self.send(vec![step], REQUEST_TIMEOUT).await?.results.remove(&0).unwrap_or_default())
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

/// BEGIN, the steps, COMMIT, and ROLLBACK unless that succeeded; each only if the one before did.
fn in_transaction(mut steps: Vec<Step>) -> Vec<Step> {
    let plain = |when, sql: &str| Step { when, sql: sql.to_owned(), args: Vec::new(), want_rows: false };
    steps.insert(0, plain(When::Always, "BEGIN IMMEDIATE"));
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

fn steps(work: &Work) -> Vec<Step> {
    let mut steps: Vec<Step> = work.before.iter().cloned().map(step).collect();
    steps.extend(work.emptied.iter().map(|table| step(statements::empty(table).into())));
    if work.range.len() == work.items.len() && !work.encoded.is_empty() {
        steps.extend(work.encoded.iter().cloned());
    } else {
        steps.extend(item_steps(work.items()));
    }
    steps.extend(work.after.iter().cloned().map(step));
    steps
}

fn item_steps(items: &[Item]) -> Vec<Step> {
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

fn step(statement: Statement) -> Step {
    Step { when: When::Always, sql: statement.sql, args: statement.args, want_rows: false }
}

/// Rows in arrays; a row too large for one goes alone, its values as parameters.
fn upsert_steps(table: &Table, columns: &ColumnSet, rows: &[&[Cell]], steps: &mut Vec<Step>) {
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

fn unknown(what: String) -> Error {
    Error::unknown(format!("the libSQL server: {what}; whether the batch was applied is read from its ledger"))
}

/// How the causes read when a server ends the connection during the handshake: rustls' words, and those of the
/// system for ECONNRESET and EPIPE (which of them comes depends on what the server had read until then).
const HUNG_UP: [&str; 3] = ["handshake eof", "Connection reset by peer", "Broken pipe"];

fn not_sent(error: reqwest::Error) -> Error {
    let speaks_tls = error.url().is_some_and(|url| url.scheme() == "https");
    let cause = cause(&error.without_url());
    let text = format!("the libSQL server cannot be reached ({cause})");
    // What a server that speaks plain HTTP answers is no TLS.
    if cause.contains("InvalidContentType") {
        return halt(format!(
            "{text}: it does not speak TLS: write http:// in LIBSQL_URL in place of https:// or libsql://"
        ));
    }
    // Somebody took the connection and ended it: one without TLS does that to a hello.
    if speaks_tls && HUNG_UP.iter().any(|text| cause.contains(text)) {
        let mend = "check that it is up, and if it does not speak TLS, write http:// in LIBSQL_URL";
        return Error::retry(format!("{text}: {mend}"));
    }
    if cause.contains("certificate") {
        let mend = "check LIBSQL_URL, and set SSL_CERT_FILE to its certificate authority if that is a private one";
        return halt(format!("{text}: {mend}"));
    }
    Error::retry(format!("{text}: check LIBSQL_URL and that it is up"))
}

fn not_answered(error: reqwest::Error) -> Error {
    if error.is_connect() || error.is_builder() {
        return not_sent(error);
    }
    unknown(format!("no answer ({})", cause(&error.without_url()))).of_size()
}

/// The innermost cause: reqwest's own text says little.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An HTTP status that is no success: what a server or a proxy says before or in place of Hrana.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    if let Ok(Err(failure)) = Encoding::Json.decode(body) {
        return classify(&failure);
    }
    match status.as_u16() {
        401 | 403 => {
            halt("the libSQL server refuses the token: check LIBSQL_AUTH_TOKEN (expired? read-only?)".to_owned())
        }
        404 => halt("the libSQL server knows no such database: check LIBSQL_URL".to_owned()),
        400 if String::from_utf8_lossy(body).contains("BLOCKED") => blocked(),
        413 => Error::reject(format!("the libSQL server takes no request of that size (HTTP {status}): raise its limit, or make the row smaller, then mark the key again")).of_size(),
        408 | 425 | 429 => busy(status, headers),
        300..=499 => halt(format!("LIBSQL_URL does not answer as a libSQL server (HTTP {status}): check it")),
        503 => after(unknown(format!("it failed (HTTP {status})")), headers),
        _ => unknown(format!("it failed (HTTP {status})")).of_size(),
    }
}

/// Nothing was done.
fn busy(status: StatusCode, headers: &HeaderMap) -> Error {
    after(Error::retry(format!("the libSQL server is down or busy (HTTP {status}); it will be tried again")), headers)
}

/// With the time that the server names.
fn after(error: Error, headers: &HeaderMap) -> Error {
    match headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now())) {
        Some(wait) => error.come_back_after(wait),
        None => error,
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

/// Somebody has to act, and whatever is sent there fails until then.
fn halt(text: String) -> Error {
    Error::halt(text).of_side()
}

fn blocked() -> Error {
    halt("the libSQL server blocks writes (quota or administrator): lift the block; everything stays queued".to_owned())
}

/// The class of a Hrana error code. The message may quote SQL, never parameters.
fn classify(failure: &Failure) -> Error {
    let (code, message) = (failure.code.as_str(), failure.message.as_str());
    let is_of_trigger = code.ends_with("_TRIGGER");
    if head::is_fence(message) && !is_of_trigger {
        return head::fenced();
    }
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| code.starts_with(p));
    let bare = words::bare(message);
    // sqld does not tell a constraint from a trigger: then only how the message begins.
    let words = match code {
        "SQLITE_CONSTRAINT" => words::beginning(message),
        _ => words::shown(message, is_of_trigger),
    };
    // A code that says what it is, then how the message begins: SQLite quotes names and a constraint's text.
    let is_of_row = starts(&["SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG"]);
    if code.starts_with("BLOCKED") || code.ends_with("_BLOCKED") || !is_of_row && is_block(bare) {
        return blocked();
    }
    if starts(&["SQLITE_FULL"]) {
        return halt("the libSQL server is full: raise its size limit; everything stays queued".to_owned());
    }
    if starts(&["AUTH", "SQLITE_AUTH", "SQLITE_READONLY", "SQLITE_PERM"]) {
        return halt(format!("the libSQL server refuses to write ({code}): check LIBSQL_AUTH_TOKEN"));
    }
    if starts(&["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN"]) {
        return halt(format!("the libSQL server cannot read its database ({code}): restore it, or make a new one"));
    }
    if starts(&[
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_INTERRUPT",
        "SQLITE_NOMEM",
        "SQLITE_IOERR",
        "PROXY_ERROR",
        "TRANSACTION",
        "STREAM_EXPIRED",
    ]) {
        let error = Error::retry(format!("the libSQL server: {code}; it will be tried again"));
        // A transaction that took too long, or more memory than there is.
        return if starts(&["TRANSACTION", "STREAM_EXPIRED", "SQLITE_NOMEM"]) { error.of_size() } else { error };
    }
    let is_of_arguments = starts(&["ARGS_INVALID"]) && message.contains("too big");
    if starts(&["SQLITE_TOOBIG"]) || is_of_arguments || bare.starts_with("string or blob too big") {
        return Error::reject(
            "the libSQL server takes no row or value that large (sqld: 5 MB): make the row smaller, or leave its column out of schema.json, then mark the key again",
        );
    }
    // What the row itself causes; the same words stand behind SQLITE_UNKNOWN and SQLITE_ERROR.
    let is_general = starts(&["SQLITE_UNKNOWN", "SQLITE_ERROR"]);
    if is_of_row || is_general && !words::is_of_schema(message) {
        return Error::new(Class::Reject, format!("the libSQL server: {code} ({words})"));
    }
    if is_general || starts(&["SQL_PARSE", "ARGS_INVALID"]) {
        return Error::halt(format!(
            "the libSQL server: {code} ({words}): the replica's tables differ from schema.json; POST /nuke rebuilds them"
        ))
        .of_schema();
    }
    if starts(&["RESPONSE_TOO_LARGE"]) {
        return Error::halt("the libSQL server's answer is larger than it allows (sqld: 10 MB): raise its limit");
    }
    unknown(format!("{code} ({words})"))
}

/// How Turso and Bunny begin to say that an account may not write, or read.
fn is_block(message: &str) -> bool {
    message.starts_with("BLOCKED") || message.starts_with("Operation was blocked")
}

/// The process's TLS implementation; a second call changes nothing.
pub fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A race with another thread that does the same is no failure.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn each_status_has_its_class_and_mend() {
        use Class::{Halt, Reject, Retry, Unknown};
        let cases = [
            (401, Halt, "LIBSQL_AUTH_TOKEN"),
            (403, Halt, "LIBSQL_AUTH_TOKEN"),
            (404, Halt, "LIBSQL_URL"),
            (302, Halt, "LIBSQL_URL"),
            (400, Halt, "LIBSQL_URL"),
            (408, Retry, "tried again"),
            (429, Retry, "tried again"),
            (413, Reject, "raise its limit"),
            (500, Unknown, "ledger"),
            (502, Unknown, "ledger"),
            (503, Unknown, "ledger"),
            (504, Unknown, "ledger"),
        ];
        for (status, class, mend) in cases {
            let error = refused(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"<html>");
            assert_eq!((error.class(), error.is_of_side()), (class, class == Halt), "{status}");
            assert!(error.to_string().contains(mend), "{status}: {error}");
        }
        let error = refused(StatusCode::BAD_REQUEST, &HeaderMap::new(), b"BLOCKED: reads are blocked");
        assert!(error.class() == Halt && error.to_string().contains("lift the block"), "{error}");
    }

    #[test]
    fn each_code_has_its_class_and_mend() {
        use Class::{Halt, Reject, Retry, Unknown};
        let cases = [
            ("SQLITE_BUSY", "database is locked", Retry, false, "tried again"),
            ("SQLITE_LOCKED_SHAREDCACHE", "", Retry, false, "tried again"),
            ("SQLITE_IOERR_WRITE", "", Retry, false, "tried again"),
            ("TRANSACTION_TIMEOUT", "", Retry, false, "tried again"),
            ("PROXY_ERROR", "", Retry, false, "tried again"),
            ("BLOCKED", "Operation was blocked", Halt, true, "lift the block"),
            ("SQLITE_UNKNOWN", "BLOCKED: writes are blocked", Halt, true, "lift the block"),
            ("SQLITE_UNKNOWN", "Operation was blocked: quota", Halt, true, "lift the block"),
            (
                "SQLITE_CONSTRAINT_CHECK",
                "SQLite error: CHECK constraint failed: v <> 'BLOCKED'",
                Reject,
                false,
                "CHECK",
            ),
            ("SQLITE_UNKNOWN", "SQLite error: CHECK constraint failed: v <> 'BLOCKED'", Reject, false, "CHECK"),
            ("SQLITE_UNKNOWN", "SQLite error: UNIQUE constraint failed: BLOCKED.v", Reject, false, "UNIQUE"),
            ("SQLITE_CONSTRAINT_TRIGGER", "BLOCKED: _pgflume_head.seq too big", Reject, false, "trigger"),
            ("SQLITE_UNKNOWN", "SQLite error: no such table: BLOCKED", Halt, false, "/nuke"),
            ("SQLITE_UNKNOWN", "SQLite error: malformed JSON", Reject, false, "not shown"),
            ("SQLITE_FULL", "database or disk is full", Halt, true, "size limit"),
            ("SQLITE_AUTH", "", Halt, true, "LIBSQL_AUTH_TOKEN"),
            ("AUTH_JWT_EXPIRED", "", Halt, true, "LIBSQL_AUTH_TOKEN"),
            ("SQLITE_READONLY", "", Halt, true, "LIBSQL_AUTH_TOKEN"),
            ("SQLITE_CORRUPT", "malformed", Halt, true, "restore"),
            ("SQLITE_NOTADB", "", Halt, true, "restore"),
            ("SQLITE_CONSTRAINT_CHECK", "CHECK constraint failed", Reject, false, "CONSTRAINT"),
            ("SQLITE_CONSTRAINT_CHECK", "CHECK constraint failed: state <> 'BLOCKED'", Reject, false, "CONSTRAINT"),
            ("SQLITE_MISMATCH", "datatype mismatch", Reject, false, "MISMATCH"),
            ("ARGS_INVALID", "string or blob too big", Reject, false, "smaller"),
            (
                "SQLITE_CONSTRAINT",
                "SQLite error: UNIQUE constraint failed: t.v",
                Reject,
                false,
                "UNIQUE constraint failed)",
            ),
            ("SQLITE_CONSTRAINT", "SQLite error: BLOCKED", Reject, false, "not shown"),
            ("SQLITE_TOOBIG", "string or blob too big", Reject, false, "smaller"),
            ("SQLITE_UNKNOWN", "no such table: t", Halt, false, "/nuke"),
            ("SQL_PARSE_ERROR", "", Halt, false, "/nuke"),
            ("NEVER_HEARD_OF", "", Unknown, false, "ledger"),
        ];
        for (code, message, class, is_of_side, mend) in cases {
            let error = classify(&Failure { code: code.into(), message: message.into() });
            assert_eq!((error.class(), error.is_of_side()), (class, is_of_side), "{code} {message}");
            assert!(error.to_string().contains(mend), "{code}: {error}");
        }
    }

    #[test]
    fn a_servers_own_time_is_kept_to_up_to_some_minutes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, seconds) in [("7", Some(7)), (" 120 ", Some(120)), (date, Some(7)), ("soon", None), ("-1", None)] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("86400"))]);
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(refused(status, &headers, b"").retry_after(), Some(Duration::from_secs(300)));
        }
    }
}
