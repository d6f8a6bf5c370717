//! What turns the replica's tables into those of `schema.json`. Takes what is there, gives SQL, each change
//! with words for people; runs nothing.

use super::inventory::{Gap, Inventory, Made, ReplicaColumn};
use crate::core::schema::{Column, Schema, Table, ddl, quote, quoted_list};
use std::collections::{BTreeMap, BTreeSet};

/// One change of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table's name in `schema.json`.
    pub table: String,
    /// What happens, for people.
    pub what: String,
    /// How.
    pub statements: Vec<String>,
    /// Data goes that only a resync could bring back, or nothing.
    pub is_drop: bool,
    /// Rows lack values afterwards, until the table is copied again.
    pub needs_copy: bool,
}

/// What was replicated once and is no longer named: the only things that are ever dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Tables.
    pub tables: BTreeSet<String>,
    /// Columns of tables that stay.
    pub columns: BTreeMap<String, BTreeSet<String>>,
}

/// All changes, table by table.
pub fn plan(there: &Inventory, schema: &Schema, retired: &Retired) -> Vec<Change> {
    let mut changes: Vec<Change> =
        schema.tables().flat_map(|t| Planner { there, table: t, retired }.changes()).collect();
    let names = retired.tables.iter().filter(|name| there.tables.contains_key(&name.to_lowercase()));
    changes.extend(names.map(|name| Change {
        table: name.clone(),
        what: "drop the table".into(),
        statements: vec![format!("DROP TABLE IF EXISTS {}", quote(name))],
        is_drop: true,
        needs_copy: false,
    }));
    changes
}

/// The columns that are missing, and indexes over them, and a table whose column follows its source to another type:
/// what a worker may do by itself.
pub(crate) fn additions(there: &Inventory, schema: &Schema) -> Vec<Change> {
    let none = Retired::default();
    let changes = schema.tables().flat_map(|table| {
        let planner = Planner { there, table, retired: &none };
        let gaps = there.gaps(table);
        let follows = |gap: &Gap| matches!(gap, Gap::Type(column, _) if table.follows(column));
        match is_wrong(&gaps) {
            _ if gaps.contains(&Gap::Table) => Vec::new(),
            false => planner.additions(&gaps),
            true if gaps.iter().all(|gap| follows(gap) || matches!(gap, Gap::Column(_) | Gap::Unique)) => {
                vec![planner.rebuild(&gaps)]
            }
            true => Vec::new(),
        }
    });
    changes.collect()
}

struct Planner<'a> {
    there: &'a Inventory,
    table: &'a Table,
    retired: &'a Retired,
}

impl Planner<'_> {
    fn changes(&self) -> Vec<Change> {
        let gaps = self.there.gaps(self.table);
        if gaps.contains(&Gap::Table) {
            return vec![self.creation()];
        }
        if self.is_to_rebuild(&gaps) {
            return vec![self.rebuild(&gaps)];
        }
        let mut changes = self.obsolete_indexes();
        changes.extend(gaps.contains(&Gap::Unique).then(|| self.key_index()));
        changes.extend(self.drops());
        changes.extend(self.additions(&gaps));
        changes
    }

    /// The table is kept, and its declared key with it.
    fn key_index(&self) -> Change {
        let key: Vec<_> = self.table.key_columns().map(|c| c.name.as_str()).collect();
        let what = format!("add the unique index over the key ({})", key.join(", "));
        Change { needs_copy: true, ..self.change(what, self.there.make_key(self.table)) }
    }

    fn change(&self, what: String, statements: Vec<String>) -> Change {
        Change { table: self.table.name.clone(), what, statements, is_drop: false, needs_copy: false }
    }

    fn creation(&self) -> Change {
        let indexes = self.table.indexes.iter().map(|index| ddl::create_index(self.table, index));
        let statements = std::iter::once(ddl::create_table(self.table)).chain(indexes).collect();
        Change { needs_copy: true, ..self.change("create the table".into(), statements) }
    }

    fn additions(&self, gaps: &[Gap]) -> Vec<Change> {
        let missing = gaps.iter().filter_map(|gap| match gap {
            Gap::Column(name) => self.table.columns.iter().find(|c| c.name == *name),
            _ => None,
        });
        let add = |column: &Column| Change {
            needs_copy: true,
            ..self.change(format!("add the column {:?}", column.name), vec![ddl::add_column(self.table, column)])
        };
        let mut changes: Vec<_> = missing.map(add).collect();
        for index in &self.table.indexes {
            let name = ddl::index_name(self.table, index);
            if !self.there.indexes.contains_key(&name.to_lowercase()) {
                changes
                    .push(self.change(format!("add the index {name:?}"), vec![ddl::create_index(self.table, index)]));
            }
        }
        changes
    }

    /// Indexes whose name says that they are ours, and which `schema.json` does not ask for.
    fn obsolete(&self) -> Vec<&Made> {
        let wanted: BTreeSet<_> =
            self.table.indexes.iter().map(|index| ddl::index_name(self.table, index).to_lowercase()).collect();
        let on = self.table.name.to_lowercase();
        let is_stale_key = |name: &str| self.is_key_index(name) && self.there.has_stale_key_index(self.table);
        let is_obsolete = |(name, made): &(&String, &Made)| {
            made.on == on && (is_stale_key(name) || name.starts_with(&format!("idx_{on}_")) && !wanted.contains(*name))
        };
        self.there.indexes.iter().filter(is_obsolete).map(|(_, made)| made).collect()
    }

    fn obsolete_indexes(&self) -> Vec<Change> {
        let drop = |made: &Made| {
            self.change(
                format!("drop the index {:?}", made.name),
                vec![format!("DROP INDEX IF EXISTS {}", quote(&made.name))],
            )
        };
        self.obsolete().into_iter().map(drop).collect()
    }

    fn is_retired(&self, column: &ReplicaColumn) -> bool {
        let name = column.name.to_lowercase();
        let is_named = self.table.columns.iter().any(|c| c.name.to_lowercase() == name);
        let retired = self.retired.columns.get(&self.table.name);
        !is_named && retired.is_some_and(|names| names.iter().any(|n| n.to_lowercase() == name))
    }

    fn columns(&self) -> &[ReplicaColumn] {
        self.there.tables.get(&self.table.name.to_lowercase()).map_or(&[], Vec::as_slice)
    }

    fn drops(&self) -> Vec<Change> {
        let drop = |column: &ReplicaColumn| Change {
            is_drop: true,
            ..self.change(
                format!("drop the column {:?}", column.name),
                vec![format!("ALTER TABLE {} DROP COLUMN {}", quote(&self.table.name), quote(&column.name))],
            )
        };
        self.columns().iter().filter(|c| self.is_retired(c)).map(drop).collect()
    }

    /// The unique index over the key, by its name in lower case.
    fn is_key_index(&self, name: &str) -> bool {
        name == ddl::key_index_name(self.table).to_lowercase()
    }

    /// Whether only another table will do: also where columns of the old key could not hold the NULL that they may
    /// have now, or are to go.
    fn is_to_rebuild(&self, gaps: &[Gap]) -> bool {
        let mut old_key = self.columns().iter().filter(|c| c.in_key);
        is_wrong(gaps)
            || old_key.any(|c| self.is_retired(c) || gaps.contains(&Gap::Unique) && c.not_null && !self.is_in_key(c))
    }

    fn is_in_key(&self, column: &ReplicaColumn) -> bool {
        self.table.key_columns().any(|c| c.name.to_lowercase() == column.name.to_lowercase())
    }

    /// A new table with the rows of the old one. The old rows are put aside and copied back: renaming a new
    /// table into the place of the old would fail where a view reads it.
    fn rebuild(&self, gaps: &[Gap]) -> Change {
        let (table, name) = (self.table, quote(&self.table.name));
        let aside = quote(&format!("_pgflume_aside_{}", table.name));
        let foreign: Vec<_> = self.columns().iter().filter(|c| !self.is_named(c) && !self.is_retired(c)).collect();
        let kept: Vec<&str> = self
            .columns()
            .iter()
            .filter(|c| self.is_named(c) || foreign.iter().any(|f| f.name == c.name))
            .map(|c| c.name.as_str())
            .collect();
        let mut statements = vec![
            format!("DROP TABLE IF EXISTS {aside}"),
            format!("CREATE TABLE {aside} AS SELECT * FROM {name}"),
            format!("DROP TABLE {name}"),
            ddl::create_table(table),
        ];
        for column in &foreign {
            statements.push(format!("ALTER TABLE {name} ADD COLUMN {} {}", quote(&column.name), column.declared));
        }
        let lacks_key = table.key_columns().any(|c| self.there.column(&table.name, &c.name).is_none());
        if !lacks_key {
            let list = quoted_list(kept);
            let known = table.key_columns().map(|c| format!("{} IS NOT NULL", quote(&c.name))).collect::<Vec<_>>();
            statements.push(format!(
                "INSERT OR IGNORE INTO {name} ({list}) SELECT {list} FROM {aside} WHERE {}",
                known.join(" AND ")
            ));
        }
        statements.push(format!("DROP TABLE {aside}"));
        statements.extend(table.indexes.iter().map(|index| ddl::create_index(table, index)));
        statements.extend(self.others_made());
        let is_drop = self.columns().iter().any(|c| self.is_retired(c));
        let what = format!("rebuild the table: {}", self.why(gaps));
        Change { is_drop, needs_copy: true, ..self.change(what, statements) }
    }

    fn is_named(&self, column: &ReplicaColumn) -> bool {
        self.table.columns.iter().any(|c| c.name.to_lowercase() == column.name.to_lowercase())
    }

    /// Indexes and triggers of somebody else, which go with the old table.
    fn others_made(&self) -> Vec<String> {
        let on = self.table.name.to_lowercase();
        let ours: BTreeSet<_> =
            self.table.indexes.iter().map(|index| ddl::index_name(self.table, index).to_lowercase()).collect();
        let obsolete: BTreeSet<&str> = self.obsolete().into_iter().map(|made| made.name.as_str()).collect();
        let both = self.there.indexes.iter().chain(&self.there.triggers);
        let others = both.filter(|(name, made)| {
            let is_ours = ours.contains(*name) || self.is_key_index(name) || obsolete.contains(made.name.as_str());
            made.on == on && !made.sql.is_empty() && !is_ours
        });
        others.map(|(_, made)| made.sql.clone()).collect()
    }

    fn why(&self, gaps: &[Gap]) -> String {
        let reason = |gap: &Gap| match gap {
            Gap::Type(column, declared) => Some(format!("{column:?} is declared {declared}")),
            Gap::Key | Gap::Unique => Some("another primary key".into()),
            Gap::Column(column) => Some(format!("{column:?} is added")),
            Gap::Table => None,
        };
        let retired = self.columns().iter().filter(|c| self.is_retired(c));
        let drops = retired.map(|c| format!("{:?} is dropped", c.name));
        gaps.iter().filter_map(reason).chain(drops).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a table keeps values or keys otherwise than they are.
fn is_wrong(gaps: &[Gap]) -> bool {
    gaps.iter().any(|gap| matches!(gap, Gap::Type(..) | Gap::Key))
}
