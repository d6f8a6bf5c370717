//! What an answer says, in pieces that many answers share. No IO.

use super::encode::{Messages, SEPARATOR, snapshot_end, up_to_date};
use super::memory::{Memory, Taken};
use crate::core::token::Seen;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// Messages that belong together: all of a part of a table, or of what a cut has changed.
#[derive(Debug)]
pub struct Piece {
    /// Whoever sends them holds their memory.
    messages: Bytes,
    /// The same as server-sent events.
    events: OnceLock<Bytes>,
    memory: Memory,
}

/// A text, and its memory for as long as anybody sends a part of it.
struct Held {
    text: String,
    _memory: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Piece {
    /// These messages; `None` where there is no memory for them.
    pub(super) fn of(messages: Messages, memory: &Memory) -> Option<Self> {
        let taken = memory.take(messages.bytes())?;
        let messages = Bytes::from_owner(Held { text: messages.into_text(), _memory: taken });
        Some(Self { messages, events: OnceLock::new(), memory: memory.clone() })
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn events(&self) -> &Bytes {
        let all = || {
            let text = std::str::from_utf8(&self.messages).unwrap_or_default();
            let messages = text.split(SEPARATOR).filter(|message| !message.is_empty());
            let text: String = messages.map(|message| format!("data: {message}\n\n")).collect();
            // They are a little longer than what there was room for.
            match self.memory.take(text.len()) {
                Some(taken) => Bytes::from_owner(Held { text, _memory: taken }),
                None => text.into(),
            }
        };
        self.events.get_or_init(all)
    }
}

/// What an answer says.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Rows and changes, in their order.
    pub(super) pieces: Vec<Arc<Piece>>,
    /// Whoever has all before has all there is at this cut.
    pub(super) up_to_date: Option<i64>,
    /// What that sees of the source, where clients write there.
    pub(super) snapshot: Option<Arc<Seen>>,
}

impl Body {
    /// Nothing but that there is nothing more, at this cut.
    pub(super) fn at(cut: i64) -> Self {
        Self { pieces: Vec::new(), up_to_date: Some(cut), snapshot: None }
    }

    /// Whether it tells of no row.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// The messages behind all rows.
    fn end(&self) -> impl Iterator<Item = String> {
        let end = self.up_to_date.into_iter();
        end.flat_map(|cut| self.snapshot.iter().map(|seen| snapshot_end(seen)).chain([up_to_date(cut)]))
    }

    /// As a JSON array, in parts.
    pub fn json(&self) -> Vec<Bytes> {
        let mut parts = vec![Bytes::from_static(b"[")];
        let end = self.end().map(Bytes::from);
        let said = self.pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.messages.clone());
        for (i, part) in said.chain(end).enumerate() {
            if i > 0 {
                parts.push(Bytes::from_static(SEPARATOR.as_bytes()));
            }
            parts.push(part);
        }
        parts.push(Bytes::from_static(b"]"));
        parts
    }

    /// As lists of messages that are of about so many bytes, or of one that is longer: what is between the brackets of each,
    /// in parts between which there is a comma.
    pub fn lists(&self, bytes: usize) -> Vec<Vec<Bytes>> {
        let said = self.pieces.iter().flat_map(|piece| cuts(&piece.messages, bytes)).chain(self.end().map(Bytes::from));
        let mut lists: Vec<Vec<Bytes>> = Vec::new();
        let mut held = 0;
        for part in said {
            match lists.last_mut() {
                Some(list) if held + part.len() <= bytes => {
                    held += part.len();
                    list.push(part);
                }
                _ => {
                    held = part.len();
                    lists.push(vec![part]);
                }
            }
        }
        lists
    }

    /// As server-sent events, in parts.
    pub fn events(&self) -> Vec<Bytes> {
        let end = self.end().map(|message| Bytes::from(format!("data: {message}\n\n")));
        let said = self.pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.events().clone());
        said.chain(end).collect()
    }
}

/// Messages in parts of about so many bytes, which share theirs.
fn cuts(messages: &Bytes, bytes: usize) -> Vec<Bytes> {
    let (mut parts, mut rest) = (Vec::new(), messages.clone());
    while !rest.is_empty() {
        // None has a line break within.
        let is_break = |b: &u8| *b == b'\n';
        let near = rest[..rest.len().min(bytes)].iter().rposition(is_break);
        let next = near.or_else(|| rest.iter().position(is_break)).filter(|_| rest.len() > bytes);
        match next {
            Some(at) => {
                let part = rest.split_to(at + 1);
                parts.push(part.slice(..part.len() - SEPARATOR.len()));
            }
            None => parts.push(std::mem::take(&mut rest)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_array_or_events() {
        let memory = Memory::new(100);
        let piece = |text: &str| {
            let messages = Bytes::from_owner(Held { text: text.into(), _memory: memory.take(text.len()).unwrap() });
            Arc::new(Piece { messages, events: OnceLock::new(), memory: memory.clone() })
        };
        let text = |parts: Vec<Bytes>| String::from_utf8(parts.concat()).unwrap();
        let end = r#"{"headers":{"control":"up-to-date","global_last_seen_lsn":"7"}}"#;
        let both = Body { pieces: vec![piece("1,\n2"), piece(""), piece("3")], up_to_date: Some(7), snapshot: None };
        assert_eq!(text(both.json()), format!("[1,\n2,\n3,\n{end}]"));
        assert_eq!(text(both.events()), format!("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: {end}\n\n"));
        let seen = Body { snapshot: Seen::parse("10:20:12").map(Arc::new), ..Body::at(7) };
        let snapshot = r#"{"headers":{"control":"snapshot-end","xip_list":["12"],"xmax":"20","xmin":"10"}}"#;
        assert_eq!(text(seen.json()), format!("[{snapshot},\n{end}]"));
        let rows = Body { pieces: vec![piece("1")], up_to_date: None, snapshot: None };
        assert_eq!((text(rows.json()), text(rows.events())), ("[1]".into(), "data: 1\n\n".into()));
        let nothing = Body { pieces: vec![piece("")], up_to_date: None, snapshot: None };
        assert_eq!((text(nothing.json()), text(nothing.events())), ("[]".into(), String::new()));
        assert!(nothing.is_empty() && !both.is_empty());
    }

    #[test]
    fn memory_is_taken_until_all_is_sent() {
        let memory = Memory::new(10);
        let messages = Bytes::from_owner(Held { text: "12345678".into(), _memory: memory.take(8).unwrap() });
        let piece = Piece { messages, events: OnceLock::new(), memory: memory.clone() };
        let body = Body { pieces: vec![Arc::new(piece)], ..Body::default() };
        let sent = body.json();
        drop(body);
        assert!(memory.take(3).is_none(), "it is on its way");
        drop(sent);
        assert!(memory.take(10).is_some());
    }

    #[test]
    fn lists_are_of_about_a_size_and_hold_all() {
        let texts: Vec<String> = (0..200).map(|i| format!("\"{}\"", "x".repeat(i * 7 % 90))).collect();
        let piece = |texts: &[String]| {
            let messages = Bytes::from(texts.join(SEPARATOR));
            Arc::new(Piece { messages, events: OnceLock::new(), memory: Memory::new(0) })
        };
        let pieces = vec![piece(&texts[..150]), piece(&[]), piece(&texts[150..152]), piece(&texts[152..])];
        let body = Body { pieces, up_to_date: Some(7), snapshot: None };
        for bytes in [1, 10, 64, 1000, 1 << 20] {
            let lists: Vec<String> = body
                .lists(bytes)
                .iter()
                .map(|list| list.iter().map(|part| str::from_utf8(part).unwrap()).collect::<Vec<_>>().join(","))
                .collect();
            let all: serde_json::Value = serde_json::from_str(&format!("[{}]", lists.join(","))).unwrap();
            let all = all.as_array().unwrap();
            assert_eq!(all.len(), 201, "{bytes}");
            assert!(all.iter().zip(&texts).all(|(one, text)| one == text.trim_matches('"')));
            assert!(lists.iter().all(|list| list.len() <= bytes + 200), "{bytes}");
        }
    }
}
