//! The replica: a libSQL database, near or far. [`Store`] is the seam with its implementations
//! ([`local`], [`remote`], and [`memory`] for tests); [`Replica`] is what the use cases see: prepare, head,
//! apply, alter, reset. Knows nothing of Postgres or the queue.

pub mod address;
mod arrays;
pub mod change;
pub mod compare;
mod engine;
mod feed;
mod feed_log;
pub mod feed_reads;
pub mod feed_state;
mod feed_touched;
pub mod freshness;
pub mod head;
pub mod hrana;
pub mod inventory;
pub mod jobs;
mod keyed;
pub mod local;
pub mod memory;
pub(crate) mod outbox;
pub mod pulls;
mod refusal;
pub mod remote;
mod sqlite;
mod statements;
mod store;
mod strangers;
pub mod target;
mod unique;
mod words;

use crate::core::batch::Item;
use crate::core::error::{Error, Result};
use crate::core::position::{Entry, Head, Standing};
use crate::core::schema::{Schema, Table, ddl, quote};
use crate::core::token::Seen;
use crate::core::value::{Cell, Key};
use crate::replica::target::Target;
pub use feed_log::{Cut, RETENTION as FEED_RETENTION};
use freshness::{Feeds, Freshness, TableState};
use inventory::Inventory;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
pub(crate) use store::Encoded;
pub use store::{Opener, Rows, Statement, Store, Touching, Work};

/// Values that are looked for at once.
const HELD_VALUES: usize = 2_000;

/// The replica as the use cases see it.
pub struct Replica {
    store: Box<dyn Store>,
    /// Whether a batch was found again after it was said to be committed.
    keeps: AtomicBool,
    /// Columns that are rowids though not the key, which cannot hold NULL: SQLite would make a number up.
    rowids: RwLock<BTreeMap<String, usize>>,
    /// Columns, by position, of keys that tables declare beside that of `schema.json`.
    rivals: RwLock<BTreeMap<String, Arc<[usize]>>>,
    /// What clients are fed from.
    logging: feed_log::Logging,
}

impl Replica {
    /// Opens the replica at `target`. A file is created if it does not exist; a server is not asked yet; a
    /// store that is given is opened by whoever gives it.
    pub async fn open(target: &Target) -> Result<Self> {
        let store: Box<dyn Store> = match target {
            Target::File(path) => Box::new(local::Local::open(path).await?),
            Target::Remote { url, token } => Box::new(remote::Remote::new(url, token.clone())?),
            Target::Given(given) => given.open().await?,
        };
        Ok(Self::on(store))
    }

    /// The replica at `target` as it is, for whoever wants to look at it; `None` if its file is not there yet.
    pub async fn existing(target: &Target) -> Result<Option<Self>> {
        match target {
            Target::File(path) => Ok(local::Local::open_existing(path).await?.map(|store| Self::on(Box::new(store)))),
            Target::Remote { .. } | Target::Given(_) => Self::open(target).await.map(Some),
        }
    }

    /// A replica on any store.
    pub fn on(store: Box<dyn Store>) -> Self {
        Self {
            store,
            keeps: AtomicBool::new(false),
            rowids: RwLock::default(),
            rivals: RwLock::default(),
            logging: feed_log::Logging::default(),
        }
    }

    /// Whether it still is where it was opened, and at `head`; an answer may be an older one.
    pub(crate) async fn is_still_at(&self, head: &Head) -> Result<bool> {
        self.store.look().await?;
        Ok(self.head_read().await?.as_ref() == Some(head))
    }

    /// See [`Store::look`].
    pub async fn look(&self) -> Result<()> {
        self.store.look().await
    }

    /// Whether it answers, by a read of nothing.
    pub async fn ping(&self) -> Result<()> {
        self.store.read("SELECT 1".to_owned().into()).await.map(drop)
    }

    /// Reads with a query.
    pub async fn query(&self, sql: impl Into<String>, args: Vec<Cell>) -> Result<Rows> {
        self.store.query(Statement::new(sql, args)).await
    }

    /// Creates what is missing (bookkeeping, tables, indexes) and checks what is there: SQLite would
    /// take a mistyped column in a statement for a string. Columns that are missing are left to
    /// [`alter`](Self::alter): their values have to be brought too. Gives what was found.
    pub async fn prepare(&self, schema: &Schema) -> Result<Inventory> {
        let there = self.inventory().await?;
        self.complete(&there, schema).await?;
        Ok(there)
    }

    /// The same, knowing what is there.
    pub async fn complete(&self, there: &Inventory, schema: &Schema) -> Result<()> {
        let missing = self.lacks(there, schema)?;
        for index in there.misplaced(schema) {
            tracing::warn!(
                index,
                "this index is not made: the replica has one of that name on another table; drop that"
            );
        }
        *self.rowids.write().unwrap_or_else(PoisonError::into_inner) = there.rowids(schema);
        *self.rivals.write().unwrap_or_else(PoisonError::into_inner) = there.rivals(schema);
        if !missing.is_empty() {
            tracing::info!(replica.statements = missing.len(), "creating what the replica lacks");
        }
        // One that somebody dropped is another than clients were told of.
        let is_missing = |table: &&str| !there.tables.contains_key(&table.to_lowercase());
        let made: Vec<&str> = schema.tables().map(|table| table.name.as_str()).filter(is_missing).collect();
        if !made.is_empty() {
            self.break_feed(Some(&made)).await?;
        }
        // Each for itself: what is made stays made, and nobody is kept out for longer than by one.
        for statements in missing {
            self.store.write(Work { before: statements, is_long: true, ..Work::default() }).await?;
        }
        Ok(())
    }

    /// Gives the bookkeeping of an older version what it lacks; what is there then.
    pub(crate) async fn upgraded(&self, there: Inventory) -> Result<Inventory> {
        let before = there.upgrade();
        if before.is_empty() {
            return Ok(there);
        }
        self.store.write(Work { before, ..Work::default() }).await?;
        self.inventory().await
    }

    /// What the replica lacks: all tables first, then the indexes one by one. Refuses what differs.
    pub fn lacks(&self, there: &Inventory, schema: &Schema) -> Result<Vec<Vec<Statement>>> {
        there.check(schema)?;
        let (mut tables, mut indexes): (Vec<Statement>, Vec<Vec<Statement>>) = Default::default();
        if !there.has_bookkeeping() {
            tables.extend(head::create());
        }
        tables.extend(there.upgrade());
        for table in schema.tables() {
            let is_there = there.tables.contains_key(&table.name.to_lowercase());
            if !is_there {
                tables.push(ddl::create_table(table).into());
            }
            let lacks = |i: &usize| there.column(&table.name, &table.columns[*i].name).is_none();
            for index in table.indexes.iter().filter(|index| !(is_there && index.iter().any(lacks))) {
                if !there.indexes.contains_key(&ddl::index_name(table, index).to_lowercase()) {
                    indexes.push(vec![ddl::create_index(table, index).into()]);
                }
            }
        }
        Ok(std::iter::once(tables).chain(indexes).filter(|statements| !statements.is_empty()).collect())
    }

    /// Gives a table the unique index over its key that it lacks, in a transaction of its own: on a large table this
    /// takes its time. Rows that share their key with a younger one, or have none, go.
    pub(crate) async fn make_key(&self, there: &Inventory, table: &Table) -> Result<()> {
        let fed = self.breaking_feed(Some(&[&table.name])).await?.into_iter();
        let before = fed.chain(there.make_key(table).into_iter().map(Statement::from)).collect();
        self.store.write(Work { before, is_long: true, ..Work::default() }).await
    }

    /// Drops our index over a key that is no longer the table's.
    pub(crate) async fn drop_key(&self, table: &Table) -> Result<()> {
        let before = vec![ddl::drop_key_index(table).into()];
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// Removes rows whose key is NULL, which nobody can ask for: SQLite lets such into a key that is not declared
    /// NOT NULL. How many there were.
    pub(crate) async fn remove_keyless(&self, table: &Table) -> Result<i64> {
        let [count, delete] = keyed::without_key(table);
        let rows = self.number(count).await?;
        if rows > 0 {
            let before = self.breaking_feed(Some(&[&table.name])).await?.into_iter().chain([delete]).collect();
            self.store.write(Work { before, ..Work::default() }).await?;
        }
        Ok(rows)
    }

    /// How many rows [`make_key`](Self::make_key) would remove.
    pub(crate) async fn count_surplus(&self, table: &Table) -> Result<i64> {
        self.number(keyed::count_surplus(table)).await
    }

    /// The columns, by position, of the key that the replica's table declares beside that of `schema.json`.
    pub(crate) fn rival(&self, table: &Table) -> Option<Arc<[usize]>> {
        self.rivals.read().unwrap_or_else(PoisonError::into_inner).get(&table.name).cloned()
    }

    /// The rows whose columns `rival` have one of these values: their key, and the value.
    pub(crate) async fn holders(
        &self,
        table: &Table,
        rival: &[usize],
        values: impl Iterator<Item = &Vec<Cell>>,
    ) -> Result<Vec<(Key, Vec<Cell>)>> {
        let values: Vec<&Vec<Cell>> = values.collect();
        let mut holders = Vec::new();
        for part in values.chunks(HELD_VALUES / rival.len().max(1)) {
            let rows = self.store.query(keyed::holders(table, rival, part)).await?;
            holders.extend(rows.into_iter().map(|mut row| {
                let held = row.split_off(table.key.len().min(row.len()));
                (row, held)
            }));
        }
        Ok(holders)
    }

    async fn number(&self, count: Statement) -> Result<i64> {
        match self.store.query(count).await?.first().map(Vec::as_slice) {
            Some([Cell::Integer(rows)]) => Ok(*rows),
            _ => Err(Error::retry("the replica's count of its rows cannot be understood; it will be asked again")),
        }
    }

    /// Checks that a database that is only read has the tables, without asking whom it copies.
    pub(crate) async fn check_readable(&self, schema: &Schema) -> Result<()> {
        let there = self.inventory_read().await?;
        if !there.has_bookkeeping() {
            return Err(Error::halt(
                "the database to verify has no bookkeeping of pgflume: it must be the replica or a copy of it",
            ));
        }
        match schema.tables().find(|t| !there.tables.contains_key(&t.name.to_lowercase())) {
            Some(table) => Err(Error::halt(format!("the database to verify has no table {:?}", table.name))),
            None => there.check(schema),
        }
    }

    /// What the database has.
    pub async fn inventory(&self) -> Result<Inventory> {
        let mut there = Inventory::read(self.query(inventory::SELECT, Vec::new()).await?);
        if there.column("_pgflume_head", "captured").is_some() {
            there.captured = captured(self.query(head::SELECT_CAPTURED, Vec::new()).await?);
        }
        Ok(there)
    }

    /// The same by a plain read, which writes nothing and takes no lock.
    pub(crate) async fn inventory_read(&self) -> Result<Inventory> {
        let read = async |sql| self.store.read(Statement::new(sql, Vec::new())).await;
        let mut there = Inventory::read(read(inventory::SELECT).await?);
        if there.column("_pgflume_head", "captured").is_some() {
            there.captured = captured(read(head::SELECT_CAPTURED).await?);
        }
        Ok(there)
    }

    /// Alters tables, in one transaction, if the head is still `head`.
    pub async fn alter(&self, head: &Head, statements: Vec<String>) -> Result<()> {
        let fence = std::iter::once(head::assert_at(Some(head)));
        let fed = self.breaking_feed(None).await?;
        let before = fence.chain(fed).chain(statements.into_iter().map(Statement::from)).collect();
        self.store.write(Work { before, is_long: true, ..Work::default() }).await
    }

    /// Where the replica stands; `None` if it was never paired with a queue.
    pub async fn head(&self) -> Result<Option<Head>> {
        head::position(self.query(head::SELECT_HEAD, Vec::new()).await?)
    }

    /// The same, and whose it is.
    pub(crate) async fn standing(&self) -> Result<Standing> {
        head::standing(self.query(head::SELECT_STANDING, Vec::new()).await?)
    }

    /// The same by a plain read; it may be an older answer.
    pub(crate) async fn standing_read(&self) -> Result<Standing> {
        head::standing(self.store.read(Statement::new(head::SELECT_STANDING, Vec::new())).await?)
    }

    /// The same of a replica whose bookkeeping an older version made.
    pub(crate) async fn standing_before(&self, is_plain: bool) -> Result<Standing> {
        head::standing(match is_plain {
            true => self.store.read(Statement::new(head::SELECT_OWNED, Vec::new())).await?,
            false => self.query(head::SELECT_OWNED, Vec::new()).await?,
        })
    }

    /// Says whose the replica is and which tables are captured, if it still is at `head`.
    pub async fn sign(&self, head: &Head, owner: &str, captured: &BTreeSet<String>) -> Result<()> {
        let before = vec![head::assert_at(Some(head)), head::sign(owner), head::remember(captured)];
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// Where the replica stands, by a plain read, which a read replica answers by itself.
    pub(crate) async fn head_read(&self) -> Result<Option<Head>> {
        head::position(self.store.read(Statement::new(head::SELECT_HEAD, Vec::new())).await?)
    }

    /// The batches that led from `from` to `to`, oldest first. Not what may have come since `to` was read.
    pub async fn ledger_between(&self, from: &Head, to: &Head) -> Result<Vec<Entry>> {
        let rows = self.query(head::SELECT_LEDGER, vec![Cell::Integer(from.seq), Cell::Integer(to.seq)]).await?;
        rows.into_iter().map(head::entry).collect()
    }

    /// Drops the bookkeeping: for a head that cannot be read.
    pub async fn forget(&self) -> Result<()> {
        let before = head::TABLES.iter().map(|name| format!("DROP TABLE IF EXISTS {name}").into()).collect();
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// When the replica last caught up, and what it last applied.
    pub async fn freshness(&self) -> Result<Rows> {
        self.query(freshness::SELECT, Vec::new()).await
    }

    /// Applies `work` as the batch that leads from `from` to `entry`, or changes nothing if the head is
    /// anywhere else (`Unknown`: read it). The ledger keeps what comes after `acknowledged`.
    pub async fn apply(
        &self,
        from: &Head,
        entry: &Entry,
        acknowledged: i64,
        sync: Feeds<'_>,
        freshness: &Freshness,
        mut work: Work,
    ) -> Result<()> {
        self.check_rowids(work.items())?;
        work.before.insert(0, head::advance(from, &entry.head));
        let cut = freshness.is_caught_up.then(|| Cut { at: freshness.checked_at.clone(), ..Cut::default() });
        // What no message names is a copy.
        let unchanged = match entry.provenance.is_empty() {
            true => self.unchanged(from.into(), work.items()).await?,
            false => BTreeSet::new(),
        };
        self.logging.add(&mut work, sync, (from, &entry.head), cut.as_ref(), &unchanged);
        work.after.extend(head::record(entry, acknowledged));
        work.after.extend(freshness.record(sync, &entry.head.epoch));
        self.store.write(work).await?;
        self.logging.added(cut.as_ref());
        // Once is enough: it costs a request.
        if !self.keeps.load(Ordering::Relaxed) {
            self.check_kept(&entry.head).await?;
            self.keeps.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Says how fresh a queue's replica is and what its tables are doing, if it still is at `head`. Moves nothing.
    pub async fn tell(
        &self,
        head: &Head,
        sync: Feeds<'_>,
        freshness: Option<&Freshness>,
        states: &[TableState],
    ) -> Result<()> {
        let mut before = freshness::queue_states(sync, states, head);
        before.extend(freshness.into_iter().flat_map(|freshness| freshness.beat(sync, head)));
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// What a sync's replica has seen when it last was as the source was, by a plain read; `None` if it never was.
    pub async fn seen(&self, name: &str) -> Result<Option<Seen>> {
        let rows = self.store.read(Statement::new(freshness::SELECT_SEEN, vec![Cell::Text(name.to_owned())])).await?;
        let Some([Cell::Integer(xmin), Cell::Integer(xmax), Cell::Text(running)]) = rows.first().map(Vec::as_slice)
        else {
            return Ok(None);
        };
        let running = serde_json::from_str(running).map_err(|_| {
            Error::side("the replica's table _pgflume_syncs is damaged: drop it, and the next drain makes it anew")
        })?;
        Ok(Some(Seen { xmin: *xmin, xmax: *xmax, running }))
    }

    /// Whether what was said to be committed is there: something that answers as a server need not be one.
    async fn check_kept(&self, to: &Head) -> Result<()> {
        match self.head().await? {
            Some(head) if head == *to => Ok(()),
            Some(head) if head.epoch == to.epoch && head.seq > to.seq => Err(head::fenced()),
            other => Err(Error::side(format!(
                "the replica says that it committed batch {}, and has not kept it ({}): what answers at LIBSQL_URL is no libSQL database, or one that loses writes; nothing was taken off the queue",
                to.seq,
                other.map_or("it has no head".to_owned(), |head| format!("its head is at batch {}", head.seq))
            ))),
        }
    }

    /// What SQLite would not refuse by itself.
    fn check_rowids(&self, items: &[Item]) -> Result<()> {
        let rowids = self.rowids.read().unwrap_or_else(PoisonError::into_inner);
        if rowids.is_empty() {
            return Ok(());
        }
        let lacks = |item: &&Item| rowids.get(&item.table.name).is_some_and(|at| item.sets_null(*at));
        match items.iter().find(lacks) {
            None => Ok(()),
            Some(item) => Err(Error::reject(format!(
                "the replica's table {:?} numbers its rows by the column {:?}, which cannot be NULL there: POST /nuke makes the table anew",
                item.table.name, item.table.columns[rowids[&item.table.name]].name
            ))),
        }
    }

    /// See [`Store::encode`].
    pub async fn encode(&self, items: &Arc<Vec<Item>>) -> Encoded {
        self.store.encode(items).await
    }

    /// Makes `to` the head and the replica `owner`'s, coming from `from` (`None`: no head yet), and, where `rebuild`
    /// is given, drops and recreates its tables in the same transaction.
    pub async fn reset(
        &self,
        from: Option<&Head>,
        to: &Head,
        (sync, owner): (Feeds<'_>, &str),
        rebuild: Option<&Schema>,
    ) -> Result<()> {
        let mut before = head::create();
        before.extend(self.inventory().await?.upgrade());
        before.push(head::assert_at(from));
        before.extend(self.breaking_feed(None).await?);
        before.extend(head::replace(to, owner, sync));
        if let Some(schema) = rebuild {
            before.push(head::remember(&BTreeSet::new()));
            for table in schema.tables() {
                before.push(ddl::drop_table(table).into());
                before.push(ddl::create_table(table).into());
                before.extend(table.indexes.iter().map(|index| ddl::create_index(table, index).into()));
            }
        }
        self.store.write(Work { before, is_long: rebuild.is_some(), ..Work::default() }).await?;
        self.check_kept(to).await
    }

    /// Whether a table has no row.
    pub(crate) async fn is_empty(&self, table: &Table) -> Result<bool> {
        Ok(self.empty_of(&[table]).await?.contains(&table.name))
    }

    /// Those of some tables, 500 at most (SQLite's limit of terms), that have no row.
    pub(crate) async fn empty_of(&self, tables: &[&Table]) -> Result<BTreeSet<String>> {
        let one = |(i, table): (usize, &&Table)| {
            format!("SELECT ?{} WHERE NOT EXISTS (SELECT 1 FROM {})", i + 1, quote(&table.name))
        };
        let sql = tables.iter().enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ");
        let names = tables.iter().map(|table| Cell::Text(table.name.clone())).collect();
        let rows = self.store.query(Statement::new(&sql, names)).await?;
        let name = |row: Vec<Cell>| match row.into_iter().next() {
            Some(Cell::Text(name)) => Ok(name),
            _ => Err(Error::retry("the replica's answer names no table; it will be asked again")),
        };
        rows.into_iter().map(name).collect()
    }

    /// A page of the replica's keys of `table` after `after`, in key order.
    pub async fn keys_after(&self, table: &Table, after: Option<&Key>, limit_rows: i64) -> Result<Vec<Key>> {
        self.store.query(keys_after(table, after, limit_rows)).await
    }

    /// The same by a plain read.
    pub(crate) async fn read_keys_after(
        &self,
        table: &Table,
        after: Option<&Key>,
        limit_rows: i64,
    ) -> Result<Vec<Key>> {
        self.store.read(keys_after(table, after, limit_rows)).await
    }
}

fn captured(mut rows: Rows) -> BTreeSet<String> {
    head::captured(rows.first_mut().and_then(Vec::pop))
}

fn keys_after(table: &Table, after: Option<&Key>, limit_rows: i64) -> Statement {
    let (keys, order, name) = (ddl::key_list(table), ddl::exact_key_list(table), quote(&table.name));
    let (filter, mut args) = match after {
        None => (String::new(), Vec::new()),
        Some(key) => (format!("WHERE ({keys}) > ({})", statements::key_marks(table, 1)), key.clone()),
    };
    args.push(Cell::Integer(limit_rows));
    Statement::new(format!("SELECT {keys} FROM {name} {filter} ORDER BY {order} LIMIT ?{}", args.len()), args)
}

#[cfg(test)]
mod tests;
