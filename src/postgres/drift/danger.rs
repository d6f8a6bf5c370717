//! Sources whose rows could change without a mark though every trigger is in its place. Pure.

use super::recorded::Recorded;
use super::source::CurrentTable;
use crate::core::schema::Table;

/// What is wrong, and the remedy.
pub(super) fn of(table: &Table, recorded: &Recorded, found: &CurrentTable) -> Vec<(String, String)> {
    let source = table.source.quoted();
    if !["r", "p"].contains(&found.relkind.as_str()) {
        let problem = format!("{source} is no table any more: what it shows can change without a mark");
        let remedy = format!(
            "set \"source\" of {:?} in schema.json to the table behind it, then run `pgflume setup`",
            table.name
        );
        return vec![(problem, remedy)];
    }
    let mut all = Vec::new();
    if found.persistence != "p" {
        all.push((
            format!("{source} is unlogged: a crash would empty it unseen"),
            format!("run `alter table {source} set logged`; the worker then copies the table again"),
        ));
    }
    if found.children > 0 {
        all.push((
            format!("{source} has inheritance children: it shows their rows, and nothing captures them"),
            format!("run `alter table ... no inherit {source}` for each, and replicate them by themselves"),
        ));
    }
    if found.unsafe_partitions > 0 {
        all.push((
            format!(
                "{} partitions of {source} are unlogged or foreign tables: their rows can change without a mark",
                found.unsafe_partitions
            ),
            "run `alter table ... set logged` for the unlogged ones, and detach the foreign ones".into(),
        ));
    }
    if (found.is_child || found.is_subscribed) && !recorded.definition.triggers.iter().any(|event| event == "row") {
        let by = if found.is_child { "through the table above it" } else { "by logical replication" };
        all.push((
            format!("{source} can be written {by} now, which its statement triggers do not see"),
            "run `pgflume setup`: it makes row triggers; and then `pgflume resync` the table".into(),
        ));
    }
    all
}

/// The first trigger that does not run what `setup` made.
pub(super) fn replaced<'a>(recorded: &'a Recorded, found: &CurrentTable) -> Option<&'a str> {
    let is_other = |(event, hash): &(&String, &String)| found.functions.get(*event).is_some_and(|now| now != *hash);
    let other = recorded.definition.functions.iter().find(is_other);
    other.map(|(event, _)| event.as_str())
}
