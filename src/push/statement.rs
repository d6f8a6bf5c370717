//! The SQL of a change. Names are those of the schema, quoted; values are parameters, JSON that Postgres itself turns into
//! a row of the table's type. Every name and operator is qualified: a trigger of the table's may have set a `search_path`.
//! No IO.

use super::change::{Change, known_columns};
use super::policy::{Guard, guard, stamp};
use crate::core::schema::{Op, Table, quote};

/// How far ahead of Postgres' clock a client's may be, as an interval.
const AHEAD: &str = "'5 minutes'";

/// A conflict's row is told up to this size.
const ROW_BYTES: usize = 256 * 1024;

/// One statement and its parameters, which are texts.
#[derive(Debug)]
pub(super) struct Statement {
    pub sql: String,
    pub parameters: Vec<String>,
}

/// The statement that applies a change where its guard holds, to as many rows as it hits: one or none. `None`: a function
/// decides first.
pub(super) fn write(change: &Change) -> Option<Statement> {
    let (name, row) = (change.table.source.quoted(), change.row.clone());
    if change.op == Op::Insert {
        return Some(Statement { sql: insert(change, &name), parameters: vec![row] });
    }
    let (condition, base) = condition(change)?;
    let from = records(&change.table, base.is_some());
    let key = same_key(&change.table);
    let sql = match change.op {
        Op::Delete => format!("delete from {name} as t using {from} where {key}{condition}"),
        _ => format!("update {name} as t set {} from {from} where {key}{condition}", assigned(&change.set)),
    };
    Some(Statement { sql, parameters: std::iter::once(row).chain(base).collect() })
}

/// What has to hold of a row, as the rest of a condition, and the base that it goes by; `None`: a function says.
fn condition(change: &Change) -> Option<(String, Option<String>)> {
    match guard(change) {
        Guard::Nothing => Some((String::new(), None)),
        Guard::NotLater(stamp) => Some((not_later(stamp), None)),
        Guard::Unchanged { columns, or_wanted } => {
            let condition = columns.iter().map(|column| unchanged(column, or_wanted)).collect();
            Some((condition, change.base.as_ref().filter(|_| !columns.is_empty()).map(|base| base.json.clone())))
        }
        Guard::Asks(_) => None,
    }
}

fn insert(change: &Change, name: &str) -> String {
    let key = change.table.key_columns().map(|column| &column.name);
    let columns: Vec<&String> = key.chain(&change.set).collect();
    let list = |prefix: &str| columns.iter().map(|c| format!("{prefix}{}", quote(c))).collect::<Vec<_>>().join(", ");
    let timely = stamp(change).map(|stamp| format!(" where {}", timely(stamp))).unwrap_or_default();
    let record = record(&change.table, "$1", "n");
    format!("insert into {name} ({}) select {} from {record}{timely}", list(""), list("n."))
}

/// Asks the operator's function what becomes of a row, and locks it: its row is gone where no row comes, and it is a
/// conflict where null does.
pub(super) fn ask(change: &Change) -> Option<Statement> {
    let Guard::Asks(function) = guard(change) else { return None };
    let table = &change.table;
    let object = |columns: &[String], alias: &str, parameter: &str| {
        let list = columns.iter().map(|c| format!("{alias}.{0} as {0}", quote(c))).collect::<Vec<_>>().join(", ");
        format!("(select pg_catalog.to_jsonb(o.*) from (select {list} from {}) as o)", record(table, parameter, alias))
    };
    let nothing = "null::pg_catalog.jsonb".to_owned();
    let base = change.base.as_ref().filter(|base| !base.columns.is_empty());
    let known = base.map_or(nothing.clone(), |base| object(&base.columns, "b", "$2"));
    let wanted = if change.op == Op::Delete { nothing } else { object(&change.set, "n", "$1") };
    let list = known_columns(table, &change.writable);
    let list = list.iter().map(|c| format!("t.{0} as {0}", quote(c))).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "with locked as materialized (select {list} from {} as t, {} where {} for update of t) \
         select {}({known}, pg_catalog.to_jsonb(l.*), {wanted})::pg_catalog.text from locked as l",
        table.source.quoted(),
        record(table, "$1", "n"),
        same_key(table),
        function.quoted(),
    );
    let parameters = std::iter::once(change.row.clone()).chain(base.map(|base| base.json.clone())).collect();
    Some(Statement { sql, parameters })
}

/// Does what the function said: sets these columns to the values of `row`, or deletes.
pub(super) fn obey(change: &Change, columns: &[String], row: String) -> Statement {
    let (table, name) = (&change.table, change.table.source.quoted());
    let (key, from) = (same_key(table), record(table, "$1", "n"));
    if change.op == Op::Delete {
        return Statement {
            sql: format!("delete from {name} as t using {from} where {key}"),
            parameters: vec![change.row.clone()],
        };
    }
    let set = columns.iter().map(|c| format!("{0} = r.{0}", quote(c))).collect::<Vec<_>>().join(", ");
    let sql = format!("update {name} as t set {set} from {from}, {} where {key}", record(table, "$2", "r"));
    Statement { sql, parameters: vec![change.row.clone(), row] }
}

/// The row as it is now, as far as the client may know it, and whether the change's guard holds of it: no row where there is
/// none of the client's, and null where it is large. Numbers that JavaScript would round come as text.
pub(super) fn look(change: &Change) -> Statement {
    let table = &change.table;
    let columns = known_columns(table, &change.writable).into_iter().map(told).collect::<Vec<_>>().join(", ");
    let (holds, base) = match condition(change) {
        Some((condition, base)) => (format!("coalesce(true{condition}, false)"), base),
        None => ("false".to_owned(), None),
    };
    let sql = format!(
        "select case when pg_catalog.octet_length(x.found) operator(pg_catalog.<=) {ROW_BYTES} then x.found end, x.holds \
         from (select (select pg_catalog.row_to_json(q.*)::pg_catalog.text from (select {columns}) as q), {holds} \
         from {} as t, {} where {}) as x(found, holds)",
        table.source.quoted(),
        records(table, base.is_some()),
        same_key(table),
    );
    Statement { sql, parameters: std::iter::once(change.row.clone()).chain(base).collect() }
}

fn told(name: &str) -> String {
    let quoted = quote(name);
    format!(
        "case when pg_catalog.pg_typeof(t.{quoted})::pg_catalog.oid operator(pg_catalog.=) any ('{{20,1700}}'::pg_catalog.oid[]) \
         then pg_catalog.to_json(t.{quoted}::pg_catalog.text) else pg_catalog.to_json(t.{quoted}) end as {quoted}"
    )
}

/// Whether the time that a change carries lies too far ahead; `None` where none decides.
pub(super) fn is_early(change: &Change) -> Option<Statement> {
    let record = record(&change.table, "$1", "n");
    let sql = |stamp: &str| format!("select not ({}) from {record}", timely(stamp));
    stamp(change).map(|stamp| Statement { sql: sql(stamp), parameters: vec![change.row.clone()] })
}

/// A row of the table's type, out of a JSON object. What the object does not name is null.
fn record(table: &Table, parameter: &str, alias: &str) -> String {
    let name = table.source.quoted();
    format!("pg_catalog.json_populate_record(null::{name}, {parameter}::pg_catalog.json) as {alias}")
}

/// What a change sets, `n`, and what its client knew, `b`.
fn records(table: &Table, has_base: bool) -> String {
    let base = if has_base { format!(", {}", record(table, "$2", "b")) } else { String::new() };
    record(table, "$1", "n") + &base
}

fn same_key(table: &Table) -> String {
    let same = |name: String| format!("t.{name} operator(pg_catalog.=) n.{name}");
    table.key_columns().map(|column| same(quote(&column.name))).collect::<Vec<_>>().join(" and ")
}

fn assigned(columns: &[String]) -> String {
    columns.iter().map(|c| format!("{0} = n.{0}", quote(c))).collect::<Vec<_>>().join(", ")
}

/// As JSON every type is compared alike, json too, and by no operator of anybody's. SQL's null is JSON's, as clients see it.
fn same(left: &str, right: &str, column: &str) -> String {
    let value = |alias: &str| format!("coalesce(pg_catalog.to_jsonb({alias}.{column}), 'null'::pg_catalog.jsonb)");
    format!("{} operator(pg_catalog.=) {}", value(left), value(right))
}

fn unchanged(column: &str, or_wanted: bool) -> String {
    let column = quote(column);
    match or_wanted {
        true => format!(" and ({} or {})", same("t", "b", &column), same("t", "n", &column)),
        false => format!(" and {}", same("t", "b", &column)),
    }
}

fn not_later(stamp: &str) -> String {
    let column = quote(stamp);
    format!(" and (t.{column} is null or t.{column} operator(pg_catalog.<=) n.{column}) and {}", timely(stamp))
}

fn timely(stamp: &str) -> String {
    let limit = format!("pg_catalog.clock_timestamp() operator(pg_catalog.+) {AHEAD}::pg_catalog.interval");
    format!("n.{} operator(pg_catalog.<=) ({limit})", quote(stamp))
}

#[cfg(test)]
mod tests {
    use super::super::request::{Push, Writables};
    use super::*;
    use crate::core::schema::Schema;

    /// The statement of a change of a table with this policy.
    fn sql(conflict: &str, change: &str) -> (String, Vec<String>) {
        let schema = format!(
            r#"{{"a\"b": {{"primaryKey":"id","columns":{{"id":"TEXT","x'\"y":"TEXT","at":"TEXT"}},
                "writable": {{"columns":["x'\"y","at"],"ops":["insert","update","delete"],"unchecked":true,{conflict}}}}}}}"#
        );
        let schema = Schema::parse(&schema).unwrap();
        let body = format!(r#"{{"client":"c","changes":[{{"table":"a\"b","key":{{"id":"1"}},{change}}}]}}"#);
        let push = Push::read(&Writables::of(schema.tables()), &body, "k").unwrap();
        let statement = write(&push.changes[0]).or_else(|| ask(&push.changes[0])).unwrap();
        (statement.sql, statement.parameters)
    }

    const RECORD: &str = r#"pg_catalog.json_populate_record(null::"public"."a""b", $1::pg_catalog.json) as n"#;
    const BASE: &str = r#"pg_catalog.json_populate_record(null::"public"."a""b", $2::pg_catalog.json) as b"#;
    const KEY: &str = r#"t."id" operator(pg_catalog.=) n."id""#;

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let (sql, parameters) =
            sql(r#""conflict":"client-wins""#, r#""op":"update","set":{"x'\"y":"'; drop table t; --"}"#);
        assert_eq!(sql, format!(r#"update "public"."a""b" as t set "x'""y" = n."x'""y" from {RECORD} where {KEY}"#));
        assert_eq!(parameters, [r#"{"id":"1","x'\"y":"'; drop table t; --"}"#]);
    }

    #[test]
    fn each_policy_compares_what_it_goes_by() {
        let update = r#""op":"update","set":{"at":"1"},"base":{"at":"0","x'\"y":"z"}"#;
        let value = |alias: &str, column: &str| {
            format!("coalesce(pg_catalog.to_jsonb({alias}.{column}), 'null'::pg_catalog.jsonb)")
        };
        let same = |a: &str, b: &str, column: &str| {
            format!("{} operator(pg_catalog.=) {}", value(a, column), value(b, column))
        };
        let set = format!(r#"update "public"."a""b" as t set "at" = n."at" from {RECORD}"#);
        let (at, other) = (r#""at""#, r#""x'""y""#);
        let merge = format!("{set}, {BASE} where {KEY} and ({} or {})", same("t", "b", at), same("t", "n", at));
        assert_eq!(sql(r#""conflict":"merge""#, update).0, merge);
        let server = format!("{set}, {BASE} where {KEY} and {} and {}", same("t", "b", at), same("t", "b", other));
        assert_eq!(sql(r#""conflict":"server-wins""#, update).0, server);
        assert_eq!(sql(r#""conflict":"client-wins""#, update).0, format!("{set} where {KEY}"));
        let timely = r#"n."at" operator(pg_catalog.<=) (pg_catalog.clock_timestamp() operator(pg_catalog.+) '5 minutes'::pg_catalog.interval)"#;
        let later =
            format!(r#"{set} where {KEY} and (t."at" is null or t."at" operator(pg_catalog.<=) n."at") and {timely}"#);
        assert_eq!(sql(r#""conflict":"last-write-wins","stamp":"at""#, update).0, later);
        let insert = format!(r#"insert into "public"."a""b" ("id", "at") select n."id", n."at" from {RECORD}"#);
        let new = r#""op":"insert","set":{"at":"1"}"#;
        assert_eq!(sql(r#""conflict":"merge""#, new).0, insert);
        assert_eq!(sql(r#""conflict":"last-write-wins","stamp":"at""#, new).0, format!("{insert} where {timely}"));
        let delete = format!(r#"delete from "public"."a""b" as t using {RECORD}"#);
        assert_eq!(sql(r#""conflict":"merge""#, r#""op":"delete""#).0, format!("{delete} where {KEY}"));
        let known = sql(r#""conflict":"merge""#, r#""op":"delete","base":{"at":"0"}"#);
        assert_eq!(known.0, format!("{delete}, {BASE} where {KEY} and {}", same("t", "b", at)));
        assert_eq!(known.1.len(), 2);
        assert!(sql(r#""conflict":"custom","function":"a.f""#, update).0.contains(r#"select "a"."f"("#));
    }

    #[test]
    fn no_name_and_no_operator_stands_unqualified() {
        let update = r#""op":"update","set":{"at":"1"},"base":{"at":"0"}"#;
        for policy in [
            r#""conflict":"merge""#,
            r#""conflict":"custom","function":"a.f""#,
            r#""conflict":"last-write-wins","stamp":"at""#,
        ] {
            let text = sql(policy, update).0;
            let bare = text.replace("operator(pg_catalog.=)", "").replace("operator(pg_catalog.<=)", "");
            let bare = bare.replace("set \"at\" = n", "");
            assert!(!bare.contains(" = ") && !bare.contains(" <= "), "{text}");
            for (at, _) in text.match_indices('(') {
                let word =
                    text[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || "_.\"".contains(c))).next().unwrap();
                let is_known = ["", "coalesce", "operator", "and", "\"a\".\"f\""].contains(&word);
                assert!(is_known || word.starts_with("pg_catalog."), "{word} in {text}");
            }
        }
    }
}
