//! By which definition rows were read: what is kept of it beside them, and when another one asks for other rows. No IO.

use super::statements::quote;
use crate::core::schema::Table;
use crate::mysql::catalog::{MyColumn, MyTable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Definition {
    source: String,
    key: Vec<String>,
    filter: Option<String>,
    /// Type in the replica, and at the source with its collation.
    columns: BTreeMap<String, (String, String)>,
    /// The columns as the source has them in order: one that was dropped and made anew stands elsewhere.
    order: Vec<String>,
    /// When the table was made, or made anew.
    made: String,
}

impl Definition {
    pub fn of(table: &Table, source: &MyTable, name: &str) -> Self {
        let declared = |name: &str| {
            let column = source.column(name);
            let text = |c: &MyColumn| format!("{} {} {}", c.of.declared, c.collation, c.generated);
            column.map(|c| text(c).trim_end().to_owned()).unwrap_or_default()
        };
        Self {
            source: name.to_owned(),
            key: table.key_columns().map(|column| column.name.clone()).collect(),
            filter: table.filter.clone(),
            columns: table
                .columns
                .iter()
                .map(|column| (column.name.clone(), (column.kind.name().to_owned(), declared(&column.name))))
                .collect(),
            order: source.columns.iter().map(|column| column.name.clone()).collect(),
            made: source.made.clone(),
        }
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn columns(self) -> BTreeSet<String> {
        self.columns.into_keys().collect()
    }

    /// The table's name, quoted by us: what stands in the replica is not believed.
    pub fn source(&self) -> Option<String> {
        let (database, rest) = unquoted(&self.source)?;
        let (table, rest) = unquoted(rest.strip_prefix('.')?)?;
        rest.is_empty().then(|| format!("{}.{}", quote(&database), quote(&table)))
    }

    /// Why rows that were read by `before` are not those that this one asks for.
    pub fn outgrows(&self, before: &Self) -> Option<String> {
        for (name, (kind, declared)) in &self.columns {
            let Some((kind_before, declared_before)) = before.columns.get(name) else {
                return Some(format!("the column {name:?} is new"));
            };
            if kind != kind_before {
                return Some(format!("the column {name:?} was {kind_before}, and is {kind}"));
            }
            if declared != declared_before {
                return Some(format!("the column {name:?} was {declared_before} in MySQL, and is {declared}"));
            }
        }
        let shared = |of: &Self, other: &Self| -> Vec<String> {
            of.order.iter().filter(|name| other.order.contains(name)).cloned().collect()
        };
        if shared(self, before) != shared(before, self) {
            return Some("its columns stand in another order, as after one was dropped and made anew".into());
        }
        match () {
            () if self.key != before.key => Some("the primary key is another".into()),
            () if self.filter != before.filter => Some("`where` has changed".into()),
            () if self.source != before.source => Some("`source` has changed".into()),
            () if self.made != before.made => {
                Some("the table was made anew, by an ALTER or another one that took its name".into())
            }
            () => None,
        }
    }
}

/// The name that a text begins with, and the rest of it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), text.strip_prefix('`')?);
    loop {
        let (part, behind) = rest.split_once('`')?;
        name += part;
        match behind.strip_prefix('`') {
            Some(behind) => {
                name.push('`');
                rest = behind;
            }
            None => return Some((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_name_is_read_and_quoted_anew() {
        let source = |text: &str| Definition { source: text.into(), ..Definition::default() }.source();
        for name in ["`d`.`t`", "`a``.``b`.`t`", "`d`.`a``; drop table x`"] {
            assert_eq!(source(name).as_deref(), Some(name));
        }
        for text in ["", "d.t", "`d`", "`d`.`t` x", "`d`.t`", "`d`; select `t`"] {
            assert_eq!(source(text), None, "{text}");
        }
    }
}
