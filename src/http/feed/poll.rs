//! One request for a shape: what there is, or what becomes of it while its sender waits.

use super::POLL;
use super::fed::Feed;
use super::responses::{behind, messages, not_now, refetch, unreadable};
use super::stream::stream;
use super::wanted::Wanted;
use crate::core::error::Result;
use crate::feed::answer::{Answer, Asked};
use crate::feed::figures::Outcome;
use crate::feed::follow::Follower;
use crate::http::connections::Visit;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::Arc;
use tokio::time::Instant;

pub(super) async fn shape(
    State(feed): State<Arc<Feed>>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let wanted = match Wanted::of(&feed, &query, &headers).await {
        Ok(wanted) => wanted,
        Err(refused) => {
            feed.figures_of(&query).count(outcome_of(&refused));
            return *refused;
        }
    };
    match wanted.is_stream {
        true => visit.sharing(stream(feed, wanted)).await,
        false => visit.sharing(answer(&feed, &wanted)).await,
    }
}

async fn answer(feed: &Feed, wanted: &Wanted) -> Response {
    let answer = match wanted.follower() {
        Some(mut follower) => next(feed, &mut follower, wanted.ends(POLL)).await,
        None => ask(wanted).await,
    };
    let outcome = match &answer {
        Ok(Answer::Nothing(told)) if !wanted.is_live && !told.is_up_to_date => Outcome::Unready,
        answer => Outcome::of(answer),
    };
    wanted.source.board.figures().count(outcome);
    match answer {
        Ok(Answer::Messages(told)) => messages(told, wanted.is_live),
        Ok(Answer::Nothing(told)) if wanted.is_live => messages(told, true),
        Ok(Answer::Nothing(told)) => behind(told),
        other => unanswered(other),
    }
}

/// Of a request that is not looked at further.
fn outcome_of(refused: &Response) -> Outcome {
    match refused.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Unauthorized,
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Unready,
        _ => Outcome::Refused,
    }
}

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
    wanted.source.herald.ask(&asked).await
}
