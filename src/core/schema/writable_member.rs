//! The member `writable` of a table's definition → [`Writable`], completely checked. No IO.

use super::checks::{SchemaError, check_members, check_name, column_list, split_qualified, wrong};
use super::names::{SourceName, is_machinery};
use super::table::{Column, ColumnType};
use super::writable::{Conflict, Op, Writable};
use crate::core::json::Node;

/// What it may hold.
const MEMBERS: [&str; 6] = ["columns", "ops", "conflict", "stamp", "function", "unchecked"];

/// What its member `conflict` may say.
const POLICIES: [&str; 5] = ["merge", "server-wins", "client-wins", "last-write-wins", "custom"];

/// Reads the member `writable`.
pub(super) fn parse(
    node: Option<&Node>,
    columns: &[Column],
    key: &[usize],
    path: &str,
) -> Result<Option<Writable>, SchemaError> {
    let members = match node {
        None => return Ok(None),
        Some(Node::Object(members)) => members,
        Some(_) => return wrong(path, "must be an object, such as {\"columns\": [\"title\"], \"ops\": [\"update\"]}"),
    };
    check_members(members, &MEMBERS, path)?;
    let member = |name: &str| members.iter().find(|(k, _)| k == name).map(|(_, v)| v);
    let settable = settable(member("columns"), columns, key, &format!("{path}.columns"))?;
    let conflict = conflict(&member, columns, &settable, path)?;
    let unchecked = match member("unchecked") {
        None => false,
        Some(Node::Bool(unchecked)) => *unchecked,
        Some(_) => return wrong(&format!("{path}.unchecked"), "must be true or false"),
    };
    Ok(Some(Writable { columns: settable, ops: ops(member("ops"), &format!("{path}.ops"))?, conflict, unchecked }))
}

fn settable(node: Option<&Node>, columns: &[Column], key: &[usize], path: &str) -> Result<Vec<String>, SchemaError> {
    let positions = match node {
        Some(Node::Array(list)) if list.is_empty() => Vec::new(),
        Some(node @ Node::Array(_)) => column_list(node, columns, path)?,
        _ => return wrong(path, "must be the list of columns that clients may set"),
    };
    match positions.iter().find(|position| key.contains(position)) {
        Some(&position) => wrong(
            path,
            format!(
                "names {:?}, which is of the key: it comes with each change, and never changes",
                columns[position].name
            ),
        ),
        None => Ok(positions.into_iter().map(|position| columns[position].name.clone()).collect()),
    }
}

fn ops(node: Option<&Node>, path: &str) -> Result<Vec<Op>, SchemaError> {
    let known = "must be a list of \"insert\", \"update\" and \"delete\"";
    let Some(Node::Array(list)) = node.filter(|node| **node != Node::Array(Vec::new())) else {
        return wrong(path, known);
    };
    let mut ops = Vec::new();
    for (i, node) in list.iter().enumerate() {
        let op = match node {
            Node::String(name) => Op::parse(name),
            _ => None,
        };
        match op {
            Some(op) if ops.contains(&op) => return wrong(&format!("{path}[{i}]"), "is there twice; remove one"),
            Some(op) => ops.push(op),
            None => return wrong(&format!("{path}[{i}]"), known),
        }
    }
    Ok(ops)
}

fn conflict<'a>(
    member: &impl Fn(&str) -> Option<&'a Node>,
    columns: &[Column],
    settable: &[String],
    path: &str,
) -> Result<Conflict, SchemaError> {
    let name = match member("conflict") {
        None => "merge",
        Some(Node::String(name)) if POLICIES.contains(&name.as_str()) => name,
        Some(_) => return wrong(&format!("{path}.conflict"), format!("is unknown; known are {}", POLICIES.join(", "))),
    };
    for (needed, of) in [("stamp", "last-write-wins"), ("function", "custom")] {
        match member(needed) {
            Some(_) if name != of => {
                return wrong(&format!("{path}.{needed}"), format!("belongs to \"conflict\": \"{of}\""));
            }
            None if name == of => return wrong(&format!("{path}.{needed}"), format!("is missing: {of} goes by it")),
            _ => {}
        }
    }
    Ok(match name {
        "server-wins" => Conflict::ServerWins,
        "client-wins" => Conflict::ClientWins,
        "last-write-wins" => {
            Conflict::LastWriteWins { stamp: stamp(member("stamp"), columns, settable, &format!("{path}.stamp"))? }
        }
        "custom" => Conflict::Custom { function: function(member("function"), &format!("{path}.function"))? },
        _ => Conflict::Merge,
    })
}

fn stamp(node: Option<&Node>, columns: &[Column], settable: &[String], path: &str) -> Result<String, SchemaError> {
    let Some(Node::String(name)) = node else {
        return wrong(path, "must be the name of a column");
    };
    if !settable.contains(name) {
        return wrong(path, format!("names {name:?}, which `columns` beside it does not: each change sets it"));
    }
    if columns.iter().any(|column| column.name == *name && column.kind != ColumnType::Text) {
        return wrong(path, format!("names {name:?}, which is no time: it must be a timestamptz, declared TEXT"));
    }
    Ok(name.clone())
}

fn function(node: Option<&Node>, path: &str) -> Result<SourceName, SchemaError> {
    let Some(Node::String(text)) = node else {
        return wrong(path, "must be the name of a function, such as \"app.merge_todo\"");
    };
    let Some((schema, table)) = split_qualified(text) else {
        return wrong(path, "must be schema-qualified, such as \"app.merge_todo\" (quote parts that hold a dot)");
    };
    check_name(&schema, path)?;
    check_name(&table, path)?;
    if is_machinery(&schema) {
        return wrong(
            path,
            format!("names a function of the schema {schema:?}, which is machinery: write one of your own"),
        );
    }
    Ok(SourceName { schema, table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    fn of(writable: &str) -> Result<Writable, String> {
        let text = format!(
            r#"{{"t":{{"primaryKey":"id","columns":{{"id":"TEXT","name":"TEXT","at":"TEXT","n":"INTEGER"}},"writable":{writable}}}}}"#
        );
        let schema = Schema::parse(&text).map_err(|e| e.to_string())?;
        Ok(schema.get("t").unwrap().writable.clone().unwrap())
    }

    #[test]
    fn what_clients_may_write_is_said_by_column_and_by_op() {
        let plain = of(r#"{"columns":["name"],"ops":["update","delete"]}"#).unwrap();
        assert_eq!(plain.columns, ["name"]);
        assert_eq!(plain.ops, [Op::Update, Op::Delete]);
        assert_eq!((plain.conflict, plain.unchecked), (Conflict::Merge, false));
        let stamped = of(
            r#"{"columns":["name","at"],"ops":["update"],"conflict":"last-write-wins","stamp":"at","unchecked":true}"#,
        );
        let stamped = stamped.unwrap();
        assert_eq!((stamped.conflict, stamped.unchecked), (Conflict::LastWriteWins { stamp: "at".into() }, true));
        let custom = of(r#"{"columns":[],"ops":["update"],"conflict":"custom","function":"app.\"a.b\""}"#).unwrap();
        let function = SourceName { schema: "app".into(), table: "a.b".into() };
        assert_eq!(custom.conflict, Conflict::Custom { function });
    }

    #[test]
    fn each_mistake_is_refused_with_its_path() {
        for (writable, expected) in [
            ("true", "$.t.writable: must be an object"),
            ("{}", "$.t.writable.columns: must be the list"),
            (r#"{"columns":"name"}"#, "$.t.writable.columns: must be the list"),
            (r#"{"columns":["x"],"ops":["update"]}"#, "$.t.writable.columns: names the column \"x\""),
            (r#"{"columns":["id"],"ops":["update"]}"#, "$.t.writable.columns: names \"id\", which is of the key"),
            (r#"{"columns":["name"]}"#, "$.t.writable.ops: must be a list"),
            (r#"{"columns":["name"],"ops":[]}"#, "$.t.writable.ops: must be a list"),
            (r#"{"columns":["name"],"ops":["upsert"]}"#, "$.t.writable.ops[0]: must be a list"),
            (r#"{"columns":["name"],"ops":["update","update"]}"#, "$.t.writable.ops[1]: is there twice"),
            (r#"{"columns":["name"],"ops":["update"],"conflict":"mine"}"#, "$.t.writable.conflict: is unknown"),
            (r#"{"columns":["name"],"ops":["update"],"stamp":"name"}"#, "$.t.writable.stamp: belongs to"),
            (r#"{"columns":["name"],"ops":["update"],"conflict":"last-write-wins"}"#, "$.t.writable.stamp: is missing"),
            (
                r#"{"columns":["name"],"ops":["update"],"conflict":"last-write-wins","stamp":"at"}"#,
                "$.t.writable.stamp: names \"at\", which `columns`",
            ),
            (
                r#"{"columns":["n"],"ops":["update"],"conflict":"last-write-wins","stamp":"n"}"#,
                "$.t.writable.stamp: names \"n\", which is no time",
            ),
            (r#"{"columns":["name"],"ops":["update"],"conflict":"custom"}"#, "$.t.writable.function: is missing"),
            (
                r#"{"columns":["name"],"ops":["update"],"conflict":"custom","function":"f"}"#,
                "$.t.writable.function: must be schema-qualified",
            ),
            (
                r#"{"columns":["name"],"ops":["update"],"conflict":"custom","function":"pg_catalog.f"}"#,
                "$.t.writable.function: names a function of the schema",
            ),
            (r#"{"columns":["name"],"ops":["update"],"unchecked":1}"#, "$.t.writable.unchecked: must be true or false"),
            (r#"{"columns":["name"],"ops":["update"],"rls":false}"#, "$.t.writable.rls: is unknown"),
        ] {
            let error = of(writable).unwrap_err();
            assert!(error.starts_with(&format!("schema.json: {expected}")), "{writable}\n{error}");
        }
    }
}
