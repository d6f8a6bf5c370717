//! `schema.json` → [`Schema`]: parsed once, checked completely, wrong nowhere afterwards. No IO.

use super::checks::{SchemaError, check_members, check_name, column_list, split_qualified, wrong};
use super::ddl;
use super::feed_member::fed;
use super::names::{SourceName, is_machinery, is_reserved};
use super::table::{Column, ColumnType, Table};
use super::writable_member;
use crate::core::json::Node;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most columns of a table: SQLite's default SQLITE_MAX_COLUMN.
const MAX_COLUMNS: usize = 2000;

/// What a table's definition may hold.
const MEMBERS: [&str; 9] =
    ["primaryKey", "columns", "indexes", "source", "where", "lossy", "evolve", "feed", "writable"];

/// All replicated tables by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    tables: BTreeMap<String, Arc<Table>>,
}

impl Schema {
    /// Parses and checks the text of a `schema.json`.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let root: Node = serde_json::from_str(text).or_else(|e| wrong("$", format!("is not valid JSON ({e})")))?;
        let Node::Object(members) = root else {
            return wrong("$", "must be an object of table names and definitions");
        };
        let mut schema = Self::default();
        let mut folded: BTreeMap<String, String> = BTreeMap::new();
        for (name, node) in members.iter().filter(|(name, _)| name != "$schema") {
            let path = format!("$.{name}");
            if let Some(earlier) = folded.insert(name.to_lowercase(), name.clone()) {
                return wrong(
                    &path,
                    format!("is there already as {earlier:?}; SQLite ignores case in names, so each may be there once"),
                );
            }
            schema.tables.insert(name.clone(), Arc::new(table(name, node, &path)?));
        }
        if schema.tables.is_empty() {
            return wrong("$", "names no table; add one, or write the file with `pgflume init`");
        }
        schema.check_index_names(folded)?;
        Ok(schema)
    }

    /// SQLite keeps tables and indexes in one name space, and would silently leave out the second of a name.
    fn check_index_names(&self, mut taken: BTreeMap<String, String>) -> Result<(), SchemaError> {
        for table in self.tables() {
            for (i, index) in table.indexes.iter().enumerate() {
                let (name, path) = (ddl::index_name(table, index), format!("$.{}.indexes[{i}]", table.name));
                if let Some(other) = taken.insert(name.to_lowercase(), path.clone()) {
                    return wrong(
                        &path,
                        format!("would be called {name:?} in the replica, as {other} is: leave one out, or rename"),
                    );
                }
            }
        }
        Ok(())
    }

    /// A table by its name in messages.
    pub fn get(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    /// The same with further columns behind those that a table names.
    #[must_use]
    pub fn extended(&self, more: &BTreeMap<String, Vec<Column>>) -> Self {
        let extend = |(name, table): (&String, &Arc<Table>)| {
            let mut extended = Table::clone(table);
            extended.columns.extend(more.get(name).into_iter().flatten().cloned());
            (name.clone(), Arc::new(extended))
        };
        Self { tables: self.tables.iter().map(extend).collect() }
    }

    /// The same without these columns. A table whose key is among them stays as it is.
    #[must_use]
    pub fn without(&self, columns: &BTreeMap<String, Vec<String>>) -> Self {
        let reduce = |(name, table): (&String, &Arc<Table>)| {
            let reduced = columns.get(name).and_then(|columns| table.without(columns)).map(Arc::new);
            (name.clone(), reduced.unwrap_or_else(|| table.clone()))
        };
        Self { tables: self.tables.iter().map(reduce).collect() }
    }

    /// Those of the tables whose names are wanted.
    #[must_use]
    pub fn of(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let kept = self.tables.iter().filter(|(name, _)| is_wanted(name));
        Self { tables: kept.map(|(name, table)| (name.clone(), table.clone())).collect() }
    }

    /// All tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }
}

fn table(name: &str, node: &Node, path: &str) -> Result<Table, SchemaError> {
    check_name(name, path)?;
    if is_reserved(name) {
        return wrong(path, "begins with a prefix that is reserved for bookkeeping; rename the table");
    }
    let Node::Object(members) = node else {
        return wrong(path, "must be an object with primaryKey and columns");
    };
    check_members(members, &MEMBERS, path)?;
    let member = |key: &str| members.iter().find(|(k, _)| k == key).map(|(_, v)| v);

    let columns = match member("columns") {
        Some(node) => columns(node, &format!("{path}.columns"))?,
        None => return wrong(path, "lacks columns"),
    };
    let key = match member("primaryKey") {
        Some(node) => column_list(node, &columns, &format!("{path}.primaryKey"))?,
        None => return wrong(path, "lacks primaryKey"),
    };
    let indexes = match member("indexes") {
        Some(node) => indexes(node, &columns, &format!("{path}.indexes"))?,
        None => Vec::new(),
    };
    Ok(Table {
        source: source(name, member("source"), &format!("{path}.source"))?,
        filter: filter(member("where"), &format!("{path}.where"))?,
        lossy: lossy(member("lossy"), &columns, &format!("{path}.lossy"))?,
        evolve: evolve(member("evolve"), &format!("{path}.evolve"))?,
        feed: fed(member("feed"), &columns, &key, &format!("{path}.feed"))?,
        writable: writable_member::parse(member("writable"), &columns, &key, &format!("{path}.writable"))?,
        name: name.to_owned(),
        named: columns.len(),
        columns,
        key,
        indexes,
    })
}

fn columns(node: &Node, path: &str) -> Result<Vec<Column>, SchemaError> {
    let Node::Object(members) = node else {
        return wrong(path, "must be an object of column names and types");
    };
    let mut columns: Vec<Column> = Vec::with_capacity(members.len());
    let mut folded = std::collections::BTreeSet::new();
    for (name, node) in members {
        let path = format!("{path}.{name}");
        check_name(name, &path)?;
        if !folded.insert(name.to_lowercase()) {
            return wrong(&path, "is there twice (SQLite ignores case in names); remove one");
        }
        let kind = match node {
            Node::String(text) => ColumnType::parse(text),
            _ => None,
        };
        let Some(kind) = kind else {
            let known = ColumnType::ALL.map(|(n, _)| n).join(", ");
            return wrong(&path, format!("has no known type; known are {known}"));
        };
        columns.push(Column { name: name.clone(), kind });
    }
    if columns.is_empty() {
        return wrong(path, "names no column");
    }
    if columns.len() > MAX_COLUMNS {
        return wrong(path, format!("names more than the {MAX_COLUMNS} columns that SQLite takes"));
    }
    Ok(columns)
}

fn indexes(node: &Node, columns: &[Column], path: &str) -> Result<Vec<Vec<usize>>, SchemaError> {
    let Node::Array(list) = node else {
        return wrong(path, "must be a list of columns or of lists of columns");
    };
    let mut indexes = Vec::with_capacity(list.len());
    for (i, node) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let index = column_list(node, columns, &path)?;
        if indexes.contains(&index) {
            return wrong(&path, "is there twice; remove one");
        }
        indexes.push(index);
    }
    Ok(indexes)
}

fn source(name: &str, node: Option<&Node>, path: &str) -> Result<SourceName, SchemaError> {
    let Some(node) = node else {
        return Ok(SourceName { schema: "public".into(), table: name.into() });
    };
    let remedy = "must be a schema-qualified table such as \"public.apps\" (quote parts that hold a dot: \"\\\"my.schema\\\".apps\")";
    let Node::String(text) = node else {
        return wrong(path, remedy);
    };
    match split_qualified(text) {
        Some((schema, table)) => {
            check_name(&schema, path)?;
            check_name(&table, path)?;
            if is_machinery(&schema) {
                return wrong(
                    path,
                    format!(
                        "names a table of the schema {schema:?}, which is machinery and may hold secrets: replicate tables of your own"
                    ),
                );
            }
            Ok(SourceName { schema, table })
        }
        None => wrong(path, remedy),
    }
}

fn filter(node: Option<&Node>, path: &str) -> Result<Option<String>, SchemaError> {
    match node {
        None => Ok(None),
        Some(Node::String(text)) if !text.trim().is_empty() && !text.contains('\0') => Ok(Some(text.clone())),
        Some(_) => wrong(path, "must be a SQL condition over the row's own columns, such as \"not deleted\""),
    }
}

fn lossy(node: Option<&Node>, columns: &[Column], path: &str) -> Result<Vec<usize>, SchemaError> {
    match node {
        None => Ok(Vec::new()),
        Some(Node::Array(list)) if list.is_empty() => Ok(Vec::new()),
        Some(node @ Node::Array(_)) => column_list(node, columns, path),
        Some(_) => wrong(path, "must be a list of columns"),
    }
}

fn evolve(node: Option<&Node>, path: &str) -> Result<bool, SchemaError> {
    match node {
        None => Ok(false),
        Some(Node::Bool(value)) => Ok(*value),
        Some(_) => wrong(path, "must be true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(definition: &str) -> Result<Schema, SchemaError> {
        Schema::parse(&format!(r#"{{"t": {definition}}}"#))
    }

    #[test]
    fn the_repositorys_schema_is_capgos_seven_tables() {
        let schema = Schema::parse(include_str!("../../../schema.json")).unwrap();
        let names: Vec<_> = schema.tables().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["app_versions", "apps", "channel_devices", "channels", "manifest", "orgs", "stripe_info"]);
        let apps = schema.get("apps").unwrap();
        assert_eq!(apps.source.quoted(), r#""public"."apps""#);
        assert_eq!(apps.columns[9].kind, ColumnType::Json);
        assert_eq!(apps.columns[1].name, "app_id", "columns keep the file's order");
    }

    #[test]
    fn every_option_is_read() {
        let schema = with(
            r#"{"primaryKey": ["b","a"], "columns": {"a":"DECIMAL","b":"BLOB"}, "indexes": ["a", ["b","a"]],
                "source": "\"my.schema\".\"T\"\"x\"", "where": "not deleted", "lossy": ["a"], "evolve": true}"#,
        )
        .unwrap();
        let t = schema.get("t").unwrap();
        assert_eq!(t.key, [1, 0]);
        assert_eq!(t.indexes, [vec![0], vec![1, 0]]);
        assert_eq!(t.source.quoted(), r#""my.schema"."T""x""#);
        assert_eq!(t.filter.as_deref(), Some("not deleted"));
        assert_eq!((t.lossy.as_slice(), t.evolve), (&[0][..], true));
    }

    #[test]
    fn options_may_say_that_there_is_nothing() {
        let schema =
            with(r#"{"primaryKey":"a","columns":{"a":"TEXT"},"indexes":[],"lossy":[],"evolve":false}"#).unwrap();
        let table = schema.get("t").unwrap();
        assert!(table.indexes.is_empty() && table.lossy.is_empty() && !table.evolve);
    }

    #[test]
    fn a_source_is_written_as_it_is_read() {
        for (schema, table) in [("public", "apps"), ("my.schema", "T\"x"), ("a b", "ü")] {
            let name = SourceName { schema: schema.into(), table: table.into() };
            assert_eq!(split_qualified(&name.written()), Some((name.schema, name.table)));
        }
    }

    #[test]
    fn each_kind_of_broken_file_is_refused_with_its_path() {
        let ok = r#""primaryKey":"id","columns":{"id":"TEXT"}"#;
        let cases: &[(&str, &str)] = &[
            ("", "$:"),
            ("[]", "$:"),
            ("{}", "$: names no table"),
            (r#"{"t":1}"#, "$.t:"),
            (r#"{"t":{}}"#, "$.t: lacks columns"),
            (r#"{"t":{"columns":{"id":"TEXT"}}}"#, "$.t: lacks primaryKey"),
            (r#"{"t":{"primaryKey":"id","columns":{}}}"#, "$.t.columns: names no column"),
            (r#"{"t":{"primaryKey":"id","columns":[]}}"#, "$.t.columns:"),
            (r#"{"t":{"primaryKey":"id","columns":{"id":"VARCHAR"}}}"#, "$.t.columns.id: has no known type"),
            (r#"{"t":{"primaryKey":"id","columns":{"id":1}}}"#, "$.t.columns.id:"),
            (r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","ID":"TEXT"}}}"#, "$.t.columns.ID: is there twice"),
            (r#"{"t":{"primaryKey":"x","columns":{"id":"TEXT"}}}"#, "$.t.primaryKey: names the column \"x\""),
            (r#"{"t":{"primaryKey":[],"columns":{"id":"TEXT"}}}"#, "$.t.primaryKey:"),
            (
                r#"{"t":{"primaryKey":["id","id"],"columns":{"id":"TEXT"}}}"#,
                "$.t.primaryKey[1]: names the column \"id\" twice",
            ),
            (&format!(r#"{{"t":{{{ok},"indexes":["nope"]}}}}"#), "$.t.indexes[0]:"),
            (&format!(r#"{{"t":{{{ok},"indexes":["id","id"]}}}}"#), "$.t.indexes[1]: is there twice"),
            (
                r#"{"t":{"primaryKey":"a","columns":{"a":"TEXT","b_c":"TEXT","a_b":"TEXT","c":"TEXT"},"indexes":[["a","b_c"],["a_b","c"]]}}"#,
                "$.t.indexes[1]: would be called \"idx_t_a_b_c\" in the replica, as $.t.indexes[0] is",
            ),
            (
                r#"{"idx_t_a":{"primaryKey":"a","columns":{"a":"TEXT"}},"t":{"primaryKey":"a","columns":{"a":"TEXT"},"indexes":["a"]}}"#,
                "$.t.indexes[0]: would be called",
            ),
            (&format!(r#"{{"t":{{{ok},"source":"apps"}}}}"#), "$.t.source:"),
            (&format!(r#"{{"t":{{{ok},"source":"pgflume.settings"}}}}"#), "$.t.source: names a table of the schema"),
            (&format!(r#"{{"t":{{{ok},"source":"\"pg_catalog\".pg_authid"}}}}"#), "$.t.source: names a table of"),
            (&format!(r#"{{"t":{{{ok},"where":""}}}}"#), "$.t.where:"),
            (&format!(r#"{{"t":{{{ok},"lossy":"id"}}}}"#), "$.t.lossy: must be a list"),
            (&format!(r#"{{"t":{{{ok},"lossy":["nope"]}}}}"#), "$.t.lossy: names the column \"nope\""),
            (&format!(r#"{{"t":{{{ok},"lossy":["id","id"]}}}}"#), "$.t.lossy[1]: names the column \"id\" twice"),
            (&format!(r#"{{"t":{{{ok},"evolve":"yes"}}}}"#), "$.t.evolve: must be true or false"),
            (&format!(r#"{{"t":{{{ok},"color":"red"}}}}"#), "$.t.color: is unknown"),
            (&format!(r#"{{"t":{{{ok},"feed":true}}}}"#), "$.t.feed: must be an object"),
            (&format!(r#"{{"t":{{{ok},"feed":{{}}}}}}"#), "$.t.feed: must say who may read"),
            (&format!(r#"{{"t":{{{ok},"feed":{{"public":false}}}}}}"#), "$.t.feed.public: must be true"),
            (
                &format!(r#"{{"t":{{{ok},"feed":{{"public":true,"match":{{"id":"sub"}}}}}}}}"#),
                "$.t.feed: says both who may read",
            ),
            (&format!(r#"{{"t":{{{ok},"feed":{{"match":{{}}}}}}}}"#), "$.t.feed.match: must name columns"),
            (&format!(r#"{{"t":{{{ok},"feed":{{"match":{{"nope":"sub"}}}}}}}}"#), "$.t.feed.match.nope: is no column"),
            (
                &format!(r#"{{"t":{{{ok},"feed":{{"match":{{"id":""}}}}}}}}"#),
                "$.t.feed.match.id: must be the name of a claim",
            ),
            (
                r#"{"t":{"primaryKey":"a","columns":{"a":"TEXT","b":"REAL"},"feed":{"match":{"b":"sub"}}}}"#,
                "$.t.feed.match.b: is REAL",
            ),
            (&format!(r#"{{"t":{{{ok},"feed":{{"publik":true}}}}}}"#), "$.t.feed.publik: is unknown"),
            (
                &format!(r#"{{"t":{{{ok},"feed":{{"public":true,"columns":"id"}}}}}}"#),
                "$.t.feed.columns: must be a list",
            ),
            (
                &format!(r#"{{"t":{{{ok},"feed":{{"public":true,"filter":["x"]}}}}}}"#),
                "$.t.feed.filter: names the column",
            ),
            (
                r#"{"t":{"primaryKey":"a","columns":{"a":"TEXT","RowID":"TEXT"},"feed":{"public":true}}}"#,
                "$.t.feed: a table with a column \"RowID\" is not fed",
            ),
            (
                r#"{"t":{"primaryKey":"a","columns":{"a":"TEXT","b":"REAL"},"feed":{"public":true,"filter":["b"]}}}"#,
                "$.t.feed.filter: names \"b\", which is REAL",
            ),
            (
                r#"{"t":{"primaryKey":"a","columns":{"a":"TEXT","b":"TEXT"},"feed":{"public":true,"columns":["a"],"filter":["b"]}}}"#,
                "$.t.feed.filter: names \"b\", which `columns` does not",
            ),
            (&format!(r#"{{"t":{{{ok},"primaryKey":"id"}}}}"#), "$.t.primaryKey: is there twice"),
            (&format!(r#"{{"t":{{{ok}}},"T":{{{ok}}}}}"#), "$.T: is there already"),
            (&format!(r#"{{"_pgflume_x":{{{ok}}}}}"#), "$._pgflume_x: begins with"),
        ];
        for (text, expected) in cases {
            let error = Schema::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("schema.json: {expected}")), "{text}\n{error}");
        }
    }
}
