//! By what a table of the replica tells its rows apart, and the unique index that makes it tell them apart by
//! the key of `schema.json` where it declares another one. Takes what is there, gives SQL; runs nothing.

use super::inventory::{Gap, Inventory};
use super::store::Statement;
use super::unique::Unique;
use crate::core::schema::{Schema, Table, ddl, quote, quoted_list};
use crate::core::value::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// By what SQLite lets a row's number be called, unless a column has the name.
const ROWIDS: [&str; 3] = ["rowid", "_rowid_", "oid"];

impl Inventory {
    /// How far the table is from telling rows apart by the key.
    pub(super) fn key_gap(&self, table: &Table) -> Option<Gap> {
        if table.key_columns().any(|c| self.column(&table.name, &c.name).is_none()) {
            return Some(Gap::Key);
        }
        if self.has_key(table) {
            return None;
        }
        let is_possible = !self.needs_more(table)
            && !self.confuses(table)
            && !self.handles(table).is_empty()
            && !self.tables.contains_key(&ddl::key_index_name(table).to_lowercase());
        Some(if is_possible { Gap::Unique } else { Gap::Key })
    }

    /// Whether a unique index, whosever it is, or the rowid stands for the key.
    fn has_key(&self, table: &Table) -> bool {
        let wanted: BTreeSet<_> = table.key_columns().map(|c| Some(c.name.to_lowercase())).collect();
        self.rowid_column(table).is_some_and(|name| wanted == BTreeSet::from([Some(name)]))
            || self.uniques_of(table).any(|(_, unique)| unique.is_over(&wanted))
    }

    fn uniques_of(&self, table: &Table) -> impl Iterator<Item = (&String, &Unique)> {
        self.uniques.get(&table.name.to_lowercase()).into_iter().flatten()
    }

    fn primary(&self, table: &Table) -> Option<&Unique> {
        self.uniques_of(table).map(|(_, unique)| unique).find(|unique| unique.is_primary)
    }

    /// Whether rows of the table have numbers: not where it is WITHOUT ROWID.
    pub(crate) fn has_rowids(&self, table: &Table) -> bool {
        self.primary(table).is_none_or(|unique| unique.has_rowid)
    }

    /// The column, in lower case, that is another name of the rowid: an INTEGER PRIMARY KEY, which needs no index.
    pub(super) fn rowid_column(&self, table: &Table) -> Option<String> {
        let columns = self.tables.get(&table.name.to_lowercase())?;
        let mut key = columns.iter().filter(|c| c.in_key);
        let name = key.next().map(|c| c.name.to_lowercase());
        name.filter(|_| key.next().is_none() && self.primary(table).is_none())
    }

    /// Columns of tables (by position) that are the rowid and not the key.
    pub(super) fn rowids(&self, schema: &Schema) -> BTreeMap<String, usize> {
        let of = |table: &Arc<Table>| {
            let name = self.rowid_column(table)?;
            let at = table.columns.iter().position(|c| c.name.to_lowercase() == name)?;
            (!table.key.contains(&at)).then(|| (table.name.clone(), at))
        };
        schema.tables().filter_map(of).collect()
    }

    /// The columns, by position, of keys that tables declare beside theirs, where rows set all of them.
    pub(super) fn rivals(&self, schema: &Schema) -> BTreeMap<String, Arc<[usize]>> {
        let of = |table: &Arc<Table>| {
            let found = self.tables.get(&table.name.to_lowercase())?.iter().filter(|c| c.in_key);
            let at = |name: &str| table.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
            let columns: Vec<usize> = found.map(|c| at(&c.name)).collect::<Option<_>>()?;
            let is_key = columns.iter().collect::<BTreeSet<_>>() == table.key.iter().collect();
            (!columns.is_empty() && !is_key).then(|| (table.name.clone(), columns.into()))
        };
        schema.tables().filter_map(of).collect()
    }

    /// Whether rows cannot be written because the declared key has a column that `schema.json` does not name.
    fn needs_more(&self, table: &Table) -> bool {
        let rowid = self.rowid_column(table);
        let has_rowid = self.has_rowids(table);
        let columns = self.tables.get(&table.name.to_lowercase()).into_iter().flatten();
        columns.filter(|c| c.in_key && (c.not_null || !has_rowid)).any(|c| {
            let name = c.name.to_lowercase();
            rowid.as_ref() != Some(&name) && !table.columns.iter().any(|t| t.name.to_lowercase() == name)
        })
    }

    /// Whether a key could be taken for another one that differs in case: keys of several columns are looked up as
    /// the columns compare.
    fn confuses(&self, table: &Table) -> bool {
        table.key.len() > 1 && self.collated.contains(&table.name.to_lowercase())
    }

    /// What tells rows of the table apart that have the same key, the youngest last: the rowid, else the declared key.
    fn handles(&self, table: &Table) -> Vec<String> {
        let columns = self.tables.get(&table.name.to_lowercase()).map_or(&[][..], Vec::as_slice);
        match self.primary(table) {
            Some(unique) if !unique.has_rowid => columns.iter().filter(|c| c.in_key).map(|c| c.name.clone()).collect(),
            _ => {
                let is_free = |name: &&&str| !columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
                ROWIDS.iter().find(is_free).map(|name| (*name).to_owned()).into_iter().collect()
            }
        }
    }

    /// What makes the unique index over the table's key, in one transaction. Of rows with the same key the
    /// youngest stays; where the table has no rowids, that with the highest declared key.
    pub(super) fn make_key(&self, table: &Table) -> Vec<String> {
        let name = quote(&table.name);
        let handles = self.handles(table);
        let aliases: Vec<_> = (0..handles.len()).map(|i| format!("_pgflume_h{i}")).collect();
        let named: Vec<_> = handles.iter().zip(&aliases).map(|(h, a)| format!("{} AS {a}", quote(h))).collect();
        let youngest: Vec<_> = handles.iter().map(|h| format!("{} DESC", quote(h))).collect();
        vec![
            ddl::drop_key_index(table),
            delete_keyless(table),
            format!(
                "DELETE FROM {name} WHERE ({}) IN (SELECT {} FROM (SELECT {}, row_number() OVER (PARTITION BY {} ORDER BY {}) AS _pgflume_n FROM {name}) WHERE _pgflume_n > 1)",
                quoted_list(handles.iter().map(String::as_str)),
                aliases.join(", "),
                named.join(", "),
                ddl::exact_key_list(table),
                youngest.join(", ")
            ),
            ddl::create_key_index(table),
        ]
    }

    /// Tables that lack the unique index over their key, and can have one.
    pub(crate) fn keyless<'a>(&self, schema: &'a Schema) -> impl Iterator<Item = &'a Arc<Table>> {
        schema.tables().filter(|table| self.gaps(table).contains(&Gap::Unique))
    }

    /// Whether there is an index of ours over a key that is not, or no longer, wanted for it: it could refuse rows.
    pub(crate) fn has_stale_key_index(&self, table: &Table) -> bool {
        let name = ddl::key_index_name(table).to_lowercase();
        let on = table.name.to_lowercase();
        let wanted: BTreeSet<_> = table.key_columns().map(|c| Some(c.name.to_lowercase())).collect();
        let is_wanted = || self.uniques_of(table).any(|(n, unique)| *n == name && unique.is_over(&wanted));
        self.indexes.get(&name).is_some_and(|made| made.on != on || !is_wanted())
    }
}

/// Counts, and removes, rows that have no key: nobody can ask for them, and no key of the source is NULL.
pub(super) fn without_key(table: &Table) -> [Statement; 2] {
    let count = format!("SELECT count(*) FROM {} WHERE {}", quote(&table.name), has_no_key(table));
    [count.into(), delete_keyless(table).into()]
}

fn delete_keyless(table: &Table) -> String {
    format!("DELETE FROM {} WHERE {}", quote(&table.name), has_no_key(table))
}

fn has_no_key(table: &Table) -> String {
    let all: Vec<_> = table.key_columns().map(|c| format!("{} IS NULL", quote(&c.name))).collect();
    all.join(" OR ")
}

/// The keys of rows that have one of `values` in the columns `rival`, and the values.
pub(super) fn holders(table: &Table, rival: &[usize], values: &[&Vec<Cell>]) -> Statement {
    let rival = quoted_list(rival.iter().map(|&i| table.columns[i].name.as_str()));
    let mut next = 1..;
    let row = |value: &&Vec<Cell>| {
        let marks: Vec<_> = next.by_ref().take(value.len()).map(|i| format!("?{i}")).collect();
        format!("({})", marks.join(", "))
    };
    let rows: Vec<_> = values.iter().map(row).collect();
    let sql = format!(
        "SELECT {}, {rival} FROM {} WHERE ({rival}) IN (VALUES {})",
        ddl::key_list(table),
        quote(&table.name),
        rows.join(", ")
    );
    Statement::new(sql, values.iter().flat_map(|value| value.iter().cloned()).collect())
}

/// How many rows would go for the sake of a unique index over the key.
pub(super) fn count_surplus(table: &Table) -> Statement {
    let name = quote(&table.name);
    let sql = format!(
        "SELECT (SELECT count(*) FROM {name}) - (SELECT count(*) FROM (SELECT 1 FROM {name} WHERE NOT ({}) GROUP BY {}))",
        has_no_key(table),
        ddl::exact_key_list(table)
    );
    sql.into()
}
