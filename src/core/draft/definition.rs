//! A table's definition as text: a member of `schema.json`. No IO.

use crate::core::schema::{ColumnType, Table, ddl};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// An array longer than this goes on a line for each element.
const LINE_CHARS: usize = 100;

/// A table as it goes into `schema.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The table's name in the replica.
    pub name: String,
    /// `source`, where the name does not say it.
    pub source: Option<String>,
    /// The key's columns.
    pub key: Vec<String>,
    /// Columns in the table's order.
    pub columns: Vec<(String, ColumnType)>,
    /// Indexes beyond the key's.
    pub indexes: Vec<Vec<String>>,
    /// What was left out of it, for people.
    pub left_out: Vec<String>,
}

impl Definition {
    /// Takes the names of the table and of its indexes; an index for whose name there is no room is left out.
    pub(crate) fn settle(&mut self, names: &mut BTreeSet<String>) {
        names.insert(self.name.to_lowercase());
        let mut nameless = Vec::new();
        self.indexes.retain(|columns| {
            let name = ddl::index_name_of(&self.name, columns);
            let is_free = names.insert(name.to_lowercase());
            if !is_free {
                nameless.push(format!(
                    "the index over {}: another table or index of the replica would be called {name:?}, too",
                    columns.join(", ")
                ));
            }
            is_free
        });
        self.left_out.extend(nameless);
    }
}

/// What a table of a file and its indexes are called in the replica, in lower case: SQLite keeps both in one name space.
pub(crate) fn names_of(table: &Table) -> impl Iterator<Item = String> {
    let indexes = table.indexes.iter().map(|index| ddl::index_name(table, index).to_lowercase());
    std::iter::once(table.name.to_lowercase()).chain(indexes)
}

/// A string as JSON.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json_columns(names: &[String]) -> String {
    match names {
        [one] => json_string(one),
        many => format!("[{}]", many.iter().map(|n| json_string(n)).collect::<Vec<_>>().join(", ")),
    }
}

fn json_indexes(indexes: &[Vec<String>]) -> String {
    let each: Vec<_> = indexes.iter().map(|i| json_columns(i)).collect();
    let line = format!("[{}]", each.join(", "));
    if line.chars().count() <= LINE_CHARS { line } else { format!("[\n      {}\n    ]", each.join(",\n      ")) }
}

/// The member of `schema.json`, indented by two.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|(name, kind)| format!("      {}: {}", json_string(name), json_string(kind.name())))
            .collect();
        let mut text = format!(
            "  {}: {{\n    \"primaryKey\": {},\n    \"columns\": {{\n{}\n    }}",
            json_string(&self.name),
            json_columns(&self.key),
            columns.join(",\n")
        );
        if !self.indexes.is_empty() {
            write!(text, ",\n    \"indexes\": {}", json_indexes(&self.indexes))?;
        }
        if let Some(source) = &self.source {
            write!(text, ",\n    \"source\": {}", json_string(source))?;
        }
        write!(f, "{text}\n  }}")
    }
}
