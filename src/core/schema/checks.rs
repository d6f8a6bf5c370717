//! What each part of `schema.json` is checked for: known members, usable names, columns that are there. No IO.

use super::names::NAME_BYTES;
use super::table::Column;
use crate::core::json::Node;

/// What is wrong with `schema.json`, with the JSON path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema.json: {path}: {problem}")]
pub struct SchemaError {
    /// Like `$.apps.columns.id`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

pub(super) fn wrong<T>(path: &str, problem: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError { path: path.to_owned(), problem: problem.into() })
}

pub(super) fn check_members(members: &[(String, Node)], known: &[&str], path: &str) -> Result<(), SchemaError> {
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in members {
        if !known.contains(&key.as_str()) {
            return wrong(&format!("{path}.{key}"), format!("is unknown; known are {}", known.join(", ")));
        }
        if seen.contains(&key.as_str()) {
            return wrong(&format!("{path}.{key}"), "is there twice; remove one");
        }
        seen.push(key);
    }
    Ok(())
}

pub(super) fn check_name(name: &str, path: &str) -> Result<(), SchemaError> {
    if name.is_empty() || name.contains('\0') {
        return wrong(path, "is not a usable name: it is empty or holds a NUL");
    }
    if name.len() > NAME_BYTES {
        return wrong(path, format!("is longer than the {NAME_BYTES} bytes that Postgres keeps of a name"));
    }
    Ok(())
}

pub(super) fn column_list(node: &Node, columns: &[Column], path: &str) -> Result<Vec<usize>, SchemaError> {
    let names: Vec<&Node> = match node {
        Node::String(_) => vec![node],
        Node::Array(list) if !list.is_empty() => list.iter().collect(),
        _ => return wrong(path, "must be a column or a list of columns"),
    };
    let mut positions = Vec::with_capacity(names.len());
    for (i, node) in names.iter().enumerate() {
        let path = if names.len() > 1 { format!("{path}[{i}]") } else { path.to_owned() };
        let Node::String(name) = node else {
            return wrong(&path, "must be the name of a column");
        };
        let Some(position) = columns.iter().position(|c| c.name == *name) else {
            return wrong(&path, format!("names the column {name:?}, which columns does not have"));
        };
        if positions.contains(&position) {
            return wrong(&path, format!("names the column {name:?} twice"));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// `a.b`, where a part may be quoted as in SQL; unquoted parts are taken as they stand.
pub(super) fn split_qualified(text: &str) -> Option<(String, String)> {
    let (schema, rest) = take_part(text)?;
    let (table, end) = take_part(rest.strip_prefix('.')?)?;
    end.is_empty().then_some((schema, table))
}

fn take_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (part, rest) = text.split_at(end);
        return (!part.is_empty()).then(|| (part.to_owned(), rest));
    };
    let mut part = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Some((part, rest)),
        }
    }
}
