//! What of a table is fed to clients: the member `feed` of its definition. No IO.

/// Most columns of a key, and columns that may be filtered by: each is written with each change.
pub(super) const MOST_COLUMNS: usize = 16;

/// Who may read a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readers {
    /// Anybody who reaches `FEED_BIND`.
    Anybody,
    /// Whoever has a token: the rows in which each of these columns is what the token's claim says.
    Matching(Vec<Match>),
}

/// A column and the claim that its values are compared with: a list of values in it means one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The column.
    pub column: String,
    /// The claim.
    pub claim: String,
}

/// What clients get of a table, and by what they may narrow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Who may read which rows.
    pub readers: Readers,
    /// Columns that they get; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Columns that a client's `where` may use.
    pub filter: Vec<String>,
}

impl Feed {
    /// The columns by which rows are told apart: those of claims, then those of clients' filters.
    pub(super) fn compared(&self) -> impl Iterator<Item = &String> {
        let matches: &[Match] = if let Readers::Matching(matches) = &self.readers { matches } else { &[] };
        let of_claims = matches.iter().map(|one| &one.column);
        let is_new = |name: &&String| !matches.iter().any(|one| one.column == **name);
        of_claims.chain(self.filter.iter().filter(is_new))
    }
}

/// Whether SQLite takes a column's name for the number of a row (<https://sqlite.org/rowidtable.html>).
pub(super) fn is_rowid(name: &str) -> bool {
    ["rowid", "_rowid_", "oid"].iter().any(|known| name.eq_ignore_ascii_case(known))
}
