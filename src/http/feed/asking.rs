//! What one who asks is told, whichever way it is told.

use super::fed::Feed;
use super::question::Question;
use super::refusal::Refusal;
use super::responses::refetch;
use super::wanted::Wanted;
use crate::core::error;
use crate::feed::answer::{Answer, Asked};
use crate::feed::follow::Follower;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

/// What a request asks for, of what its sender may read.
pub(super) async fn wanted(feed: &Feed, question: &Question, headers: &HeaderMap) -> Result<Wanted, Refusal> {
    let wanted = Wanted::read(feed, question)?;
    match wanted.needs_token() {
        true => wanted.of(Some(&feed.bearer(headers).await?)),
        // Whoever writes hears when that is there.
        false if wanted.is_live && wanted.is_written() => wanted.of(feed.bearer(headers).await.ok().as_ref()),
        false => Ok(wanted),
    }
}

/// Where there is nothing to tell.
pub(super) fn unanswered(answer: error::Result<Answer>) -> Response {
    match answer {
        Ok(Answer::Refetch { handle, body }) => refetch(&handle, body),
        other => why_not(&other).into_response(),
    }
}

/// Why there is nothing to tell now.
pub(super) fn why_not(answer: &error::Result<Answer>) -> Refusal {
    match answer {
        Ok(Answer::Busy) => Refusal::not_now("too much is asked for at once: ask again"),
        Ok(_) => Refusal::not_now("the table is not whole yet: ask again"),
        Err(e) => Refusal::unreadable(e),
    }
}

/// What a client hears next, at the latest then, or when we stop.
pub(super) async fn next(feed: &Feed, follower: &mut Follower, until: Instant) -> error::Result<Answer> {
    let mut stopping = feed.stopping.subscribe();
    let is_stopping = async { stopping.wait_for(|stopping| *stopping).await.map(drop) };
    tokio::select! {
        answer = follower.next(until) => answer,
        _ = is_stopping => follower.next(Instant::now()).await,
    }
}

/// What there is.
pub(super) async fn ask(wanted: &Wanted) -> error::Result<Answer> {
    let asked = Asked { shape: &wanted.shape, offset: wanted.offset, handle: wanted.handle.as_deref() };
    let answer = wanted.source.herald.ask(&asked).await?;
    if let (Some(subject), Answer::Messages(told) | Answer::Nothing(told)) = (&wanted.subject, &answer) {
        wanted.source.herald.answered(subject, &wanted.shape, &told.body);
    }
    Ok(answer)
}
