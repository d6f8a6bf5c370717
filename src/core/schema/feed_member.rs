//! The member `feed` of a table's definition → [`Feed`]. No IO.

use super::checks::{SchemaError, check_members, column_list, wrong};
use super::feed::{self, Feed, Match, Readers};
use super::table::Column;
use crate::core::json::Node;

/// What it may hold.
const MEMBERS: [&str; 4] = ["public", "match", "columns", "filter"];

/// What is fed of a table of these columns, if anything; `key`: the key's positions.
pub(super) fn fed(
    node: Option<&Node>,
    columns: &[Column],
    key: &[usize],
    path: &str,
) -> Result<Option<Feed>, SchemaError> {
    let members = match node {
        None => return Ok(None),
        Some(Node::Object(members)) => members,
        Some(_) => return wrong(path, "must be an object, such as {\"public\": true}"),
    };
    check_members(members, &MEMBERS, path)?;
    let member = |name: &str| members.iter().find(|(k, _)| k == name).map(|(_, v)| v);
    let readers = match (member("public"), member("match")) {
        (Some(Node::Bool(true)), None) => Readers::Anybody,
        (None, Some(node)) => Readers::Matching(matches(node, columns, &format!("{path}.match"))?),
        (Some(Node::Bool(true)), Some(_)) => {
            return wrong(path, "says both who may read: leave out \"public\", or \"match\"");
        }
        (Some(_), _) => return wrong(&format!("{path}.public"), "must be true, or left out"),
        (None, None) => {
            return wrong(
                path,
                "must say who may read: \"public\": true is anybody who reaches FEED_BIND, \"match\": {\"org\": \"org_id\"} whoever has a token, the rows whose column org is its claim org_id",
            );
        }
    };
    if let Some(column) = columns.iter().find(|column| feed::is_rowid(&column.name)) {
        return wrong(
            path,
            format!("a table with a column {:?} is not fed: SQLite calls the number of a row so", column.name),
        );
    }
    if key.len() > feed::MOST_COLUMNS {
        return wrong(path, format!("a key of more than {} columns is not fed", feed::MOST_COLUMNS));
    }
    let list = |name: &str| match member(name) {
        None => Ok(None),
        Some(Node::Array(list)) if list.is_empty() => Ok(Some(Vec::new())),
        Some(node @ Node::Array(_)) => column_list(node, columns, &format!("{path}.{name}")).map(Some),
        Some(_) => wrong(&format!("{path}.{name}"), "must be a list of columns"),
    };
    let names = |positions: Vec<usize>| positions.into_iter().map(|i| columns[i].name.clone()).collect();
    let (shown, filter) = (list("columns")?, list("filter")?.unwrap_or_default());
    check_filter(&filter, shown.as_deref(), columns, key, &format!("{path}.filter"))?;
    let feed = Feed { readers, columns: shown.map(names), filter: names(filter) };
    match feed.compared().count() {
        0..=feed::MOST_COLUMNS => Ok(Some(feed)),
        _ => wrong(path, format!("tells rows apart by more than {} columns", feed::MOST_COLUMNS)),
    }
}

/// Columns and the claims that they are compared with.
fn matches(node: &Node, columns: &[Column], path: &str) -> Result<Vec<Match>, SchemaError> {
    let problem = "must name columns and claims, such as {\"org\": \"org_id\"}";
    let members = match node {
        Node::Object(members) if !members.is_empty() => members,
        _ => return wrong(path, problem),
    };
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut all = Vec::new();
    for (column, claim) in members {
        let path = format!("{path}.{column}");
        let Some(at) = columns.iter().find(|known| known.name == *column) else {
            return wrong(&path, format!("is no column of the table; its columns are {}", names.join(", ")));
        };
        if !at.kind.can_filter() {
            return wrong(
                &path,
                format!("is {}: only INTEGER, BOOLEAN and TEXT can be compared with a claim", at.kind.name()),
            );
        }
        match claim {
            Node::String(claim) if !claim.trim().is_empty() => {
                all.push(Match { column: column.clone(), claim: claim.clone() });
            }
            _ => return wrong(&path, "must be the name of a claim"),
        }
    }
    check_members(members, &names, path)?;
    Ok(all)
}

fn check_filter(
    filter: &[usize],
    shown: Option<&[usize]>,
    columns: &[Column],
    key: &[usize],
    path: &str,
) -> Result<(), SchemaError> {
    for column in filter.iter().map(|&i| &columns[i]) {
        if !column.kind.can_filter() {
            let problem = format!(
                "names {:?}, which is {}: only INTEGER, BOOLEAN and TEXT can be filtered by",
                column.name,
                column.kind.name()
            );
            return wrong(path, problem);
        }
    }
    let is_hidden = |i: &&usize| shown.is_some_and(|shown| !shown.contains(i)) && !key.contains(i);
    match filter.iter().find(is_hidden) {
        None => Ok(()),
        Some(hidden) => wrong(
            path,
            format!(
                "names {:?}, which `columns` does not: what may not be read may not be asked for",
                columns[*hidden].name
            ),
        ),
    }
}
