//! `deploy/`: each alert fires when what it warns of is brought about on the real chain, and is silent while all is well;
//! rules and dashboard name only what a server prints.
//!
//! What `/metrics` printed becomes the input of `promtool test rules`: for a while as it was found while all was well,
//! then as it was found afterwards for as long as the rule waits. Only the clock is promtool's: a time stamp is moved
//! along with it, so that its age stays what it was.

use crate::feed::{self, writes};
use crate::parts::http;
use crate::pulls;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, cluster, config, own_cluster, schema, until};
use crate::volume::set_up;
use pgflume::config::Signatures;
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, Stop};
use pgflume::http::auth::Auth;
use pgflume::http::{App, Lane};
use pgflume::operate::resync;
use pgflume::postgres::PgUrl;
use pgflume::provider::postgres::PostgresProvider;
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/pgflume.json");
const PAGE: &str = include_str!("../../docs/alerts.md");

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"}}}"#;
const MAKE: &str =
    "create table t (id int primary key, n numeric); insert into t select g, g from generate_series(1, 20) g";

/// What the three are called by the label `sync`.
const ALL: [&str; 3] = ["", "orders", "shop"];
const QUEUES: [&str; 2] = ["", "orders"];

/// The queue of the variables, a queue of `pgflume.json` and a sync that pulls, in one process.
struct Chain {
    queue: Rig,
    orders: Rig,
    shop: pulls::Rig,
    is_following: bool,
    server: Server,
}

impl Chain {
    async fn new(cluster: &'static Cluster, path: Path, is_following: bool) -> Self {
        let (queue, orders) = (captured(cluster, path).await, captured(cluster, path).await);
        let shop = pulls::Rig::on(Db::on(cluster, "template1").await, path, MAKE, T).await;
        let server = serve(&queue, &orders, &shop, shop.provider(), is_following).await;
        Self { queue, orders, shop, is_following, server }
    }

    /// One whose worker does not run any more is started anew.
    async fn start_again(&mut self, provider: PostgresProvider) {
        self.stop().await;
        self.server = serve(&self.queue, &self.orders, &self.shop, provider, self.is_following).await;
    }

    async fn stop(&mut self) {
        if let (Some(stop), Some(task)) = (self.server.stop.take(), self.server.task.take()) {
            stop.send(()).unwrap();
            task.await.unwrap().unwrap();
        }
    }

    /// As Prometheus does; `None` where nobody answers.
    async fn scrape(&self) -> Option<Scrape> {
        let url = format!("{}/metrics", self.server.address);
        let asked = tokio::task::spawn_blocking(move || http::request("GET", &url, &[], b"", Duration::from_secs(60)));
        asked.await.unwrap().ok().filter(|answer| answer.status == 200).map(|answer| Scrape::read(&answer.body))
    }

    async fn scraped(&self) -> Scrape {
        self.scrape().await.unwrap()
    }

    /// As somebody does who calls each.
    async fn call_all(&self) {
        self.server.sync().await;
        for sync in &ALL[1..] {
            assert_eq!(
                self.server.call("POST", &format!("/syncs/{sync}/sync"), Some(SECRET)).await.status,
                200,
                "{sync}"
            );
        }
    }

    /// What is printed while all is well, each having succeeded once more since a look before.
    async fn healthy(&self) -> Scrape {
        let mut before: Option<Scrape> = None;
        let mut well = None;
        until("all is well", async || {
            if !self.is_following {
                self.call_all().await;
            }
            let now = self.scraped().await;
            let has_moved = |before: &Scrape| ALL.iter().all(|sync| now.success(sync) > before.success(sync));
            let is_well = before.as_ref().is_some_and(has_moved) && self.is_ready().await;
            if before.is_none() && ALL.iter().all(|sync| now.success(sync) > 0.0) {
                before = Some(now.clone());
            }
            well = Some(now);
            is_well
        })
        .await;
        well.unwrap()
    }

    async fn is_ready(&self) -> bool {
        self.server.call("GET", "/ready", None).await.status == 200
    }

    /// What is printed once it is so.
    async fn once(&self, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        let mut found = None;
        until(what, async || {
            let now = self.scraped().await;
            let is_so = is_so(&now);
            found = Some(now);
            is_so
        })
        .await;
        found.unwrap()
    }
}

async fn captured(cluster: &'static Cluster, path: Path) -> Rig {
    let rig = Rig::with(Db::on(cluster, "with_pgmq").await, Home::new(path), schema(T));
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig
}

/// Where it follows, the sync that pulls looks each second; else once, and when it is called.
async fn serve(queue: &Rig, orders: &Rig, shop: &pulls::Rig, provider: PostgresProvider, is_following: bool) -> Server {
    let lane = |rig: &Rig| {
        let config = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
        Lane::new(Worker::new(config), is_following)
    };
    let pull = Pull::new("shop".into(), Arc::new(provider), shop.home.target(), false);
    let every = Duration::from_secs(if is_following { 1 } else { 300 });
    let scheduled = Scheduled { pull, every, retry_delay: Duration::from_millis(100), limiter: None };
    let secret = || vec![Secret::new(SECRET)];
    let auth = Auth::new(Signatures { webhook: secret(), nuke: secret() });
    let named = vec![("orders".to_owned(), lane(orders))];
    Server::of(App::of(Some(lane(queue)), named, Service::new(vec![scheduled]), auth)).await
}

/// What a worker prints that feeds clients.
async fn of_program(fed: &feed::Fed) -> Scrape {
    let asked = || async { fed.program.call("GET", "/metrics").await };
    until("its tables are whole", async || asked().await.body.contains("pgflume_feed_table_whole{table=\"todos\"} 1"))
        .await;
    Scrape::read(&asked().await.body)
}

/// The same once it is so.
async fn of_program_once(fed: &feed::Fed, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut found = None;
    until(what, async || {
        let now = Scrape::read(&fed.program.call("GET", "/metrics").await.body);
        let is_so = is_so(&now);
        found = Some(now);
        is_so
    })
    .await;
    found.unwrap()
}

/// What `/metrics` printed, and when.
#[derive(Debug, Clone)]
struct Scrape {
    at: f64,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn read(text: &str) -> Self {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        Self { at, samples: lines.map(sample).collect() }
    }

    /// The figure of a queue or sync.
    fn of(&self, metric: &str, sync: &str) -> Option<f64> {
        let labels = if sync.is_empty() { String::new() } else { format!("{{sync=\"{sync}\"}}") };
        self.samples.get(&format!("pgflume_{metric}{labels}")).copied()
    }

    fn success(&self, sync: &str) -> f64 {
        self.of("last_success_timestamp_seconds", sync).unwrap()
    }

    /// Whether a figure of each of these is so.
    fn all(&self, metric: &str, syncs: &[&str], is_so: impl Fn(f64) -> bool) -> bool {
        syncs.iter().all(|sync| self.of(metric, sync).is_some_and(&is_so))
    }

    /// With one figure only as it was found elsewhere.
    fn with(&self, metric: &str, found: &Self) -> Self {
        let is_such = |series: &str| series.split('{').next() == Some(&format!("pgflume_{metric}"));
        let such = found.samples.iter().filter(|(series, _)| is_such(series));
        let mut samples = self.samples.clone();
        samples.extend(such.map(|(series, value)| (series.clone(), *value)));
        Self { samples, ..*self }
    }

    /// The names of what was printed, without labels.
    fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|series| series.split('{').next().unwrap()).collect()
    }
}

/// What Prometheus finds after that time.
enum Then<'a> {
    /// This, from then on.
    Found(&'a Scrape),
    /// It asks, and nobody answers.
    NoAnswer,
    /// There is nothing to ask any more.
    NoTarget,
    /// All stays well.
    Well,
}

/// What Prometheus saw.
struct Story<'a> {
    /// At first, if it looked then.
    healthy: Option<&'a Scrape>,
    then: Then<'a>,
}

/// How long all is well: longer than any rule looks back.
const BEFORE: u32 = 70;

/// How long the story goes on.
const AFTER: u32 = 90;

/// The labels that Prometheus adds.
const ADDED: &str = r#"job="pgflume",instance="worker:3000""#;

const FIRING: &str = "count by (alertname, sync) (ALERTS{alertstate=\"firing\"})";

impl Story<'_> {
    /// The series that a rule sees, in promtool's notation, a value a minute.
    fn series(&self) -> Value {
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        let mut tell = |scrape: Option<&Scrape>, from: u32, minutes: u32, ticks: bool| {
            for (series, value) in scrape.iter().flat_map(|scrape| &scrape.samples) {
                // Seen at minute `from` of a clock that begins at 0.
                let value = match series.contains("_timestamp_seconds") {
                    true => value - scrape.map_or(0.0, |scrape| scrape.at) + f64::from(from) * 60.0,
                    false => *value,
                };
                let step = if ticks && series.contains("_timestamp_seconds") { 60 } else { 0 };
                let values = told.entry(series.clone()).or_insert_with(|| before(from));
                values.push_str(&format!(" {value:.3}+{step}x{}", minutes - 1));
            }
        };
        let is_up = u32::from(!matches!(self.then, Then::NoAnswer));
        let mut up = format!("1x{} {is_up}x{}", BEFORE - 1, AFTER - 1);
        tell(self.healthy, 0, if matches!(self.then, Then::Well) { BEFORE + AFTER } else { BEFORE }, true);
        match self.then {
            Then::Found(scrape) => tell(Some(scrape), BEFORE, AFTER, false),
            Then::Well => {}
            // What is not answered, or not asked for, goes at once.
            Then::NoAnswer => told.values_mut().for_each(|values| values.push_str(" stale")),
            Then::NoTarget => {
                up = format!("1x{} stale", BEFORE - 1);
                told.values_mut().for_each(|values| values.push_str(" stale"));
            }
        }
        let all = told.into_iter().chain([("up".to_owned(), up)]);
        all.map(|(series, values)| json!({"series": labelled(&series), "values": values.trim()})).collect()
    }

    /// Asks promtool whether these alerts, and no other, fire so many minutes after it began; and whether none did
    /// before. Their texts are told.
    #[track_caller]
    fn fires(&self, minutes: u32, expected: &[(&str, &[&str])]) -> String {
        let at = format!("{}m", BEFORE + minutes);
        let samples = expected.iter().flat_map(|(name, syncs)| syncs.iter().map(move |sync| (name, sync)));
        let samples: Vec<Value> = samples
            .map(|(name, sync)| {
                let label = if sync.is_empty() { String::new() } else { format!(",sync=\"{sync}\"") };
                json!({"labels": format!("{{alertname=\"{name}\"{label}}}"), "value": 1})
            })
            .collect();
        let expects = |at: &str, samples: &[Value]| json!({"expr": FIRING, "eval_time": at, "exp_samples": samples});
        let before = format!("{}m", BEFORE - 1);
        let asked = self.ask(json!({"promql_expr_test": [expects(&before, &[]), expects(&at, &samples)]}));
        assert!(asked.status.success(), "{expected:?} {}", said(&asked));
        let mut texts = String::new();
        for (name, _) in expected {
            // Told by what it says where none is expected.
            let asked = self.ask(json!({"alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []}]}));
            let said = said(&asked);
            assert!(!asked.status.success() && said.contains(&format!("alertname=\"{name}\"")), "{said}");
            assert!(!said.contains("error expanding") && !said.contains("<no value>"), "{said}");
            assert!(said.contains(&format!("docs/alerts.md#{}", name.to_lowercase())), "{said}");
            texts.push_str(&said);
        }
        texts
    }

    fn ask(&self, tests: Value) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let mut test = json!({"interval": "1m", "input_series": self.series()});
        test.as_object_mut().unwrap().extend(tests.as_object().unwrap().clone());
        let all =
            json!({"rule_files": [root("deploy/prometheus/alerts.yml")], "evaluation_interval": "1m", "tests": [test]});
        let file = directory.path().join("tests.yml");
        // JSON is YAML.
        std::fs::write(&file, all.to_string()).unwrap();
        promtool(&["test", "rules", file.to_str().unwrap()])
    }
}

/// Minutes without a value.
fn before(minutes: u32) -> String {
    if minutes == 0 { String::new() } else { format!("_x{minutes}") }
}

fn labelled(series: &str) -> String {
    match series.split_once('{') {
        Some((name, labels)) if labels.contains("instance=") => format!("{name}{{job=\"pgflume\",{labels}"),
        Some((name, labels)) => format!("{name}{{{ADDED},{labels}"),
        None => format!("{series}{{{ADDED}}}"),
    }
}

fn root(path: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn promtool(arguments: &[&str]) -> Output {
    let found = Command::new(root("scripts/install-promtool.sh")).output().unwrap();
    assert!(found.status.success(), "{}", said(&found));
    Command::new(String::from_utf8(found.stdout).unwrap().trim()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// All metrics of pgflume that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pgflume_")).collect()
}

/// What each panel asks.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_dashboard_name_what_is_printed_and_say_nothing_while_all_is_well() {
    let chain = Chain::new(cluster(), Path::File, true).await;
    let healthy = chain.healthy().await;
    // One that feeds clients prints more.
    let feeding = of_program(&writes::Rig::start().await.fed).await;
    let printed: BTreeSet<&str> = healthy.names().union(&feeding.names()).copied().collect();
    for text in [ALERTS, DASHBOARD, PAGE] {
        let missing: Vec<_> = named(text).into_iter().filter(|name| !printed.contains(name)).collect();
        assert!(missing.is_empty(), "nobody prints {missing:?}, but {printed:?}");
    }
    let checked = promtool(&["check", "rules", root("deploy/prometheus/alerts.yml").to_str().unwrap()]);
    assert!(checked.status.success() && said(&checked).contains("12 rules found"), "{}", said(&checked));
    // Without this bucket Prometheus calculates no percentile.
    for kind in ["commit_to_applied", "step", "take", "read", "apply"] {
        let last = format!("pgflume_{kind}_seconds_bucket{{le=\"+Inf\"}}");
        assert_eq!(healthy.samples.get(&last), healthy.samples.get(&format!("pgflume_{kind}_seconds_count")), "{last}");
        assert!(healthy.samples.contains_key(&last), "{last}");
    }
    let story = Story { healthy: Some(&healthy), then: Then::Well };
    for minutes in [1, 20, AFTER - 1] {
        story.fires(minutes, &[]);
    }
    // Each query of the dashboard has an answer.
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{queries:?}");
    let expected = |query: &&str| {
        let query = query.replace("$sync", ".*").replace("$__rate_interval", "5m");
        json!({"expr": format!("clamp_max(count({query}), 1)"), "eval_time": "60m", "exp_samples": [{"labels": "{}", "value": 1}]})
    };
    let asked = story.ask(json!({"promql_expr_test": queries.iter().map(expected).collect::<Vec<_>>()}));
    assert!(asked.status.success(), "{}", said(&asked));
}

#[test]
fn the_dashboard_asks_one_data_source_and_numbers_its_panels() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    assert_eq!(variables.map(|v| v["name"].as_str().unwrap()).collect::<Vec<_>>(), ["datasource", "sync"]);
}

#[test]
fn the_page_has_each_alert_and_each_link_leads_somewhere() {
    let names: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), 12);
    let sections: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(names, sections, "in the same order");
    let codes = include_str!("../../docs/errors.md");
    for text in [ALERTS, PAGE] {
        for code in text.split("#pf-").skip(1).map(|rest| &rest[..3]) {
            assert!(codes.contains(&format!("### PF-{code}\n")), "PF-{code}");
        }
    }
    // The configuration of Prometheus that the page shows.
    let directory = tempfile::tempdir().unwrap();
    let shown = PAGE.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = directory.path().join("prometheus.yml");
    std::fs::write(&file, shown).unwrap();
    std::fs::write(directory.path().join("alerts.yml"), ALERTS).unwrap();
    let checked = promtool(&["check", "config", file.to_str().unwrap()]);
    assert!(checked.status.success() && said(&checked).contains("12 rules found"), "{}", said(&checked));
    // And the command that makes links of the runbooks, each of which leads to a section of the page.
    let script = PAGE.split("```sh\n").find(|block| block.starts_with("sed ")).unwrap();
    let sed = script.lines().next().unwrap();
    let done = Command::new("/bin/sh").args(["-c", sed]).current_dir(directory.path()).status().unwrap();
    assert!(done.success());
    let linked = std::fs::read_to_string(directory.path().join("alerts.yml")).unwrap();
    let begin = "runbook: https://git.example/pgflume/blob/main/docs/alerts.md#";
    let anchors: Vec<_> = linked.lines().filter_map(|line| line.trim().strip_prefix(begin)).collect();
    assert_eq!(anchors, names.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>());
    let checked = promtool(&["check", "config", file.to_str().unwrap()]);
    assert!(checked.status.success() && said(&checked).contains("12 rules found"), "{}", said(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_stops_and_a_worker_that_stops_are_told_of() {
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    let mut chain = Chain::new(cluster, Path::File, true).await;
    let healthy = chain.healthy().await;
    tokio::task::spawn_blocking(move || cluster.stop(Stop::Immediate).unwrap()).await.unwrap();
    let down = chain.once("the sources are down", |now| now.all("source_up", &ALL, |up| up == 0.0)).await;
    assert!(down.all("target_up", &ALL, |up| up == 1.0), "{down:?}");
    let story = Story { healthy: Some(&healthy), then: Then::Found(&down) };
    let texts = story.fires(6, &[("PgflumeSourceDown", &ALL)]);
    assert!(texts.contains("(sync orders)") && texts.contains("(sync shop)"), "{texts}");
    story.fires(40, &[("PgflumeSourceDown", &ALL), ("PgflumeNoSuccess", &ALL)]);
    story.fires(4, &[]);

    chain.stop().await;
    assert!(chain.scrape().await.is_none(), "nobody answers");
    for then in [Then::NoAnswer, Then::NoTarget] {
        let story = Story { healthy: Some(&healthy), then };
        story.fires(3, &[("PgflumeDown", &[""])]);
        story.fires(40, &[("PgflumeDown", &[""])]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_is_told_of() {
    let mut chain = Chain::new(cluster(), Path::Sqld, true).await;
    let healthy = chain.healthy().await;
    for home in [&mut chain.queue.home, &mut chain.orders.home, &mut chain.shop.home] {
        let Home::Sqld(sqld) = home else { unreachable!() };
        sqld.kill();
    }
    // A server that bills requests is asked once a minute; a worker that has just begun has not asked yet.
    let provider = chain.shop.provider();
    chain.start_again(provider).await;
    let down = chain.once("the replicas are down", |now| now.all("target_up", &ALL, |up| up == 0.0)).await;
    assert!(down.all("source_up", &ALL, |up| up == 1.0), "{down:?}");
    Story { healthy: Some(&healthy), then: Then::Found(&down) }.fires(6, &[("PgflumeTargetDown", &ALL)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_called_any_more_or_never_succeeds_is_told_of() {
    let mut chain = Chain::new(cluster(), Path::File, false).await;
    let healthy = chain.healthy().await;
    // Nobody calls any more: what is printed is not made anew for five seconds.
    let now = chain.scraped().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let later = chain.scraped().await;
    assert!(later.at > now.at + 5.0 && ALL.iter().all(|sync| later.success(sync) == now.success(sync)));
    let story = Story { healthy: Some(&healthy), then: Then::Found(&later) };
    story.fires(14, &[]);
    // Fifteen minutes, and ten for which that has to be seen: the clock is promtool's.
    story.fires(26, &[("PgflumeNoSuccess", &ALL)]);
    // One that is to run every two hours is not late.
    let mut seldom = later.clone();
    assert_eq!(seldom.of("sync_interval_seconds", "shop"), Some(300.0));
    seldom.samples.insert("pgflume_sync_interval_seconds{sync=\"shop\"}".into(), 7200.0);
    Story { healthy: Some(&healthy), then: Then::Found(&seldom) }.fires(26, &[("PgflumeNoSuccess", &QUEUES)]);
    // Another worker's success is not this one's: it may have another queue.
    let mut two = later.clone();
    two.samples.insert("pgflume_last_success_timestamp_seconds{instance=\"another:3000\"}".into(), later.at + 7200.0);
    Story { healthy: Some(&healthy), then: Then::Found(&two) }.fires(26, &[("PgflumeNoSuccess", &ALL)]);

    // After a restart nobody calls at all, and the source of the one that pulls refuses it.
    let url = PgUrl::parse("postgres://nobody@127.0.0.1:1/x").unwrap();
    chain.start_again(PostgresProvider { url, ..chain.shop.provider() }).await;
    let never = chain
        .once("it was tried", |now| {
            now.all("last_success_timestamp_seconds", &ALL, |at| at == 0.0) && now.of("source_up", "shop") == Some(0.0)
        })
        .await;
    let down: (&str, &[&str]) = ("PgflumeSourceDown", &["shop"]);
    let none = ("PgflumeNoSuccess", &ALL[..]);
    Story { healthy: None, then: Then::Found(&never) }.fires(11, &[down, none]);
    let story = Story { healthy: Some(&healthy), then: Then::Found(&never) };
    story.fires(14, &[down]);
    story.fires(26, &[down, none]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_nobody_takes_and_changes_that_arrive_late_are_told_of() {
    let chain = Chain::new(cluster(), Path::File, false).await;
    let healthy = chain.healthy().await;
    for rig in [&chain.queue, &chain.orders] {
        // Nobody drains. Nor is waited for an hour: each message is given the age that it would have.
        rig.db.sql("insert into t values (100, 1)").await;
        rig.db.sql(&format!("update pgmq.q_{DEFAULT_QUEUE} set enqueued_at = enqueued_at - interval '1 hour'")).await;
    }
    let waits = chain.once("it waits", |now| now.all("queue_lag_seconds", &QUEUES, |lag| lag > 3599.0)).await;
    let late: &[(&str, &[&str])] = &[("PgflumeLagging", &QUEUES)];
    let story = Story { healthy: Some(&healthy), then: Then::Found(&waits) };
    story.fires(4, &[]);
    let texts = story.fires(6, late);
    assert!(texts.contains("took, 1h 0m"), "{texts}");
    // They arrive, an hour late: nothing waits any more.
    chain.call_all().await;
    let arrived = chain
        .once("they have arrived", |now| {
            now.all("queue_lag_seconds", &QUEUES, |lag| lag == 0.0)
                && now.all("commit_to_applied_seconds_sum", &QUEUES, |sum| sum > 3599.0)
        })
        .await;
    Story { healthy: Some(&healthy), then: Then::Found(&arrived) }.fires(6, late);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_told_of() {
    let chain = Chain::new(cluster(), Path::File, true).await;
    let healthy = chain.healthy().await;
    for rig in [&chain.queue, &chain.orders] {
        rig.db.send(r#"{"what":"is this"}"#).await;
    }
    chain.shop.db.sql("update t set n = 0.5 where id = 7").await;
    let dead = chain
        .once("they are dead letters", |now| {
            now.all("dead_letters", &QUEUES, |dead| dead == 1.0) && now.of("sync_dead_letters", "shop") == Some(1.0)
        })
        .await;
    let story = Story { healthy: Some(&healthy), then: Then::Found(&dead) };
    story.fires(2, &[("PgflumeDeadLetters", &ALL)]);
    // One of a sync that pulls was written an hour ago and is not told of for good.
    story.fires(75, &[("PgflumeDeadLetters", &QUEUES), ("PgflumeNoSuccess", &ALL)]);
    // Before the first scrape.
    Story { healthy: None, then: Then::Found(&dead) }.fires(2, &[("PgflumeDeadLetters", &ALL)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_wait_and_what_is_no_longer_as_it_was_set_up_are_told_of() {
    let chain = Chain::new(cluster(), Path::File, true).await;
    let healthy = chain.healthy().await;
    let told: &[(&str, &[&str])] = &[("PgflumeTablesWait", &ALL)];
    // A column that is gone, triggers that are off, and a table that may not be read.
    chain.queue.db.sql("alter table t rename column n to m; insert into t values (100, 1)").await;
    chain.orders.db.sql("alter table t disable trigger all").await;
    chain.shop.db.sql("alter table t rename column n to m").await;
    let waits = chain
        .once("they wait", |now| {
            now.of("tables_paused", "") == Some(1.0)
                && now.of("drift", "orders").is_some_and(|drift| drift > 0.0)
                && now.of("sync_problem_tables", "shop") == Some(1.0)
        })
        .await;
    assert_eq!((waits.of("tables_paused", "orders"), waits.of("tables_stuck", "orders")), (Some(0.0), Some(0.0)));
    let story = Story { healthy: Some(&healthy), then: Then::Found(&waits) };
    story.fires(9, &[]);
    story.fires(11, told);
    // A copy that cannot begin.
    chain.orders.db.sql("alter table t rename column n to m").await;
    resync::request(&chain.orders.worker, &["t"]).await.unwrap();
    let stuck = chain.once("its copy waits", |now| now.of("tables_stuck", "orders") == Some(1.0)).await;
    Story { healthy: Some(&healthy), then: Then::Found(&stuck) }.fires(11, told);
    // Each figure is enough by itself.
    for (metric, found) in
        [("tables_paused", &waits), ("drift", &waits), ("sync_problem_tables", &waits), ("tables_stuck", &stuck)]
    {
        let syncs: Vec<&str> =
            ALL.into_iter().filter(|sync| found.of(metric, sync).is_some_and(|count| count > 0.0)).collect();
        let alone = healthy.with(metric, found);
        let story = Story { healthy: Some(&healthy), then: Then::Found(&alone) };
        story.fires(11, &[("PgflumeTablesWait", &syncs)]);
        assert!(!syncs.is_empty(), "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_vacuumed_is_told_of() {
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    let chain = Chain::new(cluster, Path::File, true).await;
    let healthy = chain.healthy().await;
    // Somebody leaves a transaction open, and vacuum may not remove what the worker takes meanwhile.
    let open = chain.queue.db.pinned().await;
    open.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    let image = r#"{"type":"UPDATE","table":"t","record":{"id":1,"n":1}}"#;
    chain
        .queue
        .db
        .sql(&format!(
            "select pgmq.send_batch('{DEFAULT_QUEUE}', array_agg('{image}'::jsonb)) from generate_series(1, 30000)"
        ))
        .await;
    until("all are taken", async || chain.queue.db.queued().await == 0).await;
    chain.queue.db.sql(&format!("vacuum pgmq.q_{DEFAULT_QUEUE}")).await;
    let dead = chain
        .once("vacuum has left them", |now| {
            now.of("queue_dead_tuples", "").is_some_and(|dead| dead > 20_000.0)
                && now.of("queue_messages", "") == Some(0.0)
        })
        .await;
    let told: (&str, &[&str]) = ("PgflumeQueueNotVacuumed", &[""]);
    let story = Story { healthy: Some(&healthy), then: Then::Found(&dead) };
    story.fires(14, &[]);
    story.fires(16, &[told]);
    // It ends, and vacuum removes them. The next one stays open for a million transactions, and holds up all queues.
    open.batch_execute("rollback").await.unwrap();
    chain.queue.db.sql(&format!("vacuum pgmq.q_{DEFAULT_QUEUE}")).await;
    open.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    chain.queue.db.sql("set synchronous_commit = off").await;
    let burn = "do $$ begin for i in 1..1000001 loop perform pg_current_xact_id(); commit; end loop; end $$";
    chain.queue.db.sql(burn).await;
    let held = chain
        .once("a transaction holds up vacuum", |now| {
            now.all("oldest_xmin_age", &QUEUES, |age| age > 1_000_000.0)
                && now.all("queue_dead_tuples", &QUEUES, |dead| dead < 20_000.0)
        })
        .await;
    Story { healthy: Some(&healthy), then: Then::Found(&held) }.fires(16, &[("PgflumeQueueNotVacuumed", &QUEUES)]);
    tokio::task::spawn_blocking(move || cluster.stop(Stop::Immediate).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_told_nothing_and_writes_that_are_not_taken_are_told_of() {
    let rig = writes::Rig::start().await;
    let healthy = of_program(&rig.fed).await;
    let ann = rig.token("ann", "a");
    // A column that both go by is gone.
    rig.fed.db.sql("alter table todos rename column title to name; update todos set name = 'x'").await;
    assert_eq!(rig.push(&ann, "1", "", writes::new("1", "a", "x")).await.status, 503);
    let waits = of_program_once(&rig.fed, "the table waits", |now| {
        let is_held = now.samples.get("pgflume_feed_table_held{table=\"todos\"}") == Some(&1.0);
        is_held && now.samples.get("pgflume_pushes_total{outcome=\"again\"}").is_some_and(|count| *count > 0.0)
    })
    .await;
    let story = Story { healthy: Some(&healthy), then: Then::Found(&waits) };
    story.fires(4, &[]);
    story.fires(6, &[("PgflumePushesNotTaken", &[""])]);
    story.fires(11, &[("PgflumePushesNotTaken", &[""]), ("PgflumeFeedLagging", &[""]), ("PgflumeTablesWait", &[""])]);
    // What waits in the log, by its age: the clock is promtool's.
    let mut behind = healthy.clone();
    behind.samples.insert("pgflume_feed_lag_seconds{table=\"todos\"}".into(), 61.0);
    Story { healthy: Some(&healthy), then: Then::Found(&behind) }.fires(11, &[("PgflumeFeedLagging", &[""])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_begin_anew_again_and_again_and_clients_that_are_not_served_are_told_of() {
    let table = "create table todos (id bigint primary key, title text); insert into todos values (1, 'x')";
    let json = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","title":"TEXT"},"feed":{"public":true}}}"#;
    let fed = feed::Fed::start(Path::File, table, json).await;
    let healthy = of_program(&fed).await;
    let answers = |outcome: &str| format!("pgflume_feed_answers_total{{table=\"todos\",outcome=\"{outcome}\"}}");
    for _ in 0..120 {
        assert_eq!(fed.get("table=todos&offset=1_0&handle=of-another-history").await.status, 409);
    }
    let anew =
        of_program_once(&fed, "they are counted", |now| now.samples.get(&answers("refetch")) == Some(&120.0)).await;
    let story = Story { healthy: Some(&healthy), then: Then::Found(&anew) };
    story.fires(4, &[]);
    story.fires(6, &[("PgflumeFeedRefetches", &[""])]);
    story.fires(30, &[("PgflumeNoSuccess", &[""])]);
    // The table is emptied, and nobody fills it.
    fed.db.sql("alter table todos rename to elsewhere").await;
    let signed = vec![("x-webhook-signature".to_owned(), fed.program.variable("WEBHOOK_SIGNATURE").unwrap())];
    let url = format!("{}/nuke", fed.program.url());
    let asked = move || http::request("POST", &url, &signed, b"", Duration::from_secs(60));
    assert_eq!(tokio::task::spawn_blocking(asked).await.unwrap().unwrap().status, 200);
    for _ in 0..20 {
        assert_eq!(fed.get("table=todos&offset=-1").await.status, 503);
    }
    let unserved = of_program_once(&fed, "they are counted", |now| {
        now.samples.get(&answers("unready")).is_some_and(|n| *n >= 20.0)
    })
    .await;
    Story { healthy: Some(&anew), then: Then::Found(&unserved) }.fires(6, &[("PgflumeFeedUnavailable", &[""])]);
}
