//! What a request asks for, and whether its sender may read that.

use super::fed::{Feed, Source};
use super::responses::{Refusal, denied, refused, unknown};
use crate::feed::access::{self, Denied};
use crate::feed::filter;
use crate::feed::follow::Follower;
use crate::feed::offset::Offset;
use crate::feed::shape::Shape;
use axum::http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was asked for.
pub(super) struct Wanted {
    pub source: Arc<Source>,
    pub shape: Arc<Shape>,
    pub offset: Offset,
    pub handle: Option<String>,
    pub is_live: bool,
    /// It wants server-sent events.
    pub is_stream: bool,
    /// When its token ends.
    until: Option<Instant>,
    /// Whose it is.
    pub subject: Option<String>,
}

impl Wanted {
    /// What a query asks for.
    fn read(feed: &Feed, query: &[(String, String)]) -> Result<Self, Refusal> {
        let wrong = |about: &str, problem: String| Box::new(refused(StatusCode::BAD_REQUEST, about, problem));
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let is_true = |name: &str| get(name) == Some("true");
        let name = get("table").ok_or_else(|| wrong("table", "is missing: name a table that is fed".into()))?;
        let source = match feed.tables.get(name).map(Vec::as_slice) {
            Some([source]) => source.clone(),
            Some(_) => {
                return Err(wrong("table", format!("{name:?} is fed by several syncs: rename it in one of them")));
            }
            None => return Err(wrong("table", format!("{name:?} is not fed"))),
        };
        let offset = get("offset").ok_or_else(|| wrong("offset", "is missing: begin with -1".into()))?;
        let offset = Offset::parse(offset).ok_or_else(|| wrong("offset", "is none that was given".into()))?;
        let handle = get("handle").map(str::to_owned);
        let is_live = is_true("live");
        if matches!(offset, Offset::At(..)) && handle.is_none() {
            return Err(wrong("handle", "is missing: it came with the offset".into()));
        }
        if is_live && offset == Offset::Start {
            return Err(wrong("live", "cannot be asked for before there are rows".into()));
        }
        let unserved = |key: &&String| key.starts_with("subset__") || *key == "log" && get("log") != Some("full");
        if let Some(key) = query.iter().map(|(key, _)| key).find(unserved) {
            return Err(wrong(key, "is not served: all rows of a shape come".into()));
        }
        let shape = Self::shape(&source, query).map_err(|(about, problem)| wrong(about, problem))?;
        let is_stream = is_live && (is_true("live_sse") || is_true("experimental_live_sse"));
        let shape = Arc::new(shape);
        Ok(Self { source, shape, offset, handle, is_live, is_stream, until: None, subject: None })
    }

    /// What is asked for, of what whoever sends these headers may read.
    pub async fn of(feed: &Feed, query: &[(String, String)], headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut wanted = Self::read(feed, query)?;
        let table = wanted.source.table();
        if !access::needs_token(table) {
            // Whoever writes hears when that is there.
            if let (Some(tokens), true) = (&feed.tokens, wanted.is_live && table.writable.is_some()) {
                let bearer = tokens.bearer(headers).await.ok();
                wanted.subject = bearer.and_then(|bearer| bearer.claims.subject().map(str::to_owned));
            }
            return Ok(wanted);
        }
        let Some(tokens) = &feed.tokens else { return Err(Box::new(denied(&Denied::Anonymous))) };
        let bearer = tokens.bearer(headers).await.map_err(|refused| Box::new(unknown(&refused)))?;
        wanted.subject = bearer.claims.subject().map(str::to_owned);
        let mut shape = Shape::clone(&wanted.shape);
        let restricted = access::restrict(&mut shape.allowed, wanted.source.table(), Some(&bearer.claims));
        restricted.map_err(|why| Box::new(denied(&why)))?;
        (wanted.shape, wanted.until) = (Arc::new(shape), Some(Instant::now() + bearer.rest()));
        Ok(wanted)
    }

    /// One who waits, of one who has come to the end of the rows.
    pub fn follower(&self) -> Option<Follower> {
        let handle = self.handle.clone().filter(|_| self.is_live)?;
        let Source { herald, board } = &*self.source;
        let place = (self.offset, handle);
        Some(Follower::new((herald.clone(), board.clone()), self.shape.clone(), place, self.subject.as_deref()))
    }

    /// When what was asked for ends, of what goes on for so long.
    pub fn ends(&self, after: Duration) -> Instant {
        let end = Instant::now() + after;
        self.until.map_or(end, |until| until.min(end))
    }

    fn shape(source: &Source, query: &[(String, String)]) -> Result<Shape, (&'static str, String)> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mut shape = Shape::of(source.table()).ok_or_else(|| ("table", "is not fed".to_owned()))?;
        if let Some(columns) = get("columns") {
            let names: Vec<String> = columns.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect();
            if names.len() > source.table().columns.len() {
                return Err(("columns", "names more than there are".to_owned()));
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            shape = shape.with_columns(&names).map_err(|problem| ("columns", problem))?;
        }
        if let Some(condition) = get("where") {
            let number = |key: &str| key.strip_prefix("params[")?.strip_suffix(']')?.parse().ok();
            let parameters = query.iter().filter_map(|(key, value)| Some((number(key)?, value.clone()))).collect();
            shape.allowed =
                filter::parse(condition, &parameters, &shape.table).map_err(|problem| ("where", problem))?;
        }
        Ok(shape)
    }
}
