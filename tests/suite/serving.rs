//! Syncs that pull in a served process: at their intervals, by name, beside a queue, and none because of another.

use crate::pulls;
use crate::support::{PATHS, Path, SECRET, Server, config, schema, until};
use pgflume::config::Signatures;
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{App, Lane};
use pgflume::provider::StampOptions;
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::{Asked, Pull, Scheduled, Service};
use pgflume::replica::Replica;
use pgflume::sync::Worker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TABLES: &str =
    "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 10) i";
const JSON: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

fn scheduled(name: &str, rig: &pulls::Rig, every: Duration) -> Scheduled {
    let pull = Pull::new(name.into(), Arc::new(rig.provider()), rig.home.target(), false);
    Scheduled { pull, every, retry_delay: Duration::from_millis(100), limiter: None }
}

/// One whose source is not there.
fn down(rig: &pulls::Rig) -> Scheduled {
    let url = pgflume::postgres::PgUrl::parse("postgres://nobody@127.0.0.1:1/x").unwrap();
    let provider = PostgresProvider {
        url,
        wanted: Wanted::Defined(schema(JSON)),
        row_bytes: 1 << 20,
        stamps: StampOptions::default(),
    };
    let pull = Pull::new("down".into(), Arc::new(provider), rig.home.target(), false).with_retries(0);
    Scheduled { pull, every: Duration::from_millis(200), retry_delay: Duration::from_millis(50), limiter: None }
}

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sync_runs_at_its_interval_and_one_that_is_down_stops_nobody() {
    let [fast, slow] =
        [pulls::Rig::new(Path::File, TABLES, JSON).await, pulls::Rig::new(Path::File, TABLES, JSON).await];
    let service = Service::new(vec![
        scheduled("fast", &fast, Duration::from_millis(200)),
        scheduled("slow", &slow, Duration::from_secs(3600)),
        down(&fast),
    ]);
    let server = Server::of(App::of(None, Vec::new(), service, auth())).await;
    until("both are brought", async || {
        fast.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"]
            && fast.rows("SELECT count(*) FROM t").await == ["10"]
            && slow.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"]
            && slow.rows("SELECT count(*) FROM t").await == ["10"]
    })
    .await;
    // Its rows are there before its first pass has ended.
    until("the first pass has ended", async || {
        server.call("GET", "/syncs/slow/status", Some(SECRET)).await.json()["passes"] == 1
    })
    .await;
    for rig in [&fast, &slow] {
        rig.db.sql("update t set v = 'new' where id = 1").await;
    }
    until("a change arrives", async || fast.rows("SELECT v FROM t WHERE id = 1").await == ["new"]).await;
    assert_eq!(slow.rows("SELECT v FROM t WHERE id = 1").await, ["old"], "not yet due");
    let done = server.call("POST", "/syncs/slow/sync", Some(SECRET)).await;
    assert_eq!((done.status, done.json()["rows"].as_u64()), (200, Some(1)), "{}", done.body);
    assert_eq!(slow.rows("SELECT v FROM t WHERE id = 1").await, ["new"]);
    let status = server.call("GET", "/status", Some(SECRET)).await.json();
    assert_eq!(status["syncs"]["fast"]["failures_in_a_row"], 0, "{status}");
    until("it fails often enough", async || {
        let status = server.call("GET", "/syncs/down/status", Some(SECRET)).await.json();
        status["failures_in_a_row"].as_u64() >= Some(3)
            && status["error"].as_str().unwrap().contains("cannot be reached")
    })
    .await;
    until("it is not ready", async || {
        let ready = server.call("GET", "/ready", None).await;
        ready.status == 503 && ready.body.contains("\\\"down\\\"")
    })
    .await;
    until("the metrics tell", async || {
        let text = server.call("GET", "/metrics", None).await.body;
        text.contains("pgflume_sync_promise{sync=\"fast\",promise=\"exact\"} 1.0")
            && text.contains("pgflume_sync_up{sync=\"down\"} 0.0")
            && text.contains("pgflume_sync_up{sync=\"fast\"} 1.0")
    })
    .await;
    for (method, path, secret, expected) in [
        ("POST", "/syncs/nowhere/sync", Some(SECRET), 404),
        ("GET", "/syncs/nowhere/status", Some(SECRET), 404),
        ("POST", "/syncs/fast/sync", None, 401),
        ("GET", "/syncs/fast/status", Some("wrong"), 401),
        ("POST", "/syncs/fast/nuke?refill=false", Some(SECRET), 400),
        ("POST", "/syncs/fast/nuke", None, 401),
        ("POST", "/syncs/down/nuke", Some(SECRET), 503),
        ("POST", "/nuke", Some(SECRET), 404),
        ("GET", "/syncs/fast/sync", Some(SECRET), 405),
        ("GET", "/live", None, 200),
        ("POST", "/sync", Some(SECRET), 200),
    ] {
        assert_eq!(server.call(method, path, secret).await.status, expected, "{method} {path}");
    }
    let hello = server.call("GET", "/hello", None).await.json();
    assert_eq!(hello, serde_json::json!({"message": "Data Sync Service is running!", "input": {}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_by_its_name_and_the_four_variables_queue_are_drained_beside_a_pull() {
    let [first, second] = [
        crate::support::Rig::new(Path::File, schema(JSON)).await,
        crate::support::Rig::new(Path::File, schema(JSON)).await,
    ];
    let pulled = pulls::Rig::new(Path::File, TABLES, JSON).await;
    let lane = |rig: &crate::support::Rig| {
        Lane::new(Worker::new(config(&rig.db.url(), rig.home.target(), schema(JSON))), false)
    };
    let service = Service::new(vec![scheduled("pulled", &pulled, Duration::from_secs(3600))]);
    let app = App::of(Some(lane(&first)), vec![("second".into(), lane(&second))], service, auth());
    let server = Server::of(app).await;
    let image = r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"x"},"old_record":null}"#;
    for rig in [&first, &second] {
        rig.db.send(image).await;
    }
    let done = server.sync().await.json();
    assert_eq!((done["processed"].as_u64(), second.db.queued().await), (Some(1), 1), "{done}");
    let done = server.call("POST", "/syncs/second/sync", Some(SECRET)).await.json();
    assert_eq!((done["processed"].as_u64(), second.db.queued().await), (Some(1), 0), "{done}");
    let status = server.call("GET", "/syncs/second/status", Some(SECRET)).await.json();
    assert_eq!(status["queued"], 0, "{status}");
    let text = server.call("GET", "/metrics", None).await.body;
    for line in [
        "pgflume_messages_processed_total 1",
        "pgflume_messages_processed_total{sync=\"second\"} 1",
        "pgflume_source_up 1.0",
        "pgflume_source_up{sync=\"second\"} 1.0",
        "pgflume_queue_messages{sync=\"second\"} 0.0",
        "pgflume_table_captured{sync=\"second\",table=\"t\"} 0.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let status = server.call("GET", "/status", Some(SECRET)).await.json();
    assert!(status["queue"].is_string() && status["syncs"]["pulled"].is_object(), "{status}");
    // A queue does not write what a sync pulls.
    let taker = crate::support::Rig::new(Path::File, schema(JSON)).await;
    let rival = Worker::new(config(&taker.db.url(), pulled.home.target(), schema(JSON)));
    until("it is pulled", async || pulled.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"])
        .await;
    let refused = rival.drain(Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(refused.contains("is pulled by the sync \"pulled\""), "{refused}");
    let nuked = server.call("POST", "/syncs/second/nuke", Some(SECRET)).await;
    assert_eq!(nuked.status, 200, "{}", nuked.body);
    assert_eq!(
        (second.rows("SELECT count(*) FROM t").await, first.rows("SELECT count(*) FROM t").await),
        (vec!["0".to_owned()], vec!["1".to_owned()])
    );
}

async fn post(server: &Server, path: &str, body: &str) -> crate::parts::http::Answer {
    let headers = vec![("x-webhook-signature".to_owned(), SECRET.to_owned())];
    server.request("POST", path, headers, body.as_bytes().to_vec()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_recorded_run_and_completed_with_what_it_brings() {
    for path in crate::support::PATHS {
        let rig = pulls::Rig::new(path, TABLES, JSON).await;
        rig.pass().await;
        let service = Service::new(vec![scheduled("p", &rig, Duration::from_secs(3600)), down(&rig)]);
        let server = Server::of(App::of(None, Vec::new(), service, auth())).await;
        until("the first pass is over", async || {
            server.call("GET", "/syncs/p/status", Some(SECRET)).await.json()["passes"].as_u64() >= Some(1)
        })
        .await;
        rig.db.sql("update t set v = 'by a job' where id = 1").await;
        let made = post(&server, "/jobs", r#"{"syncId":"p","teamId":"t1"}"#).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let made = made.json();
        assert_eq!(made["message"], "Data sync job created successfully");
        let (job, id) = (&made["job"], made["job"]["id"].as_str().unwrap().to_owned());
        assert_eq!(
            (job["sync_id"].as_str(), job["team_id"].as_str(), job["retry_count"].as_u64()),
            (Some("p"), Some("t1"), Some(0))
        );
        let of = async || server.call("GET", &format!("/jobs/{id}"), Some(SECRET)).await.json()["job"].clone();
        until("it is completed", async || of().await["status"] == "completed").await;
        assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1").await, ["by a job"]);
        let done = of().await;
        assert!(done["started_at"].is_string() && done["finished_at"].is_string() && done["error"].is_null(), "{done}");
        // A webhook is a hint, whatever it says, and however often.
        rig.db.sql("update t set v = 'by a webhook' where id = 2").await;
        let hook = r#"{"type":"DELETE","table":"t","schema":"public","record":null,"old_record":{"id":3}}"#;
        for _ in 0..2 {
            let answer = post(&server, "/webhooks/supabase?sync=p", hook).await;
            assert_eq!((answer.status, answer.json()), (200, serde_json::json!({"success": true})));
        }
        until("it is brought", async || rig.rows("SELECT v FROM t WHERE id = 2").await == ["by a webhook"]).await;
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["10"], "nothing of its body is believed");
        // One that cannot succeed fails after its tries.
        let failing =
            post(&server, "/jobs", r#"{"syncId":"down"}"#).await.json()["job"]["id"].as_str().unwrap().to_owned();
        until("it has failed", async || {
            let job = server.call("GET", &format!("/jobs/{failing}"), Some(SECRET)).await.json()["job"].clone();
            job["status"] == "failed"
                && job["retry_count"] == 3
                && job["error"].as_str().unwrap().contains("cannot be reached")
        })
        .await;
        let jobs = server.call("GET", "/jobs", Some(SECRET)).await.json();
        assert!(
            jobs["jobs"].as_array().unwrap().len() >= 3 && jobs["jobs"][0]["id"] == failing,
            "newest first: {jobs}"
        );
        for (path, body, expected) in [
            ("/jobs", r#"{"syncId":"nowhere"}"#, 404),
            ("/jobs", "{}", 400),
            ("/webhooks/airtable?sync=p", "{}", 404),
            ("/webhooks/supabase?sync=nowhere", "{}", 404),
            ("/webhooks/supabase", "{}", 404),
        ] {
            assert_eq!(post(&server, path, body).await.status, expected, "{path} {body}");
        }
        assert_eq!(server.call("GET", "/jobs/none", Some(SECRET)).await.status, 404);
        assert_eq!(server.call("GET", "/jobs", None).await.status, 401);
        assert_eq!(server.call("POST", "/webhooks/supabase?sync=p", Some("wrong")).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_pulls_is_made_anew_and_compared_when_somebody_asks() {
    for path in PATHS {
        let rig = pulls::Rig::new(path, TABLES, JSON).await;
        let service = Service::new(vec![scheduled("p", &rig, Duration::from_secs(3600))]);
        let server = Server::of(App::of(None, Vec::new(), service, auth())).await;
        assert_eq!(post(&server, "/syncs/p/sync", "").await.status, 200);
        rig.replica("CREATE INDEX strange ON t (v)").await;
        rig.replica("UPDATE t SET v = 'strange'").await;
        let nuked = post(&server, "/syncs/p/nuke", "").await;
        assert_eq!((nuked.status, nuked.json()["success"].as_bool()), (200, Some(true)), "{}", nuked.body);
        until("it is filled again", async || rig.rows("SELECT count(*) FROM t WHERE v <> 'strange'").await == ["10"])
            .await;
        assert!(rig.rows("SELECT name FROM sqlite_master WHERE name = 'strange'").await.is_empty());
        rig.assert_equal("t", &["id", "v"]).await;
        // Nobody compares by itself here.
        rig.replica("UPDATE t SET v = 'strange' WHERE id = 3").await;
        post(&server, "/syncs/p/sync", "").await;
        assert_eq!(rig.rows("SELECT count(*) FROM t WHERE v = 'strange'").await, ["1"]);
        assert_eq!(post(&server, "/syncs/p/resync", r#"{"tables":["nope"]}"#).await.status, 400);
        assert_eq!(post(&server, "/syncs/p/resync", "[]").await.status, 400);
        let asked = post(&server, "/syncs/p/resync", "").await;
        assert_eq!((asked.status, asked.json()["tables"].clone()), (202, serde_json::json!(["t"])));
        until("it is repaired", async || rig.rows("SELECT count(*) FROM t WHERE v = 'strange'").await == ["0"]).await;
        // The request of an id works once.
        let pull = rig.pull();
        let asked = [pull.ask_to_compare(&[], Some("msg_1")).await, pull.ask_to_compare(&[], Some("msg_1")).await];
        assert_eq!(asked.map(Result::unwrap), [Asked::Tables(vec!["t".into()]), Asked::Replayed]);
        assert!(pull.nuke(Some("msg_1")).await.unwrap() && !pull.nuke(Some("msg_1")).await.unwrap());
        let fresh = "SELECT (SELECT caught_up_at FROM _pgflume_pulls), (SELECT caught_up_at FROM _pgflume_freshness), count(*) FROM t";
        let nuked = rig.rows(fresh).await;
        assert!(nuked == ["NULL|NULL|0"] || nuked[0].ends_with("|10"), "the service may have filled it: {nuked:?}");
        let kept = rig.rows("SELECT id, status FROM _pgflume_jobs ORDER BY 1").await;
        assert_eq!(kept, ["nuke-msg_1|completed", "resync-msg_1|completed"]);
        pull.pass().await.unwrap();
        rig.assert_equal("t", &["id", "v"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_pending_once_and_a_dead_workers_job_is_taken_over() {
    let rig = pulls::Rig::new(Path::File, TABLES, JSON).await;
    rig.pass().await;
    let pull = rig.pull();
    let nothing = serde_json::json!(null);
    let (first, is_new) = pull.add_job(None, &nothing).await.unwrap();
    let (second, is_second_new) = pull.add_job(Some("other"), &nothing).await.unwrap();
    assert_eq!((is_new, is_second_new, &first.id), (true, false, &second.id));
    // A worker took it, and died.
    rig.replica("UPDATE _pgflume_jobs SET status = 'processing', worker = 'dead', leased_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+60 seconds')").await;
    pull.pass_for_jobs().await.unwrap();
    assert_eq!(pull.job(&first.id).await.unwrap().unwrap().status, "processing", "its lease has not run out");
    rig.replica("UPDATE _pgflume_jobs SET leased_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 seconds')").await;
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let pull = rig.pull();
            tokio::spawn(async move { pull.pass_for_jobs().await })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    let done = pull.job(&first.id).await.unwrap().unwrap();
    assert_eq!((done.status.as_str(), done.retry_count), ("completed", 0), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_beside_a_worker_that_takes_them_at_once_are_never_refused() {
    let rig = Arc::new(pulls::Rig::new(Path::File, TABLES, JSON).await);
    rig.pass().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let taker = {
        let (rig, is_over) = (rig.clone(), is_over.clone());
        tokio::spawn(async move {
            let replica = Replica::open(&rig.home.target()).await.unwrap();
            let mut taken = 0;
            while !is_over.load(Ordering::Relaxed) {
                if replica.lease_job("p", "w").await.unwrap().is_some() {
                    taken += 1;
                    replica.query("UPDATE _pgflume_jobs SET status = 'completed'", vec![]).await.unwrap();
                }
            }
            taken
        })
    };
    let wish = |_| {
        let rig = rig.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                rig.pull().add_job(None, &serde_json::json!(null)).await.unwrap();
            }
        })
    };
    for wishes in (0..3).map(wish).collect::<Vec<_>>() {
        wishes.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(taker.await.unwrap() > 1);
}
