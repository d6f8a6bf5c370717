//! What a table's definition would be: key, columns with types that lose nothing, indexes. Takes what the
//! catalog says, gives a definition or the reason why there can be none. No IO.

use super::catalog::{Index, Relation};
use crate::core::draft::Definition;
use crate::core::schema::ColumnType;
use crate::core::schema::names::NAME_BYTES;
use crate::postgres::catalog::columns::TypedColumn;
use std::collections::BTreeSet;

/// Why a relation cannot be replicated, whatever its columns are; with the remedy.
pub(crate) fn obstacle(relation: &Relation) -> Option<&'static str> {
    match (relation.kind.as_str(), relation.persistence.as_str()) {
        ("v", _) => Some(
            "views, which have no key and no triggers; name the table behind one, or define it in the schema file of a sync that pulls",
        ),
        ("m", _) => Some(
            "materialized views, which have no key and no triggers; define one in the schema file of a sync that pulls",
        ),
        ("f", _) => Some(
            "foreign tables, which have no key here; replicate them where they live, or define one in the schema file of a sync that pulls",
        ),
        (_, "u" | "t") => {
            Some("unlogged or temporary tables, which a crash empties unseen; `alter table … set logged`")
        }
        _ if relation.has_children => {
            Some("inheritance parents, which show rows they do not own; replicate the children, or partition instead")
        }
        _ => None,
    }
}

/// The definition of a table under a name that was chosen for it.
pub(crate) fn propose(
    relation: &Relation,
    name: &str,
    columns: &[TypedColumn],
    indexes: &[Index],
) -> Result<Definition, &'static str> {
    let key = key(columns, indexes).ok_or(
        "tables without a primary key or a unique index over NOT NULL columns; `alter table … add primary key (…)`",
    )?;
    let (kept, dropped) = without_twins(columns, &key);
    if key.iter().any(|k| !kept.iter().any(|c| c.name == *k)) {
        return Err(
            "tables with two key columns whose names differ in case only, which SQLite does not tell apart; rename one",
        );
    }
    let mut left_out: Vec<_> = dropped
        .iter()
        .map(|c| format!("column {c:?}: its name is too long, or differs in case only from another's"))
        .collect();
    let (indexes, others) = choose_indexes(indexes, &kept, &key);
    if others > 0 {
        left_out.push(format!("{others} index(es): partial, over expressions or not B-trees"));
    }
    let is_plain = relation.name.schema == "public" && relation.name.table == name;
    Ok(Definition {
        name: name.to_owned(),
        source: (!is_plain).then(|| relation.name.written()),
        columns: kept.iter().map(|c| (c.name.clone(), default_type(c, &key))).collect(),
        key,
        indexes,
        left_out,
    })
}

/// The type to declare for a column.
pub(crate) fn default_type(column: &TypedColumn, key: &[String]) -> ColumnType {
    if key.contains(&column.name) { column.pg_type.default_key_type() } else { column.pg_type.default_type() }
}

/// The primary key, else the narrowest unique index that covers every row once.
fn key(columns: &[TypedColumn], indexes: &[Index]) -> Option<Vec<String>> {
    let not_null = |name: &String| columns.iter().any(|c| c.name == *name && c.not_null);
    let candidates = indexes.iter().filter(|i| i.is_unique && i.is_plain && i.columns.iter().all(not_null));
    // The first of the narrowest: the catalog's order puts replica identity before the rest.
    candidates.min_by_key(|i| (!i.is_primary, i.columns.len())).map(|i| i.columns.clone())
}

/// The columns that SQLite can tell apart, and the others. A key column goes before its twin.
fn without_twins<'a>(columns: &'a [TypedColumn], key: &[String]) -> (Vec<&'a TypedColumn>, Vec<&'a str>) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    for is_key in [true, false] {
        for column in columns.iter().filter(|c| key.contains(&c.name) == is_key) {
            if column.name.len() <= NAME_BYTES && taken.insert(column.name.to_lowercase()) {
                chosen.insert(&column.name);
            }
        }
    }
    let (kept, dropped): (Vec<_>, Vec<_>) = columns.iter().partition(|c| chosen.contains(c.name.as_str()));
    (kept, dropped.into_iter().map(|c| c.name.as_str()).collect())
}

/// Indexes that SQLite can have and the key does not serve already, and how many there are besides.
fn choose_indexes(indexes: &[Index], columns: &[&TypedColumn], key: &[String]) -> (Vec<Vec<String>>, usize) {
    let mut chosen: Vec<Vec<String>> = Vec::new();
    let mut others = 0;
    for index in indexes {
        if !index.is_plain || !index.is_btree {
            others += 1;
            continue;
        }
        let names = &index.columns;
        let is_known = names.iter().all(|n| columns.iter().any(|c| c.name == *n));
        // Postgres takes a column twice in an index, schema.json does not.
        let is_set = names.iter().collect::<BTreeSet<_>>().len() == names.len();
        if is_known && is_set && !key.starts_with(names) && !chosen.contains(names) {
            chosen.push(names.clone());
        }
    }
    (chosen, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::SourceName;
    use crate::core::schema::fit::PgType;

    fn relation(schema: &str, table: &str) -> Relation {
        Relation {
            oid: 1,
            name: SourceName { schema: schema.into(), table: table.into() },
            kind: "r".into(),
            persistence: "p".into(),
            parent: None,
            has_children: false,
            extension: None,
            other_owner: None,
            on_supabase: false,
        }
    }

    /// `id!` is NOT NULL; everything is an int4.
    fn columns(names: &str) -> Vec<TypedColumn> {
        let pg_type = PgType { name: "int4".into(), kind: 'b', is_built_in: true, is_array: false, digits: None };
        let column = |name: &str| TypedColumn {
            name: name.trim_end_matches('!').into(),
            not_null: name.ends_with('!'),
            pg_type: pg_type.clone(),
        };
        names.split(' ').map(column).collect()
    }

    /// `primary id`, `unique a b`, `index a`, `partial a`.
    fn indexes(texts: &[&str]) -> Vec<Index> {
        let index = |text: &&str| {
            let (kind, columns) = text.split_once(' ').unwrap();
            Index {
                is_primary: kind == "primary",
                is_unique: ["primary", "unique"].contains(&kind),
                is_plain: kind != "partial",
                is_btree: kind != "gin",
                columns: columns.split(' ').map(str::to_owned).collect(),
            }
        };
        texts.iter().map(index).collect()
    }

    #[test]
    fn the_key_is_the_primary_key_or_the_narrowest_one_without_nulls() {
        for (names, given, expected) in [
            ("a! b!", &["primary b a", "unique a"][..], "b a"),
            ("a! b! c!", &["unique a b", "unique c"], "c"),
            ("a b!", &["unique a", "unique b"], "b"),
            ("a b!", &["unique a b"], ""),
            ("a!", &["partial a", "index a"], ""),
            ("a!", &[], ""),
        ] {
            let found = key(&columns(names), &indexes(given)).unwrap_or_default();
            assert_eq!(found.join(" "), expected, "{names} {given:?}");
        }
    }

    #[test]
    fn indexes_that_help_nobody_are_left_out() {
        let given =
            indexes(&["primary a b", "index a", "index b", "unique b", "index b a", "gin c", "partial c", "index c c"]);
        let made = propose(&relation("public", "t"), "t", &columns("a! b! c"), &given).unwrap();
        assert_eq!(made.indexes, [vec!["b"], vec!["b", "a"]]);
        assert_eq!(made.left_out, ["2 index(es): partial, over expressions or not B-trees"]);
    }

    #[test]
    fn columns_that_sqlite_takes_for_one_are_left_out_but_not_the_key() {
        let made = propose(&relation("public", "t"), "t", &columns("ID Id! x"), &indexes(&["primary Id"])).unwrap();
        assert_eq!(made.columns.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["Id", "x"]);
        assert_eq!(made.left_out.len(), 1);
        let twins = propose(&relation("public", "t"), "t", &columns("ID! Id!"), &indexes(&["primary Id ID"]));
        assert!(twins.unwrap_err().contains("two key columns"));
    }

    #[test]
    fn a_definition_is_written_to_be_read() {
        let made =
            propose(&relation("crm", "a\"b"), "crm_a\"b", &columns("id! x!"), &indexes(&["primary id x", "index x"]));
        let expected = r#"  "crm_a\"b": {
    "primaryKey": ["id", "x"],
    "columns": {
      "id": "INTEGER",
      "x": "INTEGER"
    },
    "indexes": ["x"],
    "source": "crm.\"a\"\"b\""
  }"#;
        assert_eq!(made.unwrap().to_string(), expected);
    }
}
