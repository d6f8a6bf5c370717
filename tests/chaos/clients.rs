//! Clients that are fed, of both workers: they stop, sleep, and go on from where they were, or begin anew. At each
//! `up-to-date` each holds exactly the rows of its shape as the replica has them at that cut; twins are never seen apart.

use crate::judge::Violation;
use crate::plan::{millis, pick, rng};
use crate::stage::{Failure, Stage};
use pgflume::core::value::Cell;
use pgflume::replica::{Statement, Store};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CLIENTS: usize = 20;

/// The owners of each shape's rows; none: all rows.
const SHAPES: [&[&str]; 3] = [&[], &["a"], &["a", "b"]];

/// Between two looks of the witness.
const LOOK: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(30);
/// Cuts that it remembers.
const REMEMBERED: usize = 20_000;

/// Rows by their keys: owner and mark.
type Rows = BTreeMap<i64, (Option<String>, String)>;

/// The rows of cuts, and the cuts in the order in which they came.
type Cuts = (BTreeMap<i64, Arc<Rows>>, VecDeque<i64>);

/// What the replica held at its cuts.
#[derive(Default)]
pub struct Witness {
    cuts: Mutex<Cuts>,
    compared: AtomicU64,
    arrivals: AtomicU64,
}

/// All clients of a run.
pub struct Clients {
    stop: Arc<AtomicBool>,
    witness: Arc<Witness>,
    tasks: JoinSet<()>,
}

impl Clients {
    pub fn start(stage: &Arc<Stage>, seed: u64) -> Self {
        let mut clients = Self { stop: Arc::default(), witness: Arc::default(), tasks: JoinSet::new() };
        clients.tasks.spawn(look(stage.clone(), clients.witness.clone(), clients.stop.clone()));
        for number in 0..CLIENTS {
            let rng = rng(seed, &format!("client {number}"));
            let client = Client::new(stage.clone(), clients.witness.clone(), number, rng);
            clients.tasks.spawn(client.run(clients.stop.clone()));
        }
        clients
    }

    /// Ends them, each when it holds what the replica does; how often they had all, and how many of these were compared.
    pub async fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.witness.arrivals), load(&self.witness.compared))
    }
}

impl Witness {
    fn see(&self, cut: i64, rows: Rows) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if cuts.0.insert(cut, Arc::new(rows)).is_none() {
            cuts.1.push_back(cut);
        }
        if cuts.1.len() > REMEMBERED
            && let Some(oldest) = cuts.1.pop_front()
        {
            cuts.0.remove(&oldest);
        }
    }

    fn at(&self, cut: i64) -> Option<Arc<Rows>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).0.get(&cut).cloned()
    }
}

/// Looks at the replica all the time, and remembers what it holds where that is a cut.
async fn look(stage: Arc<Stage>, witness: Arc<Witness>, stop: Arc<AtomicBool>) {
    let mut store: Option<Box<dyn Store>> = None;
    let sql = "SELECT c.cut, NULL, NULL FROM _pgflume_cuts AS c JOIN _pgflume_head AS h ON h.token = c.token \
               JOIN _pgflume_feed_tables AS f ON f.name = 'twins' AND f.is_whole AND NOT f.is_held WHERE c.cut = c.pos \
               UNION ALL SELECT id, owner, CAST(mark AS TEXT) FROM twins";
    while !stop.load(Ordering::Relaxed) {
        if stage.era.is_closed() {
            store = None;
            stage.era.park().await;
        }
        if store.is_none() {
            store = stage.replica().await.ok();
        }
        let Some(open) = &store else { continue };
        match tokio::time::timeout(PATIENCE, open.read(Statement::new(sql, Vec::new()))).await {
            Ok(Ok(rows)) => {
                if let Some((cut, rows)) = read(rows) {
                    witness.see(cut, rows);
                }
            }
            _ => store = None,
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn read(rows: Vec<Vec<Cell>>) -> Option<(i64, Rows)> {
    let mut rows = rows.into_iter();
    // Behind a batch that is no cut the first one is a row.
    let Some([Cell::Integer(cut), Cell::Null, Cell::Null]) = rows.next().map(<[Cell; 3]>::try_from)?.ok() else {
        return None;
    };
    let row = |row: Vec<Cell>| match &row[..] {
        [Cell::Integer(id), owner, Cell::Text(mark)] => Some((*id, (owner.as_text().map(str::to_owned), mark.clone()))),
        _ => None,
    };
    Some((cut, rows.map(row).collect::<Option<_>>()?))
}

struct Client {
    stage: Arc<Stage>,
    witness: Arc<Witness>,
    number: usize,
    owners: &'static [&'static str],
    rng: StdRng,
    http: reqwest::Client,
    /// Its offset and handle.
    place: Option<(String, String)>,
    rows: Rows,
    /// It has walked to the end, and may have come by what changed meanwhile, or not.
    has_walked: bool,
    is_up_to_date: bool,
}

impl Client {
    fn new(stage: Arc<Stage>, witness: Arc<Witness>, number: usize, rng: StdRng) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let (owners, rows) = (SHAPES[number % SHAPES.len()], Rows::new());
        Self { stage, witness, number, owners, rng, http, place: None, rows, has_walked: false, is_up_to_date: false }
    }

    async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut ending: Option<Instant> = None;
        loop {
            if stop.load(Ordering::Relaxed) {
                let began = *ending.get_or_insert_with(Instant::now);
                match self.rests().await {
                    Ok(true) => return,
                    Ok(false) if began.elapsed() < PATIENCE * 4 => {}
                    other => {
                        let problem = format!("does not come to hold what the replica does: {other:?}");
                        return self.complain(&problem);
                    }
                }
            } else {
                self.fall_out();
                // It stops in the middle, wherever that is.
                let patience = if self.rng.random_bool(0.3) { millis(&mut self.rng, 1, 300) } else { PATIENCE };
                match tokio::time::timeout(patience, self.step(false)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => tokio::time::sleep(millis(&mut self.rng, 5, 100)).await,
                }
                if self.rng.random_bool(0.05) {
                    tokio::time::sleep(millis(&mut self.rng, 200, 3_000)).await;
                }
            }
        }
    }

    /// Now and then one has lost everything.
    fn fall_out(&mut self) {
        if self.rng.random_bool(0.01) {
            self.begin();
        }
    }

    fn begin(&mut self) {
        (self.place, self.has_walked, self.is_up_to_date) = (None, false, false);
        self.rows.clear();
    }

    /// Whether it holds what there is in the end.
    async fn rests(&mut self) -> Result<bool, Failure> {
        self.is_up_to_date = false;
        if self.step(true).await.is_err() || !self.is_up_to_date {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Ok(false);
        }
        let store = self.stage.replica().await?;
        let rows = store.read(Statement::new("SELECT id, owner, CAST(mark AS TEXT) FROM twins", Vec::new())).await?;
        let cut = vec![Cell::Integer(0), Cell::Null, Cell::Null];
        let there = read(std::iter::once(cut).chain(rows).collect()).ok_or("rows of another kind")?;
        Ok(self.rows == self.mine(&there.1))
    }

    fn mine(&self, rows: &Rows) -> Rows {
        let is_mine = |owner: &Option<String>| {
            self.owners.is_empty() || owner.as_deref().is_some_and(|owner| self.owners.contains(&owner))
        };
        rows.iter().filter(|(_, (owner, _))| is_mine(owner)).map(|(id, row)| (*id, row.clone())).collect()
    }

    fn complain(&self, problem: &str) {
        let problem = format!("client {} of {:?}: {problem}", self.number, self.owners);
        self.stage.tally.violation(Violation(problem));
    }

    /// One request of either worker, and what it says.
    async fn step(&mut self, is_short: bool) -> Result<(), Failure> {
        let is_live = !is_short && self.place.is_some() && !self.has_walked && self.is_up_to_date;
        let is_stream = is_live && self.rng.random_bool(0.5);
        let mut query: Vec<(&str, String)> = vec![("table", "twins".into())];
        if !self.owners.is_empty() {
            query.push(("where", format!("owner IN ('{}')", self.owners.join("', '"))));
        }
        match &self.place {
            None => query.push(("offset", "-1".into())),
            Some((offset, handle)) => query.extend([("offset", offset.clone()), ("handle", handle.clone())]),
        }
        if is_live {
            query.push(("live", "true".into()));
        }
        if is_stream {
            query.push(("live_sse", "true".into()));
        }
        let url = url::Url::parse_with_params(
            &format!("{}/v1/shape", pick(&mut self.rng, &self.stage.workers.feeds())),
            &query,
        )?;
        let answer = self.http.get(url).send().await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match answer.status().as_u16() {
            200 => {}
            409 => {
                self.begin();
                return Ok(());
            }
            503 => {
                tokio::time::sleep(millis(&mut self.rng, 10, 200)).await;
                return Ok(());
            }
            other => {
                self.complain(&format!("is answered {other}"));
                return Ok(());
            }
        }
        let place = (header("electric-offset").ok_or("no offset")?, header("electric-handle").ok_or("no handle")?);
        if is_stream {
            return self.stream(answer, place.1).await;
        }
        let messages: Vec<Value> = serde_json::from_slice(&answer.bytes().await?)?;
        let before = (self.rows.clone(), self.has_walked);
        for message in &messages {
            self.take(message);
        }
        if messages.iter().any(|message| message["headers"]["control"] == "must-refetch") {
            (self.rows, self.has_walked) = before;
        }
        let is_end = place.0.split_once('_').is_some_and(|(_, walked)| walked != "0");
        (self.place, self.has_walked) = (Some(place), is_end);
        Ok(())
    }

    /// Events until they end, or until it has had enough.
    async fn stream(&mut self, mut answer: reqwest::Response, handle: String) -> Result<(), Failure> {
        let (mut text, mut left) = (String::new(), self.rng.random_range(1..20));
        // Rows count when what makes them whole is there, as for all clients: this one may stop in the middle.
        let mut messages: Vec<Value> = Vec::new();
        while let Some(part) = answer.chunk().await? {
            text.push_str(std::str::from_utf8(&part)?);
            while let Some((event, rest)) = text.split_once("\n\n") {
                messages.extend(event.strip_prefix("data: ").map(serde_json::from_str::<Value>).transpose()?);
                text = rest.to_owned();
                let cut = messages.last().and_then(|message| message["headers"]["global_last_seen_lsn"].as_str());
                // From there on it goes on.
                if let Some(cut) = cut {
                    self.place = Some((format!("{cut}_0"), handle.clone()));
                    std::mem::take(&mut messages).iter().for_each(|message| self.take(message));
                    left -= 1;
                }
            }
            if left <= 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Value) {
        let (headers, value) = (&message["headers"], &message["value"]);
        if headers["control"] == "up-to-date" {
            return self.arrive(headers["global_last_seen_lsn"].as_str().and_then(|cut| cut.parse().ok()));
        }
        let Some(operation) = headers["operation"].as_str() else { return };
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let Some(id) = text("id").and_then(|id| id.parse().ok()) else {
            return self.complain(&format!("is told of no row: {message}"));
        };
        let had = match operation {
            "delete" => self.rows.remove(&id).is_some(),
            _ => self.rows.insert(id, (text("owner"), text("mark").unwrap_or_default())).is_some(),
        };
        let is_right = match operation {
            "insert" => !had,
            "update" => had,
            _ => had || self.has_walked,
        };
        if !is_right {
            self.complain(&format!(
                "cannot take the {operation} of row {id}, which it {}",
                if had { "has" } else { "lacks" }
            ));
        }
    }

    /// It has all that there is.
    fn arrive(&mut self, cut: Option<i64>) {
        self.is_up_to_date = true;
        self.has_walked = false;
        self.witness.arrivals.fetch_add(1, Ordering::Relaxed);
        for (id, row) in &self.rows {
            if self.rows.get(&(id ^ 1)) != Some(row) {
                return self.complain(&format!("sees row {id} apart from its twin at {cut:?}"));
            }
        }
        let Some(there) = cut.and_then(|cut| self.witness.at(cut)) else { return };
        self.witness.compared.fetch_add(1, Ordering::Relaxed);
        if self.rows != self.mine(&there) {
            self.complain(&format!("holds at {cut:?}\n{:?}, and not\n{:?}", self.rows, self.mine(&there)));
        }
    }
}
