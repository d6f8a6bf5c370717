//! One request for a shape: what there is, or what becomes of it while its sender waits.

use super::asking::{ask, next, unanswered, wanted};
use super::fed::Feed;
use super::question::Question;
use super::responses::{POLL, behind, messages};
use super::stream::stream;
use super::wanted::Wanted;
use crate::feed::answer::Answer;
use crate::feed::figures::Outcome;
use crate::http::connections::Visit;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

pub(super) async fn shape(
    State(feed): State<Arc<Feed>>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let wanted = async { wanted(&feed, &Question::of_query(&query)?, &headers).await }.await;
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refusal) => {
            let table = query.iter().find(|(key, _)| key == "table").map(|(_, name)| name.as_str());
            feed.refused(table, &refusal);
            return refusal.into_response();
        }
    };
    // Whoever waits does not keep what it was asked with: headers are views of what was read.
    drop((query, headers));
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
    wanted.count(outcome);
    match answer {
        Ok(Answer::Messages(told)) => messages(told, wanted.is_live),
        Ok(Answer::Nothing(told)) if wanted.is_live => messages(told, true),
        Ok(Answer::Nothing(told)) => behind(told),
        other => unanswered(other),
    }
}
