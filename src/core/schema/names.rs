//! Names of schemas, tables and columns: how they are written, and which are not to be used.

/// Quotes an identifier for Postgres and SQLite alike.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal (no backslash is special: `standard_conforming_strings` is on).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `"a", "b"` for the named columns.
pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// Longest name that Postgres keeps whole, in bytes (NAMEDATALEN − 1).
pub(crate) const NAME_BYTES: usize = 63;

/// A schema-qualified Postgres table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceName {
    /// The Postgres schema.
    pub schema: String,
    /// The table in it.
    pub table: String,
}

impl SourceName {
    /// `"public"."apps"`.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
    /// As `source` in `schema.json` takes it: quoted only where that is needed.
    pub fn written(&self) -> String {
        let part = |name: &str| if name.contains(['.', '"']) { quote(name) } else { name.to_owned() };
        format!("{}.{}", part(&self.schema), part(&self.table))
    }
}

/// Schemas that hold machinery: what is in them is nobody's table, and some of it is secret.
const MACHINERY: [&str; 6] = ["information_schema", "pgflume", "pgmq", "vault", "cron", "net"];

/// Whether nothing of this Postgres schema is replicated: it is machinery, ours included, or belongs to Postgres,
/// which keeps all names that begin with `pg_` for itself.
pub(crate) fn is_machinery(schema: &str) -> bool {
    schema.starts_with("pg_") || MACHINERY.contains(&schema)
}

/// Whether a table of the replica may not be called so: bookkeeping, SQLite or an editor claim the name.
pub(crate) fn is_reserved(name: &str) -> bool {
    let lower = name.to_lowercase();
    name == "$schema" || lower.starts_with("_pgflume_") || lower.starts_with("sqlite_")
}
