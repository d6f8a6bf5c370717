//! Which tables of a MySQL are pulled, and how they are defined where nobody has defined them: the key, columns with types
//! that lose nothing, indexes. Takes what the catalog says, gives definitions. No IO.

use crate::core::config_error::ConfigError;
use crate::core::draft::Definition;
use crate::core::error::{Error, Result};
use crate::core::pattern::Pattern;
use crate::core::schema::names::{NAME_BYTES, is_reserved};
use crate::core::schema::{Schema, SourceName, ddl};
use crate::mysql::catalog::{MyIndex, MyTable};
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

    /// The definitions, by what the catalog says now; and of the tables that are meant and cannot be defined, why.
    pub(super) fn schema(&self, catalog: &BTreeMap<(String, String), MyTable>) -> Result<(Arc<Schema>, Undefined)> {
        let (tables, exclude) = match self {
            Self::Defined(schema) => return Ok((schema.clone(), Undefined::new())),
            Self::Named { tables, exclude } => (tables, exclude),
        };
        let (mut definitions, mut undefined) = (Vec::new(), Undefined::new());
        for (source, proposed) in proposals(catalog, tables, exclude)? {
            match proposed {
                Ok(definition) => definitions.push(definition.to_string()),
                Err(why) => drop(undefined.insert((source.schema, source.table), why)),
            }
        }
        if definitions.is_empty() && undefined.values().any(|why| why == LOCKED) {
            return Err(Error::retry(LOCKED));
        }
        if definitions.is_empty() {
            return Err(Error::halt(
                "this database shows the login no table that can be pulled: grant select on its tables, or correct `tables`",
            ));
        }
        match Schema::parse(&format!("{{{}}}", definitions.join(",\n"))) {
            Ok(schema) => Ok((Arc::new(schema), undefined)),
            Err(e) => Err(Error::halt(format!("the tables cannot be defined: {e}"))),
        }
    }
}

/// The tables that patterns mean, each with its definition or why there can be none.
pub(super) fn proposals(
    catalog: &BTreeMap<(String, String), MyTable>,
    tables: &[String],
    exclude: &[String],
) -> Result<Vec<(SourceName, Result<Definition, String>)>> {
    let (tables, exclude) = (patterns("tables", tables)?, patterns("exclude", exclude)?);
    let source = |(database, name): &(String, String)| SourceName { schema: database.clone(), table: name.clone() };
    let matches_none = |pattern: &&Pattern| !catalog.keys().any(|place| pattern.matches(&source(place)));
    if let Some(pattern) = tables.iter().filter(|pattern| pattern.names_table()).find(matches_none) {
        return Err(Error::halt(format!(
            "`tables` names {}, which this database does not show the login: correct it, or grant select on it",
            pattern.text()
        )));
    }
    let (mut names, mut proposals): (BTreeSet<String>, _) = (BTreeSet::new(), Vec::new());
    for ((database, name), table) in catalog {
        let source = SourceName { schema: database.clone(), table: name.clone() };
        let is_wanted = tables.is_empty() || tables.iter().any(|pattern| pattern.matches(&source));
        if !is_wanted || exclude.iter().any(|pattern| pattern.matches(&source)) {
            continue;
        }
        let proposed = propose(name, table).and_then(|definition| {
            Schema::parse(&format!("{{{definition}}}")).map_err(|e| e.to_string())?;
            match names.insert(name.to_lowercase()) {
                true => Ok(definition),
                false => Err("its name differs in case only from another's: define one in a schema file".into()),
            }
        });
        let is_spelled_out = tables.iter().any(|pattern| pattern.names_table() && pattern.matches(&source));
        if let (Err(why), true, false) = (&proposed, is_spelled_out, table.is_locked) {
            return Err(Error::halt(format!("`tables` names {name:?}, which cannot be pulled: {why}")));
        }
        proposals.push((source, proposed));
    }
    Ok(proposals)
}

/// Why tables cannot be defined, by database and name.
pub(super) type Undefined = BTreeMap<(String, String), String>;

/// What is said of a table that nothing is known of, because somebody works on it.
pub(super) const LOCKED: &str =
    "another session keeps a lock on it that hides what it is like (see SHOW PROCESSLIST); it follows when that ends";

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

/// The definition of a table, or why there can be none.
fn propose(name: &str, table: &MyTable) -> Result<Definition, String> {
    let kind = match () {
        () if table.is_locked => Err(LOCKED),
        () if table.is_view() => Err("a view has no key: define it in a schema file"),
        () if !matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") => Err("it is no table"),
        () if name.len() > NAME_BYTES || is_reserved(name) => {
            Err("its name cannot be one of the replica's: define it in a schema file, under another")
        }
        () => Ok(()),
    };
    kind?;
    let is_usable = |index: &&MyIndex| {
        let is_not_null = |name: &String| table.column(name).is_some_and(|column| column.is_not_null);
        index.is_unique && index.is_plain && index.columns.iter().all(is_not_null)
    };
    let usable = table.indexes.iter().filter(is_usable);
    let key = usable.min_by_key(|index| (index.name != "PRIMARY", index.columns.len())).map(|index| &index.columns);
    let key = key.ok_or("it has neither a primary key nor a unique index over NOT NULL columns")?;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let is_new = |index: &&MyIndex| {
        let is_there = index.columns.iter().all(|name| table.column(name).is_some());
        let is_set = index.columns.iter().collect::<BTreeSet<_>>().len() == index.columns.len();
        index.is_plain && is_there && is_set && !key.starts_with(&index.columns)
    };
    let indexes = table.indexes.iter().filter(is_new).map(|index| &index.columns);
    let indexes = indexes.filter(|columns| seen.insert(ddl::index_name_of(name, columns).to_lowercase()));
    Ok(Definition {
        name: name.to_owned(),
        source: None,
        key: key.clone(),
        columns: table.columns.iter().map(|column| (column.name.clone(), column.of.default_type())).collect(),
        indexes: indexes.cloned().collect(),
        left_out: Vec::new(),
    })
}
