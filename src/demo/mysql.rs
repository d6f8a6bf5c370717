//! A pull from a MariaDB or MySQL, end to end: a private server, a login that may read its tables and its binlog, a local libSQL
//! file that follows, and the proof that both sides are equal.

use super::mysql_server::{Kind, MySqlServer};
use super::{Failure, say};
use crate::mysql::MySqlUrl;
use crate::postgres::catalog::DEFAULT_ROW_BYTES;
use crate::provider::StampOptions;
use crate::provider::mysql::{MySqlProvider, Quiet, Wanted};
use crate::pull::{Pull, Scheduled, Service};
use crate::replica::Replica;
use crate::replica::target::Target;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shop, and who reads it.
const TABLES: &str = "create database shop character set utf8mb4;
    use shop;
    create table customers (id bigint auto_increment primary key, email varchar(100) not null unique, name text, balance decimal(20,4), settings json, last_seen datetime(6));
    create table orders (region varchar(10), number bigint, customer_id bigint not null, total decimal(10,2), placed_at timestamp, primary key (region, number),
        foreign key (customer_id) references customers (id) on delete cascade);
    create table sessions (id char(36) primary key, customer_id bigint, active tinyint(1));
    create user reader;
    grant select on shop.* to reader;
    grant replication slave, replication client on *.* to reader;
    create database numbers;
    create table numbers.digits as select 0 as n union select 1 union select 2 union select 3 union select 4 union select 5
        union select 6 union select 7 union select 8 union select 9;
    create table numbers.seq (seq int primary key);
    insert into numbers.seq select 1 + a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n
        from numbers.digits a, numbers.digits b, numbers.digits c, numbers.digits d, numbers.digits e";

/// What an application does: what it is, and its SQL.
const WRITES: [(&str, &str); 3] = [
    (
        "100,000 customers and 50,000 orders, one statement each",
        "insert into customers (email, name, balance, settings) select concat('c', seq, '@example.org'), concat('Customer ', seq), seq / 7.0, json_object('theme', 'dark', 'n', seq) from numbers.seq;
         insert into orders select elt(1 + seq % 3, 'eu', 'us', 'asia'), seq, 1 + seq % 100000, (seq % 9999) / 100.0, now() - interval seq minute from numbers.seq where seq <= 50000",
    ),
    (
        "half of the customers updated, some deleted with their orders, some keys changed",
        "update customers set name = upper(name), balance = balance + 1.10 where id % 2 = 0;
         delete from customers where id % 1000 = 0;
         update orders set region = 'mars' where number % 1000 = 7",
    ),
    (
        "a table truncated and filled again",
        "insert into sessions select uuid(), seq, 1 from numbers.seq where seq <= 2000;
         truncate sessions;
         insert into sessions select uuid(), seq, seq % 2 from numbers.seq where seq <= 10",
    ),
];

/// Commits that are followed.
const COMMITS: i64 = 20;

/// How long one may take to be readable.
const LATE: Duration = Duration::from_secs(30);

/// Runs the demo; whether both sides were equal after each pass.
pub async fn run() -> Result<bool, Failure> {
    let started = Instant::now();
    let kind = Kind::installed();
    let name = kind.name();
    say(&format!("starting a private {name}, in which nothing is installed"));
    let server = tokio::task::spawn_blocking(move || MySqlServer::start(kind, &[], true)).await??;
    let directory = tempfile::Builder::new().prefix("pgflume-demo-").tempdir()?;
    let socket = server.socket().display().to_string();
    let mut owner = Conn::new(OptsBuilder::default().socket(Some(&socket)).user(Some("root"))).await?;
    owner.query_drop(TABLES).await?;
    say("a login that may SELECT from three tables and read the binlog, and nothing else");
    let provider = MySqlProvider {
        url: MySqlUrl::parse(&format!("mysql://reader@localhost/shop?socket={socket}"))?,
        wanted: Wanted::Named { tables: Vec::new(), exclude: Vec::new() },
        row_bytes: DEFAULT_ROW_BYTES,
        stamps: StampOptions::default(),
        quiet: Quiet::default(),
    };
    let target = Target::File(directory.path().join("replica.db"));
    let pull = || Pull::new("shop".into(), Arc::new(provider.clone()), target.clone(), false);
    let (first, mut is_equal) = (pull(), true);
    for (what, sql) in WRITES {
        let at = Instant::now();
        owner.query_drop(sql).await?;
        say(&format!("\n{name:<9} {what} ({} ms)", at.elapsed().as_millis()));
        let at = Instant::now();
        let done = first.pass().await?;
        let took = at.elapsed().as_millis();
        say(&format!("a pass    {} rows written, {} deleted ({took} ms)", done.rows, done.removed));
        is_equal &= done.promise == Some("exact") && prove(&first).await?;
    }
    let median = follow(pull(), &mut owner, &target).await?;
    say(&format!("\nfollowing: a commit is readable after {:.1} ms (median of {COMMITS})", median * 1e3));
    is_equal &= prove(&first).await?;
    say(&format!(
        "{} after {:.1} s",
        if is_equal { "equal on both sides" } else { "NOT EQUAL" },
        started.elapsed().as_secs_f64()
    ));
    Ok(is_equal)
}

/// Every row on both sides.
async fn prove(pull: &Pull) -> Result<bool, Failure> {
    let report = pull.verify(&[], false).await?;
    for (name, table) in &report.tables {
        say(&format!(
            "  {name:<10} {:>7} rows, {} missing, {} extra, {} different",
            table.rows, table.missing, table.extra, table.different
        ));
    }
    Ok(report.tables.len() == 3 && report.tables.values().all(|table| table.is_whole && table.differences() == 0))
}

/// As `pgflume serve` does. Seconds from a commit until it is readable, in the middle.
async fn follow(pull: Pull, owner: &mut Conn, target: &Target) -> Result<f64, Failure> {
    let (every, retry_delay) = (Duration::from_secs(3600), Duration::from_secs(1));
    let service = Arc::new(Service::new(vec![Scheduled { pull, every, retry_delay, limiter: None }]));
    let running = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    service.hint("shop");
    let began = Instant::now();
    while service.report("shop").is_none_or(|report| report.passes < 2) {
        late(began)?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reader = Replica::open(target).await?;
    let mut lags = Vec::new();
    for i in 0..COMMITS {
        owner.exec_drop("update customers set name = ? where id = 1", (format!("Ada {i}"),)).await?;
        let began = Instant::now();
        let is_there = format!("SELECT 1 FROM customers WHERE id = 1 AND name = 'Ada {i}'");
        while reader.query(&is_there, Vec::new()).await?.is_empty() {
            late(began)?;
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        lags.push(began.elapsed().as_secs_f64());
    }
    service.stop();
    running.await?;
    lags.sort_by(f64::total_cmp);
    Ok(lags[lags.len() / 2])
}

fn late(began: Instant) -> Result<(), Failure> {
    match began.elapsed() > LATE {
        true => Err("the follower does not bring what was committed: please report this".into()),
        false => Ok(()),
    }
}
