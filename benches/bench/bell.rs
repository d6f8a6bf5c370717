//! What it costs that a follower is told: writers of single rows beside one that sleeps until somebody rings, and beside
//! one that looks, as without the bell's trigger; and what an idle one takes.

use crate::freshness::{self, Following};
use crate::ground::{Ground, Home, Kind, connect};
use crate::report::{Section, median, thousands};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::schema::Schema;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SCHEMA: &str = r#"{"fresh":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}},
    "busy":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}}}"#;

/// Rows of the table that is written to: many more than writers, who are not to wait for each other's rows.
const ROWS: u32 = 100_000;

/// Concurrent writers.
const CLIENTS: u32 = 8;

/// Ticks of the system's clock a second (`getconf CLK_TCK`).
const TICKS_PER_S: f64 = 100.0;

/// How a follower hears of what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Told,
    /// The same while one transaction that has written does not end.
    Behind,
    Looks,
}

/// Pairs of rounds, each with a follower of its own; which of the two comes first takes turns.
pub async fn writers(ground: &Ground) -> Section {
    let (rounds, seconds) = if ground.is_quick { (3, 2) } else { (15, 5) };
    let (mut told, mut looks) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let ways = if round % 2 == 0 { [Way::Looks, Way::Told] } else { [Way::Told, Way::Looks] };
        for way in ways {
            let home = Home::new(Kind::File);
            let _following = follow(ground, &home, way).await;
            ground.sql("checkpoint").await;
            let script = format!("\\set id random(1, {ROWS})\nupdate busy set version = version + 1 where id = :id;\n");
            let rate = ground.pgbench(&script, CLIENTS, seconds, "on").await;
            if way == Way::Told { &mut told } else { &mut looks }.push(rate);
        }
    }
    let mut ratios: Vec<f64> = told.iter().zip(&looks).map(|(told, looks)| told / looks).collect();
    ratios.sort_by(f64::total_cmp);
    let [low, ratio, high] = [1, 2, 3].map(|quarter| ratios[quarter * (ratios.len() - 1) / 4]);
    let (told, looks) = (median(told), median(looks));
    Section {
        name: "writers",
        what: format!(
            "Single rows a second that {CLIENTS} clients of pgbench update, a flushed transaction each, beside `serve --follow` into a file: one that is told by the queue's trigger, and one that looks, because that trigger was dropped. Medians of {rounds} rounds of {seconds} s each, in turns, with a fresh follower each; × is the median of each round's ratio, behind it their quartiles."
        ),
        head: vec!["follower", "rows/s", "×"],
        rows: vec![
            vec!["looks".into(), thousands(looks), String::new()],
            vec!["is told".into(), thousands(told), format!("{ratio:.3} × ({low:.3} to {high:.3})")],
        ],
        plot: ("Single rows a second beside a follower".into(), vec![("looks".into(), looks), ("is told".into(), told)]),
    }
    .print()
}

/// Nothing is written.
pub async fn idle(ground: &Ground) -> Section {
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    let long = Duration::from_secs(if ground.is_quick { 20 } else { 600 });
    let ways = [
        (Way::Told, "is told", long),
        (Way::Behind, "is told, behind a transaction that does not end", long / 10),
        (Way::Looks, "looks", long / 10),
    ];
    for (way, name, duration) in ways {
        let home = Home::new(Kind::File);
        let following = follow(ground, &home, way).await;
        let _writer = if way == Way::Behind { Some(hold(ground).await) } else { None };
        let (own, theirs) = processor_time(ground, &following, duration).await;
        let percent = |share: f64| format!("{share:.2} %");
        let seconds = duration.as_secs().to_string();
        rows.push(vec![name.into(), seconds, percent(own), percent(theirs), percent(own + theirs)]);
        bars.push((name.into(), own + theirs));
    }
    Section {
        name: "idle",
        what: "Shares of one processor that `serve --follow` and its connections in Postgres take while nothing is written.".into(),
        head: vec!["follower", "measured, s", "process", "connections", "both"],
        rows,
        plot: ("An idle follower and its connections, % of a processor".into(), bars),
    }
    .print()
}

/// A follower that has copied everything.
async fn follow(ground: &Ground, home: &Home, way: Way) -> Following {
    ground
        .sql(&format!(
            "drop table if exists fresh, busy;\ncreate table fresh (id int primary key, version int);\n
             insert into fresh select i, 0 from generate_series(1, {}) i;\n
             create table busy (id int primary key, version int);\n
             insert into busy select i, 0 from generate_series(1, {ROWS}) i;\nvacuum analyze busy",
            freshness::WRITERS
        ))
        .await;
    freshness::set_up(ground, &Arc::new(Schema::parse(SCHEMA).unwrap())).await;
    if way == Way::Looks {
        ground.sql(&format!("drop trigger pgflume_bell on pgmq.q_{DEFAULT_QUEUE}")).await;
    }
    let following = freshness::follow_by(ground, &home.target(), SCHEMA).await;
    freshness::copied(ground).await;
    following
}

/// A transaction that has written while the follower was awake.
async fn hold(ground: &Ground) -> tokio_postgres::Client {
    let writer = connect(&ground.url).await;
    let keeps = "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and pid = pg_backend_pid()";
    loop {
        // The first wakes it.
        let write = "update busy set version = version + 1 where id = 1";
        writer.batch_execute(write).await.unwrap();
        writer.batch_execute(&format!("begin; {write}")).await.unwrap();
        if writer.query_opt(keeps, &[]).await.unwrap().is_some() {
            return writer;
        }
        writer.batch_execute("rollback").await.unwrap();
    }
}

/// Shares of a processor that the process and its connections take. A connection that opens meanwhile counts from then on.
async fn processor_time(ground: &Ground, following: &Following, duration: Duration) -> (f64, f64) {
    let (began, before) = (Instant::now(), ticks(following.id()));
    let mut connections: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    let mut is_first = true;
    while began.elapsed() < duration {
        let sql = "select pid from pg_stat_activity where application_name like 'pgflume%'";
        for row in ground.client.query(sql, &[]).await.unwrap() {
            let id = row.get::<_, i32>(0) as u32;
            let now = ticks(id);
            connections.entry(id).or_insert((if is_first { now } else { 0.0 }, now)).1 = now;
        }
        is_first = false;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let share = |ticks: f64| ticks / TICKS_PER_S / began.elapsed().as_secs_f64() * 100.0;
    let theirs = connections.values().map(|(first, last)| last - first).sum();
    (share(ticks(following.id()) - before), share(theirs))
}

/// User and system time of a process (`proc(5)`, fields 14 and 15 of `stat`).
fn ticks(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}
