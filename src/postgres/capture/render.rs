//! Tables and their columns → the SQL of their capture. Pure: what the catalog says comes in as
//! [`Source`], text goes out. The SQL itself is in `sql/capture_*.sql`.

use super::template::{dollar_quoted, fill, text};
use super::types::{Pin, SourceColumn, changed, pins};
use super::uses::Uses;
use crate::core::queue_name::QueueName;
use crate::core::schema::{SourceName, Table, quote};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most keys of one message: one read of the worker.
const MESSAGE_KEYS: usize = 500;

/// Most bytes of the keys of one message, give or take one key: PGMQ's rows stay small.
const MESSAGE_BYTES: usize = 32_000;

/// What a key costs besides its text; also makes `MESSAGE_BYTES` bound the number of keys.
const KEY_BYTES: usize = MESSAGE_BYTES / MESSAGE_KEYS;

/// Most keys that a trigger holds in one array: 16 MB of the longest.
const BLOCK_KEYS: usize = 1_000_000;

/// Longest name that Postgres keeps whole (NAMEDATALEN − 1).
const NAME_BYTES: usize = 63;

/// Hexadecimal digits that tell shortened names apart.
const HASH_DIGITS: usize = 10;

/// The transition tables, as the triggers name them.
const OLD_ROWS: &str = "old_rows";
const NEW_ROWS: &str = "new_rows";

/// What a trigger reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Statement trigger.
    Insert,
    /// Statement trigger.
    Update,
    /// Statement trigger.
    Delete,
    /// Statement trigger.
    Truncate,
    /// Row trigger for insert, update and delete.
    Row,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate, Self::Row];

    /// As in the names of triggers and functions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Row => "row",
        }
    }

    /// The trigger's name, the same on every table; a queue's name leaves room for it.
    pub fn trigger(self, queue: &QueueName) -> String {
        format!("{}{}", trigger_prefix(queue), self.name())
    }

    /// As `pg_trigger.tgtype` has it: row 1, insert 4, delete 8, update 16, truncate 32.
    fn catalog_type(self) -> u8 {
        match self {
            Self::Insert => 4,
            Self::Update => 16,
            Self::Delete => 8,
            Self::Truncate => 32,
            Self::Row => 1 + 4 + 8 + 16,
        }
    }

    fn sql(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Insert => ("insert", "\n    referencing new table as new_rows", "statement"),
            Self::Update => ("update", "\n    referencing old table as old_rows new table as new_rows", "statement"),
            Self::Delete => ("delete", "\n    referencing old table as old_rows", "statement"),
            Self::Truncate => ("truncate", "", "statement"),
            Self::Row => ("insert or update or delete", "", "row"),
        }
    }
}

/// A replicated table together with the columns of its source.
#[derive(Debug, Clone)]
pub struct Target {
    /// From `schema.json`.
    pub table: Arc<Table>,
    /// The key's columns, in `schema.json`'s order.
    pub key: Vec<SourceColumn>,
    /// The other columns whose change matters: replicated, or used by `where`. `None`: any update may matter.
    pub watched: Option<Vec<SourceColumn>>,
    /// What its key and its `where` are written with.
    pub uses: Uses,
}

/// A source table with all that is replicated from it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table.
    pub name: SourceName,
    /// Row triggers in place of statement triggers.
    pub by_row: bool,
    /// All partitions of a partitioned table, of all levels.
    pub partitions: Vec<SourceName>,
    /// Of a partitioned table: who owns it, and therefore may add partitions.
    pub partitioned_by: Option<String>,
    /// What it feeds.
    pub targets: Vec<Target>,
    /// The queue has row-level security.
    pub queue_has_rls: bool,
}

/// A capture function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name in schema pgflume, not quoted.
    pub name: String,
    /// Its body.
    pub body: String,
    /// Its pinned settings besides `search_path`.
    pub pins: BTreeSet<Pin>,
}

/// A trigger, enabled always, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// On which table.
    pub on: SourceName,
    /// When.
    pub event: Event,
    /// The function's name in schema pgflume.
    pub function: String,
}

impl Source {
    /// The events that it is captured by.
    pub fn events(&self) -> &'static [Event] {
        if self.by_row {
            &[Event::Row, Event::Truncate]
        } else {
            &[Event::Insert, Event::Update, Event::Delete, Event::Truncate]
        }
    }

    /// The functions that its triggers run.
    pub fn functions(&self, queue: &QueueName) -> Vec<Function> {
        self.events().iter().map(|&event| self.function(queue, event)).collect()
    }

    /// The triggers that it must have; Postgres itself adds row triggers to partitions.
    pub fn triggers(&self, queue: &QueueName) -> Vec<Trigger> {
        let trigger = |on: &SourceName, event| Trigger {
            on: on.clone(),
            event,
            function: function_name(queue, &self.name, event),
        };
        let own = self.events().iter().map(|&event| trigger(&self.name, event));
        own.chain(self.partitions.iter().map(|p| trigger(p, Event::Truncate))).collect()
    }

    fn function(&self, queue: &QueueName, event: Event) -> Function {
        let mut pins: BTreeSet<Pin> = self.targets.iter().flat_map(|t| t.pins(event)).collect();
        if self.queue_has_rls {
            pins.insert(Pin::RowSecurity);
        }
        Function { name: function_name(queue, &self.name, event), body: self.body(queue, event), pins }
    }

    fn body(&self, queue: &QueueName, event: Event) -> String {
        let each = |sql: &dyn Fn(&Target) -> String| self.targets.iter().map(sql).collect::<String>();
        let written = |side: &str| {
            let (one, many) = (each(&|t| t.one(queue, side)), each(&|t| t.many(queue, side)));
            self.rows(side, one, &many, &each(&|t| t.of_any_types().many(queue, side)))
        };
        match event {
            Event::Insert => written(NEW_ROWS),
            Event::Delete => written(OLD_ROWS),
            Event::Update => {
                let marks = |t: &Target| t.marks(queue, &t.changed_rows());
                let (one, many) = (each(&|t| t.one_updated(queue)), each(&marks));
                self.rows(NEW_ROWS, one, &many, &each(&|t| marks(&t.of_any_types())))
            }
            Event::Truncate => {
                filled(include_str!("../../../sql/capture_statement.sql"), each(&|t| t.truncated(queue)))
            }
            Event::Row => filled(include_str!("../../../sql/capture_row.sql"), each(&|t| t.row_marks(queue))),
        }
    }

    /// The body of a statement trigger: what it runs for one row, for many, and where a column is of another type than
    /// at `setup`.
    fn rows(&self, rows: &str, one: String, many: &str, otherwise: &str) -> String {
        let mut guarded: Vec<_> = self.targets.iter().flat_map(|t| t.guarded()).collect();
        guarded.sort_by_key(|c| &c.name);
        guarded.dedup_by_key(|c| &c.name);
        let is_known: Vec<_> = guarded.iter().filter_map(|c| c.is_as_it_was(&quote(&c.name))).collect();
        let missing: Vec<_> = guarded.iter().map(|c| format!("null::pg_catalog.xid as {}", quote(&c.name))).collect();
        let is_known = if is_known.is_empty() { "true".to_owned() } else { is_known.join("\n                and ") };
        let values = [
            ("rows", rows),
            ("is_known", &is_known),
            ("missing", &missing.join(", ")),
            ("one", one.trim_end()),
            ("many", many.trim_end()),
            ("otherwise", otherwise.trim_end()),
        ];
        fill(include_str!("../../../sql/capture_rows.sql"), &values)
    }
}

fn filled(body: &str, statements: String) -> String {
    fill(body, &[("statements", statements.trim_end())])
}

impl Target {
    /// The columns that are written or compared as their types are.
    fn guarded(&self) -> impl Iterator<Item = &SourceColumn> {
        self.key.iter().chain(self.watched.iter().flatten().filter(|c| c.is_compared_by_type()))
    }

    /// The same whatever types its columns have.
    fn of_any_types(&self) -> Self {
        let each = |columns: &[SourceColumn]| columns.iter().map(SourceColumn::of_any_type).collect::<Vec<_>>();
        Self { key: each(&self.key), watched: self.watched.as_deref().map(each), ..self.clone() }
    }

    fn pins(&self, event: Event) -> BTreeSet<Pin> {
        if event == Event::Truncate {
            return BTreeSet::new();
        }
        let mut found = pins(&self.key, SourceColumn::text_pins);
        let in_blocks = self.block_key().is_some() && event != Event::Update;
        if event != Event::Row && !in_blocks {
            found.insert(Pin::Jit);
        }
        found
    }

    fn truncated(&self, queue: &QueueName) -> String {
        fill(include_str!("../../../sql/capture_truncate.sql"), &self.names(queue).each())
    }

    /// The marks of the only row of `rows`.
    fn one(&self, queue: &QueueName, rows: &str) -> String {
        let parts: Vec<_> = self.key.iter().map(|c| c.key_text(&column("t", &c.name))).collect();
        let (names, keys) = (self.names(queue), format!("array[array[{}]]", parts.join(", ")));
        let values = [&names.each()[..], &[("keys", &keys), ("rows", rows)]].concat();
        fill(include_str!("../../../sql/capture_one.sql"), &values)
    }

    /// The marks of all of `rows`.
    fn many(&self, queue: &QueueName, rows: &str) -> String {
        let keys = self.key_columns("t");
        let Some(key) = self.block_key() else {
            return self.marks(queue, &format!("                select {keys}\n                from {rows} t"));
        };
        let head = format!("{{\"v\":1,\"table\":{},\"keys\":[[\"", serde_json::json!(self.table.name));
        let values = [
            ("queue", queue.table()),
            ("head", text(&head)),
            ("key", quote(&key.name)),
            ("rows", rows.to_owned()),
            ("message_keys", MESSAGE_KEYS.to_string()),
            ("block_keys", BLOCK_KEYS.to_string()),
        ];
        fill(include_str!("../../../sql/capture_blocks.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
    }

    /// The key's column where its values fit into arrays of values of one length, whose parts are found at once.
    fn block_key(&self) -> Option<&SourceColumn> {
        match &self.key[..] {
            [key] if key.is_plain() => Some(key),
            _ => None,
        }
    }

    fn one_updated(&self, queue: &QueueName) -> String {
        let (same_key, names) = (self.same_key(), self.names(queue));
        let (old_key, new_key) = (self.side_key("o"), self.side_key("n"));
        let (old, new, or_changed) = (self.side(OLD_ROWS), self.side(NEW_ROWS), self.or_changed());
        let own = [
            ("same_key", same_key.as_str()),
            ("old_key", &old_key),
            ("new_key", &new_key),
            ("old", &old),
            ("new", &new),
            ("or_changed", &or_changed),
        ];
        fill(include_str!("../../../sql/capture_one_updated.sql"), &[&names.each()[..], &own].concat())
    }

    fn names(&self, queue: &QueueName) -> Names {
        Names { queue: queue.table(), table: text(&self.table.name) }
    }

    fn marks(&self, queue: &QueueName, rows: &str) -> String {
        let key = (1..=self.key.len()).map(|i| format!("k.k{i}")).collect::<Vec<_>>().join(", ");
        let part = self.part();
        let names = self.names(queue);
        let values = [&names.each()[..], &[("key", &key), ("part", &part), ("rows", rows.trim_end())]].concat();
        fill(include_str!("../../../sql/capture_marks.sql"), &values)
    }

    /// Numbers the messages: by rows where the keys have a longest text, else by a running sum of bytes.
    fn part(&self) -> String {
        let longest: Option<usize> = self.key.iter().map(SourceColumn::text_bytes).sum();
        if let Some(bytes) = longest {
            let keys = (MESSAGE_BYTES / bytes.max(KEY_BYTES)).clamp(1, MESSAGE_KEYS);
            return format!("(pg_catalog.row_number() over () - 1) / {keys}");
        }
        let lengths: Vec<_> = (1..=self.key.len()).map(|i| format!(" + pg_catalog.octet_length(r.k{i})")).collect();
        format!(
            "(pg_catalog.sum({KEY_BYTES}{}) over (rows unbounded preceding) - 1) / {MESSAGE_BYTES}",
            lengths.concat()
        )
    }

    fn key_columns(&self, side: &str) -> String {
        let columns =
            self.key.iter().enumerate().map(|(i, c)| format!("{} as k{}", c.key_text(&column(side, &c.name)), i + 1));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The key of one row of [`Self::side`] as a list of one key.
    fn side_key(&self, side: &str) -> String {
        let parts = self.key.iter().enumerate().map(|(i, c)| c.key_text(&format!("{side}.k{}", i + 1)));
        format!("array[array[{}]]", parts.collect::<Vec<_>>().join(", "))
    }

    /// Old or new rows: the key as `k1`…, the watched columns as `c1`….
    fn side(&self, rows: &str) -> String {
        let keys = self.key.iter().enumerate().map(|(i, c)| format!("t.{} as k{}", quote(&c.name), i + 1));
        let watched = self.watched.iter().flatten();
        let values = watched.clone().enumerate().map(|(i, c)| format!("{} as c{}", quote(&c.name), i + 1));
        let columns = keys.chain(values).collect::<Vec<_>>().join(", ");
        let missing: Vec<_> = watched.map(|c| format!("{} as {}", rows == OLD_ROWS, quote(&c.name))).collect();
        if missing.is_empty() {
            return format!("(select {columns} from {rows} t)");
        }
        let values = [("missing", missing.join(", ")), ("columns", columns), ("rows", rows.to_owned())];
        let side =
            fill(include_str!("../../../sql/capture_side.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())));
        side.trim_end().to_owned()
    }

    fn same_key(&self) -> String {
        let each =
            self.key.iter().enumerate().map(|(i, c)| c.same_key(&format!("o.k{}", i + 1), &format!("n.k{}", i + 1)));
        each.collect::<Vec<_>>().join(" and ")
    }

    fn changed_rows(&self) -> String {
        let both = self.key.iter().enumerate().map(|(i, c)| {
            let number = i + 1;
            format!("{} as k{number}", c.key_text(&format!("coalesce(o.k{number}, n.k{number})")))
        });
        let values = [
            ("both", both.collect::<Vec<_>>().join(", ")),
            ("old", self.side(OLD_ROWS)),
            ("new", self.side(NEW_ROWS)),
            ("join", self.same_key()),
            ("one_sided", "(o.k1 is null or n.k1 is null)".to_owned()),
            ("or_changed", self.or_changed()),
        ];
        fill(include_str!("../../../sql/capture_changed.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
    }

    /// What makes an update of a row worth a mark when its key stayed.
    fn or_changed(&self) -> String {
        let names: Vec<_> = (1..=self.watched.iter().flatten().count()).map(|i| format!("c{i}")).collect();
        let changed = self.changed("o", "n", names.iter().map(String::as_str));
        changed.iter().map(|c| format!("\n            or {c}")).collect()
    }

    fn changed<'a>(&self, old: &str, new: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
        match &self.watched {
            None => vec!["true".to_owned()],
            Some(columns) => {
                let pairs: Vec<_> =
                    columns.iter().zip(names).map(|(c, name)| (c, column(old, name), column(new, name))).collect();
                changed(&pairs)
            }
        }
    }

    /// The key of a row as JSON.
    fn row_key(&self, side: &str) -> String {
        let parts: Vec<_> = self.key.iter().map(|c| c.key_text(&column(side, &c.name))).collect();
        format!("pg_catalog.jsonb_build_array({})", parts.join(", "))
    }

    /// What of the row before a row trigger is marked.
    fn row_marked(&self) -> String {
        let differs: Vec<_> = self
            .key
            .iter()
            .map(|c| format!("not ({})", c.same_key(&column("old", &c.name), &column("new", &c.name))))
            .collect();
        let changed = match self.changed("old", "new", self.watched.iter().flatten().map(|c| c.name.as_str())) {
            none if none.is_empty() => "false".to_owned(),
            some => some.join("\n            or "),
        };
        let (old_key, new_key, differs) = (self.row_key("old"), self.row_key("new"), differs.join(" or "));
        let compared =
            [("old_key", old_key.as_str()), ("new_key", &new_key), ("key_differs", &differs), ("changed", &changed)];
        fill(include_str!("../../../sql/capture_row_marked.sql"), &compared)
    }

    fn row_marks(&self, queue: &QueueName) -> String {
        let is_known: Vec<_> = self.guarded().filter_map(|c| c.is_as_it_was(&column("new", &c.name))).collect();
        let is_known = if is_known.is_empty() { "true".to_owned() } else { is_known.join("\n            and ") };
        let any = self.of_any_types();
        // `$1` is the row, `$2` what is marked already.
        let anew =
            text(&format!("select $2 operator(pg_catalog.||) pg_catalog.jsonb_build_array({})", any.row_key("($1)")));
        let (names, marked, otherwise) = (self.names(queue), self.row_marked(), any.row_marked());
        let own = [
            ("is_known", is_known.as_str()),
            ("marked", marked.trim_end()),
            ("otherwise", otherwise.trim_end()),
            ("keys", anew.as_str()),
        ];
        let values = [&names.each()[..], &own].concat();
        fill(include_str!("../../../sql/capture_row_marks.sql"), &values)
    }
}

struct Names {
    queue: String,
    table: String,
}

impl Names {
    fn each(&self) -> [(&str, &str); 2] {
        [("queue", &self.queue), ("table", &self.table)]
    }
}

fn column(side: &str, name: &str) -> String {
    format!("{side}.{}", quote(name))
}

/// The first part of the names of all triggers of a queue.
pub fn trigger_prefix(queue: &QueueName) -> String {
    format!("pgflume_{}_", queue.as_str())
}

/// The first part of the names of all capture functions of a queue: no queue's name holds a dot.
pub fn function_prefix(queue: &QueueName) -> String {
    format!("{}.", queue.as_str())
}

/// `queue.schema.table.event`, shortened with a hash where it is too long or could be read in two ways.
pub fn function_name(queue: &QueueName, source: &SourceName, event: Event) -> String {
    let parts = [queue.as_str(), &source.schema, &source.table, event.name()];
    let plain = parts.join(".");
    if plain.len() <= NAME_BYTES && !source.schema.contains('.') && !source.table.contains('.') {
        return plain;
    }
    let hash = hex::encode(Sha256::digest(parts.join("\0").as_bytes()));
    let hash = &hash[..HASH_DIGITS];
    let room = NAME_BYTES - HASH_DIGITS - 1;
    let end = (0..=room.min(plain.len())).rev().find(|&i| plain.is_char_boundary(i)).unwrap_or(0);
    format!("{}.{hash}", &plain[..end])
}

/// The SQL of one function.
pub fn function(function: &Function) -> String {
    let name = format!("pgflume.{}", quote(&function.name));
    let settings: Vec<String> = std::iter::once("set search_path = ''".to_owned())
        .chain(function.pins.iter().map(|p| {
            let (setting, value) = p.setting();
            format!("set {setting} = {}", text(value))
        }))
        .collect();
    let values =
        [("function", name.as_str()), ("settings", &settings.join("\n")), ("body", &dollar_quoted(&function.body))];
    fill(include_str!("../../../sql/capture_function.sql"), &values)
}

/// The SQL of one trigger.
pub fn trigger(queue: &QueueName, trigger: &Trigger) -> String {
    let (event, referencing, level) = trigger.event.sql();
    let name = trigger.event.trigger(queue);
    let side = |rows: &str| if referencing.contains(rows) { text(rows) } else { "null".to_owned() };
    let values = [
        ("trigger", quote(&name)),
        ("trigger_text", text(&name)),
        ("event", event.to_owned()),
        ("on", trigger.on.quoted()),
        ("on_text", text(&trigger.on.quoted())),
        ("referencing", referencing.to_owned()),
        ("level", level.to_owned()),
        ("function", format!("pgflume.{}", quote(&trigger.function))),
        ("function_text", text(&trigger.function)),
        ("type", trigger.event.catalog_type().to_string()),
        ("old", side(OLD_ROWS)),
        ("new", side(NEW_ROWS)),
    ];
    let body =
        fill(include_str!("../../../sql/capture_trigger.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())));
    format!("do {};\n", dollar_quoted(&body))
}

/// The SQL that says how the capture of a table is, as `sql/catalog_traits.sql` says it.
pub fn capture_state(queue: &QueueName, on: &SourceName) -> String {
    let values = [("prefix", text(&trigger_prefix(queue))), ("on_text", text(&on.quoted()))];
    fill(include_str!("../../../sql/capture_state.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
}

/// The SQL that removes a trigger if it is there.
pub fn drop_trigger(on: &SourceName, name: &str) -> String {
    let values =
        [("on", on.quoted()), ("on_text", text(&on.quoted())), ("trigger", quote(name)), ("trigger_text", text(name))];
    fill(include_str!("../../../sql/drop_trigger.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
}

/// Targets by source, in the order of the sources' names.
pub fn by_source<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> BTreeMap<(String, String), Vec<Arc<Table>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for table in tables {
        found.entry((table.source.schema.clone(), table.source.table.clone())).or_default().push(table.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    fn queue() -> QueueName {
        QueueName::parse("replicate_data_libsql").unwrap()
    }

    fn source_name(schema: &str, table: &str) -> SourceName {
        SourceName { schema: schema.into(), table: table.into() }
    }

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
        let target = Target {
            table: schema.get("a'b").unwrap().clone(),
            key: vec![typed("id", "text")],
            watched: Some(vec![typed("x\"y", "numeric")]),
            uses: Uses::default(),
        };
        Source {
            name: source_name("public", "a"),
            by_row,
            partitions: vec![],
            partitioned_by: None,
            targets: vec![target],
            queue_has_rls: false,
        }
    }

    #[test]
    fn function_names_are_unique_and_fit() {
        let q = queue();
        assert_eq!(
            function_name(&q, &source_name("public", "apps"), Event::Insert),
            "replicate_data_libsql.public.apps.insert"
        );
        let dotted = [
            function_name(&q, &source_name("a.b", "c"), Event::Row),
            function_name(&q, &source_name("a", "b.c"), Event::Row),
        ];
        assert_ne!(dotted[0], dotted[1]);
        for name in ["é".repeat(31), "x".repeat(63)] {
            let made = function_name(&q, &source_name("public", &name), Event::Truncate);
            assert!(made.len() <= NAME_BYTES && made.starts_with("replicate_data_libsql."), "{made}");
            assert_ne!(made, function_name(&q, &source_name("public", &name), Event::Insert));
        }
    }

    #[test]
    fn every_trigger_name_fits() {
        let longest = QueueName::parse(&"q".repeat(42)).unwrap();
        assert!(Event::ALL.iter().all(|e| e.trigger(&longest).len() <= NAME_BYTES));
    }

    #[test]
    fn names_are_quoted_and_no_placeholder_is_left() {
        for by_row in [false, true] {
            for f in source(by_row).functions(&queue()) {
                let sql = function(&f);
                assert!(!sql.contains("{{"), "{sql}");
                assert!(sql.contains("'a''b'") && !sql.contains("x\"y\" "), "{sql}");
                assert!(sql.contains("set search_path = ''"));
            }
        }
    }

    #[test]
    fn types_in_bodies_are_qualified_because_a_temporary_schema_comes_first() {
        for f in [source(false), source(true)].iter().flat_map(|s| s.functions(&queue())) {
            let casts = f.body.matches("::").count();
            assert_eq!(casts, f.body.matches("::pg_catalog.").count(), "{}", f.body);
        }
    }

    #[test]
    fn keys_are_cut_by_number_and_by_bytes() {
        let mut target = source(false).targets.remove(0);
        assert!(target.part().contains("sum(64 + pg_catalog.octet_length(r.k1))"));
        target.key = vec![typed("id", "int8")];
        assert!(target.part().ends_with("/ 500"));
        target.key = vec![typed("a", "uuid"), typed("b", "uuid"), typed("c", "uuid")];
        assert!(target.part().ends_with("/ 166"), "{}", target.part());
    }
}
