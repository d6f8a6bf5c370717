//! A libSQL database in memory, for simulators and tests: the statements and transactions of a file without its disk,
//! its threads and its time. Every call is complete when it is polled first.

use super::engine;
use super::sqlite::{self, Connection, Failure};
use super::store::{Opener, Rows, Statement, Store, Work};
use crate::core::error::{Error, Result};
use async_trait::async_trait;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A database in memory. Its clones are stores of the same database, which goes with the last of them.
///
/// [`query`](Store::query) runs any one statement, also one that writes.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<Connection>>);

impl Memory {
    /// A new database, which is empty. Fails where memory is short.
    pub fn new() -> Result<Self> {
        let connection = opened().map_err(engine::classify)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// All that the database holds, for [`restore`](Self::restore), as a file would hold it. A transaction that
    /// a statement opened has to be ended before: of that there may be a part. Fails where memory is short.
    pub fn image(&self) -> Result<Vec<u8>> {
        self.connection().image().map_err(engine::classify)
    }

    /// Makes the database what it was when the image was made; all clones see it. Fails, and changes nothing, where the
    /// bytes are no database or one that keeps a log (WAL).
    pub fn restore(&self, image: &[u8]) -> Result<()> {
        let refused = |e: Failure| Error::halt(format!("the image cannot be restored: {e}"));
        // A connection of its own costs little, and what is open stays whole until the image has proved good.
        let mut restored = opened().map_err(engine::classify)?;
        restored.restore(image).map_err(refused)?;
        *self.connection() = restored;
        Ok(())
    }

    /// Also after somebody panicked with it: its statements are gone by then, and SQLite is whole between two calls.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With the one setting of a file's that matters here.
fn opened() -> std::result::Result<Connection, Failure> {
    let connection = Connection::open(Path::new(":memory:"), sqlite::CREATE)?;
    connection.run("PRAGMA foreign_keys = OFF", &[])?;
    Ok(connection)
}

#[async_trait]
impl Store for Memory {
    async fn query(&self, statement: Statement) -> Result<Rows> {
        engine::query(&self.connection(), &statement)
    }

    async fn read(&self, statement: Statement) -> Result<Rows> {
        self.query(statement).await
    }

    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        engine::read_together(&self.connection(), &statements)
    }

    async fn write(&self, work: Work) -> Result<()> {
        engine::write(&self.connection(), &work)
    }
}

#[async_trait]
impl Opener for Memory {
    async fn open(&self) -> Result<Box<dyn Store>> {
        Ok(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::ErrorKind;
    use crate::core::value::Cell;
    use futures_util::FutureExt as _;

    /// One statement, which must not wait for anything.
    fn run(store: &Memory, sql: &str) -> Result<Rows> {
        store.query(sql.to_owned().into()).now_or_never().unwrap()
    }

    fn write(store: &Memory, statements: &[&str]) -> Result<()> {
        let before = statements.iter().map(|sql| (*sql).to_owned().into()).collect();
        store.write(Work { before, ..Work::default() }).now_or_never().unwrap()
    }

    fn numbers(store: &Memory) -> Vec<i64> {
        let number = |row: Vec<Cell>| if let [Cell::Integer(n)] = row[..] { n } else { panic!("{row:?}") };
        run(store, "SELECT n FROM t ORDER BY n").unwrap().into_iter().map(number).collect()
    }

    fn with_one() -> Memory {
        let store = Memory::new().unwrap();
        write(&store, &["CREATE TABLE t (n INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).unwrap();
        store
    }

    #[test]
    fn a_transaction_is_written_whole_or_not_at_all_and_waits_for_nothing() {
        let store = with_one();
        let error = write(&store, &["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)"]).unwrap_err();
        assert_eq!((error.kind(), numbers(&store)), (&ErrorKind::Row, vec![1]));
        let opened = store.open().now_or_never().unwrap().unwrap();
        opened.query("INSERT INTO t VALUES (3)".to_owned().into()).now_or_never().unwrap().unwrap();
        assert_eq!(numbers(&store.clone()), [1, 3], "all stores of one database see the same");
        assert_eq!(
            run(&Memory::new().unwrap(), "SELECT * FROM t").unwrap_err().kind(),
            &ErrorKind::Schema,
            "and only they"
        );
    }

    #[test]
    fn an_image_brings_back_what_was_there_again_and_again() {
        let (store, empty) = (with_one(), Memory::new().unwrap().image().unwrap());
        let clone = store.clone();
        let one = store.image().unwrap();
        for _ in 0..3 {
            write(&store, &["INSERT INTO t VALUES (2)", "ALTER TABLE t ADD COLUMN v BLOB"]).unwrap();
            // More than the image has room for.
            run(&store, "UPDATE t SET v = zeroblob(1000000)").unwrap();
            let two = store.image().unwrap();
            clone.restore(&one).unwrap();
            assert_eq!(numbers(&store), [1]);
            store.restore(&two).unwrap();
            assert_eq!(run(&store, "SELECT sum(length(v)) FROM t").unwrap(), [[Cell::Integer(2_000_000)]]);
            assert_eq!(run(&store, "PRAGMA foreign_keys").unwrap(), [[Cell::Integer(0)]]);
            store.restore(&empty).unwrap();
            assert!(run(&store, "SELECT n FROM t").is_err());
            store.restore(&one).unwrap();
        }
        assert_eq!(store.image().unwrap(), one, "to the last byte");
    }

    #[test]
    fn what_is_no_image_is_refused_and_changes_nothing() {
        let store = with_one();
        let one = store.image().unwrap();
        let mut log = one.clone();
        log[18..20].fill(2); // of a file that keeps a log
        for bytes in [&b"no database"[..], &[7; 8192], &one[..50], &log] {
            let error = store.restore(bytes).unwrap_err();
            assert_eq!((error.kind(), numbers(&store)), (&ErrorKind::Halt, vec![1]), "{error}");
        }
        store.restore(&[]).unwrap();
        assert!(run(&store, "SELECT 1 FROM t").is_err(), "nothing at all is an empty database");
        write(&store, &["CREATE TABLE t (n)", "INSERT INTO t VALUES (5)"]).unwrap();
        assert_eq!(numbers(&store), [5]);
    }

    #[test]
    fn a_transaction_that_was_left_open_ends_with_what_is_restored() {
        let store = with_one();
        let one = store.image().unwrap();
        run(&store, "BEGIN").unwrap();
        run(&store, "INSERT INTO t VALUES (2)").unwrap();
        store.restore(&one).unwrap();
        write(&store, &["INSERT INTO t VALUES (3)"]).unwrap();
        assert_eq!(numbers(&store), [1, 3]);
    }
}
