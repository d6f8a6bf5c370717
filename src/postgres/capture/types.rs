//! How a value of a Postgres type is compared and written as text inside a trigger. Takes what the
//! catalog says about a column, gives SQL and the settings that this SQL depends on. No IO.

use std::collections::BTreeSet;

/// A value that takes more than this (as stored) counts as changed: comparing it would cost the writer
/// more than reading one more row costs the worker.
const COMPARED_BYTES: usize = 65_536;

/// Longest text of a fixed-length type: an enum label or a name has up to 63 bytes.
const FIXED_TEXT_BYTES: usize = 64;

/// Longest text of a number or boolean of at most eight bytes.
const SHORT_TEXT_BYTES: usize = 24;

/// A setting that the text of some type depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// timestamptz
    TimeZone,
    /// dates and timestamps
    DateStyle,
    /// interval
    IntervalStyle,
    /// bytea
    ByteaOutput,
    /// floats and geometric types
    ExtraFloatDigits,
    /// money
    LcMonetary,
    /// regclass and its like
    QuoteAllIdentifiers,
    /// not a type: the planner thinks that the join of old and new rows is huge, and compiling costs more than running
    Jit,
    /// not a type: the queue has row-level security, and the writer may have it switched off
    RowSecurity,
}

impl Pin {
    /// What a type that we know nothing about may depend on.
    pub(crate) const ANY_TYPE: [Self; 7] = [
        Self::TimeZone,
        Self::DateStyle,
        Self::IntervalStyle,
        Self::ByteaOutput,
        Self::ExtraFloatDigits,
        Self::LcMonetary,
        Self::QuoteAllIdentifiers,
    ];

    /// Name and value, as `pg_proc.proconfig` holds them.
    pub fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::TimeZone => ("TimeZone", "UTC"),
            Self::DateStyle => ("DateStyle", "ISO, YMD"),
            Self::IntervalStyle => ("IntervalStyle", "postgres"),
            Self::ByteaOutput => ("bytea_output", "hex"),
            Self::ExtraFloatDigits => ("extra_float_digits", "3"),
            Self::LcMonetary => ("lc_monetary", "C"),
            Self::QuoteAllIdentifiers => ("quote_all_identifiers", "off"),
            Self::Jit => ("jit", "off"),
            Self::RowSecurity => ("row_security", "on"),
        }
    }
}

/// A column of a source table, as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SourceColumn {
    /// Its name.
    pub name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Computed when read (PostgreSQL 18): a trigger does not see its value.
    pub is_virtual: bool,
    /// Its type under all domains, and the element's type for an array; only `pg_catalog`'s are named.
    pub base: Option<String>,
    /// Whether that is the type of an array's elements.
    pub is_array: bool,
    /// An enum, and no domain over one.
    pub is_enum: bool,
    /// A domain over an enum, for which Postgres has no comparison.
    pub is_domain_of_enum: bool,
    /// The OID of its type where that is Postgres' own and no domain: the same on every server, so that a trigger can
    /// tell whether the column still is of that type.
    pub own_type: Option<u32>,
}

impl SourceColumn {
    /// The column as one of a type that nothing is known about: whatever type it has by now, writing and comparing it
    /// runs nobody's cast and nobody's operator.
    pub fn of_any_type(&self) -> Self {
        Self { name: self.name.clone(), not_null: self.not_null, is_virtual: self.is_virtual, ..Self::default() }
    }

    fn scalar(&self) -> Option<&str> {
        self.base.as_deref().filter(|_| !self.is_array && self.own_type.is_some())
    }

    /// Whether `=` is exact: equal values have equal text and the same content.
    fn is_exact(&self) -> bool {
        const EXACT: [&str; 12] = [
            "bool",
            "int2",
            "int4",
            "int8",
            "oid",
            "uuid",
            "date",
            "timestamp",
            "timestamptz",
            "time",
            "bytea",
            "money",
        ];
        self.scalar().is_some_and(|t| EXACT.contains(&t))
    }

    /// An upper bound for the length of its text, if the type has one.
    pub fn text_bytes(&self) -> Option<usize> {
        if self.is_enum {
            return Some(FIXED_TEXT_BYTES);
        }
        match self.scalar()? {
            "bool" | "int2" | "int4" | "int8" | "oid" | "xid8" => Some(SHORT_TEXT_BYTES),
            "uuid" | "date" | "timestamp" | "timestamptz" | "time" | "timetz" | "interval" | "name" | "char"
            | "money" | "float4" | "float8" | "macaddr" | "macaddr8" | "inet" | "cidr" | "pg_lsn" => {
                Some(FIXED_TEXT_BYTES)
            }
            _ => None,
        }
    }

    /// The settings that its text depends on.
    pub fn text_pins(&self) -> &'static [Pin] {
        if self.is_enum {
            return &[];
        }
        match self.base.as_deref() {
            Some("date" | "timestamp" | "daterange" | "tsrange" | "datemultirange" | "tsmultirange") => {
                &[Pin::DateStyle]
            }
            Some("timestamptz" | "tstzrange" | "tstzmultirange") => &[Pin::TimeZone, Pin::DateStyle],
            Some("interval") => &[Pin::IntervalStyle],
            Some("bytea") => &[Pin::ByteaOutput],
            Some("float4" | "float8" | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle") => {
                &[Pin::ExtraFloatDigits]
            }
            Some("money") => &[Pin::LcMonetary],
            Some(
                "bool" | "int2" | "int4" | "int8" | "oid" | "uuid" | "time" | "timetz" | "text" | "varchar" | "bpchar"
                | "name" | "char" | "json" | "jsonb" | "numeric" | "inet" | "cidr" | "macaddr" | "macaddr8" | "bit"
                | "varbit" | "tsvector" | "tsquery" | "xml" | "jsonpath" | "pg_lsn" | "xid" | "xid8" | "int4range"
                | "int8range" | "numrange" | "int4multirange" | "int8multirange" | "nummultirange",
            ) => &[],
            _ => &Pin::ANY_TYPE,
        }
    }

    /// Whether it has a fixed length and its text stands in JSON as it is.
    pub fn is_plain(&self) -> bool {
        matches!(self.scalar(), Some("int2" | "int4" | "int8" | "oid" | "uuid"))
    }

    /// Its value as a key's text. A type that is not Postgres' own is written by its output function: a cast that
    /// somebody makes later must not run with the rights of the capture.
    pub fn key_text(&self, value: &str) -> String {
        match self.own_type {
            Some(_) => format!("{value}::pg_catalog.text"),
            None => format!("pg_catalog.format('%s', {value})"),
        }
    }

    /// SQL that is true where a column that was of Postgres' own type still is of that type. Without it a cast or an
    /// operator may be somebody's function: of the type that its owner has given the column since.
    pub fn is_as_it_was(&self, value: &str) -> Option<String> {
        let oid = self.own_type?;
        Some(format!("pg_catalog.pg_typeof({value})::pg_catalog.oid operator(pg_catalog.=) {oid}::pg_catalog.oid"))
    }

    /// Whether [`changed`] compares it by what only its type has.
    pub fn is_compared_by_type(&self) -> bool {
        self.is_exact() || self.is_text()
    }

    /// What two of its values are compared by: the value where that is exact, else its text byte by byte.
    fn comparable(&self, value: &str) -> String {
        if self.is_exact() { value.to_owned() } else { format!("{} collate pg_catalog.\"C\"", self.key_text(value)) }
    }

    /// SQL that is true where two of its values are the same key.
    pub fn same_key(&self, left: &str, right: &str) -> String {
        format!("{} operator(pg_catalog.=) {}", self.comparable(left), self.comparable(right))
    }

    fn is_text(&self) -> bool {
        matches!(self.scalar(), Some("text" | "varchar" | "bpchar" | "name"))
    }

    /// SQL that is true where the second value must be looked at again. Where `=` is not exact, bytes are compared as
    /// they are stored: cheaper than making text of them, and what is the same has the same text.
    fn changed(&self, old: &str, new: &str) -> String {
        let differs = if self.is_compared_by_type() {
            format!("{} is distinct from {}", self.comparable(old), self.comparable(new))
        } else {
            format!("row({old})::pg_catalog.record operator(pg_catalog.*<>) row({new})::pg_catalog.record")
        };
        if self.text_bytes().is_some() {
            return differs;
        }
        format!(
            "case when greatest(pg_catalog.pg_column_size({old}), pg_catalog.pg_column_size({new})) > {COMPARED_BYTES} \
             then true else {differs} end"
        )
    }
}

/// SQL conditions of which one is true where a value has changed, of columns with the old and the new value. The
/// cheap ones come first: most updates change something that is compared at once.
pub fn changed(columns: &[(&SourceColumn, String, String)]) -> Vec<String> {
    let mut columns: Vec<_> = columns.iter().collect();
    columns.sort_by_key(|(column, ..)| (column.text_bytes().is_none(), !column.is_exact(), !column.is_text()));
    columns.into_iter().map(|(column, old, new)| column.changed(old, new)).collect()
}

/// All pins of the given columns.
pub fn pins<'a>(
    columns: impl IntoIterator<Item = &'a SourceColumn>,
    of: impl Fn(&SourceColumn) -> &'static [Pin],
) -> BTreeSet<Pin> {
    columns.into_iter().flat_map(|c| of(c).iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(base: &str) -> SourceColumn {
        SourceColumn { name: "c".into(), base: Some(base.into()), own_type: Some(1), ..SourceColumn::default() }
    }

    #[test]
    fn exact_keys_are_compared_as_they_are_and_the_rest_as_text() {
        assert_eq!(column("uuid").same_key("o.c", "n.c"), "o.c operator(pg_catalog.=) n.c");
        assert!(column("numeric").same_key("o.c", "n.c").contains("o.c::pg_catalog.text collate"));
        assert!(SourceColumn::default().same_key("o.c", "n.c").contains("format('%s', o.c) collate"));
    }

    #[test]
    fn what_is_compared_at_once_is_compared_first() {
        let (jsonb, text, float, int) = (column("jsonb"), column("text"), column("float8"), column("int8"));
        let found = changed(&[&jsonb, &text, &float, &int].map(|c| (c, "o.c".to_owned(), "n.c".to_owned())));
        let image = "row(o.c)::pg_catalog.record operator(pg_catalog.*<>) row(n.c)::pg_catalog.record";
        assert_eq!(found[..2], ["o.c is distinct from n.c", image]);
        assert!(found[2].starts_with("case when greatest") && found[2].contains("o.c::pg_catalog.text collate"));
        assert!(found[3].starts_with("case when greatest") && found[3].contains(image));
    }

    #[test]
    fn only_the_settings_that_matter_are_pinned() {
        assert!(column("int4").text_pins().is_empty());
        assert_eq!(column("timestamptz").text_pins(), [Pin::TimeZone, Pin::DateStyle]);
        assert_eq!(SourceColumn::default().text_pins(), Pin::ANY_TYPE, "an unknown type depends on anything");
    }

    #[test]
    fn an_array_is_as_long_as_it_likes() {
        let array = SourceColumn { is_array: true, ..column("int4") };
        assert_eq!(array.text_bytes(), None);
        assert!(!array.is_exact());
    }
}
