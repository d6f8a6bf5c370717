//! What the templates of the capture are told about the key of a table and the columns that it is compared by: SQL for
//! one row, for the rows of a transition table, for an old row beside a new one. No IO.

use super::source::ReplicatedTable;
use super::template::text;
use super::types::{SourceColumn, changed};
use crate::core::schema::quote;
use minijinja::{Value, context};

/// Most keys of one message: one read of the worker.
pub(crate) const MESSAGE_KEYS: usize = 500;

/// Most bytes of the keys of one message, give or take one key: PGMQ's rows stay small.
const MESSAGE_BYTES: usize = 32_000;

/// What a key costs besides its text; also makes `MESSAGE_BYTES` bound the number of keys.
const KEY_BYTES: usize = MESSAGE_BYTES / MESSAGE_KEYS;

/// `column` of the row that `side` names.
pub fn column(side: &str, name: &str) -> String {
    format!("{side}.{}", quote(name))
}

fn numbered(side: &str, prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("{side}.{prefix}{i}")).collect()
}

impl ReplicatedTable {
    /// Of the row `side`: each of the key's columns as text.
    pub fn key_of(&self, side: &str) -> Vec<String> {
        self.key.iter().map(|c| c.key_text(&column(side, &c.name))).collect()
    }

    /// The key that is selected as `k1`..., of the row `side`.
    pub fn parts(&self, side: &str) -> Vec<String> {
        numbered(side, "k", self.key.len())
    }

    /// The key of the row `t`, selected as `k1`....
    pub fn key_columns(&self) -> Vec<String> {
        as_numbered("k", self.key_of("t"))
    }

    /// The key of the row `side` of an update, as a list of one key.
    pub(crate) fn list_of_key(&self, side: &str) -> String {
        let parts: Vec<_> = self.key.iter().zip(self.parts(side)).map(|(c, part)| c.key_text(&part)).collect();
        format!("array[array[{}]]", parts.join(", "))
    }

    /// The key of the row `side` as JSON.
    fn json_key(&self, side: &str) -> String {
        format!("pg_catalog.jsonb_build_array({})", self.key_of(side).join(", "))
    }

    /// The names of the watched columns.
    pub(crate) fn watched_names(&self) -> Vec<String> {
        self.watched.iter().flatten().map(|c| quote(&c.name)).collect()
    }

    /// Of an old or new row `t`: the key as `k1`..., the watched columns as `c1`....
    pub(crate) fn side_columns(&self) -> Vec<String> {
        let key = self.key.iter().map(|c| column("t", &c.name)).collect();
        [as_numbered("k", key), as_numbered("c", self.watched_names())].concat()
    }

    /// The key of either an old or a new row, selected as `k1`....
    fn either_key(&self) -> Vec<String> {
        let parts = self.parts("o").into_iter().zip(self.parts("n"));
        let texts = self.key.iter().zip(parts).map(|(c, (old, new))| c.key_text(&format!("coalesce({old}, {new})")));
        as_numbered("k", texts.collect())
    }

    /// Numbers the messages: by rows where the keys have a longest text, else by a running sum of bytes.
    pub fn message(&self) -> String {
        let longest: Option<usize> = self.key.iter().map(SourceColumn::text_bytes).sum();
        if let Some(bytes) = longest {
            let keys = (MESSAGE_BYTES / bytes.max(KEY_BYTES)).clamp(1, MESSAGE_KEYS);
            return format!("(pg_catalog.row_number() over () - 1) / {keys}");
        }
        let lengths = self.parts("r").into_iter().map(|part| format!(" + pg_catalog.octet_length({part})"));
        format!(
            "(pg_catalog.sum({KEY_BYTES}{}) over (rows unbounded preceding) - 1) / {MESSAGE_BYTES}",
            lengths.collect::<String>()
        )
    }

    /// For `capture_rows.sql`: the key as its types are, or of any types.
    pub(crate) fn for_rows(&self) -> Value {
        context! { columns => self.key_columns(), message => self.message() }
    }

    /// For `capture_update.sql`: the same, of two rows.
    pub(crate) fn for_update(&self) -> Value {
        let same = self.key.iter().zip(self.parts("o").into_iter().zip(self.parts("n")));
        let is_same: Vec<_> = same.map(|(c, (old, new))| c.same_key(&old, &new)).collect();
        let count = self.watched.iter().flatten().count();
        context! {
            either => self.either_key(),
            is_same => is_same.join(" and "),
            changed => self.changed(numbered("o", "c", count), numbered("n", "c", count)),
            message => self.message(),
        }
    }

    /// For `capture_row.sql`: the same, of the rows `old` and `new`.
    pub(crate) fn for_row(&self) -> Value {
        let each = |side| self.watched.iter().flatten().map(move |c| column(side, &c.name)).collect();
        let moved =
            |c: &SourceColumn| format!("not ({})", c.same_key(&column("old", &c.name), &column("new", &c.name)));
        context! {
            old => self.json_key("old"),
            new => self.json_key("new"),
            differs => self.key.iter().map(moved).collect::<Vec<_>>().join(" or "),
            changed => self.changed(each("old"), each("new")),
        }
    }

    /// Conditions of which one is true where an update that left the key alone is worth a mark.
    fn changed(&self, old: Vec<String>, new: Vec<String>) -> Vec<String> {
        match &self.watched {
            None => vec!["true".to_owned()],
            Some(columns) => {
                let pairs = columns.iter().zip(old.into_iter().zip(new));
                changed(&pairs.map(|(c, (old, new))| (c, old, new)).collect::<Vec<_>>())
            }
        }
    }

    /// The statement that adds the key of the row `$1` to what is marked already, `$2`: as text, to be parsed when run.
    pub fn anew(&self) -> String {
        let key = self.of_any_types().json_key("($1)");
        text(&format!("select $2 operator(pg_catalog.||) pg_catalog.jsonb_build_array({key})"))
    }
}

fn as_numbered(prefix: &str, columns: Vec<String>) -> Vec<String> {
    columns.into_iter().enumerate().map(|(i, c)| format!("{c} as {prefix}{}", i + 1)).collect()
}
