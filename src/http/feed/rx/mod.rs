//! `/v1/rx/{table}/…`: a table as a collection of RxDB, which pulls documents, pushes its own, and hears when to pull again.

mod documents;

use super::asking::{ask, wanted, why_not};
use super::fed::Feed;
use super::question::Question;
use super::refusal::{BETWEEN, Refusal};
use super::stream::follow;
use super::wanted::Wanted;
use crate::core::claims::Claims;
use crate::core::schema::{Op, Table};
use crate::feed::answer::Answer;
use crate::feed::figures::Outcome;
use crate::feed::offset::Offset;
use crate::http::body::Bodies;
use crate::http::connections::Visit;
use crate::http::push::{carry_out, refused_as};
use crate::push::{Failure, Push, Pushes, Status};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use documents::Document;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// Most documents of a push: each is a transaction.
const MOST_PUSHED: usize = 100;

/// By this name the journal knows who pushes documents.
const CLIENT: &str = "rxdb";

/// That there is something to pull.
const RESYNC: Bytes = Bytes::from_static(b"data: RESYNC\n\n");

struct Rx {
    feed: Arc<Feed>,
    pushes: Option<Arc<Pushes>>,
    bodies: Bodies,
}

/// The paths of collections.
pub(super) fn router(feed: Arc<Feed>, pushes: Option<Arc<Pushes>>) -> Router {
    let rx = Arc::new(Rx { feed, pushes, bodies: Bodies::new() });
    Router::new()
        .route("/v1/rx/{table}/pull", sent(Rx::pull))
        .route("/v1/rx/{table}/push", sent(Rx::push))
        .route("/v1/rx/{table}/stream", get(stream))
        .with_state(rx)
}

/// Where a collection is.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    handle: String,
    offset: String,
}

/// What is pulled from where on. RxDB's `limit` is not needed: a part is of about one size.
#[derive(Deserialize)]
struct Pull {
    checkpoint: Option<Checkpoint>,
}

/// Documents, and where they lead.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    documents: Vec<Document>,
    checkpoint: Checkpoint,
    /// There is nothing more.
    is_up_to_date: bool,
    /// What the collection had follows no more: it is told all documents from here on.
    is_anew: bool,
}

/// One document that was changed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    new_document_state: Document,
    assumed_master_state: Option<Document>,
}

type Asked = (Query<Vec<(String, String)>>, HeaderMap);

impl Rx {
    /// What of a table is asked for, by whom.
    async fn wanted(&self, table: String, (query, headers): &Asked, from: Checkpoint) -> Result<Wanted, Refusal> {
        let known = ["where", "columns"];
        let query = query.iter().filter(|(name, _)| known.contains(&name.as_str()) || name.starts_with("params["));
        let mut question = Question::of_query(&query.cloned().collect::<Vec<_>>())?;
        let has_place = !from.handle.is_empty();
        (question.table, question.offset) = (Some(table), Some(from.offset));
        question.handle = has_place.then_some(from.handle);
        let mut wanted = wanted(&self.feed, &question, headers).await?;
        match documents::key(wanted.source.table()) {
            Some(_) => wanted.is_live = true,
            None => return Err(Refusal::wrong("table", "has a key of several columns: RxDB has one")),
        }
        Ok(wanted)
    }

    /// The same of one who reads, who is counted if that is refused.
    async fn read(&self, table: &str, asked: &Asked, from: Checkpoint) -> Result<Wanted, Refusal> {
        let wanted = self.wanted(table.to_owned(), asked, from).await;
        wanted.inspect_err(|refusal| self.feed.refused(Some(table), refusal))
    }

    async fn body<T: for<'a> Deserialize<'a>>(
        &self,
        headers: &HeaderMap,
        body: axum::body::Body,
    ) -> Result<T, Refusal> {
        let read = self.bodies.read(headers.get(header::CONTENT_LENGTH), body).await;
        let body = read.map_err(|(status, problem)| Refusal::with_status(status, "body", problem))?;
        serde_json::from_slice(&body).map_err(|e| {
            Refusal::wrong("body", format!("is not as it should be: line {}, column {}", e.line(), e.column()))
        })
    }

    async fn pull(self: Arc<Self>, table: String, asked: Asked, body: axum::body::Body) -> Result<Pulled, Refusal> {
        let from = self.body::<Pull>(&asked.1, body).await?.checkpoint;
        let start = || Checkpoint { handle: String::new(), offset: "-1".to_owned() };
        let mut wanted = self.read(&table, &asked, from.unwrap_or_else(start)).await?;
        let mut answer = ask(&wanted).await;
        let is_anew = wanted.offset == Offset::Start || matches!(answer, Ok(Answer::Refetch { .. }));
        if matches!(answer, Ok(Answer::Refetch { .. })) {
            (wanted.offset, wanted.handle) = (Offset::Start, None);
            answer = ask(&wanted).await;
        }
        wanted.count(match &answer {
            Ok(Answer::Nothing(told)) if !told.is_up_to_date => Outcome::Unready,
            answer => Outcome::of(answer),
        });
        let told = match answer {
            Ok(Answer::Messages(told)) => told,
            Ok(Answer::Nothing(told)) if told.is_up_to_date => told,
            Ok(Answer::Nothing(_)) => return Err(Refusal::not_now(BETWEEN)),
            other => return Err(why_not(&other)),
        };
        let checkpoint = Checkpoint { handle: told.handle, offset: told.offset.to_string() };
        let messages = serde_json::from_slice(&told.body.json().concat()).unwrap_or_default();
        let documents = documents::of_messages(wanted.source.table(), messages);
        Ok(Pulled { documents, checkpoint, is_up_to_date: told.is_up_to_date, is_anew })
    }

    /// The documents that are not as their client assumed.
    async fn push(
        self: Arc<Self>,
        table: String,
        asked: Asked,
        body: axum::body::Body,
    ) -> Result<Vec<Document>, Refusal> {
        let Some(pushes) = &self.pushes else { return Err(Refusal::wrong("table", "is not writable here")) };
        let read = self.changes(pushes, table, &asked, body).await;
        let (wanted, claims, pushed) =
            read.inspect_err(|refusal| pushes.figures().count(refused_as(refusal.status)))?;
        let table = wanted.source.table();
        let mut conflicts = Vec::new();
        for (row, op, push) in pushed {
            let answer =
                carry_out(pushes.clone(), self.feed.clone(), push, claims.clone(), None).await.map_err(failed)?;
            let Some(outcome) = answer.results.first().filter(|outcome| outcome.status != Status::Applied) else {
                continue;
            };
            let now = outcome.now.as_ref().map(|now| serde_json::from_str::<Value>(now.get()).unwrap_or_default());
            conflicts.push(as_it_is(table, &row, op, now));
        }
        Ok(conflicts)
    }

    /// What is pushed, by whom.
    async fn changes(
        &self,
        pushes: &Pushes,
        table: String,
        asked: &Asked,
        body: axum::body::Body,
    ) -> Result<(Wanted, Claims, Vec<(Row, Op, Push)>), Refusal> {
        let start = Checkpoint { handle: String::new(), offset: "-1".to_owned() };
        let wanted = self.wanted(table, asked, start).await?;
        let table = wanted.source.table();
        let claims = self.feed.bearer(&asked.1).await?.claims;
        let rows: Vec<Row> = self.body(&asked.1, body).await?;
        if rows.len() > MOST_PUSHED {
            return Err(Refusal::wrong("body", format!("has more than {MOST_PUSHED} documents: set batchSize")));
        }
        let mut pushed = Vec::new();
        for (i, row) in rows.into_iter().enumerate() {
            let assumed = row.assumed_master_state.as_ref();
            let Some(change) = documents::change(table, &row.new_document_state, assumed) else { continue };
            let body = json!({"client": CLIENT, "changes": [change.json]}).to_string();
            let push = Push::read(pushes.writables(), &body, &Uuid::new_v4().to_string());
            let push = push.map_err(|wrong| Refusal::wrong(&format!("[{i}] {}", wrong.path), wrong.problem))?;
            pushed.push((row, change.op, push));
        }
        Ok((wanted, claims, pushed))
    }
}

/// A document as it is where a change was not taken: the row, or what its client assumed where that is not told.
fn as_it_is(table: &Table, row: &Row, op: Op, now: Option<Value>) -> Document {
    match (now, &row.assumed_master_state) {
        (Some(Value::Object(now)), _) => documents::of_row(table, now, false),
        (None, Some(assumed)) if op != Op::Insert => assumed.clone(),
        _ => documents::gone(table, &row.new_document_state),
    }
}

fn failed(failure: Failure) -> Refusal {
    match failure {
        Failure::Forbidden(problem) => Refusal::with_status(StatusCode::FORBIDDEN, "token", problem),
        Failure::KeyTaken => Refusal::not_now("not taken now: push again"),
        Failure::Again(error) => {
            match error.needs_operator() {
                true => tracing::error!(%error, "a push is not taken"),
                false => tracing::warn!(%error, "a push is not taken"),
            }
            Refusal::not_now("not taken now: push again")
        }
    }
}

/// A path that is sent something: who is asked, for which table, by whom, and what is sent.
fn sent<T: Serialize + 'static, F: Future<Output = Result<T, Refusal>> + Send + 'static>(
    answer: fn(Arc<Rx>, String, Asked, axum::body::Body) -> F,
) -> MethodRouter<Arc<Rx>> {
    post(move |State(rx), Path(table), query, request: Request| async move {
        let (head, body) = request.into_parts();
        match answer(rx, table, (query, head.headers), body).await {
            Ok(answer) => Json(answer).into_response(),
            Err(refusal) => refusal.into_response(),
        }
    })
}

/// Tells when to pull: at first, and whenever its rows have changed.
async fn stream(
    State(rx): State<Arc<Rx>>,
    Extension(visit): Extension<Visit>,
    Path(table): Path<String>,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let now = Checkpoint { handle: String::new(), offset: "now".to_owned() };
    let following = async {
        let mut wanted = rx.read(&table, &(query, headers), now).await?;
        let answer = ask(&wanted).await;
        wanted.count(Outcome::of(&answer));
        match answer {
            Ok(Answer::Messages(told) | Answer::Nothing(told)) => {
                (wanted.offset, wanted.handle) = (told.offset, Some(told.handle));
                Ok(wanted)
            }
            other => Err(why_not(&other)),
        }
    };
    match visit.sharing(following).await {
        Ok(wanted) => {
            let tell = |_: &_, is_news| if is_news { vec![RESYNC] } else { Vec::new() };
            follow(Response::default(), rx.feed.clone(), &wanted, vec![RESYNC], tell)
        }
        Err(refusal) => refusal.into_response(),
    }
}
