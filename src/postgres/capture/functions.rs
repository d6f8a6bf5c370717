//! The capture functions of a source: which templates their bodies are made of, and with which values. No IO.

use super::keys::{MESSAGE_KEYS, column};
use super::names::{Event, function_name};
use super::source::{ReplicatedTable, Source};
use super::template::{dollar_quoted, fill, text};
use super::types::{Pin, SourceColumn, pins};
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::quote;
use minijinja::{Value, context};
use std::collections::BTreeSet;

/// Most keys that a trigger holds in one array: 16 MB of the longest.
const BLOCK_KEYS: usize = 1_000_000;

/// A capture function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name in schema pgflume, not quoted.
    pub name: String,
    /// Its body.
    pub body: String,
    /// Its pinned settings besides `search_path`.
    pub pins: BTreeSet<Pin>,
}

impl Function {
    /// All that the triggers of a source run.
    pub fn all(source: &Source, queue: &QueueName) -> Result<Vec<Self>> {
        let function = |&event: &Event| {
            let body = body(source, queue, event)?;
            Ok(Self { name: function_name(queue, &source.name, event), body, pins: settings(source, event) })
        };
        source.events().iter().map(function).collect()
    }

    /// The SQL that makes it.
    pub fn sql(&self) -> Result<String> {
        let setting = |pin: &Pin| {
            let (setting, value) = pin.setting();
            format!("{setting} = {}", text(value))
        };
        let values = context! {
            function => format!("pgflume.{}", quote(&self.name)),
            settings => self.pins.iter().map(setting).collect::<Vec<_>>(),
            body => dollar_quoted(&self.body),
        };
        fill(include_str!("../../../sql/capture_function.sql"), values)
    }
}

fn settings(source: &Source, event: Event) -> BTreeSet<Pin> {
    let mut found: BTreeSet<Pin> = source.targets.iter().flat_map(|t| target_settings(t, event)).collect();
    if source.queue_has_rls {
        found.insert(Pin::RowSecurity);
    }
    found
}

fn target_settings(target: &ReplicatedTable, event: Event) -> BTreeSet<Pin> {
    if event == Event::Truncate {
        return BTreeSet::new();
    }
    let mut found = pins(&target.key, SourceColumn::text_pins);
    let in_blocks = target.block_key().is_some() && event != Event::Update;
    if event != Event::Row && !in_blocks {
        found.insert(Pin::Jit);
    }
    found
}

fn body(source: &Source, queue: &QueueName, event: Event) -> Result<String> {
    let queue = queue.table();
    let each = |values: fn(&ReplicatedTable) -> Value| source.targets.iter().map(values).collect::<Vec<_>>();
    match event {
        Event::Insert => rows(source, queue, "new_rows"),
        Event::Delete => rows(source, queue, "old_rows"),
        Event::Update => {
            let values = context! { queue, tables => each(updated), ..known(source, "new_rows") };
            fill(include_str!("../../../sql/capture_update.sql"), values)
        }
        Event::Truncate => {
            let tables = each(|t| text(&t.table.name).into());
            fill(include_str!("../../../sql/capture_truncate.sql"), context! { queue, tables })
        }
        Event::Row => fill(include_str!("../../../sql/capture_row.sql"), context! { queue, tables => each(row) }),
    }
}

fn rows(source: &Source, queue: String, rows: &str) -> Result<String> {
    let values = context! {
        queue,
        tables => source.targets.iter().map(written).collect::<Vec<_>>(),
        message_keys => MESSAGE_KEYS,
        block_keys => BLOCK_KEYS,
        ..known(source, rows)
    };
    fill(include_str!("../../../sql/capture_rows.sql"), values)
}

/// For `capture_known.sql`: what tells whether the columns are of the types of `setup` still.
fn known(source: &Source, rows: &str) -> Value {
    let mut guarded: Vec<_> = source.targets.iter().flat_map(ReplicatedTable::guarded).collect();
    guarded.sort_by_key(|c| &c.name);
    guarded.dedup_by_key(|c| &c.name);
    context! {
        columns => guarded.iter().map(|c| quote(&c.name)).collect::<Vec<_>>(),
        known => guarded.iter().filter_map(|c| c.is_as_it_was(&quote(&c.name))).collect::<Vec<_>>(),
        rows,
    }
}

/// For `capture_rows.sql`.
fn written(target: &ReplicatedTable) -> Value {
    let block = |key: &SourceColumn| {
        let head = format!("{{\"v\":1,\"table\":{},\"keys\":[[\"", serde_json::json!(target.table.name));
        context! { head => text(&head), column => quote(&key.name) }
    };
    context! {
        name => text(&target.table.name),
        key => target.key_of("t"),
        parts => target.parts("k"),
        block => target.block_key().map(block),
        as_typed => target.for_rows(),
        of_any_types => target.of_any_types().for_rows(),
    }
}

/// For `capture_update.sql`.
fn updated(target: &ReplicatedTable) -> Value {
    context! {
        name => text(&target.table.name),
        columns => target.side_columns(),
        watched => target.watched_names(),
        old => target.list_of_key("o"),
        new => target.list_of_key("n"),
        parts => target.parts("k"),
        as_typed => target.for_update(),
        of_any_types => target.of_any_types().for_update(),
    }
}

/// For `capture_row.sql`.
fn row(target: &ReplicatedTable) -> Value {
    context! {
        name => text(&target.table.name),
        known => target.guarded().filter_map(|c| c.is_as_it_was(&column("new", &c.name))).collect::<Vec<_>>(),
        as_typed => target.for_row(),
        of_any_types => target.of_any_types().for_row(),
        anew => target.anew(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::{Schema, SourceName};
    use crate::postgres::capture::uses::Uses;

    fn typed(name: &str, base: &str) -> SourceColumn {
        SourceColumn {
            name: name.into(),
            base: Some(base.into()),
            own_type: Some(20),
            not_null: true,
            ..SourceColumn::default()
        }
    }

    fn source(by_row: bool) -> Source {
        let schema = Schema::parse(
            r#"{"a'b": {"primaryKey": "id", "columns": {"id": "TEXT", "x\"y": "DECIMAL"}, "source": "public.a"}}"#,
        )
        .unwrap();
        let target = ReplicatedTable {
            table: schema.get("a'b").unwrap().clone(),
            key: vec![typed("id", "text")],
            watched: Some(vec![typed("x\"y", "numeric")]),
            uses: Uses::default(),
        };
        Source {
            name: SourceName { schema: "public".into(), table: "a".into() },
            by_row,
            partitions: vec![],
            partitioned_by: None,
            targets: vec![target],
            queue_has_rls: false,
        }
    }

    fn functions(by_row: bool) -> Vec<Function> {
        Function::all(&source(by_row), &QueueName::parse("replicate_data_libsql").unwrap()).unwrap()
    }

    #[test]
    fn names_are_quoted_and_no_tag_is_left() {
        for function in [functions(false), functions(true)].concat() {
            let sql = function.sql().unwrap();
            assert!(!sql.contains("{{") && !sql.contains("{%"), "{sql}");
            assert!(sql.contains("'a''b'") && !sql.contains("x\"y\" "), "{sql}");
            assert!(sql.contains("set search_path = ''"));
        }
    }

    #[test]
    fn types_in_bodies_are_qualified_because_a_temporary_schema_comes_first() {
        for function in [functions(false), functions(true)].concat() {
            let casts = function.body.matches("::").count();
            assert_eq!(casts, function.body.matches("::pg_catalog.").count(), "{}", function.body);
        }
    }

    #[test]
    fn keys_are_cut_by_number_and_by_bytes() {
        let mut target = source(false).targets.remove(0);
        assert!(target.message().contains("sum(64 + pg_catalog.octet_length(r.k1))"));
        target.key = vec![typed("id", "int8")];
        assert!(target.message().ends_with("/ 500"));
        target.key = vec![typed("a", "uuid"), typed("b", "uuid"), typed("c", "uuid")];
        assert!(target.message().ends_with("/ 166"), "{}", target.message());
    }
}
