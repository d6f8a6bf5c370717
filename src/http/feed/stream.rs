//! Server-sent events: what becomes of a shape, on one connection.

use super::asking::{ask, next, unanswered};
use super::fed::{Feed, Source};
use super::responses::put_headers;
use super::wanted::Wanted;
use crate::feed::answer::{Answer, Told};
use crate::feed::figures::Outcome;
use crate::feed::follow::Follower;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long server-sent events go on.
const STREAM: Duration = Duration::from_secs(300);

/// Without news a comment is sent so often, which keeps proxies from cutting the connection.
const QUIET: Duration = Duration::from_secs(15);

/// Server-sent events, where the first question shows that there is something to follow. Whoever can no longer, or has not
/// heard why, asks anew when they end.
pub(super) async fn stream(feed: Arc<Feed>, mut wanted: Wanted) -> Response {
    let first = ask(&wanted).await;
    wanted.count(Outcome::of(&first));
    let first = match first {
        Ok(Answer::Messages(told) | Answer::Nothing(told)) => told,
        other => return unanswered(other),
    };
    (wanted.offset, wanted.handle) = (first.offset, Some(first.handle.clone()));
    let mut response = Response::new(Body::empty());
    put_headers(&mut response, &first, true);
    let greeting = Bytes::from_static(concat!(": ", env!("CARGO_PKG_NAME"), "\n\n").as_bytes());
    let begun = std::iter::once(greeting).chain(first.body.events()).collect();
    // How far it is by now, where it is anywhere: it begins there when the connection is cut.
    follow(response, feed, &wanted, begun, |body, _| body.events())
}

/// What is sent where there is news, and, with `false`, where there has been none for a while.
pub(super) type Tell = fn(&crate::feed::body::Body, bool) -> Vec<Bytes>;

/// What is `begun`, and then what becomes of it, as server-sent events.
pub(super) fn follow(
    mut response: Response,
    feed: Arc<Feed>,
    wanted: &Wanted,
    begun: Vec<Bytes>,
    tell: Tell,
) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let Some(mut follower) = wanted.follower() else { return response };
    if !follower.has_room() {
        wanted.count(Outcome::Busy);
        return unanswered(Ok(Answer::Busy));
    }
    let events = Events { feed, source: wanted.source.clone(), follower, until: wanted.ends(STREAM), tell };
    let later = futures_util::stream::unfold(events, |mut events| async move { Some((events.next().await?, events)) });
    let parts = futures_util::stream::once(async { begun })
        .chain(later)
        .map(|parts: Vec<Bytes>| futures_util::stream::iter(parts));
    *response.body_mut() = Body::from_stream(parts.flatten().map(std::io::Result::Ok));
    response
}

/// What one who follows is told.
struct Events {
    feed: Arc<Feed>,
    source: Arc<Source>,
    follower: Follower,
    until: Instant,
    tell: Tell,
}

impl Events {
    /// The next events; `None` where they end.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        if Instant::now() >= self.until || *self.feed.stopping.borrow() {
            return None;
        }
        let quiet = (Instant::now() + QUIET).min(self.until);
        let answer = next(&self.feed, &mut self.follower, quiet).await;
        self.source.board.figures().count(Outcome::of(&answer));
        match answer {
            Ok(Answer::Messages(Told { body, .. })) => Some((self.tell)(&body, true)),
            Ok(Answer::Nothing(Told { body, .. })) => Some(
                std::iter::once(Bytes::from_static(b": still here\n\n")).chain((self.tell)(&body, false)).collect(),
            ),
            _ => None,
        }
    }
}
