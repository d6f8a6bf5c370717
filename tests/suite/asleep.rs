//! A follower that sleeps: it asks for nothing, whoever writes rings, and no ring is lost.

use crate::parts::{Pgbouncer, Program};
use crate::support::{Db, Home, Path, Rig, SECRET, Server, cluster, config, newest_cluster, schema, until};
use crate::volume::set_up;
use pgflume::config::Signatures;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::http::App;
use pgflume::http::auth::Auth;
use pgflume::postgres::PgUrl;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str = "create table t (id int primary key, v text)";

/// The lock that a sleeping follower has alone.
const ASLEEP: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1885824620 and mode = 'ExclusiveLock' and granted
    and database = (select oid from pg_database where datname = current_database())";

/// A follower that does nothing by itself for an hour: what arrives was told.
async fn follower(rig: &Rig, url: &str) -> Server {
    let config = config(url, rig.home.target(), rig.worker.schema().clone());
    let secret = || vec![Secret::new(SECRET)];
    let auth = Auth::new(Signatures { webhook: secret(), nuke: secret() });
    let worker = Worker::new(config).stepping_every(Duration::from_secs(3600));
    Server::of(App::new(worker, auth).following()).await
}

async fn captured(db: Db) -> Rig {
    let rig = Rig::with(db, Home::new(Path::File), schema(T));
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    rig
}

async fn is_asleep(rig: &Rig) -> bool {
    rig.db.one(ASLEEP).await == "1"
}

async fn arrives(rig: &Rig, id: i64) {
    let sql = format!("SELECT count(*) FROM t WHERE id = {id}");
    until(&format!("row {id} is there"), async || rig.rows(&sql).await == ["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_nothing_while_it_sleeps_and_is_told_of_whatever_comes() {
    let rig = captured(Db::new().await).await;
    let _server = follower(&rig, &rig.db.url()).await;
    until("it sleeps", async || is_asleep(&rig).await).await;
    let sessions = "select string_agg(pid || state || query_start, ' ' order by pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let before = rig.db.one(sessions).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // a stretch in which nothing may be asked
    assert_eq!(rig.db.one(sessions).await, before);
    // By capture, by hand as Capgo's triggers do, and by PGMQ.
    rig.db.sql("insert into t values (1, 'x')").await;
    arrives(&rig, 1).await;
    until("it sleeps again", async || is_asleep(&rig).await).await;
    rig.db.sql("set session_replication_role = replica; insert into t values (2, 'x'); set session_replication_role = origin").await;
    arrives(&rig, 2).await;
    until("it sleeps again", async || is_asleep(&rig).await).await;
    rig.replica("UPDATE t SET v = 'wrong' WHERE id = 1").await;
    rig.db.send(r#"{"v":1,"table":"t","keys":[["1"]]}"#).await;
    until("the row is read again", async || rig.rows("SELECT v FROM t WHERE id = 1").await == ["x"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_ring_is_found_by_looking_and_writes_on() {
    let cluster: &'static Cluster = {
        let settings = [("fsync", "off"), ("max_prepared_transactions", "5")];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        Box::leak(Box::new(
            Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap(),
        ))
    };
    // Where transactions can be prepared: one that has notified cannot.
    let db = Db::named("prepares".into(), cluster, "template1").await;
    let rig = captured(db).await;
    let server = follower(&rig, &rig.db.url()).await;
    for id in 1..=3 {
        rig.db.sql(&format!("begin; insert into t values ({id}, 'x'); prepare transaction 'p{id}'")).await;
        rig.db.sql(&format!("insert into t values ({}, 'x')", 10 + id)).await;
        arrives(&rig, 10 + id).await;
        assert!(!is_asleep(&rig).await);
        rig.db.sql(&format!("commit prepared 'p{id}'")).await;
        arrives(&rig, id).await;
    }
    drop(server);
    // Without the trigger, as an earlier setup left it; and without the right to notify.
    for lame in [
        "drop trigger pgflume_bell on pgmq.q_replicate_data_libsql",
        "revoke execute on function pg_catalog.pg_notify(text, text) from public",
        "revoke execute on function pg_catalog.pg_try_advisory_xact_lock_shared(int, int) from public",
    ] {
        let rig = captured(Db::new().await).await;
        rig.db.sql(lame).await;
        let _server = follower(&rig, &rig.db.url()).await;
        for id in 1..=3 {
            rig.db.sql(&format!("set role {}; insert into t values ({id}, 'x'); reset role", writer(&rig).await)).await;
            arrives(&rig, id).await;
            assert!(!is_asleep(&rig).await, "{lame}");
        }
    }
}

/// Somebody who may write the table and nothing else.
async fn writer(rig: &Rig) -> String {
    let role = format!("writer_{}", rig.db.one("select current_database()").await);
    rig.db.sql(&format!("do $$ begin if not exists (select from pg_roles where rolname = '{role}') then create role {role}; end if; end $$; grant insert on t to {role}")).await;
    role
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_transaction_pooler_it_never_sleeps_and_leaves_no_lock_there() {
    let rig = captured(Db::new().await).await;
    for (mode, sleeps) in [("transaction", false), ("session", true)] {
        let pooler = Pgbouncer::pooling(rig.db.cluster().port(), mode);
        let server = follower(&rig, &pooler.url(&rig.db.one("select current_database()").await)).await;
        if sleeps {
            until("it sleeps", async || is_asleep(&rig).await).await;
        }
        let first = if sleeps { 100 } else { 1 };
        for id in first..first + 5 {
            rig.db.sql(&format!("insert into t values ({id}, 'x')")).await;
            arrives(&rig, id).await;
            assert!(sleeps || !is_asleep(&rig).await, "{mode}");
        }
        drop(server);
    }
    until("no lock is left", async || !is_asleep(&rig).await).await;
}

/// Who waits for the lock behind a writer.
const WAITS: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1885824620 and mode = 'ExclusiveLock' and not granted
    and database = (select oid from pg_database where datname = current_database())";

async fn connect(rig: &Rig) -> tokio_postgres::Client {
    PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap()
}

/// Begins a transaction that inserts a row and keeps the follower awake: who finds it asleep wakes it first, by a commit.
async fn keeps_awake(client: &tokio_postgres::Client, id: i64) {
    let has_it = "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and pid = pg_backend_pid()";
    let mut tries = 0;
    loop {
        client.batch_execute(&format!("begin; savepoint s; insert into t values ({id}, 'x')")).await.unwrap();
        if client.query_opt(has_it, &[]).await.unwrap().is_some() {
            return;
        }
        tries += 1;
        let wake = format!("rollback; insert into t values ({}, 'x')", -1000 * id - tries);
        client.batch_execute(&wake).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sleeps_behind_a_writer_who_does_not_end_and_is_told_by_others_and_by_his_end() {
    for cluster in [cluster(), newest_cluster()] {
        let rig = captured(Db::on(cluster, "with_pgmq").await).await;
        let server = follower(&rig, &rig.db.url()).await;
        let waits = async || rig.db.one(WAITS).await == "1";
        let (long, other) = (connect(&rig).await, connect(&rig).await);
        keeps_awake(&long, 1).await;
        until("it sleeps behind him", waits).await;
        let wakeup = server.call("GET", "/status", Some(SECRET)).await.json()["wakeup"].clone();
        assert!(wakeup["is_asleep"] == true && wakeup["kept_awake_seconds"].is_number(), "{wakeup}");
        // He writes again: he has it already, and does not ring.
        long.batch_execute("insert into t values (2, 'x')").await.unwrap();
        for id in [10, 11] {
            rig.db.sql(&format!("insert into t values ({id}, 'x')")).await;
            arrives(&rig, id).await;
            until("it sleeps behind him again", waits).await;
        }
        long.batch_execute("commit").await.unwrap();
        for id in [1, 2] {
            arrives(&rig, id).await;
        }
        // What is undone gives the lock back, and the wait for it ends.
        keeps_awake(&long, 3).await;
        until("it sleeps behind him", waits).await;
        long.batch_execute("rollback to s").await.unwrap();
        until("nobody keeps it awake", async || is_asleep(&rig).await).await;
        long.batch_execute("insert into t values (4, 'x'); commit").await.unwrap();
        arrives(&rig, 4).await;
        // Behind two it would not notice the end of the first.
        keeps_awake(&long, 5).await;
        keeps_awake(&other, 6).await;
        rig.db.sql("insert into t values (12, 'x')").await;
        arrives(&rig, 12).await;
        other.batch_execute("commit").await.unwrap();
        arrives(&rig, 6).await;
        until("it sleeps behind the one who is left", waits).await;
        drop(long);
        until("it sleeps alone", async || is_asleep(&rig).await).await;
        // The session that waits is ended.
        keeps_awake(&other, 7).await;
        until("it sleeps behind the other", waits).await;
        let end = WAITS.replace("count(*)", "count(pg_terminate_backend(pid))");
        assert_eq!(rig.db.one(&end).await, "1");
        rig.db.sql("insert into t values (13, 'x')").await;
        arrives(&rig, 13).await;
        other.batch_execute("commit").await.unwrap();
        arrives(&rig, 7).await;
        until("it sleeps alone", async || is_asleep(&rig).await).await;
    }
}

/// Stopped (SIGSTOP), it would have every writer ring for as long as its session lasts.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_frozen_loses_the_lock_and_goes_on_when_it_thaws() {
    let rig = captured(Db::new().await).await;
    let Target::File(path) = rig.home.target() else { panic!("a file") };
    let replica = format!("file:{}", path.display());
    let mut program = Program::new(T, &[("PGMQ_URL", &rig.db.url()), ("LIBSQL_URL", &replica)]);
    program.serve(&["--follow"]);
    loop {
        until("it sleeps", async || is_asleep(&rig).await).await;
        program.signal("STOP");
        // It may have waked for a whole step just then.
        if is_asleep(&rig).await {
            break;
        }
        program.signal("CONT");
    }
    rig.db.sql("insert into t values (1, 'while it has the lock')").await;
    until("Postgres ends its session", async || !is_asleep(&rig).await).await;
    // Who gets the lock shared does not ring.
    let kept = ASLEEP.replace("ExclusiveLock", "ShareLock");
    rig.db.sql("begin; insert into t values (2, 'while nobody has it')").await;
    assert_eq!(rig.db.one(&kept).await, "1");
    rig.db.sql("commit").await;
    program.signal("CONT");
    for id in [1, 2] {
        arrives(&rig, id).await;
    }
    until("it sleeps again", async || is_asleep(&rig).await).await;
    rig.db.sql("insert into t values (3, 'when it has thawed')").await;
    arrives(&rig, 3).await;
}

/// Rounds of commits at the same time, each of which has to arrive before the next round. Somebody who is not heard is
/// waited for in vain.
#[tokio::test(flavor = "multi_thread")]
async fn no_ring_is_lost() {
    let rounds: i64 = std::env::var("RINGS").ok().map_or(300, |rounds| rounds.parse().unwrap());
    let seed: u64 = std::env::var("SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("{rounds} rounds; again with SEED={seed}");
    // They wait most of the time.
    let found =
        futures_util::future::join_all((0..4).map(|i| rounds_of_commits(rounds / 4, seed.wrapping_add(i)))).await;
    let (arrived, slept) = found.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    println!("{arrived} commits have arrived");
    assert!(slept > 0, "it never slept");
}

/// So many, in a database of their own; the commits that have arrived, and how often the follower was seen asleep.
async fn rounds_of_commits(rounds: i64, seed: u64) -> (usize, usize) {
    let rig = captured(Db::new().await).await;
    let _server = follower(&rig, &rig.db.url()).await;
    let (next, is_over) = (AtomicI64::new(1), AtomicBool::new(false));
    let listeners = async {
        // Now and then its session is ended.
        let mut random = StdRng::seed_from_u64(seed);
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'pgflume step' and datname = current_database()";
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
            rig.db.sql(end).await;
        }
    };
    let writers = async {
        let mut random = StdRng::seed_from_u64(seed);
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap());
        }
        let (mut slept, mut arrived) = (0, 0);
        for _ in 0..rounds {
            let at_work = random.random_range(1..=clients.len());
            let mut committed = Vec::new();
            let writes: Vec<(i64, u32, Duration)> = (0..at_work)
                .map(|_| {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    (id, random.random_range(0..10), Duration::from_micros(random.random_range(0..15_000)))
                })
                .collect();
            let writing = writes.iter().zip(&clients).map(|((id, kind, pause), client)| async move {
                tokio::time::sleep(*pause).await;
                write(client, *id, *kind).await
            });
            for (id, is_committed) in writes.iter().map(|w| w.0).zip(futures_util::future::join_all(writing).await) {
                if is_committed {
                    committed.push(id);
                }
            }
            if let (Some(least), Some(most)) = (committed.first(), committed.last()) {
                let sql = format!("SELECT count(*) FROM t WHERE id BETWEEN {least} AND {most}");
                let expected = committed.len().to_string();
                until(&format!("{committed:?} are there (SEED={seed})"), async || {
                    rig.rows(&sql).await == [expected.clone()]
                })
                .await;
                arrived += committed.len();
            }
            for ((_, kind, _), client) in writes.iter().zip(&mut clients) {
                if *kind == ENDS {
                    *client = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
                }
            }
            if random.random_bool(0.3) {
                slept += usize::from(is_asleep(&rig).await);
                tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        (arrived, slept)
    };
    futures_util::join!(listeners, writers).1
}

/// The same while a writer does not end. A ring that is lost is made good by the end of the wait behind him, which is
/// late here: after ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn no_ring_is_lost_behind_a_writer_who_does_not_end() {
    let rounds: i64 =
        std::env::var("RINGS").ok().map_or(20, |rounds| rounds.parse::<u32>().unwrap().div_ceil(100).into());
    let seed = std::env::var("SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("{rounds} rounds; again with SEED={seed}");
    let rig = captured(Db::new().await).await;
    let name = rig.db.one("select current_database()").await;
    rig.db.sql(&format!("alter database {name} set deadlock_timeout = '1 h'")).await;
    let _server = follower(&rig, &rig.db.url()).await;
    let mut random = StdRng::seed_from_u64(seed);
    let long = connect(&rig).await;
    let clients = [connect(&rig).await, connect(&rig).await];
    let mut next = 1;
    for round in 0..rounds {
        let at = 1_000_000 + round;
        if round % 10 == 0 {
            long.batch_execute("commit").await.unwrap();
            keeps_awake(&long, at).await;
        } else {
            long.batch_execute(&format!("insert into t values ({at}, 'x')")).await.unwrap();
        }
        // When it sleeps behind him, or at about the moment when it falls asleep so.
        let pauses = if random.random_bool(0.5) {
            until("it sleeps behind him", async || rig.db.one(WAITS).await == "1").await;
            0..50_000
        } else {
            950_000..1_100_000
        };
        // One who comes later rings for both.
        let at_work = random.random_range(1..=clients.len());
        let writes = clients[..at_work].iter().map(|client| {
            next += 1;
            let pause = Duration::from_micros(random.random_range(pauses.clone()));
            (client, next, random.random_range(0..ENDS).min(2), pause)
        });
        let writes: Vec<_> = writes.collect();
        let writing = writes.into_iter().map(|(client, id, kind, pause)| async move {
            tokio::time::sleep(pause).await;
            (write(client, id, kind).await).then_some(id)
        });
        let committed: Vec<i64> = futures_util::future::join_all(writing).await.into_iter().flatten().collect();
        let begun = Instant::now();
        for id in committed {
            arrives(&rig, id).await;
            assert!(begun.elapsed() < Duration::from_secs(8), "{id} was not told of (SEED={seed})");
        }
    }
}

/// The kind whose session ends before it commits.
const ENDS: u32 = 5;

/// One transaction of a kind; whether it was committed.
async fn write(client: &tokio_postgres::Client, id: i64, kind: u32) -> bool {
    let insert = format!("insert into t values ({id}, 'x')");
    let sql = match kind {
        // What is rolled back gives the lock back, and what comes then has to ring.
        0 => format!("begin; savepoint s; {insert}; rollback to s; {insert}; commit"),
        1 => format!(
            "begin; insert into t values (-{id}, 'y'); savepoint s; {insert}; release s; delete from t where id = -{id}; commit"
        ),
        // A long one, at both ends of it.
        2 => format!("begin; {insert}; select pg_sleep(0.05); commit"),
        3 => format!("begin; select pg_sleep(0.03); {insert}; commit"),
        4 => format!("begin; {insert}; rollback"),
        ENDS => format!("begin; {insert}; select pg_terminate_backend(pg_backend_pid())"),
        6 => format!("do $$ begin {insert}; begin perform 1 / 0; exception when others then null; end; end $$"),
        _ => insert,
    };
    let done = client.batch_execute(&sql).await;
    assert!(done.is_ok() || kind == ENDS, "{sql}: {done:?}");
    done.is_ok() && kind != 4
}

/// What a follower has prepared reads a table as it is now, not as it was when it was prepared.
#[tokio::test(flavor = "multi_thread")]
async fn what_recurs_is_read_as_the_catalog_is_now() {
    let rig = captured(Db::new().await).await;
    let schema = rig.worker.schema().clone();
    let _server = Server::following(config(&rig.db.url(), rig.home.target(), schema)).await;
    let shows = async |id: i64, v: &str| {
        let sql = format!("SELECT v FROM t WHERE id = {id}");
        until(&format!("{id} is {v}"), async || rig.rows(&sql).await == [v]).await;
    };
    let changes = [
        "select",
        "alter table t alter v type varchar(20)",
        "alter table t rename v to before; alter table t add v text",
        "alter table t add more int; alter table t drop before",
        "alter table t alter v type int using 7",
        "create index on t (v); alter table t drop constraint t_pkey; alter table t add primary key (id)",
        "alter table t rename to gone; create table t (id int primary key, v text)",
    ];
    for (at, change) in (0..).zip(changes) {
        rig.db.sql(&format!("begin; {change}; commit")).await;
        if change.contains("create table") {
            set_up(&rig.db.url(), rig.worker.schema()).await;
        }
        // Often enough to be prepared, and planned without its values.
        for id in at * 20..at * 20 + 12 {
            rig.db.sql(&format!("insert into t (id, v) values ({id}, 7)")).await;
            shows(id, "7").await;
            rig.db.sql(&format!("update t set v = '{id}' where id = {id}")).await;
            shows(id, &id.to_string()).await;
        }
    }
}

/// The second connection looks at the catalog beside a step: where others commit meanwhile, it may look too early.
#[tokio::test(flavor = "multi_thread")]
async fn it_notices_what_changes_in_the_catalog_whoever_commits_meanwhile() {
    let rig = captured(Db::new().await).await;
    rig.db.sql("create table busy (n int); insert into busy values (0)").await;
    let _server = follower(&rig, &rig.db.url()).await;
    let is_over = AtomicBool::new(false);
    let noise = async {
        let client = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
        while !is_over.load(Ordering::Relaxed) {
            client.batch_execute("update busy set n = n + 1").await.unwrap();
        }
    };
    let changes = async {
        for id in 0..60 {
            let to = if id % 2 == 0 { "varchar(9)" } else { "text" };
            let change = format!("alter table t alter v type {to}; insert into t values ({id}, 'v{id}')");
            rig.db.sql(&format!("begin; {change}; commit")).await;
            let sql = format!("SELECT v FROM t WHERE id = {id}");
            until("the row is there", async || rig.rows(&sql).await == [format!("v{id}")]).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    futures_util::join!(noise, changes);
}

/// A constant in `where` is read when a statement is prepared: under the settings of a step, not those of the login.
#[tokio::test(flavor = "multi_thread")]
async fn what_recurs_is_prepared_under_the_settings_of_a_step() {
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"at >= '2024-01-01'"}}"#;
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(json));
    let name = rig.db.one("select current_database()").await;
    rig.db.sql(&format!("alter database {name} set timezone = 'America/New_York'")).await;
    rig.db.sql("create table t (id int primary key, v text, at timestamptz)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    let _server = follower(&rig, &rig.db.url()).await;
    rig.db.sql("insert into t values (1, '0', '2024-01-01 02:00+00'), (2, '0', '2023-12-31 23:00+00')").await;
    for version in 1..=15 {
        rig.db.sql(&format!("update t set v = '{version}'")).await;
        until("it is there, and the other is not", async || {
            rig.rows("SELECT id || ':' || v FROM t").await == [format!("1:{version}")]
        })
        .await;
    }
}
