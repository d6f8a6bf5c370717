//! Which tables of a MySQL are pulled, and how they are defined where nobody has defined them: the key, columns with types
//! that lose nothing, indexes. Takes what the catalog says, gives definitions. No IO.

use crate::core::config_error::ConfigError;
use crate::core::error::{Error, Result};
use crate::core::pattern::Pattern;
use crate::core::schema::names::{NAME_BYTES, is_reserved};
use crate::core::schema::{Schema, SourceName, ddl};
use crate::mysql::catalog::{MyIndex, MyTable};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The schema that a definition names where it names none: the database of the URL.
pub(super) const OWN: &str = "public";

/// What is pulled.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// These tables, as they are defined.
    Defined(Arc<Schema>),
    /// Tables by patterns of their names.
    Named {
        /// Those that are meant; all of the database if there are none.
        tables: Vec<String>,
        /// Those that are left out.
        exclude: Vec<String>,
    },
}

impl Wanted {
    /// The databases that its tables are in.
    pub(super) fn databases(&self, own: &str) -> BTreeSet<String> {
        match self {
            Self::Named { .. } => BTreeSet::from([own.to_owned()]),
            Self::Defined(schema) => schema.tables().map(|table| database(&table.source, own).to_owned()).collect(),
        }
    }

    /// The definitions, by what the catalog says now.
    pub(super) fn schema(&self, catalog: &BTreeMap<(String, String), MyTable>) -> Result<Arc<Schema>> {
        let (tables, exclude) = match self {
            Self::Defined(schema) => return Ok(schema.clone()),
            Self::Named { tables, exclude } => (patterns("tables", tables)?, patterns("exclude", exclude)?),
        };
        let mut text = String::from("{");
        let mut names: BTreeSet<String> = BTreeSet::new();
        for ((database, name), table) in catalog {
            let source = SourceName { schema: database.clone(), table: name.clone() };
            let is_wanted = tables.is_empty() || tables.iter().any(|pattern| pattern.matches(&source));
            if !is_wanted || exclude.iter().any(|pattern| pattern.matches(&source)) {
                continue;
            }
            match propose(name, table) {
                Ok(definition) if names.insert(name.to_lowercase()) => {
                    let comma = if text.len() > 1 { "," } else { "" };
                    text += &format!("{comma}{}:{definition}", Value::from(name.as_str()));
                }
                Ok(_) => tracing::warn!(table = name, "left out: its name differs in case only from another's"),
                Err(why) => tracing::debug!(table = name, "left out: {why}"),
            }
        }
        text.push('}');
        if names.is_empty() {
            return Err(Error::halt(
                "this database shows the login no table that can be pulled: grant select on its tables, or correct `tables`",
            ));
        }
        let schema = Schema::parse(&text);
        schema.map(Arc::new).map_err(|e| Error::halt(format!("the tables cannot be defined: {e}")))
    }
}

/// The database of a table.
pub(super) fn database<'a>(source: &'a SourceName, own: &'a str) -> &'a str {
    if source.schema == OWN { own } else { &source.schema }
}

fn patterns(member: &str, texts: &[String]) -> Result<Vec<Pattern>> {
    let pattern = |text: &String| {
        Pattern::parse(text).ok_or_else(|| {
            let problem = ConfigError(format!("{member} {text:?} is no pattern: write orders, shop.orders or *_log"));
            Error::halt(problem.to_string())
        })
    };
    texts.iter().map(pattern).collect()
}

/// The definition of a table, as JSON; or why there can be none.
fn propose(name: &str, table: &MyTable) -> Result<String, &'static str> {
    if table.is_view() {
        return Err("a view has no key: define it in a schema file");
    }
    if !matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") {
        return Err("it is no table");
    }
    if name.len() > NAME_BYTES || is_reserved(name) {
        return Err("its name cannot be one of the replica's: define it in a schema file, under another");
    }
    let is_usable = |index: &&MyIndex| {
        let is_not_null = |name: &String| table.column(name).is_some_and(|column| column.is_not_null);
        index.is_unique && index.is_plain && index.columns.iter().all(is_not_null)
    };
    let usable = table.indexes.iter().filter(is_usable);
    let key = usable.min_by_key(|index| (index.name != "PRIMARY", index.columns.len())).map(|index| &index.columns);
    let key = key.ok_or("it has neither a primary key nor a unique index over NOT NULL columns")?;
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{}:{}", Value::from(column.name.as_str()), json!(column.of.default_type().name())))
        .collect();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let is_new = |index: &&MyIndex| {
        let is_there = index.columns.iter().all(|name| table.column(name).is_some());
        let is_set = index.columns.iter().collect::<BTreeSet<_>>().len() == index.columns.len();
        index.is_plain && is_there && is_set && !key.starts_with(&index.columns)
    };
    let indexes: Vec<&Vec<String>> = table
        .indexes
        .iter()
        .filter(is_new)
        .map(|index| &index.columns)
        .filter(|columns| seen.insert(ddl::index_name_of(name, columns).to_lowercase()))
        .collect();
    Ok(format!(
        "{{\"primaryKey\":{},\"columns\":{{{}}},\"indexes\":{}}}",
        json!(key),
        columns.join(","),
        json!(indexes)
    ))
}
