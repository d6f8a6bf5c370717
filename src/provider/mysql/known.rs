//! What the catalog said of the pulled tables when it was last read.

use super::definition::Definition;
use super::statements::{MySql, Readable, may_filter_by_more, quote};
use super::wanted::{LOCKED, Undefined, Wanted, database};
use super::watched::Watched;
use super::way::Way;
use crate::core::error::{Error, Result};
use crate::core::schema::Table;
use crate::mysql::catalog::{self, MyTable, get};
use crate::mysql::session::{Session, of_table};
use crate::provider::stamps::{self, Ladder, Listed, StampOptions};
use crate::provider::{Described, Description, Promise};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that depends on the catalog.
#[derive(Default)]
pub(super) struct Known {
    catalog: BTreeMap<(String, String), MyTable>,
    databases: BTreeSet<String>,
    pub description: Arc<Description>,
    tables: BTreeMap<String, Entry>,
    undefined: Undefined,
    /// Of which tables the binlog has to tell.
    pub watched: BTreeMap<(String, String), Watched>,
}

/// A table that can be read.
#[derive(Clone)]
pub(super) struct Entry {
    pub readable: Arc<Readable>,
    pub listed: Listed,
    pub is_view: bool,
    /// Its database and its name.
    pub place: (String, String),
    /// Whether the binlog tells which of its rows were touched.
    pub is_told: bool,
    /// Whether its rows change by what is committed here alone.
    pub is_logged: bool,
}

impl Entry {
    /// Whether it need not be looked at while nothing is committed.
    pub fn may_be_spared(&self) -> bool {
        self.is_logged && !self.is_told
    }

    /// Rows that are replicated.
    pub async fn count(&self, session: &mut Session) -> Result<i64> {
        let row = session.row(&self.readable.count(), ()).await;
        get(&row.map_err(|e| of_table(e, &self.readable.table.name))?, 0)
    }
}

impl Known {
    /// This table cannot be read, as was just seen.
    pub fn put_aside(&mut self, name: &str, problem: String) {
        self.tables.remove(name);
        if let Some(described) = Arc::make_mut(&mut self.description).tables.get_mut(name) {
            described.problem = Some(problem);
        }
    }

    pub fn entry(&self, name: &str) -> Result<Entry> {
        let unknown = || Error::retry(format!("the table {name:?} was not described yet; it will be tried again"));
        self.tables.get(name).cloned().ok_or_else(unknown)
    }

    /// What is known of a table, by its quoted name: why it cannot be defined, or that it is there and left out.
    pub fn shown(&self, source: &str) -> Option<Option<&str>> {
        let is_it = |place: &(String, String)| format!("{}.{}", quote(&place.0), quote(&place.1)) == source;
        let place = self.catalog.keys().find(|place| is_it(place))?;
        Some(self.undefined.get(place).map(String::as_str))
    }

    /// Whether it was the same before.
    pub fn is_like(&self, before: &Self) -> bool {
        self.catalog == before.catalog && self.tables.keys().eq(before.tables.keys())
    }

    /// Whether it still holds.
    pub async fn is_current(&self, session: &mut Session) -> Result<bool> {
        Ok(catalog::read(session, &self.databases).await? == self.catalog)
    }
}

/// Reads it.
pub(super) async fn read(
    session: &mut Session,
    own: &str,
    wanted: &Wanted,
    row_bytes: i64,
    options: &StampOptions,
    way: &Way,
) -> Result<Known> {
    let databases = wanted.databases(own);
    let catalog = catalog::read(session, &databases).await?;
    let (schema, undefined) = wanted.schema(&catalog)?;
    for table in options.columns.keys().filter(|table| schema.get(table).is_none()) {
        tracing::warn!(table, "`changed` names a table that is not pulled: correct it");
    }
    let (mut described, mut tables, mut told) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for table in schema.tables() {
        let place = (database(&table.source, own).to_owned(), table.source.table.clone());
        let name = format!("{}.{}", quote(&place.0), quote(&place.1));
        let source = catalog.get(&place);
        let types: BTreeMap<String, String> = source.into_iter().flat_map(of_columns).collect();
        let stamps = stamps::choose::<MySql>(table, Some(&types), &options.columns);
        let problem = match source {
            None => {
                Some(format!("there is no {name} that the login may read: grant select on it, or correct `source`"))
            }
            Some(source) if source.is_locked => Some(LOCKED.to_owned()),
            Some(source) => obstacle(table, source, &name),
        };
        let problem = problem.or(stamps.as_ref().err().cloned());
        let stamps = stamps.unwrap_or_default();
        let mut promise = match stamps.is_empty() {
            true => Promise::Compared,
            false => Promise::Stamped(stamps.iter().map(|stamp| stamp.column.clone()).collect()),
        };
        let missing = MyTable::default();
        let source = source.unwrap_or(&missing);
        let untold = way.obstacle(table, source);
        let is_told = untold.is_none();
        if is_told {
            told.push((place.clone(), table.clone()));
            promise = told_promise(table, source, way.tells_open);
        } else if !source.is_view() && !source.is_transactional() {
            promise = Promise::Compared;
        }
        // Without transactions rows may change between their digest and the look at them.
        let is_digested = stamps.is_empty() && !is_told && !source.is_view() && source.is_transactional();
        let readable = problem.is_none().then(|| Readable::of(table, source, name.clone(), row_bytes)).flatten();
        described.insert(
            table.name.clone(),
            Described {
                table: table.clone(),
                definition: Definition::of(table, source, &name).text(),
                types: declared(table, source),
                sorts_alike: readable.as_ref().is_some_and(sorts_alike),
                finds_unchanged: !is_told,
                is_digested,
                is_told,
                untold: untold.filter(|_| way.binlog.is_ok()),
                problem,
                promise,
            },
        );
        if let Some(readable) = readable {
            let listed = Listed {
                stamps,
                ladder: Ladder::of(options.every),
                is_compared: options.is_compared,
                compare: options.compare,
            };
            let (is_view, readable) = (source.is_view(), Arc::new(readable));
            let is_logged = !is_view && source.is_transactional() && !may_filter_by_more(table);
            tables.insert(table.name.clone(), Entry { readable, listed, is_view, place, is_told, is_logged });
        }
    }
    let forbidden = BTreeSet::new(); // one that is described no more is asked for
    let left_out = undefined.iter().map(|((_, name), why)| (name.clone(), why.clone())).collect();
    let found_by = Some(match &way.binlog {
        Ok(()) => "the server's binlog, as they are committed".to_owned(),
        Err(why) => format!("looking at the tables; its binlog is not read: {why}"),
    });
    let schema = schema.clone();
    let description = Description { schema, forbidden, tables: described, undefined: left_out, found_by };
    let watched = way.watched(&told, &catalog);
    Ok(Known { catalog, databases, description: Arc::new(description), tables, undefined, watched })
}

/// Whether the replica sorts the keys as the server does.
fn sorts_alike(readable: &Readable) -> bool {
    let table = &readable.table;
    let mut key = table.key.iter().map(|&at| (&readable.types[at], table.columns[at].kind));
    table.key.len() == 1 && key.all(|(of, kind)| of.sorts_alike(kind))
}

/// The columns that are pulled with their types as they are declared, as JSON; `None` where there are none.
fn declared(table: &Table, source: &MyTable) -> Option<String> {
    let pulled = source.columns.iter().filter(|column| table.position(&column.name).is_some());
    let types: serde_json::Map<_, _> =
        pulled.map(|column| (column.name.clone(), column.of.declared.clone().into())).collect();
    (!types.is_empty()).then(|| serde_json::Value::Object(types).to_string())
}

/// What the binlog promises of a table.
fn told_promise(table: &Table, source: &MyTable, tells_open: bool) -> Promise {
    if may_filter_by_more(table) {
        return Promise::ExactBut(
            "rows whose `where` asks for more than their own columns, until all are compared".into(),
        );
    }
    match source.is_transactional() {
        false => Promise::ExactBut(format!(
            "rows that statements were writing while they were read ({} has no transactions), until the next pass",
            source.engine
        )),
        true if tells_open => Promise::Exact,
        true => Promise::ExactBut(
            "commits that the server's tables show later than its log, until all are compared (gtid_mode = ON tells which)"
                .into(),
        ),
    }
}

/// Columns with their types without digits.
fn of_columns(source: &MyTable) -> impl Iterator<Item = (String, String)> {
    source.columns.iter().map(|column| {
        let end = column.of.declared.find(['(', ' ']).unwrap_or(column.of.declared.len());
        (column.name.clone(), column.of.declared[..end].to_owned())
    })
}

/// Why a table cannot be read by its definition, with the remedy.
fn obstacle(table: &Table, source: &MyTable, name: &str) -> Option<String> {
    for column in &table.columns {
        let Some(there) = source.column(&column.name) else {
            return Some(format!(
                "{name} has no column {:?} that the login may read: correct the definition",
                column.name
            ));
        };
        if let Some(why) = there.of.obstacle(column.kind) {
            return Some(format!(
                "the column {:?} is {} and declared {}: {why}",
                column.name,
                there.of.declared,
                column.kind.name()
            ));
        }
    }
    for column in table.key_columns() {
        let why = source.column(&column.name).and_then(|there| there.of.key_obstacle(column.kind));
        if let Some(why) = why {
            return Some(format!("{name}: {why} ({:?}): choose another primaryKey", column.name));
        }
    }
    let is_in_key = |part: &String| {
        table.key_columns().any(|column| column.name == *part)
            && source.column(part).is_some_and(|column| column.is_not_null)
    };
    let is_unique =
        source.indexes.iter().any(|index| index.is_unique && index.is_plain && index.columns.iter().all(is_in_key));
    (!source.is_view() && !is_unique).then(|| {
        format!("{name} has no unique index over NOT NULL columns of its primaryKey, so several rows may be under one key: choose another")
    })
}
