//! What types MySQL and MariaDB declare, and which [`ColumnType`] holds each without loss (docs/types-mysql.md). Takes the
//! text of `information_schema`, gives facts. No IO.

use crate::core::schema::ColumnType;

/// Types that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Integers of at most 64 bits with a sign, and `year`.
    Int,
    /// Those that may be beyond them.
    BigUnsigned,
    Decimal,
    Float,
    Double,
    Bit,
    /// Any text at all.
    Text,
    Enum,
    Set,
    Json,
    /// Bytes, geometry among them.
    Bytes,
    Date,
    DateTime,
    Timestamp,
    Time,
    /// Arrives as text and is never a number: `uuid`, `inet6`, `inet4`.
    Printed,
    /// Newer than this table.
    Unknown,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MyType {
    pub family: Family,
    /// As it is declared: `int(10) unsigned`.
    pub declared: String,
    /// Digits behind the point of seconds; bits of a `bit`.
    pub digits: u8,
    /// What an enum or a set is made of, in its order.
    pub members: Vec<String>,
    /// Whether a value may be longer than some hundred bytes.
    pub is_long: bool,
    /// The character set and the collation of a text.
    pub charset: Option<(String, String)>,
}

impl MyType {
    /// By what `information_schema.columns` says. `is_json`: a check sees to it that the text is JSON, which is all that
    /// MariaDB's `json` is.
    pub fn parse(data_type: &str, declared: &str, digits: u8, length: u64, is_json: bool) -> Self {
        let is_unsigned = declared.contains("unsigned");
        let family = match data_type {
            "bigint" if is_unsigned => Family::BigUnsigned,
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "year" => Family::Int,
            "decimal" | "numeric" => Family::Decimal,
            "float" => Family::Float,
            "double" | "real" => Family::Double,
            "bit" => Family::Bit,
            "json" => Family::Json,
            "longtext" if is_json => Family::Json,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Family::Text,
            "enum" => Family::Enum,
            "set" => Family::Set,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Family::Bytes,
            "vector" | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Family::Bytes,
            "date" => Family::Date,
            "datetime" => Family::DateTime,
            "timestamp" => Family::Timestamp,
            "time" => Family::Time,
            "uuid" | "inet6" | "inet4" => Family::Printed,
            _ => Family::Unknown,
        };
        let members = match family {
            Family::Enum | Family::Set => members(declared),
            _ => Vec::new(),
        };
        let can_be_long = matches!(family, Family::Text | Family::Json | Family::Bytes | Family::Unknown);
        let digits = if family == Family::Bit { bits(declared) } else { digits };
        Self {
            family,
            declared: declared.to_owned(),
            digits,
            members,
            is_long: can_be_long && (length > 255 || length == 0),
            charset: None,
        }
    }

    /// The same of a text in a character set.
    pub fn in_charset(self, charset: String, collation: String) -> Self {
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let is_named = self.family == Family::Text && is_name(&charset) && is_name(&collation);
        Self { charset: is_named.then_some((charset, collation)), ..self }
    }

    /// The type to declare: one without loss.
    pub fn default_type(&self) -> ColumnType {
        match self.family {
            Family::Int => ColumnType::Integer,
            Family::BigUnsigned | Family::Decimal => ColumnType::Decimal,
            Family::Float | Family::Double => ColumnType::Real,
            Family::Bit if self.digits <= 63 => ColumnType::Integer,
            Family::Bit | Family::Bytes => ColumnType::Blob,
            Family::Json => ColumnType::Json,
            Family::Text
            | Family::Enum
            | Family::Set
            | Family::Date
            | Family::DateTime
            | Family::Timestamp
            | Family::Time
            | Family::Printed
            | Family::Unknown => ColumnType::Text,
        }
    }

    /// Why no value would arrive in a column of `kind`.
    pub fn obstacle(&self, kind: ColumnType) -> Option<&'static str> {
        use ColumnType::{Blob, Boolean, Integer, Json, Real};
        let is_bytes = matches!(self.family, Family::Bytes | Family::Bit);
        let is_number = !matches!(
            self.family,
            Family::Date | Family::DateTime | Family::Timestamp | Family::Time | Family::Printed | Family::Bytes
        );
        match kind {
            Blob if !is_bytes => Some("its values are no bytes: declare TEXT"),
            Integer | Real | Boolean if !is_number => {
                Some("its values are no numbers: declare TEXT, or BLOB for bytes")
            }
            Blob | Integer | Real | Boolean => None,
            _ if self.family == Family::Bytes => Some("its values are bytes: declare BLOB"),
            Json if !matches!(self.family, Family::Json | Family::Text) => Some("its values are no JSON: declare TEXT"),
            _ => None,
        }
    }

    /// Whether the replica sorts values of it as the source does, in a key column of `kind`.
    pub fn sorts_alike(&self, kind: ColumnType) -> bool {
        self.family == Family::Int && kind == ColumnType::Integer
    }

    /// Why rows cannot be asked for by a key of this type in a column of `kind`.
    pub fn key_obstacle(&self, kind: ColumnType) -> Option<&'static str> {
        let is_bytes = matches!(self.family, Family::Bytes | Family::Bit);
        let is_number = matches!(self.family, Family::Int | Family::BigUnsigned);
        let is_own = kind == self.default_type()
            || kind == ColumnType::Text && !is_bytes
            || kind == ColumnType::Decimal && is_number;
        match self.family {
            Family::Enum | Family::Set if self.members.iter().any(String::is_empty) => {
                Some("a key with '' among its members cannot be told from one that is none of them")
            }
            Family::Float | Family::Double => Some("a key of floating point cannot be asked for exactly"),
            Family::Json | Family::Unknown => Some("a key of this type cannot be asked for"),
            _ if !is_own => Some("a key that is declared as something else cannot be asked for: declare its own type"),
            _ => None,
        }
    }
}

/// The bits of `bit(n)`.
fn bits(declared: &str) -> u8 {
    let digits: String = declared.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(1)
}

/// What stands between the brackets of `enum('a','it''s')`.
fn members(declared: &str) -> Vec<String> {
    let (mut members, mut current) = (Vec::new(), None::<String>);
    let mut chars = declared.chars().peekable();
    while let Some(c) = chars.next() {
        match (&mut current, c) {
            (None, '\'') => current = Some(String::new()),
            (None, _) => {}
            (Some(text), '\'') if chars.peek() == Some(&'\'') => {
                chars.next();
                text.push('\'');
            }
            (Some(_), '\'') => members.extend(current.take()),
            (Some(text), '\\') => text.extend(chars.next().map(|c| match c {
                '0' => '\0',
                'n' => '\n',
                'r' => '\r',
                c => c,
            })),
            (Some(text), c) => text.push(c),
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(declared: &str) -> MyType {
        let end = declared.find(['(', ' ']).unwrap_or(declared.len());
        MyType::parse(&declared[..end], declared, 0, 0, false)
    }

    #[test]
    fn each_type_has_one_that_holds_it() {
        for (declared, expected) in [
            ("tinyint(1)", ColumnType::Integer),
            ("bigint(20)", ColumnType::Integer),
            ("bigint(20) unsigned", ColumnType::Decimal),
            ("int unsigned zerofill", ColumnType::Integer),
            ("year(4)", ColumnType::Integer),
            ("decimal(65,30)", ColumnType::Decimal),
            ("float", ColumnType::Real),
            ("double", ColumnType::Real),
            ("bit(1)", ColumnType::Integer),
            ("bit(63)", ColumnType::Integer),
            ("bit(64)", ColumnType::Blob),
            ("varchar(20)", ColumnType::Text),
            ("varbinary(20)", ColumnType::Blob),
            ("point", ColumnType::Blob),
            ("json", ColumnType::Json),
            ("enum('a')", ColumnType::Text),
            ("timestamp(6)", ColumnType::Text),
            ("uuid", ColumnType::Text),
            ("vector(3)", ColumnType::Blob),
        ] {
            let found = of(declared);
            assert_eq!(found.default_type(), expected, "{declared}");
            assert_eq!(found.obstacle(expected), None, "{declared}");
        }
        assert_eq!(MyType::parse("longtext", "longtext", 0, 4 << 30, true).family, Family::Json);
    }

    #[test]
    fn members_are_read_with_quotes_and_commas_in_them() {
        assert_eq!(of("enum('a','it''s','x,y','')").members, ["a", "it's", "x,y", ""]);
        assert_eq!(of("set('é')").members, ["é"]);
        assert_eq!(of(r"enum('a\\b','x\ny','\0')").members, ["a\\b", "x\ny", "\0"]);
        assert!(of("int(3)").members.is_empty());
    }
}
