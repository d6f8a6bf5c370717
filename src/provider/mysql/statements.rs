//! The SQL that a MySQL is asked with: no name or value of anybody's stands in it unquoted. No IO.

use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use crate::mysql::catalog::MyTable;
use crate::mysql::session::Server;
use crate::mysql::types::{Family, MyType};
use crate::mysql::values;
use crate::provider::stamps::{Dialect, Stamp};
use mysql_async::Value;
use std::time::Duration;

/// A name.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text that is a constant: what stands in it comes from the server.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A table that is read.
#[derive(Debug, Clone)]
pub(super) struct Readable {
    pub table: std::sync::Arc<Table>,
    /// `` `db`.`t` ``
    pub name: String,
    /// The types of its columns, in the table's order.
    pub types: Vec<MyType>,
    /// Bytes beyond which a row is not fetched.
    pub most_bytes: i64,
}

impl Readable {
    /// A table of the catalog, if it has all columns.
    pub fn of(table: &std::sync::Arc<Table>, source: &MyTable, name: String, most_bytes: i64) -> Option<Self> {
        let types = table.columns.iter().map(|column| Some(source.column(&column.name)?.of.clone()));
        Some(Self { table: table.clone(), name, types: types.collect::<Option<_>>()?, most_bytes })
    }

    fn column(&self, at: usize) -> String {
        format!("t.{}", quote(&self.table.columns[at].name))
    }

    fn key(&self) -> Vec<String> {
        self.table.key.iter().map(|&at| self.column(at)).collect()
    }

    fn filter(&self) -> String {
        self.table.filter.as_ref().map_or_else(|| "true".into(), |filter| format!("(\n{filter}\n)"))
    }

    /// Positions of columns whose values may be long.
    fn long(&self) -> impl Iterator<Item = usize> {
        (0..self.types.len()).filter(|&at| self.types[at].is_long && !self.table.key.contains(&at))
    }

    /// All columns, and how many bytes the long ones have where that is too much: then they are not sent.
    fn cells(&self) -> String {
        let sizes: Vec<String> =
            self.long().map(|at| format!("coalesce(octet_length({}), 0)", self.column(at))).collect();
        if sizes.is_empty() {
            let cells: Vec<String> = (0..self.types.len()).map(|at| self.column(at)).collect();
            return format!("{}, null", cells.join(", "));
        }
        let size = sizes.join(" + ");
        let cell = |at: usize| match self.types[at].is_long && !self.table.key.contains(&at) {
            true => format!("case when {size} <= {} then {} end", self.most_bytes, self.column(at)),
            false => self.column(at),
        };
        let cells: Vec<String> = (0..self.types.len()).map(cell).collect();
        format!("{}, case when {size} > {} then {size} end", cells.join(", "), self.most_bytes)
    }

    /// The condition for rows on one side of a key, in its order, and its parameters.
    fn beside(&self, key: &[String], side: Side) -> (String, Vec<Value>) {
        let last = key.len() - 1;
        let (mut sql, mut all, mut open) = (String::new(), Vec::new(), 0);
        // Each level of `a > ? or (a = ? and (b > ?))`: a row comparison would scan the index.
        for (at, text) in key.iter().enumerate() {
            let (column, of) = (self.column(self.table.key[at]), &self.types[self.table.key[at]]);
            let (place, value) = (values::placeholder(of), values::parameter(of, text));
            let is_last = at == last;
            match members_beside(of, &value, side, is_last) {
                // No server takes a range of members from an index, but each by itself.
                Some(others) => {
                    sql += &format!("{column} in ({others})");
                    if !is_last {
                        sql += &format!(" or {column} = {place} and (");
                        open += 1;
                        all.push(value);
                    }
                }
                None if is_last => {
                    let sign = if side == Side::Behind { ">" } else { "<=" };
                    sql += &format!("{column} {sign} {place}");
                    all.push(value);
                }
                None => {
                    let sign = if side == Side::Behind { ">" } else { "<" };
                    sql +=
                        &format!("{column} {sign}= {place} and ({column} {sign} {place} or {column} = {place} and (");
                    open += 2;
                    all.extend([value.clone(), value.clone(), value]);
                }
            }
        }
        sql += &")".repeat(open);
        (sql, all)
    }

    /// The condition for the rows of a range, and its parameters.
    fn within(&self, range: &Bounds) -> (String, Vec<Value>) {
        let (mut sql, mut all) = (self.filter(), Vec::new());
        for (bound, side) in [(&range.after, Side::Behind), (&range.until, Side::UpTo)] {
            if let Some(key) = bound {
                let (condition, parameters) = self.beside(key, side);
                sql += &format!(" and ({condition})");
                all.extend(parameters);
            }
        }
        (sql, all)
    }

    /// A page of a range in the order of the key: rows that meet `condition`.
    pub fn page(&self, condition: Option<&str>, range: &Bounds, rows: usize) -> (String, Vec<Value>) {
        let (within, parameters) = self.within(range);
        let condition = condition.map(|condition| format!(" and ({condition})")).unwrap_or_default();
        let sql = format!(
            "select {} from {} t where {within}{condition} order by {} limit {rows}",
            self.cells(),
            self.name,
            self.key().join(", ")
        );
        (sql, parameters)
    }

    /// The key that so many rows of a range lie before.
    pub fn key_at(&self, range: &Bounds, rows: i64) -> (String, Vec<Value>) {
        let ((within, parameters), key) = (self.within(range), self.key().join(", "));
        let sql = format!("select {key} from {} t where {within} order by {key} limit 1 offset {rows}", self.name);
        (sql, parameters)
    }

    /// The keys of rows that meet `condition`.
    pub fn keys_where(&self, condition: &str) -> String {
        let (key, filter) = (self.key().join(", "), self.filter());
        format!("select {key} from {} t where {filter} and ({condition}) order by {key}", self.name)
    }

    /// The rows under these keys, or only the keys.
    pub fn by_keys(&self, keys: &[&[String]], only_keys: bool) -> (String, Vec<Value>) {
        let what = if only_keys { self.key().join(", ") } else { self.cells() };
        let one: Vec<String> = self.table.key.iter().map(|&at| values::placeholder(&self.types[at])).collect();
        let key = self.key();
        // A MySQL (9.7) finds no row by a list of several in which numbers stand for members.
        let has_members = self.table.key.iter().any(|&at| matches!(self.types[at].family, Family::Enum | Family::Set));
        let condition = match key.len() {
            1 => format!("{} in ({})", key[0], vec![one[0].as_str(); keys.len()].join(", ")),
            _ if has_members => {
                let equal: Vec<String> =
                    key.iter().zip(&one).map(|(column, value)| format!("{column} = {value}")).collect();
                format!("({})", vec![format!("({})", equal.join(" and ")); keys.len()].join(" or "))
            }
            _ => {
                let one = format!("({})", one.join(", "));
                format!("({}) in ({})", key.join(", "), vec![one; keys.len()].join(", "))
            }
        };
        let value = |key: &&[String]| -> Vec<Value> {
            let parts = self.table.key.iter().zip(key.iter());
            parts.map(|(&at, text)| values::parameter(&self.types[at], text)).collect()
        };
        let sql = format!("select {what} from {} t where {} and {condition}", self.name, self.filter());
        (sql, keys.iter().flat_map(value).collect())
    }

    /// How many rows there are.
    pub fn count(&self) -> String {
        self.count_where("true")
    }

    /// How many rows a range has.
    pub fn count_within(&self, range: &Bounds) -> (String, Vec<Value>) {
        let (within, parameters) = self.within(range);
        (format!("select count(*) from {} t where {within}", self.name), parameters)
    }

    /// The rows of a range, and a number that any other rows make another: of each row over all columns, what is long by
    /// its own digest, because a text of more than `max_allowed_packet` would be NULL. The number of two ranges is that of
    /// one or the other, bit by bit.
    pub fn digest(&self, server: &Server, range: &Bounds) -> (String, Vec<Value>) {
        // MySQL 9 no longer has md5 of its own.
        let hash = |text: &str| match server.is_mariadb {
            true => format!("md5({text})"),
            false => format!("sha2({text}, 256)"),
        };
        let cell = |at: usize| match self.types[at].is_long {
            true => format!("ifnull({}, '-')", hash(&self.column(at))),
            false => format!("ifnull(hex({}), '-')", self.exact(at)),
        };
        let cells: Vec<String> = (0..self.types.len()).map(cell).collect();
        let (within, parameters) = self.within(range);
        // A row that is too long for a text is another each time.
        let (row, other) = (hash(&format!("concat_ws(',', {})", cells.join(", "))), hash("uuid()"));
        let sql = format!(
            "select count(*), coalesce(bit_xor(cast(conv(left(coalesce({row}, {other}), 16), 16, 10) as unsigned)), 0) from {} t where {within}",
            self.name
        );
        (sql, parameters)
    }

    /// Rows without a key, and keys, byte by byte.
    pub fn count_keys(&self) -> String {
        let is_null: Vec<String> = self.key().iter().map(|column| format!("{column} is null")).collect();
        let key: Vec<String> =
            self.table.key.iter().map(|&at| format!("ifnull(hex({}), '-')", self.exact(at))).collect();
        format!(
            "select coalesce(sum({}), 0), count(distinct concat_ws(',', {})) from {} t where {}",
            is_null.join(" or "),
            key.join(", "),
            self.name,
            self.filter()
        )
    }

    /// What tells each of its values from every other.
    fn exact(&self, at: usize) -> String {
        let column = self.column(at);
        match self.types[at].family {
            // As a double, whose text lacks a digit of a MySQL's now and then: and by how much it differs from it.
            Family::Float | Family::Double => {
                let double = format!("({column} + 0e0)");
                format!("concat({double}, ' ', {double} - (concat({double}) + 0e0))")
            }
            Family::Bytes | Family::Text => column,
            Family::Bit => format!("({column} + 0)"),
            _ => format!("concat({column})"),
        }
    }

    /// Rows that meet a condition.
    pub fn count_where(&self, condition: &str) -> String {
        format!("select count(*) from {} t where {} and ({condition})", self.name, self.filter())
    }

    /// The newest of a stamp.
    pub fn newest(&self, stamp: &Stamp) -> String {
        let (column, newest) = (MySql::column(stamp), MySql::newest(stamp));
        // An index answers it by one look, where there is no filter.
        format!("select {newest} from {} t where {} and {column} <= {}", self.name, self.filter(), MySql::now(stamp))
    }

    /// Rows in each of these ranges, in their order: behind a bound, up to another, or without either. For a key of one
    /// integer.
    pub fn counts(&self, ranges: &[(Option<i64>, Option<i64>)]) -> (String, Vec<Value>) {
        let (key, filter) = (self.key().join(""), self.filter());
        let mut parameters = Vec::new();
        let one = |(at, (after, to)): (usize, &(Option<i64>, Option<i64>))| {
            let mut sql = format!("select {at} as range_at, count(*) as found from {} t where {filter}", self.name);
            for (bound, comparison) in [(after, ">"), (to, "<=")] {
                if let Some(bound) = bound {
                    sql += &format!(" and {key} {comparison} ?");
                    parameters.push(Value::Int(*bound));
                }
            }
            sql
        };
        let sql = ranges.iter().enumerate().map(one).collect::<Vec<_>>().join(" union all ");
        (sql, parameters)
    }
}

/// A range of keys: behind one, up to another, or without either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub after: Option<MarkedKey>,
    pub until: Option<MarkedKey>,
}

/// On which side of a key rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Behind,
    /// And it itself.
    UpTo,
}

/// Members of an `enum` or a `set` on one side of one, by their numbers, where they are few enough to be listed; `is_last`:
/// its row is on the near side, too. Where there are none, one that there is not: without a list MariaDB would sort the
/// rows.
fn members_beside(of: &MyType, value: &Value, side: Side, is_last: bool) -> Option<String> {
    const MOST: u64 = 1_000;
    let Value::UInt(number) = *value else { return None };
    let none = match of.family {
        Family::Enum => of.members.len() as u64 + 1,
        Family::Set => 1_u64.checked_shl(of.members.len() as u32)?,
        _ => return None,
    };
    let beside = match side {
        Side::Behind => number + 1..none,
        // The first is that of an empty set, or of a value that is none of them.
        Side::UpTo => 0..number + u64::from(is_last),
    };
    let count = beside.end.saturating_sub(beside.start);
    let beside = if count == 0 { none..none + 1 } else { beside };
    (count <= MOST).then(|| beside.map(|number| number.to_string()).collect::<Vec<_>>().join(", "))
}

/// Whether rows of a table may come and go without being written: its filter may ask for more than their columns.
pub(super) fn may_filter_by_more(table: &Table) -> bool {
    let filter = table.filter.as_ref().map(|filter| filter.to_lowercase());
    filter.is_some_and(|filter| ["(", "@", "current", "local", "utc"].iter().any(|sign| filter.contains(sign)))
}

/// MySQL's own.
pub(super) struct MySql;

impl MySql {
    /// What no stamp of now is beyond.
    fn now(stamp: &Stamp) -> &'static str {
        match Self::has_zone(stamp) {
            true => "now(6)", // the session's zone is UTC
            false => {
                "greatest(utc_timestamp(6), coalesce(convert_tz(utc_timestamp(6), '+00:00', 'SYSTEM'), utc_timestamp(6)))"
            }
        }
    }
}

impl Dialect for MySql {
    const TYPES: &'static str = "datetime, timestamp or date";

    fn is_type(declared: &str) -> bool {
        matches!(declared, "datetime" | "timestamp" | "date")
    }

    fn column(stamp: &Stamp) -> String {
        format!("t.{}", quote(&stamp.column))
    }

    fn newest(stamp: &Stamp) -> String {
        format!("cast(max({}) as char)", Self::column(stamp))
    }

    fn has_zone(stamp: &Stamp) -> bool {
        stamp.declared == "timestamp"
    }

    fn since(stamp: &Stamp, newest: &str, look_back: Duration) -> String {
        let (kind, days) = match stamp.declared.as_str() {
            // The day before may still be written to.
            "date" if look_back > Duration::ZERO => ("date", 1),
            "date" => ("date", 0),
            _ => ("datetime(6)", 0),
        };
        let (column, seconds) = (Self::column(stamp), look_back.as_secs().max(days * 24 * 3600));
        let newest = format!("cast({} as {kind})", literal(newest));
        // Before the year 1 there is nothing to look back to.
        // A zero date is what old tables have for NULL.
        format!("({column} >= coalesce({newest} - interval {seconds} second, '0001-01-01') or {column} = 0)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    fn readable(json: &str, types: &[(&str, &str)]) -> Readable {
        let schema = Schema::parse(json).unwrap();
        let table = schema.get("t").unwrap().clone();
        let of = |(kind, declared): &(&str, &str)| MyType::parse(kind, declared, 0, 1 << 16, false);
        Readable { table, name: "`d`.`t`".into(), types: types.iter().map(of).collect(), most_bytes: 9 }
    }

    fn behind(key: &[&str]) -> Bounds {
        Bounds { after: Some(key.iter().map(|&part| part.to_owned()).collect()), until: None }
    }

    #[test]
    fn names_and_texts_stay_within_their_quotes() {
        assert_eq!((quote("a`b"), literal("a'\\b")), ("`a``b`".into(), "'a''\\\\b'".into()));
    }

    #[test]
    fn a_page_takes_a_range_of_the_index() {
        let t = readable(
            r#"{"t":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"DECIMAL","v":"TEXT"},"where":"v <> ''"}}"#,
            &[("varchar", "varchar(9)"), ("decimal", "decimal(9,2)"), ("text", "text")],
        );
        let (sql, parameters) = t.page(Some("c"), &behind(&["x", "1.5"]), 10);
        assert_eq!(
            sql,
            "select t.`a`, t.`b`, case when coalesce(octet_length(t.`v`), 0) <= 9 then t.`v` end, case when coalesce(octet_length(t.`v`), 0) > 9 then coalesce(octet_length(t.`v`), 0) end from `d`.`t` t where (\nv <> ''\n) and (t.`a` >= ? and (t.`a` > ? or t.`a` = ? and (t.`b` > cast(cast(? as char character set utf8mb4) as decimal(9,2))))) and (c) order by t.`a`, t.`b` limit 10"
        );
        assert_eq!(parameters.len(), 4);
        let keys = [&["x".to_owned(), "1.5".to_owned()][..], &["y".to_owned(), "2".to_owned()][..]];
        let (sql, parameters) = t.by_keys(&keys, true);
        assert_eq!(
            sql,
            "select t.`a`, t.`b` from `d`.`t` t where (\nv <> ''\n) and (t.`a`, t.`b`) in ((?, cast(cast(? as char character set utf8mb4) as decimal(9,2))), (?, cast(cast(? as char character set utf8mb4) as decimal(9,2))))"
        );
        assert_eq!(parameters.len(), 4);
    }

    #[test]
    fn members_are_listed_because_no_index_is_ranged_by_them() {
        let t = readable(
            r#"{"t":{"primaryKey":["a","b","c"],"columns":{"a":"TEXT","b":"TEXT","c":"INTEGER"}}}"#,
            &[("enum", "enum('z','y','x')"), ("set", "set('p','q')"), ("int", "int")],
        );
        let beside = |key: [&str; 3], side| t.beside(&key.map(str::to_owned), side).0;
        let after = |key| beside(key, Side::Behind);
        assert_eq!(
            after(["y", "p", "7"]),
            "t.`a` in (3) or t.`a` = cast(? as unsigned) and (t.`b` in (2, 3) or t.`b` = cast(? as unsigned) and (t.`c` > ?))"
        );
        assert!(after(["x", "p,q", "7"]).starts_with("t.`a` in (4) or"));
        assert_eq!(
            beside(["y", "p", "7"], Side::UpTo),
            "t.`a` in (0, 1) or t.`a` = cast(? as unsigned) and (t.`b` in (0) or t.`b` = cast(? as unsigned) and (t.`c` <= ?))"
        );
    }
}
