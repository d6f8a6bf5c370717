//! What a client says on a socket: one JSON object a message. No IO.

use crate::http::feed::question::{Question, text};
use crate::http::feed::refusal::Refusal;
use serde_json::Value;

/// Longest name of a shape.
const ID_BYTES: usize = 200;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Who it is, from now on.
    Token(String),
    /// What it wants, and what it calls that.
    Subscribe(String, Question),
    /// That it wants it no more.
    Unsubscribe(String),
}

/// What a message is not, and which shape it is of, where that is known.
pub(super) type Misheard = (Option<String>, Refusal);

impl Said {
    /// Reads a message.
    pub fn parse(message: &str) -> Result<Self, Misheard> {
        let wrong = |about: &str, problem: &str| (None, Refusal::wrong(about, problem));
        let Ok(Value::Object(members)) = serde_json::from_str(message) else {
            return Err(wrong("message", "must be a JSON object"));
        };
        let id = || match text(&members, "id").map_err(|refusal| (None, refusal))? {
            Some(id) if (1..=ID_BYTES).contains(&id.len()) => Ok(id),
            _ => Err(wrong("id", "must be a text of 1 to 200 bytes: what you call the shape")),
        };
        match members.get("type").and_then(Value::as_str) {
            Some("token") => match text(&members, "token").map_err(|refusal| (None, refusal))? {
                Some(token) => Ok(Self::Token(token)),
                None => Err(wrong("token", "is missing")),
            },
            Some("subscribe") => {
                let id = id()?;
                match Question::of_members(&members) {
                    Ok(question) => Ok(Self::Subscribe(id, question)),
                    Err(refusal) => Err((Some(id), refusal)),
                }
            }
            Some("unsubscribe") => Ok(Self::Unsubscribe(id()?)),
            _ => Err(wrong("type", "must be token, subscribe or unsubscribe")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_or_says_what_is_wrong_with_it() {
        let said = |text: &str| Said::parse(text);
        assert_eq!(said(r#"{"type":"token","token":"t"}"#), Ok(Said::Token("t".into())));
        assert_eq!(said(r#"{"type":"unsubscribe","id":"a"}"#), Ok(Said::Unsubscribe("a".into())));
        let question = Question { table: Some("t".into()), offset: Some("-1".into()), ..Question::default() };
        let subscribe = r#"{"type":"subscribe","id":"a","table":"t","offset":"-1","handle":null}"#;
        assert_eq!(said(subscribe), Ok(Said::Subscribe("a".into(), question)));
        let long = format!(r#"{{"type":"unsubscribe","id":"{}"}}"#, "x".repeat(ID_BYTES + 1));
        for (text, id, about) in [
            ("", None, "message"),
            ("[]", None, "message"),
            ("{", None, "message"),
            ("{}", None, "type"),
            (r#"{"type":1}"#, None, "type"),
            (r#"{"type":"push"}"#, None, "type"),
            (r#"{"type":"token"}"#, None, "token"),
            (r#"{"type":"token","token":1}"#, None, "token"),
            (r#"{"type":"subscribe","table":"t"}"#, None, "id"),
            (r#"{"type":"subscribe","id":7}"#, None, "id"),
            (r#"{"type":"subscribe","id":"a","table":7}"#, Some("a"), "table"),
            (r#"{"type":"unsubscribe"}"#, None, "id"),
            (r#"{"type":"unsubscribe","id":""}"#, None, "id"),
            (&long, None, "id"),
        ] {
            let (of, refusal) = said(text).unwrap_err();
            assert_eq!(of.as_deref(), id, "{text}");
            assert!(refusal.members()["errors"][about].is_array(), "{text}");
        }
    }
}
