//! What is asked for, of what is there, and whether whoever asks may read that.

use super::fed::{Feed, Source};
use super::question::Question;
use super::refusal::Refusal;
use crate::feed::access;
use crate::feed::figures::Outcome;
use crate::feed::filter;
use crate::feed::follow::Follower;
use crate::feed::offset::Offset;
use crate::feed::shape::Shape;
use crate::http::tokens::Bearer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was asked for.
#[derive(Clone)]
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
    /// What is asked for; of a table that is read with a token, before it is known whose that is.
    pub fn read(feed: &Feed, question: &Question) -> Result<Self, Refusal> {
        let wrong = |about: &str, problem: String| Refusal::wrong(about, problem);
        let name =
            question.table.as_deref().ok_or_else(|| wrong("table", "is missing: name a table that is fed".into()))?;
        let source = match feed.tables.get(name).map(Vec::as_slice) {
            Some([source]) => source.clone(),
            Some(_) => {
                return Err(wrong("table", format!("{name:?} is fed by several syncs: rename it in one of them")));
            }
            None => return Err(wrong("table", format!("{name:?} is not fed"))),
        };
        let offset = question.offset.as_deref().ok_or_else(|| wrong("offset", "is missing: begin with -1".into()))?;
        let offset = Offset::parse(offset).ok_or_else(|| wrong("offset", "is none that was given".into()))?;
        let (handle, is_live) = (question.handle.clone(), question.is_live);
        if matches!(offset, Offset::At(..)) && handle.is_none() {
            return Err(wrong("handle", "is missing: it came with the offset".into()));
        }
        if is_live && offset == Offset::Start {
            return Err(wrong("live", "cannot be asked for before there are rows".into()));
        }
        let shape = shape(&source, question).map_err(|(about, problem)| wrong(about, problem))?;
        let (shape, is_stream) = (Arc::new(shape), question.is_stream);
        Ok(Self { source, shape, offset, handle, is_live, is_stream, until: None, subject: None })
    }

    /// Whether it is read with a token.
    pub fn needs_token(&self) -> bool {
        access::needs_token(self.source.table())
    }

    /// Whether it is of the same rows, for the same one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.shape.allowed == other.shape.allowed && self.subject == other.subject
    }

    /// Whether clients write its table.
    pub fn is_written(&self) -> bool {
        self.source.table().writable.is_some()
    }

    /// Of this only what somebody may read.
    pub fn of(mut self, bearer: Option<&Bearer>) -> Result<Self, Refusal> {
        self.subject = bearer.and_then(|bearer| bearer.claims.subject().map(str::to_owned));
        if self.needs_token() {
            let mut shape = Shape::clone(&self.shape);
            let claims = bearer.map(|bearer| &bearer.claims);
            access::restrict(&mut shape.allowed, self.source.table(), claims).map_err(|why| Refusal::denied(&why))?;
            self.shape = Arc::new(shape);
            self.until = bearer.map(|bearer| Instant::now() + bearer.rest());
        }
        Ok(self)
    }

    /// Counts what was answered.
    pub fn count(&self, outcome: Outcome) {
        self.source.board.figures().count(outcome);
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
}

fn shape(source: &Source, question: &Question) -> Result<Shape, (&'static str, String)> {
    let mut shape = Shape::of(source.table()).ok_or_else(|| ("table", "is not fed".to_owned()))?;
    if let Some(columns) = &question.columns {
        if columns.len() > source.table().columns.len() {
            return Err(("columns", "names more than there are".to_owned()));
        }
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        shape = shape.with_columns(&names).map_err(|problem| ("columns", problem))?;
    }
    if let Some(condition) = &question.condition {
        shape.allowed =
            filter::parse(condition, &question.parameters, &shape.table).map_err(|problem| ("where", problem))?;
    }
    Ok(shape)
}
