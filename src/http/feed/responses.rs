//! Answers, as the protocol has them.

use super::refusal::{BETWEEN, Refusal};
use crate::feed::answer::Told;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HANDLE: HeaderName = HeaderName::from_static("electric-handle");
const OFFSET: HeaderName = HeaderName::from_static("electric-offset");
const SCHEMA: HeaderName = HeaderName::from_static("electric-schema");
const CURSOR: HeaderName = HeaderName::from_static("electric-cursor");
const UP_TO_DATE: HeaderName = HeaderName::from_static("electric-up-to-date");

/// How long a request waits for news: proxies cut idle connections after 20 to 60 s.
pub(super) const POLL: Duration = Duration::from_secs(20);

/// A body that is shorter is sent at once.
const SMALL_BYTES: usize = 16 << 10;

/// Of a longer one so much is given to a connection at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What an answer holds, which others may send, too.
fn body(parts: Vec<Bytes>) -> Body {
    if parts.iter().map(Bytes::len).sum::<usize>() <= SMALL_BYTES {
        return Body::from(parts.concat());
    }
    let chunks = parts.into_iter().flat_map(|part| {
        let starts = (0..part.len()).step_by(CHUNK_BYTES);
        starts.map(move |start| part.slice(start..part.len().min(start + CHUNK_BYTES))).collect::<Vec<_>>()
    });
    Body::from_stream(futures_util::stream::iter(chunks.map(std::io::Result::Ok)))
}

/// One who does not wait, and of whose table changes are on their way to a cut.
pub(super) fn behind(told: Told) -> Response {
    if told.is_up_to_date { messages(told, false) } else { Refusal::not_now(BETWEEN).into_response() }
}

/// Rows, or what became of them.
pub(super) fn messages(told: Told, is_live: bool) -> Response {
    let mut response = Response::new(Body::empty());
    put_headers(&mut response, &told, is_live);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = body(told.body.json());
    response
}

/// What a client keeps of an answer.
pub(super) fn put_headers(response: &mut Response, told: &Told, is_live: bool) {
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(HANDLE, &told.handle);
    set(OFFSET, &told.offset.to_string());
    match is_live {
        true => set(CURSOR, &cursor().to_string()),
        false => set(SCHEMA, &ascii(told.schema.as_deref().unwrap_or("{}"))),
    }
    if told.is_up_to_date {
        set(UP_TO_DATE, "true");
    }
}

/// JSON in ASCII: what is beyond is escaped.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() && !c.is_ascii_control() {
            true => text.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    text
}

/// Another one every 20 seconds, so that no cache keeps an answer for longer.
fn cursor() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / POLL.as_secs())
}

/// Whoever begins anew.
pub(super) fn refetch(handle: &str, body: String) -> Response {
    let mut response = (StatusCode::CONFLICT, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(handle) = HeaderValue::try_from(handle) {
        headers.insert(HANDLE, handle);
    }
    response
}
