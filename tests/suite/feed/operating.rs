//! What operators see of clients that are fed and that write.

use super::Fed;
use super::writes::{Rig, new};
use crate::parts::http;
use crate::support::{Db, Home, PATHS, Path, Rig as Worker, config, schema, until};
use crate::volume::set_up;
use pgflume::config::{Config, Feeding};
use pgflume::replica::Replica;
use serde_json::Value;
use std::time::Duration;

const TABLE: &str = "create table todos (id bigint primary key, org text, title text)";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT"},
    "feed":{"public":true,"filter":["org"]}}}"#;
const NOT_FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT"}}}"#;

/// The figure of a series, as it is printed.
pub async fn metric(fed: &Fed, series: &str) -> Option<f64> {
    let text = fed.program.call("GET", "/metrics").await.body;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn status(fed: &Fed) -> Value {
    let url = format!("{}/status", fed.program.url());
    let headers = vec![("x-webhook-signature".to_owned(), fed.program.variable("WEBHOOK_SIGNATURE").unwrap())];
    let asked = move || http::request("GET", &url, &headers, b"", Duration::from_secs(60));
    tokio::task::spawn_blocking(asked).await.unwrap().unwrap().json()
}

/// What the dashboard shows to somebody who has signed in.
async fn on_the_dashboard(fed: &Fed) -> Value {
    let ask = async |method: &'static str, path: &str, headers: Vec<(String, String)>, body: String| {
        let url = format!("{}{path}", fed.program.url());
        let asked = move || http::request(method, &url, &headers, body.as_bytes(), Duration::from_secs(60));
        tokio::task::spawn_blocking(asked).await.unwrap().unwrap()
    };
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let form = format!("secret={}", fed.program.variable("WEBHOOK_SIGNATURE").unwrap());
    let signed_in = ask("POST", "/session", header("content-type", "application/x-www-form-urlencoded"), form).await;
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let shown = std::cell::RefCell::new(Value::Null);
    until("both sides were asked", async || {
        let answer = ask("GET", "/dashboard/data", header("cookie", &cookie), String::new()).await;
        shown.replace(answer.json()["shown"].clone());
        !shown.borrow().is_null()
    })
    .await;
    shown.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_operates_sees_clients_answers_the_log_and_cuts() {
    for path in PATHS {
        let fed = Fed::start(path, &format!("{TABLE}; insert into todos values (1, 'a', 'one')"), FED).await;
        let rows = fed.get_whole("table=todos&offset=-1").await;
        let next = |answer: &http::Answer| {
            format!(
                "offset={}&handle={}",
                answer.header("electric-offset").unwrap(),
                answer.header("electric-handle").unwrap()
            )
        };
        let end = fed.get(&format!("table=todos&{}", next(&rows))).await;
        let live = format!("table=todos&live=true&{}", next(&end));
        for (query, expected) in [
            (format!("table=todos&handle=x&{}", next(&end)), 409),
            ("table=todos&offset=nonsense".to_owned(), 400),
            ("table=nobodys&offset=-1".to_owned(), 400),
        ] {
            assert_eq!(fed.get(&query).await.status, expected, "{query}");
        }
        let waits = async {
            until("it is seen to wait", async || {
                metric(&fed, "pgflume_feed_clients{table=\"todos\"}").await == Some(1.0)
            })
            .await;
            let status = status(&fed).await;
            assert_eq!((&status["feed"]["clients"], &status["feed"]["shapes"]), (&1.into(), &1.into()), "{status}");
            fed.db.sql("insert into todos values (2, 'b', 'two')").await;
        };
        let (heard, ()) = futures_util::join!(fed.get(&live), waits);
        assert_eq!(heard.status, 200, "{}", heard.body);
        until("all is counted", async || {
            let of = async |outcome: &str| {
                metric(&fed, &format!("pgflume_feed_answers_total{{table=\"todos\",outcome=\"{outcome}\"}}")).await
            };
            of("messages").await.is_some_and(|count| count >= 3.0)
                && of("refetch").await == Some(1.0)
                && of("refused").await == Some(1.0)
                && of("busy").await == Some(0.0)
                && metric(&fed, "pgflume_feed_answers_total{table=\"\",outcome=\"refused\"}").await == Some(1.0)
        })
        .await;
        let text = fed.program.call("GET", "/metrics").await.body;
        for name in [
            "pgflume_feed_lag_seconds{table=\"todos\"} 0",
            "pgflume_feed_table_whole{table=\"todos\"} 1",
            "pgflume_feed_table_held{table=\"todos\"} 0",
            "pgflume_feed_floor_timestamp_seconds{table=\"todos\"} 0",
            "pgflume_feed_impatient_cuts_total 0",
            "pgflume_feed_memory_limit_bytes 402653184",
            "pgflume_feed_cut_timestamp_seconds ",
            "pgflume_feed_memory_bytes ",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
        until("the change is in the log", async || status(&fed).await["feed"]["tables"]["todos"]["log_rows"] == 1)
            .await;
        let told = status(&fed).await;
        let feed = &told["feed"];
        assert_eq!((&feed["is_stale"], &feed["lag_seconds"]), (&false.into(), &0.0.into()), "{told}");
        assert!(
            feed["cut"].as_str().is_some_and(|cut| cut.parse::<i64>().is_ok()) && feed["cut_at"].is_string(),
            "{told}"
        );
        assert!(feed["cut_age_seconds"].as_f64().is_some_and(|age| age < 60.0), "{told}");
        let table = &feed["tables"]["todos"];
        assert_eq!(
            (&table["whole"], &table["held"], &table["floor"]),
            (&true.into(), &false.into(), &"0".into()),
            "{told}"
        );
        assert!(told.get("pushes").is_none() && !text.contains("push"), "{text}");
        let queue = on_the_dashboard(&fed).await["queues"][0].clone();
        assert_eq!(
            (&queue["status"]["feed"]["clients"], &queue["status"]["feed"]["is_stale"]),
            (&0.into(), &false.into()),
            "{queue}"
        );
        let said = fed.program.said(&["status"]).await;
        assert!(said.contains("feed       1 tables, last cut ") && said.contains("1 rows in the log"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_fed_nothing_is_said_of_it() {
    let rig = Worker::with(Db::new().await, Home::new(Path::File), schema(NOT_FED));
    rig.db.sql(TABLE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let server =
        crate::support::Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    assert!(!server.call("GET", "/metrics", None).await.body.contains("feed"));
    let status = server.call("GET", "/status", Some(crate::support::SECRET)).await;
    assert!(
        status.status == 200 && !status.body.contains("\"feed\"") && !status.body.contains("pushes"),
        "{}",
        status.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_operates_sees_what_becomes_of_clients_writes() {
    let rig = Rig::start().await;
    let ann = rig.token("ann", "a");
    let applied = rig.push(&ann, "1", "", new("1", "a", "x")).await;
    assert_eq!(rig.push(&ann, "1", "", new("1", "a", "x")).await.json()["duplicate"], true, "{}", applied.body);
    rig.push(&ann, "2", "", new("2", "another's", "x")).await;
    rig.push(&ann, "3", "", new("1", "a", "x")).await;
    assert_eq!(rig.push(&ann, "1", "", new("9", "a", "x")).await.status, 409);
    assert_eq!(rig.push("nobody", "4", "", new("4", "a", "x")).await.status, 401);
    assert_eq!(rig.push(&ann, "5", "", serde_json::json!([])).await.status, 400);
    let told = status(&rig.fed).await["pushes"].clone();
    let requests =
        serde_json::json!({"done": 3, "duplicate": 1, "again": 0, "forbidden": 1, "key_taken": 1, "invalid": 1});
    let changes = serde_json::json!({"applied": 1, "conflict": 1, "rejected": 1, "skipped": 0});
    assert_eq!(told, serde_json::json!({"requests": requests, "changes": changes}));
    until("it is printed", async || {
        metric(&rig.fed, "pgflume_pushes_total{outcome=\"done\"}").await == Some(3.0)
            && metric(&rig.fed, "pgflume_push_changes_total{outcome=\"rejected\"}").await == Some(1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_kept_for_as_long_as_is_said() {
    let rig = Worker::with(Db::new().await, Home::new(Path::File), schema(FED));
    rig.db.sql(TABLE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let feeding = Feeding { retention: Duration::from_secs(1), ..Feeding::default() };
    let config = Config { feeding, ..config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()) };
    let worker = pgflume::sync::Worker::new(config);
    let state = async || {
        let replica = Replica::existing(&rig.home.target()).await.unwrap().unwrap();
        replica.feed_state(worker.queue().as_str()).await.unwrap().tables["todos"].clone()
    };
    worker.drain(Duration::from_secs(60)).await.unwrap();
    rig.db.sql("insert into todos values (1, 'a', 'one')").await;
    worker.drain(Duration::from_secs(60)).await.unwrap();
    assert_eq!((state().await.log_rows, state().await.floor), (1, Some(0)));
    // A drain of its own looks for old rows with its first batch.
    until("the first row is older than that", async || {
        rig.db.sql("update todos set title = title || 'x'").await;
        worker.drain(Duration::from_secs(60)).await.unwrap();
        state().await.floor > Some(0)
    })
    .await;
    assert!(state().await.log_rows >= 1, "what is not so old stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_none_is_refused_by_its_name() {
    let program =
        crate::parts::Program::new(FED, &[("PGMQ_URL", "postgres://nobody@127.0.0.1:1/x"), ("LIBSQL_URL", "x.db")]);
    for (flag, name) in [("--feed-retention=soon", "FEED_RETENTION"), ("--feed-patience=late", "FEED_PATIENCE")] {
        let said = program.refused(&["sync", flag], 2).await;
        assert!(said.contains(name), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_backlog_clients_are_told_nothing_or_what_there_is_as_they_are_patient() {
    for patience in [None, Some(Duration::from_nanos(1))] {
        let rig = Worker::with(Db::new().await, Home::new(Path::File), schema(FED));
        rig.db.sql(TABLE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let feeding = Feeding { patience, ..Feeding::default() };
        let config = Config { feeding, ..config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()) };
        let worker = pgflume::sync::Worker::new(config);
        let state = async || {
            let replica = Replica::existing(&rig.home.target()).await.unwrap().unwrap();
            replica.feed_state(worker.queue().as_str()).await.unwrap()
        };
        worker.drain(Duration::from_secs(60)).await.unwrap();
        let before = state().await.cut;
        let backlog =
            "do $$ begin for i in 1..20000 loop insert into todos values (i, 'a', 'x'); commit; end loop; end $$";
        rig.db.sql(backlog).await;
        // Each drain that has no time does one step.
        for _ in 0..2 {
            worker.drain(Duration::ZERO).await.unwrap();
        }
        assert!(rig.db.queued().await > 0, "two steps leave something");
        let behind = state().await;
        match patience {
            None => assert!(behind.cut == before && behind.lag_seconds > 0.0, "{before:?} {behind:?}"),
            Some(_) => assert!(behind.cut > before && behind.lag_seconds == 0.0, "{before:?} {behind:?}"),
        }
        assert!(behind.tables["todos"].whole && !behind.tables["todos"].held, "{behind:?}");
        worker.drain(Duration::from_secs(60)).await.unwrap();
        let drained = state().await;
        assert!(drained.cut > behind.cut && drained.lag_seconds == 0.0, "{behind:?} {drained:?}");
        assert!(drained.tables["todos"].has_more_log_rows, "{drained:?}");
    }
}
