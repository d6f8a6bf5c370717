//! The body of a request → [`Push`], completely checked against what clients may write. No IO.

use super::change::{Base, Change, known_columns};
use super::policy;
use crate::core::json::edit;
use crate::core::schema::{Conflict, Op, Table, Writable};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most changes of a request: each is a statement, and all of them hold their locks to its end.
const MOST_CHANGES: usize = 500;

/// Longest name of a client, and longest key: both stand in the journal's index.
const NAME_BYTES: usize = 200;

/// Tables that clients may write, by the names that they go by.
#[derive(Debug, Clone, Default)]
pub struct Writables(BTreeMap<String, Vec<Arc<Table>>>);

impl Writables {
    /// Those of these tables that are writable.
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a Arc<Table>>) -> Self {
        let mut found = Self::default();
        for table in tables.into_iter().filter(|table| table.writable.is_some()) {
            let mut names = vec![table.name.clone(), table.source.written(), table.source.quoted()];
            names.sort();
            names.dedup();
            for name in names {
                found.0.entry(name).or_default().push(table.clone());
            }
        }
        found
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Like `changes[0].set.name`.
    pub path: String,
    /// What is wrong. Names of the request, no values.
    pub problem: String,
}

fn invalid<T>(path: impl Into<String>, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { path: path.into(), problem: problem.into() })
}

/// A checked request.
#[derive(Debug)]
pub struct Push {
    /// Which copy of the application asks.
    pub(super) client: String,
    /// What it calls this request, each time that it sends it.
    pub(super) key: String,
    pub(super) changes: Vec<Change>,
}

type Members<'a> = Vec<(String, &'a RawValue)>;

impl Push {
    /// The tables that it writes, by their names.
    pub fn tables(&self) -> BTreeSet<&str> {
        self.changes.iter().map(|change| change.table.name.as_str()).collect()
    }

    /// Reads a request. `key` is its `Idempotency-Key`.
    pub fn read(writables: &Writables, body: &str, key: &str) -> Result<Self, Invalid> {
        let members = object(body, "body")?;
        known(&members, &["client", "changes"], "body")?;
        let client = text(&members, "client", "body")?;
        name(&client, "client")?;
        name(key, "idempotency-key")?;
        let Some(list) = member(&members, "changes") else { return invalid("changes", "is missing") };
        let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
            return invalid("changes", "must be a list");
        };
        if list.is_empty() || list.len() > MOST_CHANGES {
            return invalid("changes", format!("must be 1 to {MOST_CHANGES} changes"));
        }
        let change = |(i, raw): (usize, &&RawValue)| Change::read(writables, raw.get(), &format!("changes[{i}]"));
        let changes = list.iter().enumerate().map(change).collect::<Result<_, _>>()?;
        Ok(Self { client, key: key.to_owned(), changes })
    }

    /// What it asks for, by a digest: the same key with another request is a mistake.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for change in &self.changes {
            let base = change.base.as_ref().map(|base| base.json.as_str());
            for part in [&change.table.name, change.op.name(), &change.row, base.unwrap_or_default()] {
                digest.update(part.len().to_be_bytes());
                digest.update(part.as_bytes());
            }
        }
        hex::encode(digest.finalize())
    }
}

impl Change {
    fn read(writables: &Writables, json: &str, path: &str) -> Result<Self, Invalid> {
        let members = object(json, path)?;
        known(&members, &["table", "op", "key", "set", "base"], path)?;
        let name = text(&members, "table", path)?;
        let (table, writable) = match writables.0.get(&name).map(Vec::as_slice) {
            Some([table]) => match &table.writable {
                Some(writable) => (table.clone(), writable.clone()),
                None => return invalid(format!("{path}.table"), "is not writable"),
            },
            Some(_) => {
                return invalid(format!("{path}.table"), "is writable by several queues: rename it in one of them");
            }
            None => return invalid(format!("{path}.table"), "is not writable"),
        };
        let Some(op) = Op::parse(&text(&members, "op", path)?) else {
            return invalid(format!("{path}.op"), "must be insert, update or delete");
        };
        if !writable.ops.contains(&op) {
            return invalid(format!("{path}.op"), "is not one that this table takes");
        }
        let part = |name: &str| match member(&members, name) {
            Some(raw) => object(raw.get(), &format!("{path}.{name}")).map(Some),
            None => Ok(None),
        };
        let key = key(&table, part("key")?, &format!("{path}.key"))?;
        let set = set(&writable, op, part("set")?.unwrap_or_default(), &format!("{path}.set"))?;
        let base =
            part("base")?.map(|base| Base::read(&table, &writable, base, &format!("{path}.base"))).transpose()?;
        let row = joined(key.iter().chain(&set));
        let set = set.into_iter().map(|(name, _)| name).collect();
        let change = Self { table, writable, op, set, row, base };
        policy::check(&change).map_err(|(part, problem)| Invalid { path: format!("{path}.{part}"), problem })?;
        Ok(change)
    }
}

impl Base {
    fn read(table: &Table, writable: &Writable, members: Members<'_>, path: &str) -> Result<Self, Invalid> {
        let columns = known_columns(table, writable);
        if let Some((name, _)) = members.iter().find(|(name, _)| !columns.contains(&name.as_str())) {
            return invalid(format!("{path}.{name}"), "is no column that clients of this table know");
        }
        let is_key = |name: &str| table.key_columns().any(|column| column.name == name);
        let kept: Members<'_> = members.into_iter().filter(|(name, _)| !is_key(name)).collect();
        Ok(Self { json: joined(kept.iter()), columns: kept.into_iter().map(|(name, _)| name).collect() })
    }
}

fn key<'a>(table: &Table, members: Option<Members<'a>>, path: &str) -> Result<Members<'a>, Invalid> {
    let Some(members) = members else { return invalid(path, "is missing: it says which row") };
    let names: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
    if let Some((name, _)) = members.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        return invalid(format!("{path}.{name}"), "is no column of the key");
    }
    match names.iter().find(|name| member(&members, name).is_none_or(|value| value.get() == "null")) {
        Some(name) => invalid(format!("{path}.{name}"), "is missing"),
        None => Ok(members),
    }
}

fn set<'a>(writable: &Writable, op: Op, members: Members<'a>, path: &str) -> Result<Members<'a>, Invalid> {
    if let Some((name, _)) = members.iter().find(|(name, _)| !writable.columns.contains(name)) {
        return invalid(format!("{path}.{name}"), "is no column that clients may set");
    }
    if let Conflict::LastWriteWins { stamp } = &writable.conflict
        && member(&members, stamp).is_none_or(|value| value.get() == "null")
    {
        return invalid(format!("{path}.{stamp}"), "is missing: the later one wins, by this time");
    }
    match op {
        Op::Update if members.is_empty() => invalid(path, "is missing: an update sets columns"),
        _ => Ok(members),
    }
}

fn object<'a>(json: &'a str, path: &str) -> Result<Members<'a>, Invalid> {
    let Some(members) = edit::members(json) else { return invalid(path, "must be a JSON object") };
    let mut names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => invalid(format!("{path}.{}", pair[0]), "is there twice"),
        None => Ok(members),
    }
}

fn known(members: &Members<'_>, names: &[&str], path: &str) -> Result<(), Invalid> {
    match members.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) => invalid(format!("{path}.{name}"), format!("is unknown; known are {}", names.join(", "))),
        None => Ok(()),
    }
}

fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw)
}

fn text(members: &Members<'_>, name: &str, path: &str) -> Result<String, Invalid> {
    match member(members, name).map(|raw| serde_json::from_str(raw.get())) {
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => invalid(format!("{path}.{name}"), "must be text"),
        None => invalid(format!("{path}.{name}"), "is missing"),
    }
}

fn name(text: &str, path: &str) -> Result<(), Invalid> {
    match text.is_empty() || text.len() > NAME_BYTES || text.contains(char::is_control) {
        true => invalid(path, format!("must be 1 to {NAME_BYTES} bytes, without control characters")),
        false => Ok(()),
    }
}

/// A JSON object of members whose values stay as they were written, to the last digit.
fn joined<'a>(members: impl Iterator<Item = &'a (String, &'a RawValue)>) -> String {
    let member =
        |(name, raw): &(String, &RawValue)| format!("{}:{}", serde_json::Value::from(name.as_str()), raw.get());
    format!("{{{}}}", members.map(member).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    const TABLES: &str = r#"{
        "todos": {"primaryKey":["org","id"],"columns":{"org":"TEXT","id":"INTEGER","title":"TEXT","n":"DECIMAL","hidden":"TEXT"},
            "feed": {"public": true, "columns": ["title", "n"]},
            "writable": {"columns":["title"],"ops":["insert","update"]}},
        "notes": {"primaryKey":"id","columns":{"id":"TEXT","at":"TEXT"},
            "writable": {"columns":["at"],"ops":["update","delete"],"conflict":"last-write-wins","stamp":"at"}},
        "read": {"primaryKey":"id","columns":{"id":"TEXT"}}}"#;

    fn writables() -> Writables {
        Writables::of(Schema::parse(TABLES).unwrap().tables())
    }

    fn read(change: &str) -> Result<Push, Invalid> {
        Push::read(&writables(), &format!(r#"{{"client":"c","changes":[{change}]}}"#), "k")
    }

    #[test]
    fn values_stay_as_they_were_written() {
        let push = read(
            r#"{"table":"todos","op":"update","key":{"id":9007199254740993,"org":"a"},"set":{"title":"x\u00e4"},"base":{"id":1,"title":null,"n":1.10000000000000000001}}"#,
        )
        .unwrap();
        let change = &push.changes[0];
        assert_eq!(change.row, r#"{"id":9007199254740993,"org":"a","title":"x\u00e4"}"#);
        assert_eq!(change.base.as_ref().unwrap().json, r#"{"title":null,"n":1.10000000000000000001}"#);
        assert_eq!(
            (&change.set[..], &change.base.as_ref().unwrap().columns[..]),
            (&["title".to_owned()][..], &["title".to_owned(), "n".into()][..])
        );
        let by_source = read(r#"{"table":"public.todos","op":"insert","key":{"id":1,"org":"a"}}"#).unwrap();
        assert_ne!(push.digest(), by_source.digest());
    }

    #[test]
    fn whatever_is_not_named_by_the_schema_is_refused() {
        let key = r#""key":{"id":1,"org":"a"}"#;
        for (change, path) in [
            ("1".to_owned(), "changes[0]"),
            ("{}".into(), "changes[0].table"),
            (r#"{"table":"nope"}"#.into(), "changes[0].table"),
            (r#"{"table":"read","op":"update"}"#.into(), "changes[0].table"),
            (r#"{"table":"todos\"; drop table x","op":"update"}"#.into(), "changes[0].table"),
            (format!(r#"{{"table":"todos","op":"upsert",{key}}}"#), "changes[0].op"),
            (format!(r#"{{"table":"todos","op":"delete",{key}}}"#), "changes[0].op"),
            (r#"{"table":"todos","op":"insert"}"#.into(), "changes[0].key"),
            (r#"{"table":"todos","op":"insert","key":[1]}"#.into(), "changes[0].key"),
            (r#"{"table":"todos","op":"insert","key":{"id":1}}"#.into(), "changes[0].key.org"),
            (r#"{"table":"todos","op":"insert","key":{"id":1,"org":null}}"#.into(), "changes[0].key.org"),
            (r#"{"table":"todos","op":"insert","key":{"id":1,"org":"a","title":"x"}}"#.into(), "changes[0].key.title"),
            (r#"{"table":"todos","op":"insert","key":{"id":1,"id":2,"org":"a"}}"#.into(), "changes[0].key.id"),
            (format!(r#"{{"table":"todos","op":"insert",{key},"set":{{"hidden":1}}}}"#), "changes[0].set.hidden"),
            (format!(r#"{{"table":"todos","op":"insert",{key},"set":{{"id":1}}}}"#), "changes[0].set.id"),
            (format!(r#"{{"table":"todos","op":"insert",{key},"base":{{}}}}"#), "changes[0].base"),
            (format!(r#"{{"table":"todos","op":"update",{key}}}"#), "changes[0].set"),
            (format!(r#"{{"table":"todos","op":"update",{key},"set":{{"title":1}}}}"#), "changes[0].base"),
            (
                format!(r#"{{"table":"todos","op":"update",{key},"set":{{"title":1}},"base":{{"n":1}}}}"#),
                "changes[0].base.title",
            ),
            (
                format!(r#"{{"table":"todos","op":"update",{key},"set":{{"title":1}},"base":{{"hidden":1}}}}"#),
                "changes[0].base.hidden",
            ),
            (format!(r#"{{"table":"todos","op":"update",{key},"why":1}}"#), "changes[0].why"),
            (r#"{"table":"notes","op":"delete","key":{"id":"a"}}"#.into(), "changes[0].set.at"),
            (r#"{"table":"notes","op":"update","key":{"id":"a"},"set":{"at":null}}"#.into(), "changes[0].set.at"),
        ] {
            assert_eq!(read(&change).map(drop).unwrap_err().path, path, "{change}");
        }
    }

    #[test]
    fn a_request_has_a_client_a_key_and_so_many_changes() {
        let change = r#"{"table":"todos","op":"insert","key":{"id":1,"org":"a"}}"#;
        let many = vec![change; MOST_CHANGES + 1].join(",");
        for (body, key, path) in [
            ("", "k", "body"),
            ("[]", "k", "body"),
            (r#"{"changes":[]}"#, "k", "body.client"),
            (r#"{"client":1}"#, "k", "body.client"),
            (r#"{"client":""}"#, "k", "client"),
            (r#"{"client":"c"}"#, "", "idempotency-key"),
            (r#"{"client":"c"}"#, &"k".repeat(NAME_BYTES + 1), "idempotency-key"),
            (r#"{"client":"c"}"#, "k", "changes"),
            (r#"{"client":"c","changes":{}}"#, "k", "changes"),
            (r#"{"client":"c","changes":[]}"#, "k", "changes"),
            (r#"{"client":"c","changes":[],"more":1}"#, "k", "body.more"),
            (&format!(r#"{{"client":"c","changes":[{many}]}}"#), "k", "changes"),
        ] {
            let refused = Push::read(&writables(), body, key).map(drop).unwrap_err();
            assert_eq!(refused.path, path, "{body:.80}");
        }
    }
}
