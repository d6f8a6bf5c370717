//! What members of `schema.json` are checked by, and what is wrong with them. No IO.

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

/// Refuses what is not known, or there twice.
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

/// Columns that are named, by their positions; none twice.
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
