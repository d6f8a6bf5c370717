//! A MariaDB (a MySQL where `TEST_MYSQL=mysql`) as a source, whose binlog is read: the first copy beside a floor that reads the same pages and writes them with
//! prepared inserts, a change of many rows, one after the other as it is followed, comparisons, and memory.

use crate::ground::{Ground, Home, Kind};
use crate::parts::mysql_server::{MySqlServer, said};
use crate::peers::usage::Peak;
use crate::report::{Section, median, thousands};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use pgflume::mysql::MySqlUrl;
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::provider::StampOptions;
use pgflume::provider::mysql::{MySqlProvider, Quiet, Wanted};
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::replica::target::Target;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of a transaction of the floor, and of one of its pages.
const PAGE: usize = 10_000;

/// Commits that are followed, and the rest between two.
const COMMITS: usize = 200;
const REST: Duration = Duration::from_millis(50);

/// How long a commit may take to be readable before the benchmark gives up.
const LATE: Duration = Duration::from_secs(10);

const COLUMNS: [&str; 8] = ["id", "name", "amount", "ratio", "data", "at", "flag", "version"];

pub async fn run(ground: &Ground) -> Section {
    let rows: u32 = if ground.is_quick { 100_000 } else { 1_000_000 };
    let server =
        MySqlServer::start(&["--innodb-buffer-pool-size=1G", "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"]);
    let mut root = server.connect(None).await;
    for sql in [
        "create database d; use d; create user u@'%' identified by 'p'; grant select on d.* to u@'%'; create user s@'%' identified by 'p'; grant select on d.* to s@'%'; grant replication slave, binlog monitor on *.* to u@'%'".to_owned(),
        format!("create table d.items (id bigint primary key, name varchar(40) not null, amount decimal(12,2) not null, ratio double, data json, at datetime(6), flag tinyint(1), version bigint not null)
            select seq as id, concat('item number ', seq) as name, seq / 100 as amount, sqrt(seq) as ratio, json_object('n', seq, 'tags', json_array('a', 'b')) as data, '2024-01-01' + interval seq second as at, seq % 3 = 0 as flag, 0 as version from seq_1_to_{rows}"),
    ] {
        root.query_drop(said(&sql)).await.unwrap();
    }
    let (mut floor, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ground.runs() {
        floor.push(copy_by_floor(&mut root).await);
        copy.push(pass(&pull(&server, &Home::new(Kind::File))).await);
    }
    let home = Home::new(Kind::File);
    let followed = pull(&server, &home);
    pass(&followed).await;
    let (mut idle, mut marked, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    let changed = rows / 5;
    for _ in 0..ground.runs() {
        idle.push(pass(&followed).await);
        root.query_drop(format!("update d.items set version = version + 1 where id <= {changed}")).await.unwrap();
        marked.push(f64::from(changed) / pass(&followed).await);
        let began = Instant::now();
        let report = followed.verify(&[], false).await.unwrap();
        assert_eq!(report.tables["items"].differences(), 0, "{report:?}");
        compared.push(began.elapsed().as_secs_f64());
    }
    let mut lags = follow(followed, &server, &home).await;
    lags.sort_by(f64::total_cmp);
    let lag = |share: usize| lags[lags.len() * share / 100] * 1e3;
    let memory = memory(&server, &mut root, changed).await;
    let digested = digested(&server, &mut root, ground.runs()).await;
    let (floor, copy, idle, marked, compared) =
        (median(floor), median(copy), median(idle), median(marked), median(compared));
    let row = |what: &str, found: String, than: String| vec![what.to_owned(), found, than];
    let rows = f64::from(rows);
    Section {
        name: "mysql",
        what: format!(
            "A table of {} rows of eight columns of a {} (`sync_binlog = 1`) into a file, by a login that may read the binlog; medians of {} turns. The floor reads the same pages and writes them with prepared inserts, each page a transaction.",
            thousands(rows),
            server.kind().name(),
            ground.runs()
        ),
        head: vec!["", "", ""],
        rows: vec![
            row("floor: first copy", format!("{} rows/s", thousands(rows / floor)), String::new()),
            row("first copy", format!("{} rows/s", thousands(rows / copy)), format!("{:.2} × the floor", floor / copy)),
            row("a pass that finds nothing", format!("{:.1} ms", idle * 1e3), String::new()),
            row("rows that one transaction has changed", format!("{} rows/s", thousands(marked)), String::new()),
            row(
                "commit → readable, a commit every 50 ms",
                format!("p50 {:.1} ms, p95 {:.1} ms", lag(50), lag(95)),
                format!("{} commits", lags.len()),
            ),
            row("all rows compared", format!("{compared:.1} s"), format!("{} rows/s", thousands(rows / compared))),
            row(
                "by SELECT alone: the digests of all rows, of which none has changed",
                format!("{:.1} s", digested[0]),
                format!("{} rows/s", thousands(rows / digested[0])),
            ),
            row("the same where 100 rows beside each other have", format!("{:.1} s", digested[1]), String::new()),
            row("peak memory of a first copy", format!("{:.0} MB", memory[0]), String::new()),
            row("peak memory of a pass over the changed rows", format!("{:.0} MB", memory[1]), String::new()),
        ],
        plot: (
            "A first copy, thousand rows a second".into(),
            vec![("floor".into(), rows / floor / 1e3), ("first copy".into(), rows / copy / 1e3)],
        ),
    }
    .print()
}

/// A login that may only SELECT from a table without stamps, whose rows are to be compared at each look: seconds of one
/// that finds nothing, and of one that finds some.
async fn digested(server: &MySqlServer, root: &mut Conn, runs: usize) -> [f64; 2] {
    let (home, stamps) = (Home::new(Kind::File), StampOptions::default());
    let stamps = StampOptions { is_compared: true, compare: Some(Duration::ZERO), ..stamps };
    let provider = MySqlProvider { url: MySqlUrl::parse(&url(server, "s")).unwrap(), stamps, ..provider(server) };
    let pull = Pull::new("bench".into(), Arc::new(provider), home.target(), false);
    // The first look has no digests to compare with.
    for _ in 0..2 {
        pull.pass().await.unwrap();
    }
    let (mut idle, mut some) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        for (seconds, changed) in [(&mut idle, 0), (&mut some, 100)] {
            root.query_drop(format!(
                "update d.items set version = version + 1 where id between 5001 and {}",
                5000 + changed
            ))
            .await
            .unwrap();
            let began = Instant::now();
            let passed = pull.pass().await.unwrap();
            seconds.push(began.elapsed().as_secs_f64());
            assert_eq!((passed.rows, passed.promise), (changed, Some("compared")), "{passed:?}");
        }
    }
    [median(idle), median(some)]
}

fn url(server: &MySqlServer, user: &str) -> String {
    format!("mysql://{user}:p@127.0.0.1:{}/d?ssl-mode=DISABLED", server.port())
}

fn provider(server: &MySqlServer) -> MySqlProvider {
    MySqlProvider {
        url: MySqlUrl::parse(&url(server, "u")).unwrap(),
        wanted: Wanted::Named { tables: Vec::new(), exclude: Vec::new() },
        row_bytes: DEFAULT_ROW_BYTES,
        stamps: StampOptions::default(),
        quiet: Quiet::default(),
    }
}

fn pull(server: &MySqlServer, home: &Home) -> Pull {
    Pull::new("bench".into(), Arc::new(provider(server)), home.target(), false)
}

async fn pass(pull: &Pull) -> f64 {
    let began = Instant::now();
    let done = pull.pass().await.unwrap();
    assert!(done.caught_up_at.is_some() && done.promise == Some("exact"), "{done:?}");
    began.elapsed().as_secs_f64()
}

/// Reads pages in the order of the key, and writes each in a transaction.
async fn copy_by_floor(conn: &mut Conn) -> f64 {
    let home = Home::new(Kind::File);
    let Target::File(path) = home.target() else { unreachable!() };
    let began = Instant::now();
    let database = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
        database.query(pragma, ()).await.unwrap().next().await.unwrap();
    }
    let columns = COLUMNS.join(", ");
    database.execute(&format!("CREATE TABLE items ({columns}, PRIMARY KEY (id))"), ()).await.unwrap();
    let mut after = 0;
    loop {
        let sql = format!("select {columns} from d.items where id > ? order by id limit {PAGE}");
        let rows: Vec<mysql_async::Row> = conn.exec(sql, (after,)).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = last.get::<i64, _>(0).unwrap();
        database.execute("BEGIN IMMEDIATE", ()).await.unwrap();
        let insert = database.prepare("INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)").await.unwrap();
        for row in rows {
            insert.execute(row.unwrap().into_iter().map(cell).collect::<Vec<_>>()).await.unwrap();
            insert.reset();
        }
        drop(insert);
        database.execute("COMMIT", ()).await.unwrap();
    }
    began.elapsed().as_secs_f64()
}

fn cell(value: Value) -> libsql::Value {
    match value {
        Value::NULL => libsql::Value::Null,
        Value::Int(i) => libsql::Value::Integer(i),
        Value::Double(d) => libsql::Value::Real(d),
        Value::Bytes(bytes) => libsql::Value::Text(String::from_utf8(bytes).unwrap()),
        other => libsql::Value::Text(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// Seconds from a commit until a reader of the file sees it.
async fn follow(pull: Pull, server: &MySqlServer, home: &Home) -> Vec<f64> {
    let Target::File(path) = home.target() else { unreachable!() };
    let (every, retry_delay) = (Duration::from_secs(3600), Duration::from_secs(1));
    let service = Arc::new(Service::new(vec![Scheduled { pull, every, retry_delay, limiter: None }]));
    let running = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    service.hint("bench");
    while service.report("bench").unwrap().passes < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reader = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    let mut writer = server.connect(None).await;
    let mut lags = Vec::new();
    for version in 1..=COMMITS as i64 {
        writer.exec_drop("update d.items set version = ? where id = 777", (-version,)).await.unwrap();
        let began = Instant::now();
        loop {
            let mut rows = reader.query("SELECT version FROM items WHERE id = 777", ()).await.unwrap();
            if rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap() == -version {
                break;
            }
            drop(rows);
            assert!(began.elapsed() < LATE, "the commit does not arrive");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        lags.push(began.elapsed().as_secs_f64());
        tokio::time::sleep(REST).await;
    }
    service.stop();
    running.await.unwrap();
    lags
}

/// Megabytes that `pgflume sync` takes at most: for a first copy, and for a pass over so many changed rows.
async fn memory(server: &MySqlServer, root: &mut Conn, changed: u32) -> [f64; 2] {
    let directory = tempfile::tempdir().unwrap();
    let file = format!(
        r#"{{"connections":{{"d":{{"url":"mysql://u@127.0.0.1:{}/d?ssl-mode=DISABLED","password":"${{PW}}"}}}},"syncs":{{"d":{{"from":"d"}}}}}}"#,
        server.port()
    );
    std::fs::write(directory.path().join("pgflume.json"), file).unwrap();
    let mut found = [0.0; 2];
    for megabytes in &mut found {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(["sync", "d"]).current_dir(directory.path()).env("PW", "p").env("LIBSQL_URL", "file:r.db");
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let peak = Peak::watch(child.id());
        assert!(child.wait().unwrap().success());
        *megabytes = peak.end();
        root.query_drop(format!("update d.items set version = version + 1 where id <= {changed}")).await.unwrap();
    }
    found
}
