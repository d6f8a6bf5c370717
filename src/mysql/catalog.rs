//! What tables a database has: columns, keys, engines. Reads `information_schema`, whose columns MySQL 8 names in capitals,
//! so each has a name of ours.

use super::session::Session;
use super::types::MyType;
use crate::core::error::{Error, Result};
use mysql_async::Row;
use std::collections::{BTreeMap, BTreeSet};

/// A table or a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MyTable {
    /// `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, `SEQUENCE`.
    pub kind: String,
    /// `InnoDB`; none of a view, or where it is broken.
    pub engine: String,
    /// When it was made, or made anew by an ALTER: another table under the same name has another.
    pub made: String,
    pub columns: Vec<MyColumn>,
    pub indexes: Vec<MyIndex>,
    /// Another session keeps a lock that hides what it is like.
    pub is_locked: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MyColumn {
    pub name: String,
    /// Where it stands in its table, from 1; one that the login may not see leaves a gap.
    pub at: u64,
    pub of: MyType,
    pub is_not_null: bool,
    /// A change of any of these changes what rows are read.
    pub collation: String,
    /// The expression of a generated column.
    pub generated: String,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MyIndex {
    pub name: String,
    pub is_unique: bool,
    /// Over whole columns, and sorted.
    pub is_plain: bool,
    pub columns: Vec<String>,
}

impl MyTable {
    pub fn is_view(&self) -> bool {
        self.kind == "VIEW" || self.kind == "SYSTEM VIEW"
    }

    /// Whether what a transaction reads of it is of one moment.
    pub fn is_transactional(&self) -> bool {
        matches!(self.engine.to_ascii_lowercase().as_str(), "innodb" | "rocksdb" | "tokudb")
    }

    /// Whether all of its columns are shown, as far as their places tell.
    pub fn is_shown_whole(&self) -> bool {
        self.columns.iter().zip(1..).all(|(column, place)| column.at == place)
    }

    /// Whether it is shown without what most tables have.
    fn lacks_something(&self) -> bool {
        !self.is_view() && (self.engine.is_empty() || self.columns.is_empty() || self.indexes.is_empty())
    }

    pub fn column(&self, name: &str) -> Option<&MyColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// All tables of `databases`, by database and name.
pub(crate) async fn read(
    session: &mut Session,
    databases: &BTreeSet<String>,
) -> Result<BTreeMap<(String, String), MyTable>> {
    let mut tables: BTreeMap<(String, String), MyTable> = BTreeMap::new();
    for database in databases {
        let names = match read_some(session, database, None, &mut tables).await {
            // Some are locked, or were shown without what they are like.
            Ok(has_warnings) => {
                let lacks =
                    |((of, _), table): &(&(String, String), &MyTable)| of == database && table.lacks_something();
                let lacking = tables.iter().filter(lacks).map(|((_, name), _)| name.clone());
                if has_warnings { lacking.collect() } else { Vec::new() }
            }
            Err(e) if e.is_locked() => {
                tables.retain(|(of, _), _| of != database);
                let names = session.rows(NAMES, (database,)).await?;
                names.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>>>()?
            }
            Err(e) => return Err(e),
        };
        // Each for itself, so that one hides no other.
        for name in names {
            let read = read_some(session, database, Some(&name), &mut tables).await;
            let is_locked = match read {
                Ok(has_warnings) => has_warnings,
                Err(e) if e.is_locked() => true,
                Err(e) => return Err(e),
            };
            let unknown = || MyTable { kind: "BASE TABLE".into(), ..MyTable::default() };
            if is_locked {
                let table = tables.entry((database.clone(), name)).or_insert_with(unknown);
                table.is_locked = table.lacks_something();
            }
        }
    }
    Ok(tables)
}

/// The tables of one database, or one of them; whether the server had something to remark.
async fn read_some(
    session: &mut Session,
    database: &str,
    table: Option<&str>,
    tables: &mut BTreeMap<(String, String), MyTable>,
) -> Result<bool> {
    let mut has_warnings = false;
    for row in session.rows(&of(TABLES, "t", table), named(database, table)).await? {
        let name: String = get(&row, 0)?;
        let (kind, engine, made) = (get(&row, 1)?, get(&row, 2)?, get(&row, 3)?);
        let table = MyTable { kind, engine, made, ..MyTable::default() };
        tables.insert((database.to_owned(), name), table);
    }
    has_warnings |= session.has_warnings();
    let json = json_columns(session, database, table).await?;
    for row in session.rows(&of(COLUMNS, "c", table), named(database, table)).await? {
        let (table, name): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let is_json = json.contains(&(table.clone(), name.clone()));
        let (data_type, declared): (String, String) = (get(&row, 2)?, get(&row, 3)?);
        let (digits, length): (u64, u64) = (get(&row, 5)?, get(&row, 6)?);
        let of = MyType::parse(&data_type, &declared, u8::try_from(digits).unwrap_or(0), length, is_json);
        let of = of.in_charset(get(&row, 8)?, get(&row, 7)?);
        let is_not_null = get::<String>(&row, 4)? == "NO";
        let (collation, generated, at) = (get(&row, 7)?, get(&row, 9)?, get(&row, 10)?);
        let column = MyColumn { name, at, of, is_not_null, collation, generated };
        if let Some(table) = tables.get_mut(&(database.to_owned(), table)) {
            table.columns.push(column);
        }
    }
    has_warnings |= session.has_warnings();
    for row in session.rows(&of(INDEXES, "s", table), named(database, table)).await? {
        let (table, name): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let Some(table) = tables.get_mut(&(database.to_owned(), table)) else { continue };
        if table.indexes.last().is_none_or(|index| index.name != name) {
            let is_unique = get::<i64>(&row, 2)? == 0;
            table.indexes.push(MyIndex { name, is_unique, is_plain: true, columns: Vec::new() });
        }
        let Some(index) = table.indexes.last_mut() else { continue };
        let (column, is_part, kind): (Option<String>, i64, String) = (get(&row, 3)?, get(&row, 4)?, get(&row, 5)?);
        index.is_plain &= is_part == 0 && column.is_some() && matches!(kind.as_str(), "BTREE" | "HASH" | "RTREE");
        index.columns.extend(column);
    }
    Ok(has_warnings | session.has_warnings())
}

/// The question for all tables of a database, or for one.
fn of(question: &str, alias: &str, table: Option<&str>) -> String {
    let one = table.map(|_| format!(" and {alias}.table_name = ?")).unwrap_or_default();
    question.replace("{and one}", &one)
}

fn named(database: &str, table: Option<&str>) -> Vec<mysql_async::Value> {
    [Some(database), table].into_iter().flatten().map(Into::into).collect()
}

/// What needs no look at any table.
const NAMES: &str = "select t.table_name as name from information_schema.tables t where t.table_schema = ?";

const TABLES: &str = "select t.table_name as name, t.table_type as kind, coalesce(t.engine, '') as engine,
            coalesce(cast(t.create_time as char), '') as made
    from information_schema.tables t where t.table_schema = ?{and one}";

const COLUMNS: &str =
    "select c.table_name as owner, c.column_name as name, lower(c.data_type) as kind, c.column_type as declared,
            c.is_nullable as nullable, coalesce(c.datetime_precision, 0) + 0 as digits,
            coalesce(c.character_octet_length, 0) + 0 as length, coalesce(c.collation_name, '') as collation,
            coalesce(c.character_set_name, '') as charset, coalesce(c.generation_expression, '') as expression,
            c.ordinal_position + 0 as place
     from information_schema.columns c where c.table_schema = ?{and one} order by c.table_name, c.ordinal_position";

const INDEXES: &str =
    "select s.table_name as owner, s.index_name as name, s.non_unique + 0 as others, s.column_name as part,
            (s.sub_part is not null) + 0 as is_part, s.index_type as kind
     from information_schema.statistics s where s.table_schema = ?{and one}
     order by s.table_name, s.index_name <> 'PRIMARY', s.index_name, s.seq_in_index";

/// Of MariaDB, whose `json` is a text with a check that says so. Where it cannot be asked, there is none.
async fn json_columns(
    session: &mut Session,
    database: &str,
    table: Option<&str>,
) -> Result<BTreeSet<(String, String)>> {
    if !session.server.is_mariadb {
        return Ok(BTreeSet::new());
    }
    let sql = "select c.table_name as owner, c.check_clause as clause from information_schema.check_constraints c
               where c.constraint_schema = ?{and one}";
    let mut found = BTreeSet::new();
    for row in session.rows(&of(sql, "c", table), named(database, table)).await? {
        let (table, clause): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let name = clause.strip_prefix("json_valid(`").and_then(|rest| rest.strip_suffix("`)"));
        found.extend(name.map(|name| (table, name.replace("``", "`"))));
    }
    Ok(found)
}

/// A value of a row.
pub(crate) fn get<T: mysql_async::prelude::FromValue>(row: &Row, at: usize) -> Result<T> {
    match row.get_opt::<T, usize>(at) {
        Some(Ok(value)) => Ok(value),
        _ => Err(Error::retry("the server's answer cannot be understood; it will be asked again")),
    }
}
