//! What feeding clients takes: ten thousand who wait, for the same or each for its own; a drain that logs what it writes; a
//! large table given whole.

use crate::freshness::{Following, copied, reader, set_up};
use crate::ground::{Format, Ground, Home, Kind, Table};
use crate::report::{Section, median, thousands};
use pgflume::core::schema::Schema;
use pgflume::core::value::Cell;
use pgflume::replica::Statement;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NEWS: &str = r#"{"news":{"primaryKey":"id","columns":{"id":"INTEGER","tenant":"INTEGER","text":"TEXT"},
    "feed":{"public":true,"filter":["tenant"]}}}"#;

const BIG: &str = r#"{"big":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT","version":"INTEGER"},"feed":{"public":true}}}"#;

/// A worker that feeds clients.
struct Feeding {
    following: Following,
    address: String,
    _home: Home,
    target: pgflume::replica::target::Target,
}

impl Feeding {
    /// Tables by these definitions, once they are copied.
    async fn start(ground: &Ground, json: &str) -> Self {
        set_up(ground, &Arc::new(Schema::parse(json).unwrap())).await;
        let home = Home::new(Kind::File);
        let address = format!("127.0.0.1:{}", pgflume::demo::postgres::free_port().unwrap());
        let following = Following::start(ground, &home.target(), json, &[("FEED_BIND", &address)]).await;
        copied(ground).await;
        let target = home.target();
        Self { following, address, _home: home, target }
    }

    /// MB, of `VmRSS` or `VmHWM`.
    fn memory(&self, what: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.following.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{what}:"))).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Not faster than connections are taken: whom the system turns away tries again after a second.
    async fn connect(&self) -> TcpStream {
        tokio::time::sleep(Duration::from_micros(500)).await;
        let stream = TcpStream::connect(&self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Where one is who has all of a shape, over a connection.
    async fn arrive(&self, stream: &mut TcpStream, shape: &str) -> String {
        let mut at = "offset=-1".to_owned();
        loop {
            ask(stream, &format!("{shape}&{at}")).await;
            let answer = answer(stream).await;
            if answer.status == 503 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.body);
            at = answer.place();
            if answer.headers.contains_key("electric-up-to-date") {
                return at;
            }
        }
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    at: Instant,
}

impl Answer {
    /// Where it leaves its client.
    fn place(&self) -> String {
        format!("offset={}&handle={}", self.headers["electric-offset"], self.headers["electric-handle"])
    }
}

async fn ask(stream: &mut TcpStream, query: &str) {
    stream.write_all(format!("GET /v1/shape?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// One answer, of those with a length, or in chunks.
async fn answer(stream: &mut TcpStream) -> Answer {
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let headers: BTreeMap<String, String> = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let is_whole = match headers.get("content-length") {
                Some(length) => body.len() >= length.parse().unwrap(),
                None => body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Answer { status, headers, body: body.to_owned(), at: Instant::now() };
            }
        }
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "it was cut off: {text}");
        bytes.extend_from_slice(&part[..read]);
    }
}

/// All of it.
pub async fn run(ground: &Ground) -> Section {
    raise_limit_of_files();
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    let mut row = |what: String, value: String, beside: String| rows.push(vec![what, value, beside]);
    let crowd = if ground.is_quick { 500 } else { 10_000 };
    let (late, memory, filled) = one_shape(ground, crowd).await;
    let place = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    row(
        format!("{} clients of one shape wait: the middle one has a change after, ms", thousands(crowd as f64)),
        format!("{:.0}", place(0.5)),
        String::new(),
    );
    row("the last one, ms".into(), format!("{:.0}", place(1.0)), "≤ 1,000".into());
    row(
        format!("memory of the process then, with {filled:.0} MB of changes kept for the late, MB"),
        format!("{memory:.0}"),
        "≤ 450".into(),
    );
    let (fed, followed) = own_shapes(ground, crowd).await;
    row(
        format!("{} clients, each of its own shape: one has its change after, p50, ms", thousands(crowd as f64)),
        format!("{fed:.1}"),
        String::new(),
    );
    row("the same change readable in the replica, p50, ms".into(), format!("{followed:.1}"), String::new());
    row("above following, ms".into(), format!("{:.1}", fed - followed), "≤ 15".into());
    bars.push(("one shape: the last one has a change, ms".to_owned(), place(1.0)));
    bars.push(("own shapes: p50 above following, ms".to_owned(), fed - followed));
    let (with, without) = drains(ground).await;
    row("marks, 500 keys a message, file, without the feed, changes/s".into(), thousands(without), String::new());
    row("the same with the feed, changes/s".into(), thousands(with), format!("{:.2} × (≥ 0.85)", with / without));
    let count = if ground.is_quick { 50_000 } else { 1_000_000 };
    let (rate, before, peak) = whole(ground, count).await;
    row(
        format!("a table of {} rows, given whole, rows/s", thousands(count as f64)),
        thousands(rate),
        "≥ 100,000".into(),
    );
    row("memory of the process before and at its peak, MB".into(), format!("{before:.0} → {peak:.0}"), "flat".into());
    Section {
        name: "feed",
        what: "Clients are connections of HTTP/1.1 of the benchmark, on the same processors; times are from the return of the commit. Medians: of 5 changes (one shape), of 100 (own shapes), of the runs of a drain.".into(),
        head: vec!["", "", "bar"],
        rows,
        plot: ("Clients that are fed, ms".into(), bars),
    }
    .print()
}

/// Sorted milliseconds until each of a crowd has a change, the median of five by the last one; MB of the process with changes
/// kept, and how many MB these are.
async fn one_shape(ground: &Ground, crowd: usize) -> (Vec<f64>, f64, f64) {
    ground.sql("drop table if exists news;\ncreate table news (id int primary key, tenant int, text text);\ninsert into news select i, i, '' from generate_series(0, 9) i").await;
    let feeding = Feeding::start(ground, NEWS).await;
    let filled = if ground.is_quick { 4 } else { 60 };
    let mut runs = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..crowd {
        streams.push(feeding.connect().await);
    }
    // What is kept for the late is there: one hears of all of it.
    let mut at = feeding.arrive(&mut streams[0], "table=news").await;
    for mb in 0..filled {
        ask(&mut streams[0], &format!("table=news&live=true&{at}")).await;
        ground.sql(&format!("update news set text = repeat(md5('{mb}'), 32768) where id = {}", mb % 10)).await;
        at = answer(&mut streams[0]).await.place();
    }
    for turn in 0..5 {
        let at = feeding.arrive(&mut streams[0], "table=news").await;
        for stream in &mut streams {
            ask(stream, &format!("table=news&live=true&{at}")).await;
        }
        // Each has to have been read, or some would be answered before they wait.
        tokio::time::sleep(Duration::from_secs(2)).await;
        ground.sql(&format!("update news set text = 'turn {turn}' where id = 1")).await;
        let committed = Instant::now();
        let answers =
            futures_util::future::join_all(streams.iter_mut().map(|stream| async { answer(stream).await })).await;
        let mut late: Vec<f64> = answers
            .iter()
            .map(|answer| {
                assert!(answer.status == 200 && answer.body.contains(&format!("turn {turn}")), "{}", answer.body);
                answer.at.saturating_duration_since(committed).as_secs_f64() * 1e3
            })
            .collect();
        late.sort_by(f64::total_cmp);
        runs.push(late);
    }
    let memory = feeding.memory("VmRSS");
    runs.sort_by(|a, b| a[a.len() - 1].total_cmp(&b[b.len() - 1]));
    (runs.swap_remove(2), memory, filled as f64)
}

/// Milliseconds after which one of a crowd has its own change, and after which it is readable in the replica; medians.
async fn own_shapes(ground: &Ground, crowd: usize) -> (f64, f64) {
    ground.sql(&format!("drop table if exists news;\ncreate table news (id int primary key, tenant int, text text);\ninsert into news select i, i, '' from generate_series(1, {crowd}) i")).await;
    let feeding = Feeding::start(ground, NEWS).await;
    let mut clients = Vec::new();
    for tenant in 1..=crowd {
        let mut stream = feeding.connect().await;
        let shape = format!("table=news&where=tenant%3D{tenant}");
        let at = feeding.arrive(&mut stream, &shape).await;
        clients.push((stream, shape, at));
    }
    let replica = reader(&feeding.target).await;
    let (mut fed, mut followed) = (Vec::new(), Vec::new());
    for (stream, shape, at) in &mut clients {
        ask(stream, &format!("{shape}&live=true&{at}")).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for turn in 0..100 {
        let tenant = 1 + turn * 7919 % crowd;
        ground.sql(&format!("update news set text = 'turn {turn}' where id = {tenant}")).await;
        let committed = Instant::now();
        let (stream, ..) = &mut clients[tenant - 1];
        let read = async {
            let sql = "SELECT 1 FROM news WHERE id = ?1 AND text = ?2";
            let args = || vec![Cell::Integer(tenant as i64), Cell::Text(format!("turn {turn}"))];
            while replica.read(Statement::new(sql, args())).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            committed.elapsed()
        };
        let (answer, read) = futures_util::join!(answer(stream), read);
        assert!(answer.status == 200 && answer.body.contains(&format!("turn {turn}")), "{}", answer.body);
        fed.push(answer.at.duration_since(committed).as_secs_f64() * 1e3);
        followed.push(read.as_secs_f64() * 1e3);
    }
    (median(fed), median(followed))
}

/// Changes a second of a drain with the feed and without, in turns.
async fn drains(ground: &Ground) -> (f64, f64) {
    let changes = if ground.is_quick { 20_000 } else { 200_000 };
    ground.fill(Table::Narrow, changes).await;
    let fed = Table::Narrow
        .json()
        .replace(r#""primaryKey":"id","#, r#""primaryKey":"id","feed":{"public":true,"filter":["name"]},"#);
    let fed = Arc::new(Schema::parse(&fed).unwrap());
    let homes = [Home::new(Kind::File), Home::new(Kind::File)];
    let mut rates = [Vec::new(), Vec::new()];
    for turn in 0..=ground.runs() {
        for ((home, rates), schema) in homes.iter().zip(&mut rates).zip([fed.clone(), Table::Narrow.schema()]) {
            let seconds =
                ground.drain_by(&schema, Table::Narrow, Format::ManyKeys, &home.target(), changes, changes).await;
            // The first one makes the rows; from then on it changes them.
            if turn > 0 {
                rates.push(changes as f64 / seconds);
            }
        }
    }
    let [with, without] = rates.map(median);
    (with, without)
}

/// Rows a second at which one client is given a whole table; MB of the process before, and at its peak.
async fn whole(ground: &Ground, count: i64) -> (f64, f64, f64) {
    ground.sql(&format!("drop table if exists big;\ncreate table big (id int primary key, name text, version int);\ninsert into big select i, 'number ' || i, 0 from generate_series(1, {count}) i")).await;
    let feeding = Feeding::start(ground, BIG).await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/shape?table=big", feeding.address);
    let mut at = "offset=-1".to_owned();
    let (mut rows, mut began, mut before) = (0, Instant::now(), feeding.memory("VmRSS"));
    let mut peak = before;
    loop {
        let answer = client.get(format!("{url}&{at}")).send().await.unwrap();
        if answer.status() == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            (began, before) = (Instant::now(), feeding.memory("VmRSS"));
            continue;
        }
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        at = format!("offset={}&handle={}", header("electric-offset").unwrap(), header("electric-handle").unwrap());
        let is_end = header("electric-up-to-date").is_some();
        rows += answer.text().await.unwrap().matches("\"operation\":\"insert\"").count();
        peak = feeding.memory("VmRSS").max(peak);
        if is_end {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(rows as i64, count);
    (rows as f64 / seconds, before, peak)
}

fn raise_limit_of_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
