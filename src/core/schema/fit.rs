//! Which [`ColumnType`] holds a Postgres type without loss. Takes a type as the catalog shows it, gives a
//! verdict or the type to declare. A table, no IO.
//!
//! "Without loss" is about what Postgres tells apart. Known exceptions, all of them in docs/types.md: SQLite
//! has no −0; `numeric` as INTEGER drops zeros behind the point (and makes a dead letter of everything
//! else that is no whole number); in an array of jsonb SQL NULL and the JSON value null are one.

use super::table::ColumnType;

/// A Postgres type under all its domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    /// `pg_type.typname`, of the elements for an array.
    pub name: String,
    /// `pg_type.typtype`: `b`ase, `e`num, `c`omposite, `r`ange, `m`ultirange; of the elements for an array.
    pub kind: char,
    /// Whether it is one of `pg_catalog`'s.
    pub is_built_in: bool,
    /// Whether it is an array.
    pub is_array: bool,
    /// Digits in all, and behind the point, of a `numeric(p,s)` that is no array.
    pub digits: Option<(i32, i32)>,
}

/// What becomes of a type's values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Each value arrives so that it can be had back.
    Lossless,
    /// Values arrive changed, or some arrive and others do not: the reason.
    Lossy(&'static str),
    /// No value would arrive: the reason.
    Unfit(&'static str),
}

/// Types that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Integers that a double holds.
    Int,
    /// Integers that it may not hold.
    BigInt,
    Bool,
    Float,
    Numeric,
    /// Any text at all, so it may look like anything.
    Text,
    Json,
    Jsonb,
    Bytes,
    /// Printed in a form of its own that is never a number, a boolean or JSON.
    Printed,
    Composite,
    /// Of an extension, or newer than this table: exact as text, the rest nobody knows.
    Foreign,
}

const BUILT_IN: &[(Family, &[&str])] = &[
    (Family::Int, &["int2", "int4", "oid", "xid", "cid"]),
    (Family::BigInt, &["int8", "xid8"]),
    (Family::Bool, &["bool"]),
    (Family::Float, &["float4", "float8"]),
    (Family::Numeric, &["numeric"]),
    (Family::Text, &["text", "varchar", "bpchar", "name", "char", "bit", "varbit", "xml", "jsonpath"]),
    (Family::Json, &["json"]),
    (Family::Jsonb, &["jsonb"]),
    (Family::Bytes, &["bytea"]),
    (
        Family::Printed,
        &[
            "timestamp",
            "timestamptz",
            "date",
            "time",
            "timetz",
            "interval",
            "uuid",
            "inet",
            "cidr",
            "macaddr",
            "macaddr8",
            "money",
            "point",
            "line",
            "lseg",
            "box",
            "path",
            "polygon",
            "circle",
            "tsvector",
            "tsquery",
            "pg_lsn",
            "tid",
            "int2vector",
            "oidvector",
        ],
    ),
];

impl PgType {
    /// What becomes of this type's values in a column of `kind`.
    pub fn fit(&self, kind: ColumnType) -> Fit {
        if kind == ColumnType::Real && self.fits_double() {
            return Fit::Lossless;
        }
        if self.is_array { self.element().array_fit(kind) } else { self.element().fit(kind) }
    }

    /// The type to declare: one without loss.
    pub(crate) fn default_type(&self) -> ColumnType {
        let family = self.element();
        if self.is_array {
            // JSON is what SQLite can look into; text is exact for every array.
            let as_json = family.array_fit(ColumnType::Json);
            return if as_json == Fit::Lossless { ColumnType::Json } else { ColumnType::Text };
        }
        match family {
            Family::Int | Family::BigInt => ColumnType::Integer,
            Family::Bool => ColumnType::Boolean,
            Family::Float => ColumnType::Real,
            Family::Numeric => ColumnType::Decimal,
            Family::Json | Family::Jsonb => ColumnType::Json,
            Family::Bytes => ColumnType::Blob,
            Family::Text | Family::Printed | Family::Composite | Family::Foreign => ColumnType::Text,
        }
    }

    /// Whether each of its values is a decimal number that a double gives back: 15 digits are (DBL_DIG), at any place of
    /// the point that is not far from them.
    fn fits_double(&self) -> bool {
        let is_short = |(precision, scale): (i32, i32)| precision <= 15 && (0..=30).contains(&scale);
        !self.is_array && self.element() == Family::Numeric && self.digits.is_some_and(is_short)
    }

    /// The type to declare for a new column that is to compare and sort as a number where that loses nothing.
    pub(crate) fn number_type(&self) -> ColumnType {
        if self.fits_double() { ColumnType::Real } else { self.default_type() }
    }

    /// The type to declare for a column of the key: Postgres has to take its text back as a key.
    pub(crate) fn default_key_type(&self) -> ColumnType {
        if self.is_array { ColumnType::Text } else { self.default_type() }
    }

    /// `int8`, `text[]`.
    pub fn shown(&self) -> String {
        format!("{}{}", self.name, if self.is_array { "[]" } else { "" })
    }

    fn element(&self) -> Family {
        match self.kind {
            'e' => Family::Text,
            'c' => Family::Composite,
            'r' | 'm' => Family::Printed,
            // The one extension type that is text and nothing else, whatever schema it lives in.
            _ if self.name == "citext" => Family::Text,
            _ if self.is_built_in => BUILT_IN
                .iter()
                .find(|(_, names)| names.contains(&self.name.as_str()))
                .map_or(Family::Foreign, |(family, _)| *family),
            _ => Family::Foreign,
        }
    }
}

const NOT_ALL_INTEGERS: &str = "text such as 007 arrives as 7, and what is no integer becomes a dead letter";
const NOT_ALL_NUMBERS: &str = "text such as 1.10 arrives as 1.1, and what is no number becomes a dead letter";
const NOT_ALL_BOOLEANS: &str = "t, true and 1 all arrive as 1, and what is no boolean becomes a dead letter";
const NOT_ALL_BYTES: &str = "\\x0A and \\x0a arrive alike, and what is no hex becomes a dead letter";
const A_DOUBLE_IS_SHORT: &str = "a double keeps 15 to 17 digits and rounds the rest";
const NO_NUMBER: &str = "its values are no numbers, so every row would become a dead letter";
const NO_BOOLEAN: &str = "its values are no booleans, so every row would become a dead letter";
const NO_BYTES: &str = "its values are no bytes (bytea is), so every row would become a dead letter";
const NO_MINUS_ZERO: &str = "JSON as Postgres makes it has no -0";
const JSON_AGAIN: &str = "json is made jsonb on the way: spaces, the order of members and duplicates are lost";
const OWN_JSON: &str = "the type may have a conversion to JSON of its own, which may leave things out";

impl Family {
    fn fit(self, kind: ColumnType) -> Fit {
        use Fit::{Lossless, Lossy, Unfit};
        match kind {
            // Text under pinned settings is how Postgres itself dumps a value.
            ColumnType::Text | ColumnType::Decimal => Lossless,
            ColumnType::Integer => match self {
                // Of numeric and floats whole numbers arrive, with another number of zeros behind the point at most.
                Self::Int | Self::BigInt | Self::Bool | Self::Float | Self::Numeric => Lossless,
                Self::Text | Self::Json | Self::Jsonb | Self::Foreign => Lossy(NOT_ALL_INTEGERS),
                Self::Bytes | Self::Printed | Self::Composite => Unfit(NO_NUMBER),
            },
            ColumnType::Real => match self {
                Self::Int | Self::Float => Lossless,
                Self::BigInt | Self::Numeric => Lossy(A_DOUBLE_IS_SHORT),
                Self::Text | Self::Json | Self::Jsonb | Self::Foreign => Lossy(NOT_ALL_NUMBERS),
                Self::Bool | Self::Bytes | Self::Printed | Self::Composite => Unfit(NO_NUMBER),
            },
            ColumnType::Boolean => match self {
                // 0 and 1 arrive, the rest become dead letters.
                Self::Bool | Self::Int | Self::BigInt | Self::Float | Self::Numeric => Lossless,
                Self::Text | Self::Json | Self::Jsonb | Self::Foreign => Lossy(NOT_ALL_BOOLEANS),
                Self::Bytes | Self::Printed | Self::Composite => Unfit(NO_BOOLEAN),
            },
            ColumnType::Blob => match self {
                Self::Bytes => Lossless,
                Self::Text | Self::Foreign => Lossy(NOT_ALL_BYTES),
                _ => Unfit(NO_BYTES),
            },
            ColumnType::Json => match self {
                Self::Float => Lossy(NO_MINUS_ZERO),
                Self::Composite | Self::Foreign => Lossy(OWN_JSON),
                // json and jsonb arrive as their own text, the rest as a JSON number, boolean or string.
                _ => Lossless,
            },
        }
    }

    /// The same for an array of it: `{…}` as text, `[…]` as JSON.
    fn array_fit(self, kind: ColumnType) -> Fit {
        match kind {
            ColumnType::Text | ColumnType::Decimal => Fit::Lossless,
            ColumnType::Json if self == Self::Json => Fit::Lossy(JSON_AGAIN),
            ColumnType::Json => self.fit(kind),
            ColumnType::Integer | ColumnType::Real => Fit::Unfit(NO_NUMBER),
            ColumnType::Boolean => Fit::Unfit(NO_BOOLEAN),
            ColumnType::Blob => Fit::Unfit(NO_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text`, `_text` (an array), `enum x`, `composite x`, `range x`, `extension x`.
    fn pg_type(text: &str) -> PgType {
        let (text, is_array) = text.strip_prefix('_').map_or((text, false), |t| (t, true));
        let (kind, name) = text.split_once(' ').unwrap_or(("", text));
        let (kind, is_built_in) = match kind {
            "enum" => ('e', false),
            "composite" => ('c', false),
            "range" => ('r', false),
            "extension" => ('b', false),
            _ => ('b', true),
        };
        let (name, digits) = match name.strip_suffix(')').and_then(|name| name.split_once('(')) {
            Some((name, digits)) => {
                let (precision, scale) = digits.split_once(',').unwrap();
                (name, Some((precision.parse().unwrap(), scale.parse().unwrap())))
            }
            None => (name, None),
        };
        PgType { name: name.into(), kind, is_built_in, is_array, digits }
    }

    #[test]
    fn each_type_against_each_column_type() {
        // Letters: - without loss, l lossy, U unfit.
        let order = ["INTEGER", "REAL", "TEXT", "BOOLEAN", "JSON", "BLOB", "DECIMAL"];
        let cases = [
            ("int2", "-----U-"),
            ("int4", "-----U-"),
            ("oid", "-----U-"),
            ("int8", "-l---U-"),
            ("bool", "-U---U-"),
            ("float4", "----lU-"),
            ("float8", "----lU-"),
            ("numeric", "-l---U-"),
            ("numeric(15,2)", "-----U-"),
            ("numeric(15,0)", "-----U-"),
            ("numeric(16,2)", "-l---U-"),
            ("numeric(10,40)", "-l---U-"),
            ("numeric(10,-2)", "-l---U-"),
            ("text", "ll-l-l-"),
            ("bpchar", "ll-l-l-"),
            ("enum mood", "ll-l-l-"),
            ("extension citext", "ll-l-l-"),
            ("json", "ll-l-U-"),
            ("jsonb", "ll-l-U-"),
            ("bytea", "UU-U---"),
            ("timestamptz", "UU-U-U-"),
            ("interval", "UU-U-U-"),
            ("uuid", "UU-U-U-"),
            ("money", "UU-U-U-"),
            ("point", "UU-U-U-"),
            ("tsvector", "UU-U-U-"),
            ("range int4range", "UU-U-U-"),
            ("composite pair", "UU-UlU-"),
            ("extension hstore", "ll-lll-"),
            ("extension geometry", "ll-lll-"),
            ("_text", "UU-U-U-"),
            ("_numeric", "UU-U-U-"),
            ("_jsonb", "UU-U-U-"),
            ("_json", "UU-UlU-"),
            ("_float8", "UU-UlU-"),
            ("_composite pair", "UU-UlU-"),
            ("_extension geometry", "UU-UlU-"),
        ];
        for (name, expected) in cases {
            let found: String = order
                .iter()
                .map(|kind| match pg_type(name).fit(ColumnType::parse(kind).unwrap()) {
                    Fit::Lossless => '-',
                    Fit::Lossy(_) => 'l',
                    Fit::Unfit(_) => 'U',
                })
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn each_type_has_a_default_without_loss() {
        let cases = [
            ("int8", ColumnType::Integer),
            ("oid", ColumnType::Integer),
            ("bool", ColumnType::Boolean),
            ("float4", ColumnType::Real),
            ("numeric", ColumnType::Decimal),
            ("varchar", ColumnType::Text),
            ("jsonb", ColumnType::Json),
            ("bytea", ColumnType::Blob),
            ("timestamptz", ColumnType::Text),
            ("money", ColumnType::Text),
            ("enum mood", ColumnType::Text),
            ("range tstzrange", ColumnType::Text),
            ("composite pair", ColumnType::Text),
            ("extension vector", ColumnType::Text),
            ("some_type_of_postgres_30", ColumnType::Text),
            ("_text", ColumnType::Json),
            ("_uuid", ColumnType::Json),
            ("_jsonb", ColumnType::Json),
            ("_float8", ColumnType::Text),
            ("_composite pair", ColumnType::Text),
        ];
        for (name, expected) in cases {
            let given = pg_type(name);
            assert_eq!(given.default_type(), expected, "{name}");
            assert_eq!(given.fit(given.default_type()), Fit::Lossless, "{name}");
            assert_eq!(given.fit(given.default_key_type()), Fit::Lossless, "{name}");
        }
        assert_eq!(pg_type("_int4").default_key_type(), ColumnType::Text);
    }

    #[test]
    fn no_type_is_named_twice() {
        let mut names: Vec<_> = BUILT_IN.iter().flat_map(|(_, names)| *names).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
