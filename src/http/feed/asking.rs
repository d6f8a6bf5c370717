//! What one who asks is told, whichever way it is told.

use super::fed::Feed;
use super::responses::{not_now, refetch, unreadable};
use super::wanted::Wanted;
use crate::core::error::Result;
use crate::feed::answer::{Answer, Asked};
use crate::feed::follow::Follower;
use axum::response::Response;
use tokio::time::Instant;

/// Where there is nothing to tell.
pub(super) fn unanswered(answer: Result<Answer>) -> Response {
    match answer {
        Ok(Answer::Refetch { handle, body }) => refetch(&handle, body),
        Ok(Answer::Busy) => not_now("too much is asked for at once: ask again"),
        Ok(_) => not_now("the table is not whole yet: ask again"),
        Err(e) => unreadable(&e),
    }
}

/// What a client hears next, at the latest then, or when we stop.
pub(super) async fn next(feed: &Feed, follower: &mut Follower, until: Instant) -> Result<Answer> {
    let mut stopping = feed.stopping.subscribe();
    let is_stopping = async { stopping.wait_for(|stopping| *stopping).await.map(drop) };
    tokio::select! {
        answer = follower.next(until) => answer,
        _ = is_stopping => follower.next(Instant::now()).await,
    }
}

/// What there is.
pub(super) async fn ask(wanted: &Wanted) -> Result<Answer> {
    let asked = Asked { shape: &wanted.shape, offset: wanted.offset, handle: wanted.handle.as_deref() };
    let answer = wanted.source.herald.ask(&asked).await?;
    if let (Some(subject), Answer::Messages(told) | Answer::Nothing(told)) = (&wanted.subject, &answer) {
        wanted.source.herald.answered(subject, &wanted.shape, &told.body);
    }
    Ok(answer)
}
