//! Many syncs in one process: what they take at rest, and how long a change in any of their sources takes.

use crate::ground::{Ground, connect};
use crate::report::Section;
use pgflume::core::value::Cell;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Rows of each database's table.
const ROWS: i64 = 1_000;

/// Clock ticks a second in `/proc`: `sysconf(_SC_CLK_TCK)`, which Linux has at 100.
const TICKS: f64 = 100.0;

/// A process that ends with its owner.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Serving {
    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    /// Seconds of processor so far.
    fn processor(&self) -> f64 {
        let stat = self.read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime, fields 14 and 15 of proc(5).
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
    }

    /// MB, of `VmRSS` or `VmHWM`.
    fn memory(&self, what: &str) -> f64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
    }
}

pub async fn run(ground: &Ground) -> Section {
    let (count, every) = if ground.is_quick { (10, 6) } else { (100, 60) };
    let names: Vec<String> = (0..count).map(|i| format!("many{i}")).collect();
    for name in &names {
        ground.sql(&format!("drop database if exists {name};\ncreate database {name}")).await;
        let client = connect(&url(ground, name)).await;
        client
            .batch_execute(&format!(
                "create table t (id int primary key, v text, n numeric, at timestamptz);
                 insert into t select i, 'value ' || i, i / 3.0, now() from generate_series(1, {ROWS}) i"
            ))
            .await
            .unwrap();
    }
    let home = tempfile::tempdir().unwrap();
    let serving = serve(ground, &names, every, home.path());
    arrive(home.path(), &names, ROWS).await;
    let (before, began) = (serving.processor(), Instant::now());
    tokio::time::sleep(Duration::from_secs(2 * every)).await;
    let share = 100.0 * (serving.processor() - before) / began.elapsed().as_secs_f64();
    let resting = serving.memory("VmRSS");
    for name in &names {
        connect(&url(ground, name)).await.batch_execute("insert into t values (0, 'new', 0, now())").await.unwrap();
    }
    let began = Instant::now();
    arrive(home.path(), &names, ROWS + 1).await;
    let longest = began.elapsed().as_secs_f64();
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    let section = Section {
        name: "syncs",
        what: format!(
            "{count} syncs in one process, each of a database of its own with {ROWS} rows into a file of its own, looked at every {every} s."
        ),
        head: vec!["", ""],
        rows: vec![
            row("share of one processor while nothing changes", format!("{share:.2} %")),
            row("resident memory, MB", format!("{resting:.0}")),
            row("the same at its peak, first copies included, MB", format!("{:.0}", serving.memory("VmHWM"))),
            row("a change in each is readable in all after, s", format!("{longest:.1}")),
        ],
        plot: (
            "A change in each of many syncs, s".into(),
            vec![("interval".into(), every as f64), ("readable in all".into(), longest)],
        ),
    };
    drop(serving);
    for name in &names {
        ground.sql(&format!("drop database {name} with (force)")).await;
    }
    section.print()
}

fn url(ground: &Ground, database: &str) -> String {
    let mut url = url::Url::parse(&ground.url).unwrap();
    url.set_path(database);
    url.into()
}

fn serve(ground: &Ground, names: &[String], every: u64, home: &Path) -> Serving {
    let (mut connections, mut syncs) = (serde_json::Map::new(), serde_json::Map::new());
    for name in names {
        let (source, copy) = (format!("{name}-source"), format!("{name}-copy"));
        connections.insert(source.clone(), serde_json::json!({"url": url(ground, name)}));
        connections.insert(copy.clone(), serde_json::json!({"url": format!("file:{name}.db")}));
        syncs.insert(name.clone(), serde_json::json!({"from": source, "to": copy, "every": format!("{every}s")}));
    }
    let file = serde_json::json!({"connections": connections, "syncs": syncs});
    std::fs::write(home.join("pgflume.json"), file.to_string()).unwrap();
    let port = pgflume::demo::postgres::free_port().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(["serve", "--port", &port.to_string()]).current_dir(home);
    command.env("RUST_LOG", "warn").env("WEBHOOK_SIGNATURE", "x".repeat(40));
    Serving(command.spawn().unwrap())
}

/// Waits until each replica has so many rows.
async fn arrive(home: &Path, names: &[String], rows: i64) {
    for name in names {
        let target = Target::File(home.join(format!("{name}.db")));
        let is_there = async || {
            let replica = Replica::existing(&target).await.ok()??;
            let there = replica.query("SELECT count(*) FROM t", vec![]).await.ok()?;
            (there[0][0] == Cell::Integer(rows)).then_some(())
        };
        while is_there().await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
