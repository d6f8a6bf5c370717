//! What clients are fed, over a libSQL in memory: batches of random changes, of a queue and of a sync that pulls, between
//! requests of clients that are as strict as the strictest. Writers die, others keep no log, replicas fall back. At each
//! `up-to-date` a client holds exactly the rows of its shape as they are at the cut.
//! `FEED_SCHEDULES` of them (400), from `FEED_SEED` on.

use crate::{ALONE, setting};
use async_trait::async_trait;
use futures_util::FutureExt as _;
use pgflume::core::batch::{Item, RowState};
use pgflume::core::error;
use pgflume::core::failpoint::FeedRule;
use pgflume::core::position::{Entry, Head};
use pgflume::core::schema::{Schema, Table};
use pgflume::core::value::Cell;
use pgflume::feed::answer::{Answer, Asked, Told};
use pgflume::feed::board::{Board, Heard, Seen, Waiting};
use pgflume::feed::filter;
use pgflume::feed::limits::{Limits, Means};
use pgflume::feed::looking::look_at;
use pgflume::feed::memory::Memory as Budget;
use pgflume::feed::offset::{Offset, Walked};
use pgflume::feed::shape::Shape;
use pgflume::replica::freshness::{Feeds, Freshness};
use pgflume::replica::memory::Memory;
use pgflume::replica::pulls::Progress;
use pgflume::replica::{Cut, Replica, Rows as Found, Statement, Store, Work};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SCHEMA: &str = r#"{"t":{"primaryKey":["id","part"],"columns":{"id":"TEXT","org":"TEXT","v":"INTEGER","part":"REAL"},
    "feed":{"public":true,"filter":["org"]}}}"#;

/// All rows, those of one, of two, and of none.
const FILTERS: [&str; 4] = ["", "org = 'a'", "org IN ('a', 'b')", "org = 'nobody'"];

const KEYS: u64 = 10;

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }
}

type Rows = BTreeMap<String, (Option<String>, i64)>;

/// The replica, and what its table should hold.
struct Scene {
    memory: Memory,
    replica: Replica,
    table: Arc<Table>,
    head: Head,
    rows: Rows,
    /// As they were at the last cut.
    cut: Rows,
    dice: Dice,
    version: i64,
    /// It is written by a sync that pulls.
    is_pulled: bool,
    /// For those who wait, as it was last looked at, and the rows of its cut.
    board: Arc<Board>,
    board_rows: Rows,
    /// As everything was once, of the replica of such a sync: what a backup has.
    backup: Option<(Vec<u8>, Head, Rows, Rows)>,
}

fn now<T>(ready: impl Future<Output = T>) -> T {
    ready.now_or_never().expect("memory waits for nobody")
}

fn key(number: u64) -> Vec<Cell> {
    // Some of them doubles that need the long form of the SQL.
    let part = if number.is_multiple_of(4) { 1e300 } else { number as f64 / 3.0 };
    vec![Cell::Text(format!("k/{number}'\"")), Cell::Real(part)]
}

fn name(key: &[Cell]) -> String {
    format!("{:?}", key.iter().map(Cell::to_postgres_text).collect::<Vec<_>>())
}

impl Scene {
    fn new(seed: u64) -> Self {
        let is_pulled = seed.is_multiple_of(2);
        let schema = Schema::parse(SCHEMA).unwrap();
        let memory = Memory::new().unwrap();
        let replica = Replica::on(Box::new(memory.clone()));
        now(replica.prepare(&schema)).unwrap();
        // What readers are told of tables: in a run beside the batches.
        let tell = "INSERT INTO _pgflume_states (\"table\", sync, state) VALUES ('t', 'q', 'following'), ('u', 'q', 'following')";
        now(memory.query(tell.to_owned().into())).unwrap();
        let head = Head::start("epoch".into(), "token".into());
        match is_pulled {
            true => drop(now(replica.claim("q", &head, &["t"], false)).unwrap()),
            false => now(replica.reset(None, &head, (Feeds::Queue("q"), "owner"), None)).unwrap(),
        }
        let table = schema.get("t").unwrap().clone();
        let (rows, cut, dice) = (Rows::new(), Rows::new(), Dice(seed));
        let (board, board_rows) = (Arc::new(Board::new(table.clone(), is_pulled)), Rows::new());
        let (version, backup) = (0, None);
        let mut scene =
            Self { memory, replica, table, head, rows, cut, dice, version, is_pulled, board, board_rows, backup };
        scene.restart();
        scene
    }

    fn sync(&self) -> Feeds<'static> {
        if self.is_pulled { Feeds::Pull("q") } else { Feeds::Queue("q") }
    }

    /// The writer has died, and another one begins.
    fn restart(&mut self) {
        self.replica = Replica::on(Box::new(self.memory.clone()));
        let there = now(self.replica.inventory()).unwrap();
        now(self.replica.prepare_feed(&there, self.sync(), &Schema::parse(SCHEMA).unwrap())).unwrap();
    }

    /// A batch of somebody who keeps no log.
    fn batch_unlogged(&mut self) {
        let other = Replica::on(Box::new(self.memory.clone()));
        let (mine, cut) = (std::mem::replace(&mut self.replica, other), self.cut.clone());
        let is_cut = self.dice.one_in(2);
        self.batch(is_cut);
        (self.replica, self.cut) = (mine, cut);
    }

    /// A replica of a sync that pulls is kept, or is put back as it was then. (That of a queue is seen to have fallen back.)
    fn fall_back(&mut self) {
        match self.backup.take() {
            Some((image, head, rows, cut)) => {
                self.memory.restore(&image).unwrap();
                (self.head, self.rows, self.cut) = (head, rows, cut);
                self.restart();
            }
            None if self.is_pulled => {
                let image = self.memory.image().unwrap();
                self.backup = Some((image, self.head.clone(), self.rows.clone(), self.cut.clone()));
            }
            None => {}
        }
    }

    /// One batch of up to five keys; whether all is equal by then.
    fn batch(&mut self, is_cut: bool) {
        let mut work = Work::default();
        if self.dice.one_in(25) {
            work.emptied = vec![self.table.clone()];
            self.rows.clear();
        } else {
            let mut items = BTreeMap::new();
            for _ in 0..self.dice.below(5) {
                let key = key(self.dice.below(KEYS));
                self.version += 1;
                let org = ["a", "b", "c", ""][self.dice.below(4) as usize];
                let org = if org.is_empty() { Cell::Null } else { Cell::Text(org.into()) };
                let cells = vec![key[0].clone(), org.clone(), Cell::Integer(self.version), key[1].clone()];
                let replace = self.dice.one_in(6);
                let state = match self.dice.one_in(3) {
                    true => {
                        self.rows.remove(&name(&key));
                        RowState::Gone
                    }
                    false => {
                        self.rows.insert(name(&key), (org.to_postgres_text(), self.version));
                        RowState::Row { columns: [0, 1, 2, 3].into(), cells, replace }
                    }
                };
                items.insert(name(&key), Item { table: self.table.clone(), key, state, images: vec![] });
            }
            work.items = Arc::new(items.into_values().collect());
            work.range = 0..work.items.len();
        }
        self.write(work, is_cut);
    }

    fn write(&mut self, work: Work, is_cut: bool) {
        self.version += 1;
        let to = self.head.next(format!("token {}", self.version));
        if self.is_pulled {
            let progress = Progress { cut: is_cut.then(Cut::default), ..Progress::default() };
            now(self.replica.apply_pull("q", &self.head, &to, &progress, work)).unwrap();
        } else {
            self.write_of_queue(&to, work, is_cut);
        }
        self.head = to;
        if is_cut {
            self.cut = self.rows.clone();
        }
    }

    fn write_of_queue(&self, to: &Head, work: Work, is_cut: bool) {
        let entry = Entry {
            head: to.clone(),
            parent: self.head.token.clone(),
            xid: "1".into(),
            lsn: "0/0".into(),
            images: vec![],
            provenance: Arc::default(),
        };
        let freshness = Freshness { is_caught_up: is_cut, checked_at: Some("now".into()), ..Freshness::default() };
        now(self.replica.apply(&self.head, &entry, self.head.seq, self.sync(), &freshness, work)).unwrap();
    }

    /// A cut without a batch; with the table held, it is none for it.
    fn cut(&mut self, is_held: bool) {
        let held = is_held.then(|| "t".to_owned()).into_iter().collect();
        if self.is_pulled {
            self.version += 1;
            let to = self.head.next(format!("token {}", self.version));
            let progress = Progress { cut: Some(Cut { held, ..Cut::default() }), ..Progress::default() };
            now(self.replica.apply_pull("q", &self.head, &to, &progress, Work::default())).unwrap();
            self.head = to;
        } else {
            now(self.replica.cut(&self.head, "q", None, &held)).unwrap();
        }
        if !is_held {
            self.cut = self.rows.clone();
        }
    }

    /// The board is looked after.
    fn look(&mut self) {
        let means = means(&mut self.dice);
        let before = self.board.at();
        now(look_at(&self.board, &self.replica, None, &means)).unwrap();
        if self.board.at().is_some() && self.board.at() != before {
            self.board_rows = self.cut.clone();
        }
    }

    /// One row of another table, or of this one.
    fn insert(&mut self, table: &Arc<Table>, cells: Vec<Cell>, is_cut: bool) {
        let key = table.key.iter().map(|at| cells[*at].clone()).collect();
        let columns = (0..cells.len()).collect::<Vec<_>>().into();
        let state = RowState::Row { columns, cells, replace: false };
        let items = Arc::new(vec![Item { table: table.clone(), key, state, images: vec![] }]);
        self.write(Work { items, range: 0..1, ..Work::default() }, is_cut);
    }
}

fn means(dice: &mut Dice) -> Means {
    let limits = Limits {
        rows: 1 + dice.below(6) as usize,
        page_bytes: 200 * (1 + dice.below(4) as usize),
        part_bytes: 1,
        most_bytes: 1 << 20,
        most_keys: 1_000,
    };
    Means { limits, memory: budget(), kept: budget(), found: budget() }
}

fn budget() -> Budget {
    Budget::new(1 << 30)
}

/// A client that minds everything.
struct Client {
    shape: Arc<Shape>,
    /// It waits for news.
    waiting: Option<Waiting>,
    /// It asked between two cuts, and asks again.
    is_apart: bool,
    /// When it asked.
    asked: Option<Seen>,
    offset: Offset,
    handle: Option<String>,
    rows: BTreeMap<String, (Option<String>, i64)>,
    /// How often it had all.
    arrivals: u64,
}

impl Client {
    fn new(table: &Arc<Table>, condition: &str) -> Self {
        let mut shape = Shape::of(table).unwrap();
        if !condition.is_empty() {
            shape.allowed = filter::parse(condition, &BTreeMap::new(), table).unwrap();
        }
        let shape = Arc::new(shape);
        Self {
            shape,
            waiting: None,
            is_apart: false,
            asked: None,
            offset: Offset::Start,
            handle: None,
            rows: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// What it should hold, of those rows.
    fn wanted(&self, rows: &Rows) -> Rows {
        let is_mine = |org: &Option<String>| {
            let org = org.clone().map_or(Cell::Null, Cell::Text);
            self.shape.had(&[org])
        };
        rows.iter().filter(|(_, (org, _))| is_mine(org)).map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    fn ask(&mut self, scene: &mut Scene) -> Result<(), String> {
        let means = means(&mut scene.dice);
        let asked = Asked { shape: &self.shape, offset: self.offset, handle: self.handle.as_deref() };
        let answer = now(asked.answer(&scene.replica, &means)).unwrap();
        self.answered(answer, scene)
    }

    /// It is answered that, where the replica is so.
    fn answered(&mut self, answer: Answer, scene: &Scene) -> Result<(), String> {
        self.is_apart = matches!(&answer, Answer::Nothing(told) if !told.is_up_to_date);
        self.asked = scene.board.seen();
        if !matches!(answer, Answer::Nothing(_)) {
            (self.waiting, self.asked) = (None, None);
        }
        match answer {
            Answer::Unready => Ok(()),
            Answer::Busy => Err("there is memory enough".to_owned()),
            Answer::Refetch { handle, .. } => {
                if self.handle.as_ref() == Some(&handle) {
                    return Err(format!("is told to begin anew by the handle that it has: {handle}"));
                }
                (self.offset, self.handle, self.rows) = (Offset::Start, Some(handle), BTreeMap::new());
                Ok(())
            }
            Answer::Nothing(told) => {
                self.offset = told.offset;
                Ok(())
            }
            Answer::Messages(told) => self.told(&told, &scene.cut),
        }
    }

    /// It waits, and hears what the board says, where that says anything.
    fn hear(&mut self, scene: &mut Scene) -> Result<(), String> {
        let Some(handle) = self.handle.clone() else { return Ok(()) };
        let is_new = self.waiting.is_none() || self.is_apart;
        let waiting = self.waiting.get_or_insert_with(|| scene.board.wait(&self.shape, None, &budget()).unwrap());
        let has_news = is_new || waiting.news().now_or_never().is_some();
        let follows = |generation: &str| self.shape.is_named(&handle, generation);
        let before = self.offset;
        let heard = scene.board.hear((&self.shape, waiting.name()), before, follows, self.asked, &budget());
        match heard {
            Heard::Unknown => self.ask(scene),
            Heard::Nothing(_, cut) => {
                self.offset = Offset::At(cut, Walked::Done);
                Ok(())
            }
            Heard::Changes(body, cut) => {
                if !has_news {
                    return Err("was not told that there is something to hear".to_owned());
                }
                let offset = Offset::At(cut, Walked::Done);
                let told = Told { body, offset, handle, schema: None, is_up_to_date: true };
                self.told(&told, &scene.board_rows)
            }
            Heard::Anew(..) | Heard::Busy => Err(format!("{heard:?}")),
        }
    }

    /// What it is told, where the rows are these.
    fn told(&mut self, told: &Told, rows: &Rows) -> Result<(), String> {
        let may_lack = matches!(self.offset, Offset::At(_, Walked::ToEnd));
        for message in serde_json::from_slice::<Vec<Value>>(&told.body.json().concat()).unwrap() {
            self.take(&message, may_lack)?;
        }
        // As a client does: what it is given to keep is text.
        self.offset = Offset::parse(&told.offset.to_string()).unwrap();
        self.handle = Some(told.handle.clone());
        if told.is_up_to_date {
            self.arrivals += 1;
            let wanted = self.wanted(rows);
            if self.rows != wanted {
                return Err(format!("holds at a cut\n{:?}, and not\n{wanted:?}", self.rows));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Value, may_lack: bool) -> Result<(), String> {
        let Some(operation) = message["headers"]["operation"].as_str() else { return Ok(()) };
        let value = &message["value"];
        let text = |column: &str| value[column].as_str().map(str::to_owned);
        let key = format!("{:?}", [text("id"), text("part")]);
        let row = || (text("org"), text("v").unwrap().parse().unwrap());
        let had = match operation {
            "delete" => self.rows.remove(&key).is_some(),
            _ => self.rows.insert(key.clone(), row()).is_some(),
        };
        match (operation, had) {
            ("insert", false) | ("update" | "delete", true) => Ok(()),
            ("delete", false) if may_lack => Ok(()),
            _ => Err(format!("cannot take the {operation} of {key}, which it {}", if had { "has" } else { "lacks" })),
        }
    }
}

/// A schedule; how often clients had all, or what went wrong.
fn run(seed: u64) -> Result<u64, String> {
    let mut scene = Scene::new(seed);
    let mut clients: Vec<Client> = FILTERS.iter().map(|filter| Client::new(&scene.table, filter)).collect();
    for _ in 0..100 {
        match scene.dice.below(3) {
            0 if scene.dice.one_in(15) => scene.restart(),
            0 if scene.dice.one_in(40) => scene.batch_unlogged(),
            0 if scene.dice.one_in(15) => {
                let is_put_back = scene.backup.is_some();
                scene.fall_back();
                // Of a walk nobody knows what it has come by in rows that are no more: its client is reloaded.
                let is_amid =
                    |client: &&mut Client| matches!(client.offset, Offset::At(_, Walked::To(_) | Walked::ToEnd));
                for client in clients.iter_mut().filter(|_| is_put_back).filter(is_amid) {
                    (client.offset, client.handle, client.rows) = (Offset::Start, None, BTreeMap::new());
                }
            }
            0 if scene.dice.one_in(5) => {
                let is_held = scene.dice.one_in(2);
                scene.cut(is_held);
            }
            0 => {
                let is_cut = scene.dice.one_in(2);
                scene.batch(is_cut);
            }
            1 if scene.dice.one_in(2) => scene.look(),
            1 if scene.dice.one_in(2) => {
                let at = scene.dice.below(clients.len() as u64) as usize;
                clients[at].hear(&mut scene).map_err(|e| format!("seed {seed}, {:?}: {e}", FILTERS[at]))?;
            }
            _ => {
                let at = scene.dice.below(clients.len() as u64) as usize;
                clients[at].ask(&mut scene).map_err(|e| format!("seed {seed}, {:?}: {e}", FILTERS[at]))?;
            }
        }
    }
    // At rest each comes to hold what there is.
    for (client, filter) in clients.iter_mut().zip(FILTERS) {
        for asked in 0..60 {
            // Positions of a replica that fell back are behind those that it gave, for as long as that took.
            if asked % 20 == 0 && (asked == 0 || scene.is_pulled) {
                scene.cut(false);
            }
            client.ask(&mut scene).map_err(|e| format!("seed {seed}, {filter:?}: {e}"))?;
        }
        let wanted = client.wanted(&scene.rows);
        if client.rows != wanted {
            return Err(format!("seed {seed}, {filter:?}: holds at rest\n{:?}, and not\n{wanted:?}", client.rows));
        }
    }
    Ok(clients.iter().map(|client| client.arrivals).sum())
}

fn search(schedules: u64) -> Result<u64, String> {
    let (first, arrivals) = (setting("FEED_SEED", 0), AtomicU64::new(0));
    for seed in first..first + schedules {
        arrivals.fetch_add(run(seed)?, Ordering::Relaxed);
    }
    Ok(arrivals.into_inner())
}

#[test]
fn at_each_cut_a_client_holds_the_rows_of_its_shape() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let schedules = setting("FEED_SCHEDULES", 400);
    let arrivals = search(schedules).unwrap_or_else(|e| panic!("{e}"));
    assert!(arrivals > 10 * schedules, "{arrivals} arrivals in {schedules} schedules");
}

#[test]
fn each_rule_of_the_feed_is_needed() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for rule in FeedRule::ALL {
        fail::cfg(rule.name(), "return").unwrap();
        let found = search(400);
        fail::remove(rule.name());
        assert!(found.is_err(), "nobody misses {rule:?}");
    }
}

/// Once it has all that there is.
fn arrive(client: &mut Client, scene: &mut Scene) {
    let before = client.arrivals;
    for _ in 0..20 {
        client.ask(scene).unwrap();
    }
    assert!(client.arrivals > before);
}

#[test]
fn a_table_that_is_made_anew_is_another() {
    let mut scene = Scene::new(1);
    let schema = Schema::parse(SCHEMA).unwrap();
    let row = |v| vec![Cell::Text("k".into()), Cell::Text("a".into()), Cell::Integer(v), Cell::Real(0.5)];
    scene.batch(true);
    let table = scene.table.clone();
    scene.rows.insert(name(&[row(1)[0].clone(), row(1)[3].clone()]), (Some("a".into()), 1));
    scene.insert(&table, row(1), true);
    let mut client = Client::new(&table, "");
    arrive(&mut client, &mut scene);
    now(scene.memory.query("DROP TABLE t".to_owned().into())).unwrap();
    now(scene.replica.prepare(&schema)).unwrap();
    let handle = client.handle.clone();
    scene.rows.clear();
    scene.rows.insert(name(&[row(2)[0].clone(), row(2)[3].clone()]), (Some("a".into()), 2));
    scene.insert(&table, row(2), true);
    client.ask(&mut scene).unwrap();
    assert!(client.handle != handle && client.rows.is_empty(), "it begins anew");
    arrive(&mut client, &mut scene);
}

#[test]
fn what_a_writer_of_other_definitions_wrote_is_not_taken_for_logged() {
    let mut scene = Scene::new(1);
    let both = SCHEMA.trim_end_matches('}').to_owned()
        + r#"}},"u":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"feed":{"public":true}}}"#;
    let both = Schema::parse(&both).unwrap();
    let u = both.get("u").unwrap().clone();
    let unfed = Arc::new(Table { feed: None, ..Table::clone(&u) });
    // Another worker, which feeds one table more.
    let other = Replica::on(Box::new(scene.memory.clone()));
    now(other.prepare(&both)).unwrap();
    now(other.prepare_feed(&now(other.inventory()).unwrap(), scene.sync(), &both)).unwrap();
    let cell = |n| vec![Cell::Integer(n), Cell::Integer(n)];
    scene.insert(&unfed, cell(1), true);
    let shape = Shape::of(&u).unwrap();
    let limits = Limits { rows: 5, page_bytes: 1 << 20, part_bytes: 1 << 20, most_bytes: 1 << 20, most_keys: 100 };
    let ask = |scene: &Scene, offset, handle: Option<&str>| {
        now(Asked { shape: &shape, offset, handle }
            .answer(&scene.replica, &Means { limits, memory: budget(), kept: budget(), found: budget() }))
        .unwrap()
    };
    assert!(matches!(ask(&scene, Offset::Start, None), Answer::Unready), "nobody has logged it yet");
    let mine = std::mem::replace(&mut scene.replica, other);
    scene.insert(&u, cell(2), true);
    let Answer::Messages(first) = ask(&scene, Offset::Start, None) else { panic!("it is whole") };
    let Answer::Messages(told) = ask(&scene, first.offset, Some(&first.handle)) else { panic!("it is whole") };
    assert!(told.is_up_to_date, "{told:?}");
    // The first one goes on, and does not log what it writes there.
    let other = std::mem::replace(&mut scene.replica, mine);
    scene.insert(&unfed, cell(3), true);
    assert!(!matches!(ask(&scene, told.offset, Some(&told.handle)), Answer::Messages(_) | Answer::Nothing(_)));
    scene.replica = other;
    scene.insert(&u, cell(4), true);
    let again = ask(&scene, told.offset, Some(&told.handle));
    assert!(matches!(again, Answer::Refetch { .. }), "{again:?}");
}

#[test]
fn who_comes_while_the_log_goes_back_to_no_cut_waits_for_the_next() {
    let mut scene = Scene::new(1);
    let table = scene.table.clone();
    let row = |v| vec![Cell::Text("k".into()), Cell::Text("a".into()), Cell::Integer(v), Cell::Real(0.5)];
    scene.insert(&table, row(1), true);
    scene.rows.insert(name(&[row(1)[0].clone(), row(1)[3].clone()]), (Some("a".into()), 1));
    scene.cut(false);
    let mut client = Client::new(&table, "");
    arrive(&mut client, &mut scene);
    // More was written without a cut than the log keeps.
    scene.insert(&table, row(2), false);
    let forget = "UPDATE _pgflume_feed_tables SET floor = (SELECT pos FROM _pgflume_cuts)";
    now(scene.memory.query(forget.to_owned().into())).unwrap();
    let ask = |scene: &Scene, offset, handle: Option<&str>| {
        let limits = Limits { rows: 5, page_bytes: 1 << 20, part_bytes: 1 << 20, most_bytes: 1 << 20, most_keys: 100 };
        now(Asked { shape: &client.shape, offset, handle }
            .answer(&scene.replica, &Means { limits, memory: budget(), kept: budget(), found: budget() }))
        .unwrap()
    };
    for (offset, handle) in [(client.offset, client.handle.as_deref()), (Offset::Start, None)] {
        let answer = ask(&scene, offset, handle);
        assert!(matches!(answer, Answer::Unready), "{offset}: {answer:?}");
    }
    scene.cut(false);
    assert!(matches!(ask(&scene, client.offset, client.handle.as_deref()), Answer::Refetch { .. }));
    assert!(matches!(ask(&scene, Offset::Start, None), Answer::Messages(_)));
}

#[test]
fn who_was_told_of_a_cut_that_a_replica_lost_before_anybody_looked_begins_anew() {
    let mut scene = Scene::new(2);
    assert!(scene.is_pulled);
    let table = scene.table.clone();
    let insert = |scene: &mut Scene, id: &str, v| {
        let row = vec![Cell::Text(id.into()), Cell::Text("a".into()), Cell::Integer(v), Cell::Real(0.5)];
        scene.rows.insert(name(&[row[0].clone(), row[3].clone()]), (Some("a".into()), v));
        scene.insert(&table, row, true);
    };
    insert(&mut scene, "kept", 1);
    scene.look();
    scene.fall_back(); // it is kept as it is now
    insert(&mut scene, "lost", 2);
    let mut client = Client::new(&table, "");
    arrive(&mut client, &mut scene);
    client.ask(&mut scene).unwrap();
    assert!(client.asked.is_some() && client.rows.len() == 2, "{:?} {:?}", client.asked, client.rows);
    let Offset::At(told, _) = client.offset else { panic!("{}", client.offset) };
    scene.fall_back(); // it is put back
    insert(&mut scene, "new", 3);
    while now(scene.replica.fed_cut("q")).unwrap() <= Some(told) {
        scene.cut(false);
    }
    scene.look();
    client.hear(&mut scene).unwrap();
    arrive(&mut client, &mut scene);
    assert_eq!(client.rows, client.wanted(&scene.rows));
}

/// What happens before one of the reads of a replica, by its number.
type Before = Box<dyn FnMut(&mut Scene, u64) + Send>;

/// A scene's database where something happens between two reads.
struct Between {
    memory: Memory,
    scene: Arc<Mutex<Scene>>,
    before: Mutex<(u64, Before)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Between {
    fn replica(scene: &Arc<Mutex<Scene>>, before: impl FnMut(&mut Scene, u64) + Send + 'static) -> Replica {
        let (memory, scene) = (locked(scene).memory.clone(), scene.clone());
        Replica::on(Box::new(Self { memory, scene, before: Mutex::new((0, Box::new(before))) }))
    }

    fn go_on(&self) {
        let (number, before) = &mut *locked(&self.before);
        *number += 1;
        before(&mut locked(&self.scene), *number);
    }
}

#[async_trait]
impl Store for Between {
    async fn query(&self, statement: Statement) -> error::Result<Found> {
        self.memory.query(statement).await
    }

    async fn read(&self, statement: Statement) -> error::Result<Found> {
        self.go_on();
        self.memory.read(statement).await
    }

    async fn read_together(&self, statements: Vec<Statement>) -> error::Result<Vec<Found>> {
        self.go_on();
        self.memory.read_together(statements).await
    }

    async fn write(&self, work: Work) -> error::Result<()> {
        self.memory.write(work).await
    }
}

/// Changes of one row, which is one of the table's from then on.
fn change(scene: &mut Scene, number: u64) {
    scene.version += 1;
    let (table, key, v) = (scene.table.clone(), key(number), scene.version);
    scene.rows.insert(name(&key), (Some("a".into()), v));
    let cells = vec![key[0].clone(), Cell::Text("a".into()), Cell::Integer(v), key[1].clone()];
    scene.insert(&table, cells, true);
}

/// A batch comes before each fourth read, and a part is of one row.
fn busy(scene: &Arc<Mutex<Scene>>) -> (Replica, Means) {
    let limits = Limits { rows: 1, page_bytes: 1, part_bytes: 1, most_bytes: 1 << 20, most_keys: 1_000 };
    let busy = Between::replica(scene, |scene, number| {
        if number.is_multiple_of(4) {
            change(scene, number % 2);
        }
    });
    (busy, Means { limits, memory: budget(), kept: budget(), found: budget() })
}

/// Where nobody waits for as long as it takes.
fn paused(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

/// One who has 40 rows.
fn client_of_many(scene: &mut Scene) -> Client {
    let mut client = Client::new(&scene.table, "org = 'a'");
    (0..40).for_each(|number| change(scene, number));
    arrive(&mut client, scene);
    assert!(matches!(client.offset, Offset::At(_, Walked::Done)));
    client
}

#[test]
fn whoever_is_overtaken_again_and_again_is_answered() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    paused(async {
        let scene = Arc::new(Mutex::new(Scene::new(1)));
        let mut client = client_of_many(&mut locked(&scene));
        (0..40).for_each(|number| change(&mut locked(&scene), number));
        let (busy, means) = busy(&scene);
        let asked = Asked { shape: &client.shape, offset: client.offset, handle: client.handle.as_deref() };
        let answer = asked.answer(&busy, &means).await.unwrap();
        assert!(matches!(answer, Answer::Messages(_)), "{answer:?}");
        client.answered(answer, &locked(&scene)).unwrap();
    });
}

#[test]
fn a_board_that_is_overtaken_again_and_again_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    paused(async {
        let scene = Arc::new(Mutex::new(Scene::new(1)));
        let mut client = client_of_many(&mut locked(&scene));
        client.waiting = locked(&scene).board.wait(&client.shape, None, &budget());
        locked(&scene).look();
        (0..40).for_each(|number| change(&mut locked(&scene), number));
        let board = locked(&scene).board.clone();
        let (busy, means) = busy(&scene);
        let before = (board.at(), client.arrivals);
        look_at(&board, &busy, None, &means).await.unwrap();
        assert!(board.at() > before.0, "it is where it was");
        let scene = &mut *locked(&scene);
        scene.board_rows = scene.cut.clone();
        client.hear(scene).unwrap();
        assert!(client.arrivals > before.1);
    });
}

/// What may happen between two reads.
fn happen(scene: &mut Scene, may_fall_back: bool) {
    match scene.dice.below(6) {
        0 | 1 => {
            let is_cut = scene.dice.one_in(2);
            scene.batch(is_cut);
        }
        2 => scene.cut(false),
        3 if scene.dice.one_in(10) => scene.restart(),
        3 if may_fall_back && scene.dice.one_in(5) => scene.fall_back(),
        _ => {}
    }
}

#[test]
fn whoever_is_overtaken_by_anything_holds_the_rows_of_its_shape() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    paused(async {
        let (first, schedules, mut arrivals) = (setting("FEED_SEED", 0), setting("FEED_SCHEDULES", 400), 0);
        for seed in first..first + schedules {
            let scene = Arc::new(Mutex::new(Scene::new(seed)));
            let mut clients = FILTERS.map(|filter| Client::new(&locked(&scene).table, filter));
            let may_fall_back = Arc::new(AtomicBool::new(false));
            let may = may_fall_back.clone();
            let replica = Between::replica(&scene, move |scene, _| happen(scene, may.load(Ordering::Relaxed)));
            for _ in 0..100 {
                // Of a walk nobody knows what it has come by in rows that are no more.
                let is_done = |client: &Client| matches!(client.offset, Offset::At(_, Walked::Done));
                may_fall_back.store(clients.iter().all(is_done), Ordering::Relaxed);
                let (at, means) = {
                    let dice = &mut locked(&scene).dice;
                    (dice.below(clients.len() as u64) as usize, means(dice))
                };
                let client = &mut clients[at];
                let asked = Asked { shape: &client.shape, offset: client.offset, handle: client.handle.as_deref() };
                let answer = asked.answer(&replica, &means).await.unwrap();
                let taken = client.answered(answer, &locked(&scene));
                taken.unwrap_or_else(|e| panic!("seed {seed}, {:?}: {e}", FILTERS[at]));
            }
            arrivals += clients.iter().map(|client| client.arrivals).sum::<u64>();
        }
        assert!(arrivals > 5 * schedules, "{arrivals} arrivals in {schedules} schedules");
    });
}
