//! How fast a full queue becomes an equal replica.

use crate::ground::{Format, Ground, Home, Kind, Table};
use crate::report::{Section, median, thousands};
use crate::{floors, reference};
use std::collections::BTreeMap;

/// What is drained, in the order of the report: the name, and what is done.
const FORMATS: [(Format, &str); 4] = [
    (Format::Images, "Capgo-format, one row a message"),
    (Format::OneKey, "marks, one key a message"),
    (Format::ManyKeys, "marks, 500 keys a message"),
    (Format::HotKeys, "marks, one key a message, 1 % of keys have 90 %"),
];

/// Runs everything side by side, `ground.runs()` times.
pub async fn run(ground: &Ground) -> Section {
    let changes: i64 = if ground.is_quick { 50_000 } else { 200_000 };
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for table in [Table::Narrow, Table::Wide] {
        let measured = measure(ground, table, changes).await;
        let rate = |name: &str| measured.get(name).map(|seconds| changes as f64 / seconds).unwrap_or_default();
        let label = if table == Table::Narrow { "narrow" } else { "wide, indexed" };
        let of = |name: &str, floor: &str| format!("{:.2} × {floor}", rate(name) / rate(floor));
        let reference = "reference algorithm, sqld";
        let named: Vec<String> = names();
        for name in &named {
            let Some(_) = measured.get(name) else { continue };
            let beside = match (name.contains("file"), name) {
                _ if name == reference || name.starts_with("floor") => String::new(),
                (true, n) if n.contains("one key a message, file") => of(name, "floor (a): taking and reading"),
                (true, n) if n.contains("500 keys") => of(name, "floor (b): writing a file"),
                (false, n) if n.contains("500 keys") => {
                    format!("{}; {}", of(name, reference), of(name, "floor (c): writing sqld"))
                }
                (false, _) => of(name, reference),
                _ => String::new(),
            };
            rows.push(vec![format!("{label}: {name}"), thousands(rate(name)), beside]);
            bars.push((format!("{name} ({label})"), rate(name)));
        }
    }
    Section {
        name: "drain",
        what: format!(
            "{} changes on the queue, each of another row but for hot keys; changes a second until the replica has them all, medians of {} runs side by side.",
            thousands(changes as f64),
            ground.runs()
        ),
        head: vec!["drain", "changes/s", "ratio in the same run"],
        rows,
        plot: ("Drain, changes a second".into(), bars),
    }
    .print()
}

fn names() -> Vec<String> {
    let floors = ["floor (a): taking and reading", "floor (b): writing a file", "floor (c): writing sqld"];
    let drains = FORMATS.iter().flat_map(|(_, name)| ["file", "sqld"].map(|to| format!("{name}, {to}")));
    std::iter::once("reference algorithm, sqld").chain(floors).map(str::to_owned).chain(drains).collect()
}

/// Median seconds by name.
async fn measure(ground: &Ground, table: Table, changes: i64) -> BTreeMap<String, f64> {
    let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut note = |name: &str, took: f64| seconds.entry(name.to_owned()).or_default().push(took);
    ground.fill(table, changes).await;
    let items = floors::rows(ground, table).await;
    for _ in 0..ground.runs() {
        ground.forget().await;
        ground.queue(table, Format::Images, changes).await;
        let Home::Sqld(sqld) = Home::new(Kind::Sqld) else { unreachable!() };
        note("reference algorithm, sqld", changes as f64 / reference::rate(ground, table, &sqld, changes).await);
        ground.forget().await;
        ground.queue(table, Format::OneKey, changes).await;
        note("floor (a): taking and reading", floors::read(ground, table).await);
        note("floor (b): writing a file", floors::write_file(table, &items, &Home::new(Kind::File)).await);
        let home = Home::new(Kind::Sqld);
        let target = home.target();
        let Home::Sqld(sqld) = &home else { unreachable!() };
        note("floor (c): writing sqld", floors::write_sqld(table, &items, sqld, &target).await);
        for (format, name) in FORMATS {
            for (kind, to) in [(Kind::File, "file"), (Kind::Sqld, "sqld")] {
                let home = Home::new(kind);
                let rows = if format == Format::HotKeys { hot_keys(changes) } else { changes };
                note(&format!("{name}, {to}"), ground.drain(table, format, &home.target(), changes, rows).await);
            }
        }
    }
    seconds.into_iter().map(|(name, took)| (name, median(took))).collect()
}

/// How many keys `Format::HotKeys` names.
fn hot_keys(changes: i64) -> i64 {
    let key = |i: i64| if i % 10 == 0 { 1 + i % changes } else { 1 + i * 7919 % (changes / 100).max(1) };
    (1..=changes).map(key).collect::<std::collections::BTreeSet<_>>().len() as i64
}
