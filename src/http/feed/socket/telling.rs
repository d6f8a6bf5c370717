//! What a client is told on a socket, as texts of about one size: so much is held for a slow reader. No IO.

use crate::feed::answer::Told;
use crate::http::feed::refusal::Refusal;
use serde_json::{Map, Value, json};

/// Messages of an answer come together up to so many bytes; one that is longer comes alone.
pub(super) const PART_BYTES: usize = 32 << 10;

/// An answer, in parts: the last one says where it leads.
pub(super) fn answer(id: &str, told: &Told, with_schema: bool) -> Vec<Part> {
    let (begin, end) = (format!(r#"{{"id":{},"messages":["#, json!(id)), format!("],{}", place(told, with_schema)));
    let mut parts: Vec<Part> = told.body.lists(PART_BYTES).into_iter().map(|list| Part::new(&begin, list)).collect();
    match parts.last_mut() {
        Some(last) => last.end = end,
        None => parts.push(Part { begin, list: Vec::new(), end }),
    }
    parts
}

/// Part of an answer, which is put together when it is sent.
pub(super) struct Part {
    begin: String,
    list: Vec<bytes::Bytes>,
    end: String,
}

impl Part {
    fn new(begin: &str, list: Vec<bytes::Bytes>) -> Self {
        Self { begin: begin.to_owned(), list, end: "]}".to_owned() }
    }

    /// How long its text is.
    pub fn bytes(&self) -> usize {
        self.begin.len() + self.end.len() + self.list.iter().map(|part| part.len() + 1).sum::<usize>()
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes());
        text.push_str(&self.begin);
        for (i, part) in self.list.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            text.push_str(std::str::from_utf8(part).unwrap_or_default());
        }
        text.push_str(&self.end);
        text
    }
}

/// Where an answer leads, as the last members of a message.
fn place(told: &Told, with_schema: bool) -> String {
    let schema = told.schema.as_deref().filter(|_| with_schema);
    let schema = schema.map(|schema| format!(r#","schema":{schema}"#)).unwrap_or_default();
    format!(r#""offset":{},"handle":{}{schema}}}"#, json!(told.offset.to_string()), json!(told.handle))
}

/// That what a client has of a shape follows no more: it forgets its rows, and is told them by this handle.
pub(super) fn refetch(id: &str, handle: &str, body: &str) -> String {
    format!(r#"{{"id":{},"status":409,"handle":{},"messages":{body}}}"#, json!(id), json!(handle))
}

/// Why there is nothing to tell: of a shape, or of a message.
pub(super) fn refusal(id: Option<&str>, refusal: &Refusal) -> String {
    let mut members = refusal.members();
    if let Some(id) = id {
        members.insert("id".to_owned(), json!(id));
    }
    Value::Object(members).to_string()
}

/// That a token was taken, for so many seconds.
pub(super) fn taken(seconds: u64) -> String {
    Value::Object(Map::from_iter([("status".into(), json!(200)), ("expiresIn".into(), json!(seconds))])).to_string()
}
