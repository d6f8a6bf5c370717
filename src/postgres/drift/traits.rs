//! What the rows of a table, and the capture of their changes, depend on in the catalog, and what follows where
//! that has changed without a mark. [`read`] asks; [`changes`] compares and is pure.

use super::watch::without_bookkeeping;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::with_shown;
use std::collections::BTreeMap;
use tokio_postgres::types::{ToSql, Type};

/// Of one table: kind, part and item of each trait, as one text, and a value that another one replaces.
pub(crate) type Traits = BTreeMap<String, String>;

/// Between the three: the item may hold it, too, and comes last.
const SEPARATOR: char = '\t';

/// One change that no mark tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What has changed, for people.
    pub what: String,
    /// What makes up for it.
    pub effect: Effect,
}

impl Change {
    /// How the column that it is about is quoted in what is told.
    pub fn column(&self) -> Option<String> {
        let name = self.what.split_once(" column \"")?.1;
        Some(format!("the column \"{}\"", &name[..name.find('"')?]))
    }
}

/// What makes up for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The table is copied again.
    Copy,
    /// Nothing came in: what the source no longer has is removed.
    Sweep,
    /// The table is copied again if this partition (its OID) has rows: it may have brought them.
    CopyUnlessEmpty(u32),
}

/// Of each table of `schema`, by its name there. Outside of a transaction.
pub async fn read(client: &Client, schema: &Schema, queue: &QueueName) -> Result<BTreeMap<String, Traits>> {
    read_by(client, schema, queue, QUESTION).await
}

/// The same of a server on which nothing is installed.
pub async fn read_bare(client: &Client, schema: &Schema, queue: &QueueName) -> Result<BTreeMap<String, Traits>> {
    read_by(client, schema, queue, &with_shown(&without_bookkeeping(QUESTION))).await
}

const QUESTION: &str = include_str!("../../../sql/catalog_traits.sql");

async fn read_by(client: &Client, schema: &Schema, queue: &QueueName, sql: &str) -> Result<BTreeMap<String, Traits>> {
    let tables: Vec<_> = schema.tables().collect();
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let schemas: Vec<&str> = tables.iter().map(|t| t.source.schema.as_str()).collect();
    let sources: Vec<&str> = tables.iter().map(|t| t.source.table.as_str()).collect();
    let (prefix, queued) = (format!("pgflume_{}_", queue.as_str()), format!("q_{}", queue.as_str()));
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&names, Type::TEXT_ARRAY),
        (&schemas, Type::TEXT_ARRAY),
        (&sources, Type::TEXT_ARRAY),
        (&prefix, Type::TEXT),
        (&queued, Type::TEXT),
        (&queue.as_str(), Type::TEXT),
    ];
    let mut found: BTreeMap<String, Traits> = BTreeMap::new();
    // Compiling it would take many times as long as running it.
    client.begin("read only", "set local jit = off").await?;
    let rows = client.query_typed(sql, &parameters).await?;
    client.commit().await?;
    for row in rows {
        let (kind, item, part): (&str, &str, &str) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        found.entry(row.try_get(0)?).or_default().insert(key(kind, part, item), row.try_get(4)?);
    }
    Ok(found)
}

/// Adds what the rows of a view or a foreign table come from.
pub(crate) fn note_origin(traits: &mut Option<Traits>, definition: &str) {
    traits.get_or_insert_default().insert(key("origin", "", ""), definition.to_owned());
}

fn key(kind: &str, part: &str, item: &str) -> String {
    format!("{kind}{SEPARATOR}{part}{SEPARATOR}{item}")
}

/// What has changed from `before` to `now`, of the columns that matter. Nothing is known of a table that has no
/// traits, and of what is new among them nothing was known before, but for partitions.
pub fn changes(before: &Traits, now: &Traits, matters: &dyn Fn(&str) -> bool, has_filter: bool) -> Vec<Change> {
    if before.is_empty() || now.is_empty() {
        return Vec::new();
    }
    let compared = Compared { before, now, matters, has_filter };
    let mut found: Vec<Change> = now.iter().filter_map(|(key, value)| compared.of(key, value)).collect();
    found.extend(compared.gone());
    found.extend(compared.crashed());
    found
}

/// Adds to `now` what cannot be seen at present: when it comes back it is compared with what it was.
pub(crate) fn remember(before: &Traits, now: &mut Traits) {
    for (key, value) in before {
        let is_partition = key.starts_with("partition\t");
        // A partition that is gone is gone; but all are where the whole table cannot be seen.
        if !is_partition || now.get(&self::key("table", "", "")).is_none() {
            now.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Two states of one table.
struct Compared<'a> {
    before: &'a Traits,
    now: &'a Traits,
    matters: &'a dyn Fn(&str) -> bool,
    has_filter: bool,
}

impl Compared<'_> {
    fn of(&self, key: &str, value: &str) -> Option<Change> {
        let mut parts = key.splitn(3, SEPARATOR);
        let (kind, part, item) = (parts.next()?, parts.next()?, parts.next()?);
        let before = self.before.get(key);
        if kind == "partition" {
            return self.partition(item, before.map(String::as_str), value);
        }
        // An older version told less of it.
        let is_as_before =
            |before: &str| value.strip_prefix(before).is_some_and(|more| more.is_empty() || more.starts_with('.'));
        if is_as_before(before?) || (kind == "ruled" && value == "false") {
            return None;
        }
        self.what(kind, part, item).map(copied)
    }

    /// What it means that such a trait has another value; `None`: nothing.
    fn what(&self, kind: &str, part: &str, item: &str) -> Option<String> {
        let concerns = (self.matters)(item);
        Some(match kind {
            "table" => "another table has its name now".into(),
            "origin" => "what its rows come from is defined otherwise: a view, a function that it calls, or a foreign table's options".into(),
            "kept" => "it was unlogged for a time, and a crash would have emptied it unseen".into(),
            "parents" => {
                "it was put under another table, or taken from it, through which its rows can be written".into()
            }
            "subscribed" => "logical replication began or ceased to fill it".into(),
            "trigger" => format!(
                "the {item} trigger or its function was disabled, enabled or replaced, and may have missed changes"
            ),
            "queue" | "guards" => "triggers of the queue were changed, and may have kept marks off it".into(),
            "ruled" => "the queue had a rule, which may have kept marks off it".into(),
            "filter" => format!("the function {item}.{part} that `where` calls was replaced"),
            "operator" => format!("the operator {item}.{part} that `where` uses was replaced"),
            "order" => format!("the collation {item}.{part} that `where` uses was made anew"),
            "words" => "a text search configuration or dictionary was altered, and `where` may use it".into(),
            "number" if concerns => format!("the column {item:?} is another one under its name"),
            "column" if concerns => format!("the column {item:?} has another type or is generated otherwise"),
            "expression" if concerns => format!("a function that generates the column {item:?} was replaced"),
            "type" if concerns => format!("values of the type of the column {item:?} are written otherwise"),
            "label" if concerns => format!("a label of the enum in the column {item:?} was renamed"),
            "collation" if concerns && self.has_filter => format!("the column {item:?} has another collation"),
            "written" if concerns && self.is_rewritten() => format!("the values of the column {item:?} were rewritten"),
            _ => return None,
        })
    }

    /// Whether the table's file, or one of its partitions', is another: an ALTER TABLE may have rewritten it.
    fn is_rewritten(&self) -> bool {
        let file = key("file", "", "");
        let is_other = |(key, value): (&String, &String)| {
            let Some(before) = self.before.get(key) else { return false };
            match (Partition::parse(before), Partition::parse(value)) {
                (Some(before), Some(now)) => before.file != now.file,
                _ => *key == file && before != value,
            }
        };
        self.now.iter().any(is_other)
    }

    /// A rewrite and a crash: it may have been unlogged in between. What came since has marks.
    fn crashed(&self) -> Option<Change> {
        let crash = key("crash", "", "");
        let has_crashed = self.before.get(&crash).is_some_and(|before| self.now.get(&crash) != Some(before));
        (has_crashed && self.is_rewritten()).then(|| {
            swept("Postgres crashed, and it was rewritten: it may have been unlogged for a time, and emptied unseen")
        })
    }

    fn partition(&self, oid: &str, before: Option<&str>, value: &str) -> Option<Change> {
        let now = Partition::parse(value)?;
        let Some(before) = before.and_then(Partition::parse) else {
            let is_harmless = now.is_parent() || self.is_made_here(&now, 0);
            let oid = oid.parse().ok().filter(|_| !is_harmless)?;
            return Some(Change { what: "a partition was attached".into(), effect: Effect::CopyUnlessEmpty(oid) });
        };
        if (before.parent, before.attached, before.row) != (now.parent, now.attached, now.row) {
            return Some(copied("a partition was attached again, or its row trigger was changed".into()));
        }
        if before.kind != now.kind {
            return Some(swept("a partition was unlogged for a time, and a crash would have emptied it unseen"));
        }
        let stayed = before.truncated != "0" && before.truncated == now.truncated;
        let was_replaced = before.truncated != "0" && now.truncated != "0" && !stayed;
        (was_replaced || (!stayed && before.file != now.file)).then(|| swept("a partition may have been truncated"))
    }

    /// Whether a new partition came to be where it is, in a tree that was known or came to be there as well.
    fn is_made_here(&self, partition: &Partition<'_>, depth: usize) -> bool {
        /// More levels than anybody has.
        const DEEPEST: usize = 100;
        if !partition.is_made || depth > DEEPEST {
            return false;
        }
        let root = key("table", "", "");
        let above = key("partition", "", partition.parent);
        if self.now.get(&root).is_some_and(|oid| oid == partition.parent) || self.before.contains_key(&above) {
            return true;
        }
        let parent = self.now.get(&above).and_then(|value| Partition::parse(value));
        parent.is_some_and(|parent| self.is_made_here(&parent, depth + 1))
    }

    fn gone(&self) -> Option<Change> {
        let is_gone = |key: &&String| key.starts_with("partition\t") && !self.now.contains_key(*key);
        let number = self.before.keys().filter(is_gone).count();
        (number > 0).then(|| swept(&format!("{number} partitions were dropped or detached")))
    }
}

fn copied(what: String) -> Change {
    Change { what, effect: Effect::Copy }
}

fn swept(what: &str) -> Change {
    Change { what: what.to_owned(), effect: Effect::Sweep }
}

/// A partition as `sql/catalog_traits.sql` tells of it.
struct Partition<'a> {
    parent: &'a str,
    attached: &'a str,
    row: &'a str,
    truncated: &'a str,
    file: &'a str,
    is_made: bool,
    kind: &'a str,
}

impl<'a> Partition<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let parts: Vec<&str> = value.split('.').collect();
        let [parent, attached, row, truncated, file, made, kind] = parts[..] else { return None };
        Some(Self { parent, attached, row, truncated, file, is_made: made == "made", kind })
    }

    /// Partitioned itself, and so without rows of its own.
    fn is_parent(&self) -> bool {
        self.kind.starts_with('p')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(lines: &[(&str, &str, &str)]) -> Traits {
        lines.iter().map(|(kind, item, value)| (key(kind, "", item), (*value).to_owned())).collect()
    }

    fn told(before: &[(&str, &str, &str)], now: &[(&str, &str, &str)]) -> Vec<(String, Effect)> {
        let matters = |column: &str| column != "other";
        let found = changes(&traits(before), &traits(now), &matters, false);
        found.into_iter().map(|c| (c.what, c.effect)).collect()
    }

    #[test]
    fn what_is_new_or_unknown_is_no_change() {
        assert_eq!(told(&[], &[("table", "", "1")]), []);
        assert_eq!(told(&[("table", "", "1")], &[]), []);
        assert_eq!(told(&[("table", "", "1")], &[("table", "", "1"), ("label", "a", "x")]), []);
    }

    #[test]
    fn only_columns_that_matter_and_were_rewritten_count() {
        let before = [("table", "", "1"), ("file", "", "5"), ("written", "a", "10"), ("written", "other", "10")];
        let set_default = [("table", "", "1"), ("file", "", "5"), ("written", "a", "11"), ("written", "other", "10")];
        assert_eq!(told(&before, &set_default), []);
        let vacuum_full = [("table", "", "1"), ("file", "", "6"), ("written", "a", "10"), ("written", "other", "10")];
        assert_eq!(told(&before, &vacuum_full), []);
        let retyped = [("table", "", "1"), ("file", "", "6"), ("written", "a", "11"), ("written", "other", "11")];
        let found = told(&before, &retyped);
        assert_eq!(found.len(), 1);
        assert!(found[0].0.contains("\"a\"") && found[0].1 == Effect::Copy);
    }

    #[test]
    fn a_rewrite_counts_where_postgres_crashed() {
        let at =
            |crash: &'static str, file: &'static str| [("table", "", "1"), ("crash", "", crash), ("file", "", file)];
        assert_eq!(told(&at("1", "5"), &at("2", "5")), []);
        assert_eq!(told(&at("1", "5"), &at("1", "6")), []);
        assert_eq!(told(&at("1", "5"), &at("2", "6")).pop().map(|(_, effect)| effect), Some(Effect::Sweep));
    }

    #[test]
    fn partitions_that_come_and_go() {
        let one = ("partition", "20", "1.100.200.300.20.made.rp");
        let before = [("table", "", "1"), one];
        let with = |more: &[(&'static str, &'static str, &'static str)]| {
            let now: Vec<_> = before.iter().chain(more).copied().collect();
            told(&before, &now).into_iter().map(|(_, effect)| effect).collect::<Vec<_>>()
        };
        assert_eq!(with(&[("partition", "30", "1.101.201.0.30.made.rp")]), [], "it began empty, and has its trigger");
        let attached = [Effect::CopyUnlessEmpty(30)];
        assert_eq!(with(&[("partition", "30", "1.101.201.0.30.attached.rp")]), attached);
        let below = [("partition", "40", "1.101.201.0.0.attached.pp"), ("partition", "30", "40.90.201.0.30.made.rp")];
        assert_eq!(with(&below), attached, "made under what was attached later");
        let all_new = [("partition", "40", "1.101.201.0.0.made.pp"), ("partition", "30", "40.101.201.0.30.made.rp")];
        assert_eq!(with(&all_new), []);
        let effect = |now: &'static str| {
            let now = [("table", "", "1"), ("partition", "20", now)];
            told(&before, &now).into_iter().map(|(_, effect)| effect).collect::<Vec<_>>()
        };
        assert_eq!(effect("1.101.200.300.20.attached.rp"), [Effect::Copy], "detached and attached again");
        assert_eq!(effect("1.100.201.300.20.made.rp"), [Effect::Copy], "its row trigger was off for a time");
        assert_eq!(effect("1.100.200.301.20.made.rp"), [Effect::Sweep], "its truncate trigger was");
        assert_eq!(effect("1.100.200.300.21.made.ru"), [Effect::Sweep], "unlogged");
        assert_eq!(effect("1.100.200.300.21.made.rp"), [], "a truncate with its mark, or VACUUM FULL");
        assert_eq!(told(&before, &[("table", "", "1")]).pop().map(|(_, effect)| effect), Some(Effect::Sweep));
        let bare = [("table", "", "1"), ("partition", "20", "1.100.200.0.20.made.rp")];
        let truncated = [("table", "", "1"), ("partition", "20", "1.100.200.300.21.made.rp")];
        assert_eq!(told(&bare, &truncated)[0].1, Effect::Sweep, "truncated before setup gave it a trigger");
    }

    #[test]
    fn what_cannot_be_seen_is_remembered() {
        let before = traits(&[("table", "", "1"), ("trigger", "insert", "5.6"), ("partition", "20", "x")]);
        let mut now = traits(&[("table", "", "1")]);
        remember(&before, &mut now);
        assert!(now.contains_key(&key("trigger", "", "insert")) && !now.contains_key(&key("partition", "", "20")));
        let mut unseen = Traits::new();
        remember(&before, &mut unseen);
        assert_eq!(unseen, before);
    }
}
