//! One table of `schema.json`.

use super::feed::Feed;
use super::names::SourceName;
use super::writable::Writable;

/// How a column is stored in SQLite (`docs/schema-json.md`, "Types of columns").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 64-bit integer.
    Integer,
    /// Double; NaN and the infinities as text.
    Real,
    /// Text.
    Text,
    /// 0 or 1.
    Boolean,
    /// Text that holds JSON.
    Json,
    /// Bytes.
    Blob,
    /// Text that keeps every digit.
    Decimal,
}

impl ColumnType {
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("INTEGER", Self::Integer),
        ("REAL", Self::Real),
        ("TEXT", Self::Text),
        ("BOOLEAN", Self::Boolean),
        ("JSON", Self::Json),
        ("BLOB", Self::Blob),
        ("DECIMAL", Self::Decimal),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(_, kind)| kind)
    }

    /// Whether clients can filter by such values: JSON keeps them to the last digit, and they are equal only where they are
    /// written alike.
    pub(super) fn can_filter(self) -> bool {
        matches!(self, Self::Integer | Self::Boolean | Self::Text)
    }

    /// The name in `schema.json`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, t)| *t == self).map_or("TEXT", |(n, _)| n)
    }
}

/// One replicated column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, the same on both sides.
    pub name: String,
    /// How SQLite stores it.
    pub kind: ColumnType,
}

/// One replicated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name in the replica and in messages.
    pub name: String,
    /// Where its rows come from.
    pub source: SourceName,
    /// Its columns in the order of the file.
    pub columns: Vec<Column>,
    /// The primary key: positions in `columns`.
    pub key: Vec<usize>,
    /// Indexes: positions in `columns`.
    pub indexes: Vec<Vec<usize>>,
    /// SQL row filter over the source's own columns.
    pub filter: Option<String>,
    /// Columns whose type is known to lose something of the source's: positions in `columns`.
    pub lossy: Vec<usize>,
    /// Whether columns that are added to the source are replicated by themselves.
    pub evolve: bool,
    /// What of it is fed to clients, if anything.
    pub feed: Option<Feed>,
    /// What of it clients may write, if anything.
    pub writable: Option<Writable>,
    /// How many of `columns` schema.json names; those behind follow the source.
    pub named: usize,
}

impl Table {
    /// Whether a column follows the source: nobody named it, or its type.
    pub fn follows(&self, column: &str) -> bool {
        self.position(column).is_some_and(|position| position >= self.named)
    }
    /// The position of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
    /// The same without these columns; `None` where its key is among them.
    pub(super) fn without(&self, columns: &[String]) -> Option<Self> {
        let stays = |i: &usize| !columns.contains(&self.columns[*i].name);
        let kept: Vec<usize> = (0..self.columns.len()).filter(stays).collect();
        let place = |i: &usize| kept.iter().position(|k| k == i);
        Some(Self {
            columns: kept.iter().map(|&i| self.columns[i].clone()).collect(),
            key: self.key.iter().map(place).collect::<Option<_>>()?,
            indexes: self.indexes.iter().filter_map(|index| index.iter().map(place).collect()).collect(),
            lossy: self.lossy.iter().filter_map(place).collect(),
            ..self.clone()
        })
    }
    /// The positions of the columns that clients are fed: the key's always.
    pub fn fed_columns(&self) -> Vec<usize> {
        let Some(feed) = &self.feed else { return Vec::new() };
        let is_named = |name: &String| feed.columns.as_ref().is_none_or(|columns| columns.contains(name));
        let is_fed = |i: &usize| self.key.contains(i) || is_named(&self.columns[*i].name);
        (0..self.columns.len()).filter(is_fed).collect()
    }
    /// The positions of the columns by which fed rows are told apart (by claims, then by clients' filters), in the order of the
    /// definition; `None` of one that the table lacks by now.
    pub fn fed_filters(&self) -> Vec<Option<usize>> {
        self.fed_filter_names().map(|name| self.position(name)).collect()
    }
    /// Their names.
    pub fn fed_filter_names(&self) -> impl Iterator<Item = &String> {
        self.feed.iter().flat_map(Feed::compared)
    }
    /// The key's columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&i| &self.columns[i])
    }
}
