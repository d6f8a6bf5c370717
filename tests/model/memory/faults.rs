//! What the server in memory does that a test cannot do to a real one at will: crashes, restores, lost connections.

use super::engine::{Failure, Lock, Wait};
use super::link::{Memory, Network};
use super::postgres::{Postgres, Restored};
use super::tables::{Row, rows_of};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use pgflume::core::error::{Cause, Error, Result};
use pgflume::core::message::{self, Message};
use pgflume::core::position::Head;
use pgflume::core::schema::{Column, ColumnType, Schema};
use pgflume::core::value::Cell;
use pgflume::postgres::Purpose;
use pgflume::postgres::catalog::Access;
use pgflume::postgres::link::{Begun, Connect, Link, Savepoint};
use pgflume::postgres::queue::{Paused, Take, TakenMessages};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SCHEMA: &str = r#"{"marked":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"evolve":true},
    "imaged":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"INTEGER","v":"TEXT"}}}"#;

const SECOND: Wait = Wait::For(Duration::from_secs(1));

fn memory() -> Memory {
    Memory::new(Postgres::new(Arc::new(Schema::parse(SCHEMA).unwrap()), &["marked"]))
}

fn row(id: i64, v: &str) -> Row {
    Row::new(vec![Cell::Integer(id), Cell::Text(v.into())])
}

fn pair(a: &str, b: i64, v: &str) -> Row {
    Row::new(vec![Cell::Text(a.into()), Cell::Integer(b), Cell::Text(v.into())])
}

async fn open(memory: &Memory) -> Box<dyn Link> {
    let link = memory.connect(Purpose::Step).await.unwrap();
    link.ensure().await.unwrap();
    link
}

async fn take(link: &dyn Link) -> Result<TakenMessages> {
    let paused = Paused::default();
    let take = Take { after: 0, paused: &paused, limit: 9, keeps: false, as_bytes: false, most_bytes: 1 << 20 };
    link.take(take, &mut |_| {}).await
}

#[tokio::test(start_paused = true)]
async fn images_tell_a_row_as_it_was_and_as_it_is() {
    let memory = memory();
    let postgres = &memory.postgres;
    postgres.put("imaged", pair("x", 1, "old")).await.unwrap();
    postgres.put("imaged", pair("x", 1, "new")).await.unwrap();
    let mut writer = postgres.writer();
    assert!(writer.rekey("imaged", &["x".into(), "1".into()], pair("y", 1, "new")).await.unwrap());
    assert!(!writer.rekey("imaged", &["x".into(), "1".into()], pair("z", 1, "new")).await.unwrap());
    writer.commit(true).unwrap();
    postgres.delete("imaged", &["y".into(), "1".into()]).await.unwrap();
    let parsed = postgres.queue().into_iter().map(|(_, message)| {
        match message::parse(message.text.as_ref().unwrap(), postgres.schema()).unwrap() {
            Message::Image(_, change, _) => (
                change.gone.map(|key| key[0].clone()),
                change.row.map(|(key, _, cells)| (key[0].clone(), cells[2].clone())),
            ),
            other => panic!("{other:?}"),
        }
    });
    let text = |text: &str| Cell::Text(text.into());
    let expected = [
        (None, Some((text("x"), text("old")))),
        (None, Some((text("x"), text("new")))),
        (Some(text("x")), Some((text("y"), text("new")))),
        (Some(text("y")), None),
    ];
    assert_eq!(parsed.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_flushed_is_lost_with_its_message() {
    let memory = memory();
    let (link, postgres) = (open(&memory).await, &memory.postgres);
    let mut writer = postgres.writer();
    writer.put("marked", row(1, "quick")).await.unwrap();
    writer.commit(false).unwrap();
    link.begin(&[]).await.unwrap();
    let snapshot = link.lock().await.unwrap().unwrap();
    let position = link.wal_position().await.unwrap();
    assert!(!link.is_flushed(&position).await.unwrap());
    assert!(!take(link.as_ref()).await.unwrap().messages.is_empty());
    postgres.crash();
    let lost = link.commit().await.unwrap_err();
    assert_eq!((lost.sqlstate(), lost.cause()), (None, None));
    assert!(postgres.rows("marked").is_empty() && postgres.queue().is_empty());
    let again = open(&memory).await.look().await.unwrap();
    assert_eq!(again.identity, snapshot.identity);
    let id = postgres.send(None).await.unwrap();
    assert_eq!(id, 2, "a sequence goes on");
}

#[tokio::test(start_paused = true)]
async fn a_restored_server_is_another() {
    let memory = memory();
    let postgres = &memory.postgres;
    open(&memory).await;
    let early = postgres.put("marked", row(1, "old")).await.unwrap();
    postgres.put("marked", row(1, "new")).await.unwrap();
    let before = open(&memory).await.look().await.unwrap();
    let moved = async |how| {
        assert_eq!(postgres.restore(early, how), early);
        let after = open(&memory).await.look().await.unwrap();
        let is_other = after.identity.is_other_than(&before.identity);
        (is_other, after.identity.has_moved_since(&before.identity), after.owner == before.owner)
    };
    assert_eq!(moved(Restored::Same).await, (false, false, true));
    assert_eq!(moved(Restored::Timeline).await, (false, true, true));
    assert_eq!(moved(Restored::Other).await, (true, true, false));
    assert_eq!((postgres.rows("marked")[0].cells[1].as_text(), postgres.queue().len()), (Some("old"), 1));
    postgres.recreate_queue(SECOND).await.unwrap();
    assert!(postgres.queue().is_empty() && postgres.losses().is_empty());
    assert_eq!(postgres.send(None).await, Ok(1));
    let other = open(&memory).await.look().await.unwrap().identity;
    assert!(other.queue != before.identity.queue && other.is_other_than(&before.identity));
    assert_eq!(postgres.promote(), postgres.now());
}

#[tokio::test(start_paused = true)]
async fn a_table_that_may_not_be_read_says_so_at_once() {
    let memory = memory();
    let (link, postgres) = (open(&memory).await, &memory.postgres);
    let known = link.known().await.unwrap();
    let (source, keys) = (&known.sources["marked"], [vec!["1".to_owned()]]);
    link.begin(&[source]).await.unwrap();
    link.lock().await.unwrap().unwrap();
    link.savepoint(Savepoint::Read, None).await.unwrap();
    postgres.drop_access("marked").await.unwrap();
    let refused = link.read(source, &keys, false).await.err().unwrap();
    assert_eq!((refused.sqlstate(), refused.cause()), (Some("42501"), Some(Cause::Table)));
    link.rollback_to(Savepoint::Read).await.unwrap();
    assert_eq!(link.fingerprint().await.unwrap(), known.fingerprint, "as of the snapshot");
    link.rollback().await.unwrap();
    assert!(link.begin(&[source]).await.is_err());
    link.rollback().await.unwrap();
    let now = link.known().await.unwrap();
    assert_eq!(now.sources["marked"].access, Access::Forbidden);
    postgres.restore_access("marked").await.unwrap();
    let again = link.known().await.unwrap();
    assert!(again.fingerprint != known.fingerprint && again.sources["marked"].is_marked());
}

#[tokio::test(start_paused = true)]
async fn an_added_column_is_followed() {
    let memory = memory();
    let (link, postgres) = (open(&memory).await, &memory.postgres);
    postgres.put("marked", row(1, "x")).await.unwrap();
    let before = link.known().await.unwrap();
    let more = Column { name: "n".into(), kind: ColumnType::Integer };
    postgres.add_column("marked", more, Cell::Integer(7), SECOND).await.unwrap();
    let known = link.known().await.unwrap();
    assert_eq!(known.schema.get("marked").unwrap().columns.len(), 3);
    for (known, width) in [(before, 2), (known, 3)] {
        let source = &known.sources["marked"];
        link.begin(&[source]).await.unwrap();
        let rows: Vec<_> = link.page(source, None, 9).await.unwrap().try_collect().await.unwrap();
        let cells = &rows[0].as_ref().unwrap().1;
        assert_eq!((cells.len(), cells.get(2)), (width, (width == 3).then_some(&Cell::Integer(7))));
        link.rollback().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_locked_is_free_when_who_held_it_goes() {
    let memory = memory();
    let (link, postgres) = (open(&memory).await, &memory.postgres);
    let known = link.known().await.unwrap();
    let source = &known.sources["marked"];
    let held = postgres.lock("marked", Lock::AccessExclusive, SECOND).await.unwrap();
    assert_eq!(link.begin(&[source]).await.unwrap(), Begun::TableTaken);
    held.release();
    let mut writer = postgres.writer();
    writer.put("marked", row(1, "x")).await.unwrap();
    let mut other = postgres.writer();
    other.set_wait(Wait::No);
    assert_eq!(other.put("marked", row(1, "y")).await, Err(Failure::Locked));
    assert_eq!(other.put("marked", row(2, "y")).await, Err(Failure::Aborted));
    postgres.engine().end(writer.id());
    assert_eq!(writer.put("marked", row(3, "x")).await, Err(Failure::Gone));
    postgres.put("marked", row(1, "y")).await.unwrap();
    assert_eq!((postgres.purge().await.unwrap(), postgres.losses().len()), (1, 1));
    assert_eq!(postgres.engine().committed(&rows_of("marked")).len(), 1);
}

/// Loses the answer, or the request, of the calls of this name.
struct Losing(Mutex<(&'static str, bool)>, AtomicUsize);

impl Losing {
    fn pass(&self, call: &'static str, is_answer: bool) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        match *self.0.lock().unwrap() == (call, is_answer) {
            true => Err(Error::unknown("lost")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Network for Losing {
    async fn request(&self, _: Purpose, call: &'static str) -> Result<()> {
        self.pass(call, false)
    }

    async fn answer(&self, _: Purpose, call: &'static str) -> Result<()> {
        self.pass(call, true)
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_one() {
    for is_answer in [false, true] {
        let mut memory = memory();
        let network = Arc::new(Losing(Mutex::new(("commit", is_answer)), AtomicUsize::new(0)));
        memory.network = Some(network.clone());
        let link = open(&memory).await;
        link.begin(&[]).await.unwrap();
        let snapshot = link.lock().await.unwrap().unwrap();
        let head = Head { epoch: "e".into(), seq: 1, token: String::new() };
        link.advance(&head, &snapshot.identity, true).await.unwrap();
        link.commit().await.unwrap_err();
        assert!(link.ping().await.is_err(), "the connection is gone");
        assert_eq!(memory.postgres.progress().unwrap().epoch.is_some(), is_answer);
        assert!(open(&memory).await.begin(&[]).await.is_ok());
        assert!(network.1.load(Ordering::Relaxed) > 10);
    }
}

/// No measurement: but steps whose time grows with the history behind them would take longer than this.
#[tokio::test(start_paused = true)]
async fn a_step_is_quick_however_long_the_history_is() {
    let memory = memory();
    let (link, postgres) = (open(&memory).await, &memory.postgres);
    let known = link.known().await.unwrap();
    let source = &known.sources["marked"];
    let begun = std::time::Instant::now();
    for i in 0..2_000 {
        postgres.put("marked", row(i % 7, &i.to_string())).await.unwrap();
        link.begin(&[source]).await.unwrap();
        let snapshot = link.lock().await.unwrap().unwrap();
        link.fingerprint().await.unwrap();
        link.savepoint(Savepoint::Take, None).await.unwrap();
        let taking = take(link.as_ref()).await.unwrap();
        assert_eq!(taking.messages.len(), 1);
        assert!(!link.has_any().await.unwrap());
        link.savepoint(Savepoint::Read, None).await.unwrap();
        let keys = [vec![(i % 7).to_string()]];
        let found: Vec<_> = link.read(source, &keys, false).await.unwrap().try_collect().await.unwrap();
        assert!(found[0].cells.is_some());
        link.release(Savepoint::Read).await.unwrap();
        link.release(Savepoint::Take).await.unwrap();
        let head = Head { epoch: "e".into(), seq: i, token: String::new() };
        link.advance(&head, &snapshot.identity, true).await.unwrap();
        link.commit().await.unwrap();
    }
    let took = begun.elapsed();
    println!("{:?} a step", took / 2_000);
    assert!(took < Duration::from_secs(10), "{took:?}");
}
