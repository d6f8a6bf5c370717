//! The SQL that writes a batch. Never `INSERT OR REPLACE`: it resets columns that it does not list and
//! deletes rows that collide on other indexes. Pure: takes items, gives texts.

use crate::core::batch::{ColumnSet, Item, RowState};
use crate::core::schema::{Column, ColumnType, Table, ddl, quote, quoted_list};
use crate::core::value::Cell;
use std::borrow::Cow;
use std::sync::Arc;

/// Slots of a wide row that stand in one array. For each of them SQLite writes out its array anew and walks to
/// it: with a single array of 1,500 columns that took 90 ms a row.
pub(crate) const FOLD_SLOTS: usize = 40;

/// Items of one table that one statement writes: a run of rows with the same columns.
pub(crate) struct Group<'a> {
    /// Their table.
    pub table: &'a Arc<Table>,
    /// The columns that they set.
    pub columns: &'a ColumnSet,
    /// Their cells.
    pub rows: Vec<&'a [Cell]>,
}

/// Keys of one table to delete.
pub struct Deletes<'a> {
    /// Their table.
    pub table: &'a Arc<Table>,
    /// The keys.
    pub keys: Vec<&'a [Cell]>,
}

/// The deletes of `items`, one group a table: gone rows, and rows that start anew.
pub fn deletes(items: &[Item]) -> Vec<Deletes<'_>> {
    let mut groups: Vec<Deletes<'_>> = Vec::new();
    for item in items.iter().filter(|i| !matches!(i.state, RowState::Row { replace: false, .. })) {
        match groups.last_mut() {
            Some(group) if group.table.name == item.table.name => group.keys.push(&item.key),
            _ => groups.push(Deletes { table: &item.table, keys: vec![&item.key] }),
        }
    }
    groups
}

/// The upserts of `items`, a group for each run of the same table and columns.
pub fn upserts(items: &[Item]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for item in items {
        let RowState::Row { columns, cells, .. } = &item.state else {
            continue;
        };
        match groups.last_mut() {
            Some(group) if group.table.name == item.table.name && group.columns == columns => group.rows.push(cells),
            _ => groups.push(Group { table: &item.table, columns, rows: vec![cells] }),
        }
    }
    groups
}

/// `DELETE FROM t`.
pub fn empty(table: &Table) -> String {
    format!("DELETE FROM {}", quote(&table.name))
}

/// A delete of one key given as parameters, which may be NULL: SQLite lets NULL into keys that are not declared
/// otherwise.
pub(crate) fn delete_key(table: &Table) -> String {
    format!("DELETE FROM {} WHERE ({}) IS ({})", quote(&table.name), ddl::key_list(table), key_marks(table, 1))
}

/// Parameters from `?first` on that a key is compared with.
pub(crate) fn key_marks(table: &Table, first: usize) -> String {
    let marks = table.key_columns().zip(first..).map(|(c, i)| format!("?{i}{}", ddl::collation(c.kind)));
    marks.collect::<Vec<_>>().join(", ")
}

/// An upsert of one row given as parameters.
pub(crate) fn upsert_row(table: &Table, columns: &[usize]) -> String {
    let marks: Vec<_> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
    format!("{} VALUES ({}) {}", insert_into(table, columns), marks.join(", "), on_conflict(table, columns))
}

/// Whether no array of [`delete_json`] may hold this key.
pub(crate) fn has_null(key: &&[Cell]) -> bool {
    key.contains(&Cell::Null)
}

/// A delete of the keys in the JSON array `?1`, each an array of [`slots`].
///
/// IN compares as its left side does. Of several columns it would not find the index if they had a collation.
pub(crate) fn delete_json(table: &Table, far_reals: bool) -> String {
    let values = json_values(table, &table.key, far_reals);
    let keys = if table.key.len() == 1 { ddl::exact_key_list(table) } else { ddl::key_list(table) };
    format!(
        "{}DELETE FROM {} WHERE ({keys}) IN (SELECT {values} FROM {})",
        powers(far_reals),
        quote(&table.name),
        json_rows(table, &table.key)
    )
}

/// An upsert of the rows in the JSON array `?1`, each an array of [`slots`]. SQLite's grammar needs the
/// `WHERE true` before ON CONFLICT.
pub(crate) fn upsert_json(table: &Table, columns: &[usize], far_reals: bool) -> String {
    let values = json_values(table, columns, far_reals);
    format!(
        "{}{} SELECT {values} FROM {} WHERE true {}",
        powers(far_reals),
        insert_into(table, columns),
        json_rows(table, columns),
        on_conflict(table, columns)
    )
}

/// An upsert of one row whose [`slots`] are parameters: for rows too large for a JSON array.
pub(crate) fn upsert_slots(table: &Table, columns: &[usize], far_reals: bool) -> String {
    let values = slot_values(table, columns, far_reals);
    format!(
        "{}{} SELECT {values} WHERE true {}",
        powers(far_reals),
        insert_into(table, columns),
        on_conflict(table, columns)
    )
}

/// Finds the rows of `_pgflume_rows` (`n`, `c0`, `c1`, …) that the table has not, or not so: pairs of `n` and whether
/// the key is missing. Without the affinity and the collation that a column may have: text `1` is not the
/// integer 1.
pub fn differences(table: &Table) -> String {
    let name = |i: usize| format!("t.{}", quote(&table.columns[i].name));
    let missing = name(table.key.first().copied().unwrap_or_default());
    let different: Vec<_> = (0..table.columns.len()).map(|i| differs(table, i)).collect();
    format!(
        "SELECT p.n, {missing} IS NULL FROM _pgflume_rows AS p LEFT JOIN {} AS t ON {} WHERE {missing} IS NULL OR {}",
        quote(&table.name),
        same_key(table),
        any_of(&different)
    )
}

/// Tells of the one row of `_pgflume_rows` which columns differ, one flag each.
pub(crate) fn differing(table: &Table) -> String {
    let flags: Vec<_> = (0..table.columns.len()).map(|i| format!("{} AS d{i}", differs(table, i))).collect();
    format!(
        "SELECT {} FROM _pgflume_rows AS p JOIN {} AS t ON {}",
        flags.join(", "),
        quote(&table.name),
        same_key(table)
    )
}

fn same_key(table: &Table) -> String {
    let columns = table.key.iter().map(|&i| (i, &table.columns[i]));
    let equal = columns.map(|(i, c)| format!("t.{} = p.c{i}{}", quote(&c.name), ddl::collation(c.kind)));
    equal.collect::<Vec<_>>().join(" AND ")
}

fn differs(table: &Table, position: usize) -> String {
    format!("+t.{} IS NOT p.c{position} COLLATE BINARY", quote(&table.columns[position].name))
}

/// A disjunction as a tree: SQLite takes no expression that is more than 1,000 deep.
fn any_of(conditions: &[String]) -> String {
    match conditions {
        [] => "false".into(),
        [one] => one.clone(),
        _ => {
            let (left, right) = conditions.split_at(conditions.len() / 2);
            format!("({} OR {})", any_of(left), any_of(right))
        }
    }
}

/// `_pgflume_rows` of [`differences`], a name that no table may have, from the JSON array `?1` of [`slots`].
pub(crate) fn expected_json(table: &Table, far_reals: bool) -> String {
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let values = json_values(table, &columns, far_reals);
    format!("{} AS (SELECT key, {values} FROM {})", expected(table, far_reals), json_rows(table, &columns))
}

/// The same of one row whose [`slots`] are parameters.
pub(crate) fn expected_slots(table: &Table, far_reals: bool) -> String {
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    format!("{} AS (SELECT 0, {})", expected(table, far_reals), slot_values(table, &columns, far_reals))
}

fn expected(table: &Table, far_reals: bool) -> String {
    let names: Vec<_> = (0..table.columns.len()).map(|i| format!("c{i}")).collect();
    let with = if far_reals { format!("{}, ", powers(true).trim_end()) } else { "WITH ".to_owned() };
    format!("{with}_pgflume_rows(n, {})", names.join(", "))
}

fn insert_into(table: &Table, columns: &[usize]) -> String {
    let names = quoted_list(columns.iter().map(|&i| table.columns[i].name.as_str()));
    format!("INSERT INTO {} ({names})", quote(&table.name))
}

fn on_conflict(table: &Table, columns: &[usize]) -> String {
    let key = ddl::exact_key_list(table);
    let sets: Vec<_> = columns
        .iter()
        .filter(|i| !table.key.contains(i))
        .map(|&i| quote(&table.columns[i].name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    if sets.is_empty() {
        format!("ON CONFLICT ({key}) DO NOTHING")
    } else {
        format!("ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(", "))
    }
}

/// Whether rows of such columns are wide.
pub(crate) fn is_folded(kinds: impl Iterator<Item = ColumnType>) -> bool {
    slots_of(kinds) > 2 * FOLD_SLOTS
}

fn slots_of(kinds: impl Iterator<Item = ColumnType>) -> usize {
    kinds.map(|kind| if kind == ColumnType::Real { 2 } else { 1 }).sum()
}

/// The rows of the JSON array `?1`: `v`, or for wide ones `v0`, `v1`, …, each an array of [`FOLD_SLOTS`]. The
/// OFFSET keeps SQLite from putting what they stand for in their place: it would write a row out anew for each slot,
/// which takes half as long again.
pub(super) fn json_rows(table: &Table, columns: &[usize]) -> String {
    let kinds = || columns.iter().map(|&i| table.columns[i].kind);
    let rows = match is_folded(kinds()) {
        false => "value AS v".to_owned(),
        true => {
            let folds = (0..slots_of(kinds()).div_ceil(FOLD_SLOTS)).map(|i| format!("value->{i} AS v{i}"));
            folds.collect::<Vec<_>>().join(", ")
        }
    };
    format!("(SELECT key, {rows} FROM json_each(?1) LIMIT -1 OFFSET 0)")
}

fn slot_values(table: &Table, columns: &[usize], far_reals: bool) -> String {
    let mut next = 0;
    let slot = |_| {
        next += 1;
        format!("?{next}")
    };
    values(table, columns, far_reals, slot).join(", ")
}

fn json_values(table: &Table, columns: &[usize], far_reals: bool) -> String {
    json_value_list(table, columns, far_reals, "v").join(", ")
}

/// The values of the row that the JSON array `v` stands for.
pub(super) fn json_value_list(table: &Table, columns: &[usize], far_reals: bool, v: &str) -> Vec<String> {
    let is_folded = is_folded(columns.iter().map(|&i| table.columns[i].kind));
    let mut next = 0;
    values(table, columns, far_reals, |kind| {
        let slot = match is_folded {
            true => format!("{v}{}->>{}", next / FOLD_SLOTS, next % FOLD_SLOTS),
            false => format!("{v}->>{next}"),
        };
        next += 1;
        if kind == ColumnType::Blob { format!("unhex({slot})") } else { slot }
    })
}

/// SQL for a row `t` to have the key that an array of slots stands for.
pub(super) fn has_key(table: &Table, slots: &str, far_reals: bool) -> String {
    let values = json_value_list(table, &table.key, far_reals, slots);
    let equal = |(column, value): (&Column, String)| {
        format!("t.{} = {value}{}", quote(&column.name), ddl::collation(column.kind))
    };
    table.key_columns().zip(values).map(equal).collect::<Vec<_>>().join(" AND ")
}

fn values(
    table: &Table,
    columns: &[usize],
    far_reals: bool,
    mut slot: impl FnMut(ColumnType) -> String,
) -> Vec<String> {
    let value = |&i: &usize| match table.columns[i].kind {
        ColumnType::Real => {
            let (mantissa, exponent) = (slot(ColumnType::Integer), slot(ColumnType::Integer));
            let scaled = if far_reals {
                format!(
                    "{mantissa} * (SELECT f FROM _pgflume_powers WHERE q = ({exponent}) / 62) * \
                     (SELECT f FROM _pgflume_units WHERE r = ({exponent}) % 62)"
                )
            } else {
                format!("CAST({mantissa} AS REAL) / (1 << -({exponent}))")
            };
            format!("iif(({exponent}) IS NULL, {mantissa}, {scaled})")
        }
        kind => slot(kind),
    };
    columns.iter().map(value).collect()
}

/// Exact powers of two as doubles: 2^(62 q) and 2^r. Text cannot carry them: SQLite's conversion of
/// decimal text is off by one unit in the last place for some doubles (5 of 20,000).
pub(super) fn powers(far_reals: bool) -> &'static str {
    if !far_reals {
        return "";
    }
    "WITH RECURSIVE _pgflume_up(q, f) AS (SELECT 0, 1.0 UNION ALL \
       SELECT q + 1, f * CAST(1 << 62 AS REAL) FROM _pgflume_up WHERE q < 15), \
     _pgflume_down(q, f) AS (SELECT -1, 1.0 / (1 << 62) UNION ALL \
       SELECT q - 1, f / (1 << 62) FROM _pgflume_down WHERE q > -17), \
     _pgflume_powers(q, f) AS (SELECT q, f FROM _pgflume_up UNION ALL SELECT q, f FROM _pgflume_down), \
     _pgflume_bits(r) AS (SELECT 0 UNION ALL SELECT r + 1 FROM _pgflume_bits WHERE r < 61), \
     _pgflume_units(r, f) AS (SELECT r, CAST(1 << r AS REAL) FROM _pgflume_bits \
       UNION ALL SELECT -r, 1.0 / (1 << r) FROM _pgflume_bits WHERE r > 0) "
}

/// What a cell sends: two slots for a REAL column (see [`exact_parts`]), else one; bytes as hex.
pub fn slots(kind: ColumnType, cell: &Cell) -> (Cow<'_, Cell>, Option<Cell>) {
    match (kind, cell) {
        (ColumnType::Real, Cell::Real(real)) => {
            let (mantissa, exponent) = exact_parts(*real);
            (Cow::Owned(Cell::Integer(mantissa)), Some(exponent.map_or(Cell::Null, Cell::Integer)))
        }
        (ColumnType::Real, other) => (Cow::Borrowed(other), Some(Cell::Null)),
        (_, other) => match other.as_blob() {
            Some(bytes) => (Cow::Owned(Cell::Text(hex::encode_upper(bytes))), None),
            None => (Cow::Borrowed(other), None),
        },
    }
}

/// Whether a double needs the powers of [`upsert_json`]'s long form.
pub(crate) fn is_far(cell: &Cell) -> bool {
    match cell {
        Cell::Real(real) => exact_parts(*real).1.is_some_and(|e| !(-62..=0).contains(&e)),
        _ => false,
    }
}

/// A finite double as odd mantissa and power of two: `(m, Some(e))` is m·2^e. `(m, None)` is the
/// integer m.
fn exact_parts(real: f64) -> (i64, Option<i64>) {
    const INTEGERS: f64 = (1_i64 << 53) as f64;
    if real.fract() == 0.0 && real.abs() <= INTEGERS {
        return (real as i64, None);
    }
    let bits = real.to_bits();
    let biased = (bits >> 52 & 0x7ff) as i64;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
    let zeros = mantissa.trailing_zeros();
    let odd = mantissa >> zeros;
    (if real < 0.0 { -odd } else { odd }, Some(exponent + i64::from(zeros)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn every_double_is_its_parts(bits in any::<u64>()) {
            let real = f64::from_bits(bits);
            prop_assume!(real.is_finite());
            let (mantissa, exponent) = exact_parts(real);
            let (q, r) = (exponent.unwrap_or(0) / 62, exponent.unwrap_or(0) % 62);
            // As the SQL does it: powi(-1054) is already zero.
            let unit = if q < 0 { 2f64.powi(-62) } else { 2f64.powi(62) };
            let power = (0..q.abs()).fold(1.0, |f, _| f * unit);
            let back = mantissa as f64 * power * 2f64.powi(r as i32);
            // SQLite's file format has no negative zero.
            prop_assert_eq!((back + 0.0).to_bits(), (real + 0.0).to_bits());
        }
    }

    #[test]
    fn statements_quote_every_name() {
        let json = r#"{"t\"; --":{"primaryKey":["k"],"columns":{"k":"TEXT","a\"b":"REAL"}}}"#;
        let schema = crate::core::schema::Schema::parse(json).unwrap();
        let table = schema.tables().next().unwrap();
        assert_eq!(
            upsert_row(table, &[0, 1]),
            r#"INSERT INTO "t""; --" ("k", "a""b") VALUES (?1, ?2) ON CONFLICT ("k" COLLATE BINARY) DO UPDATE SET "a""b" = excluded."a""b""#
        );
        assert_eq!(delete_key(table), r#"DELETE FROM "t""; --" WHERE ("k") IS (?1 COLLATE BINARY)"#);
    }
}
