//! What is asked for, as it was written: in the query of a request, or in a message of a socket. Whether that is there to be
//! asked for is not judged here. No IO.

use super::refusal::Refusal;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is asked for, in the words of who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub table: Option<String>,
    pub offset: Option<String>,
    pub handle: Option<String>,
    pub columns: Option<Vec<String>>,
    pub condition: Option<String>,
    /// By their numbers.
    pub parameters: BTreeMap<u32, String>,
    /// It waits for what becomes of it.
    pub is_live: bool,
    /// By server-sent events.
    pub is_stream: bool,
}

impl Question {
    /// Of a query.
    pub fn of_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let is_true = |name: &str| get(name).as_deref() == Some("true");
        let unserved =
            |key: &&String| key.starts_with("subset__") || *key == "log" && get("log").as_deref() != Some("full");
        if let Some(key) = query.iter().map(|(key, _)| key).find(unserved) {
            return Err(Refusal::wrong(key, "is not served: all rows of a shape come"));
        }
        let names = |text: String| text.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect();
        let number = |key: &str| key.strip_prefix("params[")?.strip_suffix(']')?.parse().ok();
        let is_live = is_true("live");
        Ok(Self {
            table: get("table"),
            offset: get("offset"),
            handle: get("handle"),
            columns: get("columns").map(names),
            condition: get("where"),
            parameters: query.iter().filter_map(|(key, value)| Some((number(key)?, value.clone()))).collect(),
            is_live,
            is_stream: is_live && (is_true("live_sse") || is_true("experimental_live_sse")),
        })
    }

    /// Of a message's members.
    pub fn of_members(members: &Map<String, Value>) -> Result<Self, Refusal> {
        Ok(Self {
            table: text(members, "table")?,
            offset: text(members, "offset")?,
            handle: text(members, "handle")?,
            columns: present(members, "columns").map(columns).transpose()?,
            condition: text(members, "where")?,
            parameters: present(members, "params").map(parameters).transpose()?.unwrap_or_default(),
            is_live: false,
            is_stream: false,
        })
    }
}

/// A member that is there, and is something.
fn present<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

/// A member that is a text, where it is there.
pub(super) fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| Refusal::wrong(name, "must be a text"));
    present(members, name).map(text).transpose()
}

fn columns(value: &Value) -> Result<Vec<String>, Refusal> {
    let names = value.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    names.ok_or_else(|| Refusal::wrong("columns", "must be a list of names"))
}

/// `["a"]` or `{"1": "a"}`.
fn parameters(value: &Value) -> Result<BTreeMap<u32, String>, Refusal> {
    let wrong =
        || Refusal::wrong("params", "must be a list of texts, numbers, true or false, or an object of them by $n");
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(is_so) => Ok(is_so.to_string()),
        _ => Err(wrong()),
    };
    match value {
        Value::Array(values) => (1..).zip(values).map(|(number, value)| Ok((number, text(value)?))).collect(),
        Value::Object(values) => {
            values.iter().map(|(number, value)| Ok((number.parse().map_err(|_| wrong())?, text(value)?))).collect()
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_query_and_a_message_ask_the_same() {
        let query = [
            ("table", "todos"),
            ("offset", "1_0"),
            ("handle", "h"),
            ("columns", "id, \"title\""),
            ("where", "org = $1 AND done = $2"),
            ("params[1]", "a"),
            ("params[2]", "true"),
            ("log", "full"),
        ];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let message = json!({"table": "todos", "offset": "1_0", "handle": "h", "columns": ["id", "title"],
            "where": "org = $1 AND done = $2", "params": ["a", true]});
        let asked = Question::of_members(message.as_object().unwrap());
        assert_eq!(Question::of_query(&query), asked);
        let mut named = message.clone();
        named["params"] = json!({"2": "true", "1": "a"});
        assert_eq!(Question::of_members(named.as_object().unwrap()), asked);
    }

    #[test]
    fn what_is_no_question_says_what_is_wrong_with_it() {
        for (message, about) in [
            (json!({"table": 1}), "table"),
            (json!({"offset": -1}), "offset"),
            (json!({"handle": ["h"]}), "handle"),
            (json!({"columns": "id"}), "columns"),
            (json!({"columns": ["id", 1]}), "columns"),
            (json!({"where": {}}), "where"),
            (json!({"params": "a"}), "params"),
            (json!({"params": [null]}), "params"),
            (json!({"params": {"x": "a"}}), "params"),
        ] {
            let refusal = Question::of_members(message.as_object().unwrap()).unwrap_err();
            assert!(refusal.members()["errors"][about].is_array(), "{message}");
        }
    }
}
