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
    pub columns: Vec<MyColumn>,
    pub indexes: Vec<MyIndex>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MyColumn {
    pub name: String,
    pub of: MyType,
    pub is_not_null: bool,
    /// A change of any of these changes what rows are read.
    pub collation: String,
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
        for row in session.rows(TABLES, (database,)).await? {
            let name: String = get(&row, 0)?;
            let table = MyTable { kind: get(&row, 1)?, engine: get(&row, 2)?, ..MyTable::default() };
            tables.insert((database.clone(), name), table);
        }
        let json = json_columns(session, database).await?;
        for row in session.rows(COLUMNS, (database,)).await? {
            let (table, name): (String, String) = (get(&row, 0)?, get(&row, 1)?);
            let is_json = json.contains(&(table.clone(), name.clone()));
            let (data_type, declared): (String, String) = (get(&row, 2)?, get(&row, 3)?);
            let (digits, length): (u64, u64) = (get(&row, 5)?, get(&row, 6)?);
            let of = MyType::parse(&data_type, &declared, u8::try_from(digits).unwrap_or(0), length, is_json);
            let column = MyColumn { name, of, is_not_null: get::<String>(&row, 4)? == "NO", collation: get(&row, 7)? };
            if let Some(table) = tables.get_mut(&(database.clone(), table)) {
                table.columns.push(column);
            }
        }
        for row in session.rows(INDEXES, (database,)).await? {
            let (table, name): (String, String) = (get(&row, 0)?, get(&row, 1)?);
            let Some(table) = tables.get_mut(&(database.clone(), table)) else { continue };
            if table.indexes.last().is_none_or(|index| index.name != name) {
                let is_unique = get::<i64>(&row, 2)? == 0;
                table.indexes.push(MyIndex { name, is_unique, is_plain: true, columns: Vec::new() });
            }
            let Some(index) = table.indexes.last_mut() else { continue };
            let (column, is_part, kind): (Option<String>, i64, String) = (get(&row, 3)?, get(&row, 4)?, get(&row, 5)?);
            index.is_plain &= is_part == 0 && column.is_some() && matches!(kind.as_str(), "BTREE" | "HASH" | "RTREE");
            index.columns.extend(column);
        }
    }
    Ok(tables)
}

const TABLES: &str = "select t.table_name as name, t.table_type as kind, coalesce(t.engine, '') as engine
    from information_schema.tables t where t.table_schema = ?";

const COLUMNS: &str =
    "select c.table_name as owner, c.column_name as name, lower(c.data_type) as kind, c.column_type as declared,
            c.is_nullable as nullable, coalesce(c.datetime_precision, 0) + 0 as digits,
            coalesce(c.character_octet_length, 0) + 0 as length, coalesce(c.collation_name, '') as collation
     from information_schema.columns c where c.table_schema = ? order by c.table_name, c.ordinal_position";

const INDEXES: &str =
    "select s.table_name as owner, s.index_name as name, s.non_unique + 0 as others, s.column_name as part,
            (s.sub_part is not null) + 0 as is_part, s.index_type as kind
     from information_schema.statistics s where s.table_schema = ?
     order by s.table_name, s.index_name <> 'PRIMARY', s.index_name, s.seq_in_index";

/// Of MariaDB, whose `json` is a text with a check that says so. Where it cannot be asked, there is none.
async fn json_columns(session: &mut Session, database: &str) -> Result<BTreeSet<(String, String)>> {
    if !session.server.is_mariadb {
        return Ok(BTreeSet::new());
    }
    let sql = "select c.table_name as owner, c.check_clause as clause from information_schema.check_constraints c
               where c.constraint_schema = ?";
    let mut found = BTreeSet::new();
    for row in session.rows(sql, (database,)).await? {
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
