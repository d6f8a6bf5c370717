//! Why a libSQL server did not do what it was asked: the kind of what it, a proxy, or the way to it says.

use super::hrana::{Encoding, Failure};
use super::{head, words};
use crate::core::error::{Error, ErrorKind};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

pub(super) fn unknown(what: String) -> Error {
    unclear(ErrorKind::Unknown, what)
}

fn unclear(kind: ErrorKind, what: String) -> Error {
    Error::new(kind, format!("the libSQL server: {what}; whether the batch was applied is read from its ledger"))
}

/// How the causes read when a server ends the connection during the handshake: rustls' words, and those of the
/// system for ECONNRESET and EPIPE (which of them comes depends on what the server had read until then).
const HUNG_UP: [&str; 3] = ["handshake eof", "Connection reset by peer", "Broken pipe"];

pub(super) fn not_sent(error: reqwest::Error) -> Error {
    let is_handshake = error.is_connect() && error.url().is_some_and(|url| url.scheme() == "https");
    let cause = cause(&error.without_url());
    let text = format!("the libSQL server cannot be reached ({cause})");
    // What a server that speaks plain HTTP answers is no TLS.
    if cause.contains("InvalidContentType") {
        return halt(format!(
            "{text}: it does not speak TLS: write http:// in LIBSQL_URL in place of https:// or libsql://"
        ));
    }
    // Somebody took the connection and ended it: one without TLS does that to a hello.
    if is_handshake && HUNG_UP.iter().any(|text| cause.contains(text)) {
        let remedy = "check that it is up, and if it does not speak TLS, write http:// in LIBSQL_URL";
        return Error::retry(format!("{text}: {remedy}"));
    }
    if cause.contains("certificate") {
        let remedy = "check LIBSQL_URL, and set SSL_CERT_FILE to its certificate authority if that is a private one";
        return halt(format!("{text}: {remedy}"));
    }
    Error::retry(format!("{text}: check LIBSQL_URL and that it is up"))
}

pub(super) fn not_answered(error: reqwest::Error) -> Error {
    if error.is_connect() || error.is_builder() {
        return not_sent(error);
    }
    unclear(ErrorKind::Overload, format!("no answer ({})", cause(&error.without_url())))
}

/// The innermost cause: reqwest's own text says little.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An HTTP status that is no success: what a server or a proxy says before or in place of Hrana.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    if let Ok(Err(failure)) = Encoding::Json.decode(body) {
        return classify(&failure);
    }
    match status.as_u16() {
        401 | 403 => {
            halt("the libSQL server refuses the token: check LIBSQL_AUTH_TOKEN (expired? read-only?)".to_owned())
        }
        404 => halt("the libSQL server knows no such database: check LIBSQL_URL".to_owned()),
        400 if String::from_utf8_lossy(body).contains("BLOCKED") => blocked(),
        413 => Error::new(
            ErrorKind::TooLarge,
            format!(
                "the libSQL server takes no request of that size (HTTP {status}): raise its limit, or make the row smaller, then mark the key again"
            ),
        ),
        408 | 425 | 429 => busy(status, headers),
        300..=499 => halt(format!("LIBSQL_URL does not answer as a libSQL server (HTTP {status}): check it")),
        503 => after(unknown(format!("it failed (HTTP {status})")), headers),
        _ => unclear(ErrorKind::Overload, format!("it failed (HTTP {status})")),
    }
}

/// Nothing was done.
pub(super) fn busy(status: StatusCode, headers: &HeaderMap) -> Error {
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
pub(super) fn halt(text: String) -> Error {
    Error::side(text)
}

fn blocked() -> Error {
    halt("the libSQL server blocks writes (quota or administrator): lift the block; everything stays queued".to_owned())
}

/// The kind of a Hrana error code. The message may quote SQL, never parameters.
pub(super) fn classify(failure: &Failure) -> Error {
    let (code, message) = (failure.code.as_str(), failure.message.as_str());
    if head::is_fence(message) && !code.ends_with("_TRIGGER") {
        return head::fenced();
    }
    of_server(failure).or_else(|| of_size(failure)).unwrap_or_else(|| of_statement(failure))
}

fn starts(code: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| code.starts_with(prefix))
}

/// Whether the code says that it is the row: SQLite quotes names and a constraint's text in what it says of it.
fn is_of_row(code: &str) -> bool {
    starts(code, &["SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG"])
}

/// What is the whole server's matter, or passes.
fn of_server(failure: &Failure) -> Option<Error> {
    let code = failure.code.as_str();
    let is_blocked = code.starts_with("BLOCKED") || code.ends_with("_BLOCKED");
    if is_blocked || !is_of_row(code) && is_block(words::bare(&failure.message)) {
        return Some(blocked());
    }
    if starts(code, &["SQLITE_FULL"]) {
        return Some(halt("the libSQL server is full: raise its size limit; everything stays queued".to_owned()));
    }
    if starts(code, &["AUTH", "SQLITE_AUTH", "SQLITE_READONLY", "SQLITE_PERM"]) {
        return Some(halt(format!("the libSQL server refuses to write ({code}): check LIBSQL_AUTH_TOKEN")));
    }
    if starts(code, &["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN"]) {
        let remedy = "restore it, or make a new one";
        return Some(halt(format!("the libSQL server cannot read its database ({code}): {remedy}")));
    }
    let passes = ["SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_INTERRUPT", "SQLITE_IOERR", "PROXY_ERROR"];
    // A transaction that took too long, or more memory than there is.
    let is_long = starts(code, &["TRANSACTION", "STREAM_EXPIRED", "SQLITE_NOMEM"]);
    let kind = match is_long {
        true => ErrorKind::Overload,
        false if starts(code, &passes) => ErrorKind::Retry,
        false => return None,
    };
    Some(Error::new(kind, format!("the libSQL server: {code}; it will be tried again")))
}

/// What is too large.
fn of_size(failure: &Failure) -> Option<Error> {
    let (code, message) = (failure.code.as_str(), failure.message.as_str());
    if starts(code, &["RESPONSE_TOO_LARGE"]) {
        let text = "the libSQL server's answer is larger than it allows (sqld: 10 MB): raise its limit";
        return Some(Error::halt(text));
    }
    let is_of_arguments = starts(code, &["ARGS_INVALID"]) && message.contains("too big");
    let is_too_large = starts(code, &["SQLITE_TOOBIG"]) || is_of_arguments;
    (is_too_large || words::bare(message).starts_with("string or blob too big")).then(|| {
        Error::reject(
            "the libSQL server takes no row or value that large (sqld: 5 MB): make the row smaller, or leave its column out of schema.json, then mark the key again",
        )
    })
}

/// What the row causes, or the replica's tables; the same words stand behind SQLITE_UNKNOWN and SQLITE_ERROR.
fn of_statement(failure: &Failure) -> Error {
    let (code, message) = (failure.code.as_str(), failure.message.as_str());
    // sqld does not tell a constraint from a trigger: then only how the message begins.
    let words = match code {
        "SQLITE_CONSTRAINT" => words::beginning(message),
        _ => words::shown(message, code.ends_with("_TRIGGER")),
    };
    let is_general = starts(code, &["SQLITE_UNKNOWN", "SQLITE_ERROR"]);
    if is_of_row(code) || is_general && !words::is_of_schema(message) {
        return Error::reject(format!("the libSQL server: {code} ({words})"));
    }
    if is_general || starts(code, &["SQL_PARSE", "ARGS_INVALID"]) {
        let remedy = "the replica's tables differ from schema.json; POST /nuke rebuilds them";
        return Error::new(ErrorKind::Schema, format!("the libSQL server: {code} ({words}): {remedy}"));
    }
    unknown(format!("{code} ({words})"))
}

/// How Turso and Bunny begin to say that an account may not write, or read.
fn is_block(message: &str) -> bool {
    message.starts_with("BLOCKED") || message.starts_with("Operation was blocked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn each_status_has_its_kind_and_remedy() {
        use ErrorKind::{Overload, Retry, TooLarge, Unknown, WholeSide};
        let cases = [
            (401, WholeSide, "LIBSQL_AUTH_TOKEN"),
            (403, WholeSide, "LIBSQL_AUTH_TOKEN"),
            (404, WholeSide, "LIBSQL_URL"),
            (302, WholeSide, "LIBSQL_URL"),
            (400, WholeSide, "LIBSQL_URL"),
            (408, Retry, "tried again"),
            (429, Retry, "tried again"),
            (413, TooLarge, "raise its limit"),
            (500, Overload, "ledger"),
            (502, Overload, "ledger"),
            (503, Unknown, "ledger"),
            (504, Overload, "ledger"),
        ];
        for (status, kind, remedy) in cases {
            let error = refused(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"<html>");
            assert_eq!(error.kind(), &kind, "{status}");
            assert!(error.to_string().contains(remedy), "{status}: {error}");
        }
        let error = refused(StatusCode::BAD_REQUEST, &HeaderMap::new(), b"BLOCKED: reads are blocked");
        assert!(error.kind() == &WholeSide && error.to_string().contains("lift the block"), "{error}");
    }

    #[test]
    fn each_code_has_its_kind_and_remedy() {
        use ErrorKind::{Overload, Retry, Row, Schema, Unknown, WholeSide};
        let cases = [
            ("SQLITE_BUSY", "database is locked", Retry, "tried again"),
            ("SQLITE_LOCKED_SHAREDCACHE", "", Retry, "tried again"),
            ("SQLITE_IOERR_WRITE", "", Retry, "tried again"),
            ("TRANSACTION_TIMEOUT", "", Overload, "tried again"),
            ("PROXY_ERROR", "", Retry, "tried again"),
            ("BLOCKED", "Operation was blocked", WholeSide, "lift the block"),
            ("SQLITE_UNKNOWN", "BLOCKED: writes are blocked", WholeSide, "lift the block"),
            ("SQLITE_UNKNOWN", "Operation was blocked: quota", WholeSide, "lift the block"),
            ("SQLITE_CONSTRAINT_CHECK", "SQLite error: CHECK constraint failed: v <> 'BLOCKED'", Row, "CHECK"),
            ("SQLITE_UNKNOWN", "SQLite error: CHECK constraint failed: v <> 'BLOCKED'", Row, "CHECK"),
            ("SQLITE_UNKNOWN", "SQLite error: UNIQUE constraint failed: BLOCKED.v", Row, "UNIQUE"),
            ("SQLITE_CONSTRAINT_TRIGGER", "BLOCKED: _pgflume_head.seq too big", Row, "trigger"),
            ("SQLITE_UNKNOWN", "SQLite error: no such table: BLOCKED", Schema, "/nuke"),
            ("SQLITE_UNKNOWN", "SQLite error: malformed JSON", Row, "not shown"),
            ("SQLITE_FULL", "database or disk is full", WholeSide, "size limit"),
            ("SQLITE_AUTH", "", WholeSide, "LIBSQL_AUTH_TOKEN"),
            ("AUTH_JWT_EXPIRED", "", WholeSide, "LIBSQL_AUTH_TOKEN"),
            ("SQLITE_READONLY", "", WholeSide, "LIBSQL_AUTH_TOKEN"),
            ("SQLITE_CORRUPT", "malformed", WholeSide, "restore"),
            ("SQLITE_NOTADB", "", WholeSide, "restore"),
            ("SQLITE_CONSTRAINT_CHECK", "CHECK constraint failed", Row, "CONSTRAINT"),
            ("SQLITE_CONSTRAINT_CHECK", "CHECK constraint failed: state <> 'BLOCKED'", Row, "CONSTRAINT"),
            ("SQLITE_MISMATCH", "datatype mismatch", Row, "MISMATCH"),
            ("ARGS_INVALID", "string or blob too big", Row, "smaller"),
            ("SQLITE_CONSTRAINT", "SQLite error: UNIQUE constraint failed: t.v", Row, "UNIQUE constraint failed)"),
            ("SQLITE_CONSTRAINT", "SQLite error: BLOCKED", Row, "not shown"),
            ("SQLITE_TOOBIG", "string or blob too big", Row, "smaller"),
            ("SQLITE_UNKNOWN", "no such table: t", Schema, "/nuke"),
            ("SQL_PARSE_ERROR", "", Schema, "/nuke"),
            ("NEVER_HEARD_OF", "", Unknown, "ledger"),
        ];
        for (code, message, kind, remedy) in cases {
            let error = classify(&Failure { code: code.into(), message: message.into() });
            assert_eq!(error.kind(), &kind, "{code} {message}");
            assert!(error.to_string().contains(remedy), "{code}: {error}");
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
