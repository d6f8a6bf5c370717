//! What readers of a replica may know: idle or dead, how fresh each table is, and whether a writer's own write is there.

use crate::pulls;
use crate::support::{Db, Home, PATHS, Path, Rig, SECRET, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::config::{Config, Signatures};
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{App, Lane};
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "other":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

async fn set_up_rig(path: Path) -> Rig {
    let rig = Rig::with(Db::new().await, Home::new(path), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table other (id int primary key, v text); create table elsewhere (id int); insert into t select g, 'v' from generate_series(1, 50) g").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig
}

/// A worker that follows, and whose replica hears of it each second.
async fn beating(rig: &Rig) -> Server {
    let config = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
    Server::following(Config { heartbeat: Some(Duration::from_secs(1)), ..config }).await
}

async fn has(rig: &Rig, sql: &str) -> bool {
    let there = "SELECT count(*) FROM sqlite_master WHERE name IN ('t', '_pgflume_tables')";
    rig.rows(there).await == ["2"] && rig.rows(sql).await == ["1"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_tells_an_idle_worker_from_a_dead_one_with_sqlites_own_functions() {
    for path in PATHS {
        let rig = set_up_rig(path).await;
        let server = beating(&rig).await;
        let age = "unixepoch('now') - unixepoch(checked_at)";
        let is_idle = format!(
            "SELECT {age} BETWEEN -2 AND 4 AND julianday(caught_up_at) > 2460000 AND queued = 0 FROM _pgflume_freshness"
        );
        until("it is said that it is alive", async || has(&rig, &is_idle).await).await;
        let first =
            rig.rows("SELECT checked_at, caught_up_at, (SELECT seq FROM _pgflume_head) FROM _pgflume_freshness").await;
        let moved =
            format!("SELECT checked_at || '|' || caught_up_at > '{0}' FROM _pgflume_freshness", &first[0][..49]);
        until("it moves though nothing changes", async || rig.rows(&moved).await == ["1"]).await;
        let later = rig.rows("SELECT seq FROM _pgflume_head").await;
        assert!(first[0].ends_with(&format!("|{}", later[0])), "no batch was written: {first:?}, then {later:?}");
        let form = "SELECT (SELECT count(*) FROM (SELECT caught_up_at AS t FROM _pgflume_freshness UNION ALL SELECT applied_at FROM _pgflume_freshness \
                    UNION ALL SELECT checked_at FROM _pgflume_freshness UNION ALL SELECT caught_up_at FROM _pgflume_tables) \
                    WHERE t GLOB '20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z')";
        assert_eq!(rig.rows(form).await, ["5"], "one form of time");
        // As often as it says: not only with each whole step.
        let mut beats = std::collections::BTreeSet::new();
        until("it beats", async || {
            beats.extend(rig.rows("SELECT checked_at FROM _pgflume_freshness").await);
            beats.len() >= 6
        })
        .await;
        let at = |text: Option<&String>| humantime::parse_rfc3339(text.unwrap()).unwrap();
        let took = at(beats.last()).duration_since(at(beats.first())).unwrap();
        assert!(took < Duration::from_secs(15), "five beats of a second took {took:?}");
        drop(server);
        let stopped = rig.rows("SELECT checked_at FROM _pgflume_freshness").await;
        let is_dead = format!("SELECT {age} >= 3 AND checked_at = '{}' FROM _pgflume_freshness", stopped[0]);
        until("a dead one is told", async || rig.rows(&is_dead).await == ["1"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_hears_nothing_unless_it_is_asked_for() {
    let rig = set_up_rig(Path::Sqld).await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let is_copied = "SELECT count(*) = 2 FROM _pgflume_tables WHERE state = 'following'";
    until("both follow", async || has(&rig, is_copied).await).await;
    let before = rig.rows("SELECT checked_at FROM _pgflume_freshness").await;
    // A later snapshot than that.
    let token = rig.db.one("select pg_current_xact_id()").await;
    assert_eq!(server.call("GET", &format!("/wait?token={token}"), None).await.status, 200);
    assert_eq!(rig.rows("SELECT checked_at FROM _pgflume_freshness").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_says_how_fresh_it_is_and_one_that_waits_hides_no_other() {
    let rig = set_up_rig(Path::File).await;
    let server = beating(&rig).await;
    let copied = "SELECT count(*) = 2 AND max(rows) = 50 AND min(copied_at) IS NOT NULL FROM _pgflume_tables WHERE state = 'following' AND source IN ('public.t', 'public.other')";
    until("both are copied", async || has(&rig, copied).await).await;
    rig.db.sql("alter table other rename to gone; insert into t values (100, 'x')").await;
    let waits = "SELECT count(*) FROM _pgflume_tables WHERE \"table\" = 'other' AND state = 'waiting' AND problem LIKE '%other%'";
    rig.db.sql("insert into gone values (1, 'y')").await;
    until("one waits, with the reason", async || rig.rows(waits).await == ["1"]).await;
    let apart = "SELECT (SELECT caught_up_at FROM _pgflume_tables WHERE \"table\" = 't') > (SELECT caught_up_at FROM _pgflume_tables WHERE \"table\" = 'other')";
    until("the other goes on", async || rig.rows(apart).await == ["1"]).await;
    rig.db.sql("insert into t values (101, 'z')").await;
    let token = rig.db.one("select xmin from t where id = 101").await;
    let answer = server.call("GET", &format!("/wait?token={token}&timeout=1"), None).await;
    assert_eq!(answer.status, 504, "the whole replica is not there yet: {}", answer.body);
    rig.db.sql("alter table gone rename to other").await;
    let all = "SELECT count(*) FROM _pgflume_tables WHERE state = 'following' AND problem IS NULL";
    until("it follows again", async || rig.rows(all).await == ["2"]).await;
    assert_eq!(server.call("GET", &format!("/wait?token={token}"), None).await.status, 200);
}

/// What the documentation tells readers to ask.
fn arrived(token: &str) -> String {
    crate::examples::arrived().replace("?1", &format!("'{token}'"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_waits_for_its_own_write() {
    for path in PATHS {
        let rig = set_up_rig(path).await;
        let server = beating(&rig).await;
        let wait =
            async |token: &str, more: &str| server.call("GET", &format!("/wait?token={token}{more}"), None).await;
        rig.db.sql("do $$ begin create role app_of_freshness; exception when duplicate_object then null; end $$; grant usage on schema public, pgflume to app_of_freshness; grant execute on function pgflume.token() to app_of_freshness; grant insert, select, update on t to app_of_freshness").await;
        // Whoever sets up again does not take it away.
        set_up(&rig.db.url(), rig.worker.schema()).await;
        for i in 0..20 {
            let written = format!(
                "begin; set local role app_of_freshness; insert into public.t values ({}, 'mine'); insert into public.t select {}, pgflume.token(); commit",
                1000 + i,
                2000 + i
            );
            rig.db.sql(&written).await;
            let token = rig.db.one(&format!("select v from t where id = {}", 2000 + i)).await;
            let answer = wait(&token, "").await;
            assert_eq!((answer.status, answer.json()["success"].as_bool()), (200, Some(true)), "{}", answer.body);
            assert_eq!(
                rig.rows(&format!("SELECT count(*) FROM t WHERE id IN ({}, {})", 1000 + i, 2000 + i)).await,
                ["2"]
            );
            assert_eq!(rig.rows(&arrived(&token)).await, ["1"], "{path:?}");
        }
        // One that has not ended is not there, nor is what comes later.
        let open = rig.db.pinned().await;
        open.batch_execute("begin; insert into public.t values (5000, 'open')").await.unwrap();
        let mine = rig.db.one("select backend_xid from pg_stat_activity where datname = current_database() and state = 'idle in transaction' and query like '%open%'").await;
        rig.db.sql("insert into t values (5001, 'behind it')").await;
        let behind = rig.db.one("select xmin from t where id = 5001").await;
        assert_eq!(wait(&behind, "&timeout=10").await.status, 200, "an open transaction keeps nobody waiting");
        assert_eq!(rig.rows("SELECT count(*) FROM t WHERE id = 5001").await, ["1"]);
        let late = wait(&mine, "&timeout=500ms").await;
        assert_eq!((late.status, late.json()["success"].as_bool()), (504, Some(false)), "{}", late.body);
        assert_eq!(rig.rows(&arrived(&mine)).await, ["0"]);
        open.batch_execute("commit").await.unwrap();
        assert_eq!(wait(&mine, "").await.status, 200);
        assert_eq!(rig.rows("SELECT count(*) FROM t WHERE id = 5000").await, ["1"]);
        // A write elsewhere puts nothing on the queue; a snapshot's text does as well.
        rig.db.sql("insert into elsewhere values (1)").await;
        let snapshot = rig.db.one("select pg_current_snapshot()").await;
        assert_eq!(wait(&snapshot, "&timeout=10s").await.status, 200);
        for (query, status) in [
            ("token=x", 400),
            ("", 400),
            ("token=1&timeout=31", 400),
            ("token=1&timeout=x", 400),
            ("token=1&sync=nobody", 404),
        ] {
            let answer = server.call("GET", &format!("/wait?{query}"), None).await;
            assert_eq!(
                (answer.status, answer.json()["success"].as_bool()),
                (status, Some(false)),
                "{query}: {}",
                answer.body
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_has_brought_is_seen_and_a_crowd_is_bounded() {
    let rig = set_up_rig(Path::File).await;
    // This one does not follow, and nobody calls it.
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    rig.drain().await;
    rig.db.sql("insert into t values (1000, 'x')").await;
    let token = rig.db.one("select xmin from t where id = 1000").await;
    let path = format!("/wait?token={token}&timeout=20");
    let (answer, _) = tokio::join!(server.call("GET", &path, None), async {
        assert_eq!(server.call("GET", &format!("/wait?token={token}&timeout=0"), None).await.status, 504);
        rig.drain().await
    });
    assert_eq!(answer.status, 200, "{}", answer.body);
    let later = format!("/wait?token={}&timeout=3", token.parse::<i64>().unwrap() + 1_000_000);
    let crowd = (0..130).map(|_| server.call("GET", &later, None));
    let statuses: Vec<u16> = futures_util::future::join_all(crowd).await.iter().map(|answer| answer.status).collect();
    let count = |status: u16| statuses.iter().filter(|s| **s == status).count();
    assert!(count(504) >= 50 && count(503) >= 30 && count(504) + count(503) == 130, "{statuses:?}");
}

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_several_syncs_is_as_fresh_as_the_least_of_them() {
    let rig = set_up_rig(Path::File).await;
    let pulled = pulls::Rig::new(
        Path::File,
        "create domain label as varchar(9); create table p (id int primary key, v label); insert into p values (1, 'x')",
        r#"{"p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let worker = Worker::new(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()));
    let pull = Pull::new("p".into(), Arc::new(pulled.provider()), rig.home.target(), false);
    let scheduled =
        Scheduled { pull, every: Duration::from_secs(3600), retry_delay: Duration::from_millis(100), limiter: None };
    let app = App::of(None, vec![("q".into(), Lane::new(worker, true))], Service::new(vec![scheduled]), auth());
    let server = Server::of(app).await;
    let both = "SELECT count(*) = 3 FROM _pgflume_tables WHERE state = 'following'";
    until("all are copied", async || has(&rig, both).await).await;
    let copied = "SELECT source, types ->> 'id', types ->> 'v' FROM _pgflume_tables WHERE \"table\" = 'p'";
    assert_eq!(rig.rows(copied).await, ["public.p|integer|character varying(9)"]);
    rig.db.sql("insert into t values (1000, 'x')").await;
    let token = rig.db.one("select xmin from t where id = 1000").await;
    assert_eq!(server.call("GET", &format!("/wait?token={token}"), None).await.status, 400, "which sync?");
    assert_eq!(server.call("GET", &format!("/wait?sync=q&token={token}"), None).await.status, 200);
    let least = "SELECT f.caught_up_at = (SELECT min(caught_up_at) FROM _pgflume_syncs) AND f.caught_up_at = (SELECT caught_up_at FROM _pgflume_syncs WHERE name = 'p') \
                 AND f.applied_at = (SELECT max(applied_at) FROM _pgflume_syncs) FROM _pgflume_freshness f";
    // The pull says so at the end of its pass, a moment after its table follows.
    until("the least is known", async || rig.rows(least).await == ["1"]).await;
    // A pull's token is the source's snapshot.
    pulled.db.sql("insert into p values (2, 'mine')").await;
    let snapshot = pulled.db.one("select pg_current_snapshot()").await;
    let path = format!("/wait?sync=p&token={snapshot}&timeout=20");
    let (answer, _) = tokio::join!(
        server.call("GET", &path, None),
        server.request("POST", "/syncs/p/sync", vec![("x-webhook-signature".into(), SECRET.into())], Vec::new())
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(rig.rows("SELECT count(*) FROM p").await, ["2"]);
}

/// As the version before made it, of a replica that is caught up.
const OLDER: [&str; 6] = [
    "DROP VIEW _pgflume_tables",
    "DROP TABLE _pgflume_syncs",
    "DROP TABLE _pgflume_states",
    "DROP TABLE _pgflume_freshness",
    "CREATE TABLE _pgflume_freshness (caught_up_at TEXT, applied_at TEXT, queued INTEGER)",
    "INSERT INTO _pgflume_freshness VALUES ('2026-11-01T00:00:00.123456+00:00', '2026-11-01T00:00:00.123Z', 0)",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_version_before_keeps_its_freshness_and_goes_on() {
    let rig = set_up_rig(Path::File).await;
    rig.drain().await;
    for sql in OLDER {
        rig.replica(sql).await;
    }
    // Nothing has changed since.
    Worker::new(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()))
        .drain(Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(rig.rows("SELECT name, kind FROM _pgflume_syncs").await, ["replicate_data_libsql|queue"]);
    let fresh = "SELECT caught_up_at > '2026-11-01T00', unixepoch(checked_at) > 0 FROM _pgflume_freshness";
    assert_eq!(rig.rows(fresh).await, ["1|1"]);
    rig.db.sql("insert into t values (1000, 'x')").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1000").await, ["x"]);
    // That version is used once more, and begins another epoch, of which this table says nothing.
    rig.replica("UPDATE _pgflume_syncs SET epoch = 'another'").await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    assert_eq!(server.call("GET", "/wait?token=1&timeout=1", None).await.status, 504);
    rig.worker.drain(Duration::from_secs(60)).await.unwrap();
    // One that pulls, whose source has grown meanwhile.
    let pulled = pulls::Rig::new(
        Path::File,
        "create table p (id int primary key, v text); insert into p values (1, 'x')",
        r#"{"p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    pulled.pass().await;
    for sql in OLDER {
        pulled.replica(sql).await;
    }
    pulled.replica("DROP TABLE p").await;
    pulled.pass().await;
    assert_eq!(pulled.rows("SELECT count(*) FROM p").await, ["1"]);
    assert_eq!(pulled.rows("SELECT caught_up_at IS NOT NULL FROM _pgflume_freshness").await, ["1"]);
}
