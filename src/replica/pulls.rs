//! What the replica keeps of syncs that pull: how far each of their tables is, beside the rows and in the same
//! transaction, so that a replica that falls back brings its older place along. One row a sync is the fence: the first
//! statement of each of its transactions compares and sets it, as [`head`](super::head) does for a queue. The SQL, and
//! what is read of it.

use super::freshness::{self, Feeds, Freshness, TableState};
use super::head::{At, fenced};
use super::jobs::{self, Leased};
use super::store::{Rows, Statement, Work};
use super::{Cut, Inventory, Replica, outbox};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::event::Event;
use crate::core::message::MarkedKey;
use crate::core::position::Head;
use crate::core::schema::literal;
use crate::core::token::Seen;
use crate::core::value::Cell;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The tables that it makes.
pub const TABLES: [&str; 3] = ["_pgflume_pulls", "_pgflume_owners", "_pgflume_dead"];

const CREATE: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS _pgflume_pulls (name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, \
     token TEXT NOT NULL, source TEXT, caught_up_at TEXT, applied_at TEXT)",
    "CREATE TABLE IF NOT EXISTS _pgflume_owners (\"table\" TEXT PRIMARY KEY COLLATE NOCASE, sync TEXT NOT NULL, definition TEXT, \
     since TEXT, until TEXT, place TEXT, rows INTEGER, problem TEXT, compared_at TEXT)",
    "CREATE TABLE IF NOT EXISTS _pgflume_dead (id INTEGER PRIMARY KEY AUTOINCREMENT, sync TEXT NOT NULL, \
     \"table\" TEXT NOT NULL, \"key\" TEXT NOT NULL, class TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, \
     UNIQUE (sync, \"table\", \"key\"))",
];

/// A sync that pulls, as the replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Where it is.
    pub head: Head,
    /// What it read last, in the provider's words.
    pub source: Option<String>,
    /// The source's clock when its tables last equalled the source.
    pub caught_up_at: Option<String>,
    /// Its tables.
    pub tables: BTreeMap<String, PulledTable>,
    /// When all rows of a table were last compared, by the replica's clock.
    pub compared: BTreeMap<String, String>,
    /// Keys of rows that could not be taken over, by table, and which part refused them.
    pub dead: BTreeMap<String, BTreeMap<MarkedKey, String>>,
}

/// How far a pulled table is. Marks and places are texts of the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PulledTable {
    /// By what definition its rows were read; `None`: none was.
    pub definition: Option<String>,
    /// All up to this mark is there; `None`: everything is to be read.
    pub since: Option<String>,
    /// The mark that `since` becomes at the end of the pass in hand: that of its first view.
    pub until: Option<String>,
    /// How far that pass is.
    pub place: Option<String>,
    /// Rows that it has, as last counted.
    pub rows: Option<i64>,
    /// Why it is not read, with the remedy.
    pub problem: Option<String>,
}

/// A row that could not be taken over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its table.
    pub table: String,
    /// Its key, as the source writes it.
    pub key: MarkedKey,
    /// Which part refused it: `value`, `source` or `target`.
    pub class: &'static str,
    /// Why, with the remedy.
    pub reason: String,
}

/// A letter that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its number.
    pub id: i64,
    /// Since when, by the replica's clock.
    pub at: String,
    /// Its table.
    pub table: String,
    /// Its key, as the source writes it.
    pub key: MarkedKey,
    /// Which part refused it; `retry` where the next pass tries it again.
    pub class: String,
    /// Why, with the remedy.
    pub reason: String,
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterChoice {
    /// Their numbers; all where none is given.
    pub ids: Vec<i64>,
    /// Those of this table.
    pub table: Option<String>,
}

/// What a transaction of a pull changes beside the rows.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What was read.
    pub source: Option<String>,
    /// The source's clock, if all tables equal it then.
    pub caught_up_at: Option<String>,
    /// How far these tables are now.
    pub tables: BTreeMap<String, PulledTable>,
    /// Tables of which every row is compared with the source by now.
    pub compared: BTreeSet<String>,
    /// Rows that could not be taken over.
    pub letters: Vec<Letter>,
    /// Rows that could, or are gone: their letters go.
    pub covered: Vec<(String, MarkedKey)>,
    /// The job that this is for.
    pub job: Option<Leased>,
    /// What was looked at last.
    pub looked: Looked,
    /// It is another history: nothing is known to equal it.
    pub forgets: bool,
    /// What others are to be told of.
    pub events: Vec<Event>,
    /// With it tables equal the source: clients can be told of all that was written since the last cut.
    pub cut: Option<Cut>,
}

/// What a pull has looked at, for readers of the replica.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// The source's clock at its last view.
    pub at: Option<String>,
    /// What that sees, where the source can tell.
    pub seen: Option<Seen>,
    /// What each table copies.
    pub sources: BTreeMap<String, Copied>,
}

/// What a table copies, as readers are told.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    /// The source's table.
    pub source: String,
    /// The declared type of each column, as a JSON object, where the source tells.
    pub types: Option<String>,
}

impl Inventory {
    /// Whether it has the bookkeeping of pulls.
    pub(crate) fn has_pulls(&self) -> bool {
        TABLES.iter().all(|name| self.tables.contains_key(*name))
    }
}

impl Replica {
    /// Makes `name` a sync of this replica, and the owner of these tables; where it stands. Refuses tables of another,
    /// unless it may `adopt` them: then they are read anew.
    pub async fn claim(&self, name: &str, start: &Head, tables: &[&str], adopt: bool) -> Result<Pull> {
        let readable = freshness::CREATE_ONE.into_iter().chain(freshness::CREATE);
        let mut before: Vec<Statement> = CREATE.into_iter().chain(readable).map(|sql| sql.to_owned().into()).collect();
        before.push(Statement::new(
            "INSERT INTO _pgflume_syncs (name, kind) VALUES (?1, 'pull') ON CONFLICT (name) DO NOTHING",
            vec![text(name)],
        ));
        before.push(Statement::new(
            "INSERT INTO _pgflume_pulls (name, epoch, seq, token) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO NOTHING",
            vec![text(name), text(&start.epoch), Cell::Integer(start.seq), text(&start.token)],
        ));
        // Another owner makes NULL of it, which fails.
        if adopt {
            before.extend(self.unfeeding(tables).await?);
            let give = "DELETE FROM _pgflume_owners WHERE \"table\" = ?1 AND sync <> ?2";
            before.extend(tables.iter().map(|table| Statement::new(give, vec![text(table), text(name)])));
        }
        let own = "INSERT INTO _pgflume_owners (\"table\", sync) VALUES (?1, ?2) ON CONFLICT (\"table\") DO UPDATE \
                   SET sync = CASE WHEN sync = excluded.sync THEN sync END, \"table\" = excluded.\"table\"";
        before.extend(tables.iter().map(|table| Statement::new(own, vec![text(table), text(name)])));
        // Of a sync that owns nothing any more nobody waits for news.
        before
            .push("DELETE FROM _pgflume_pulls WHERE name NOT IN (SELECT sync FROM _pgflume_owners)".to_owned().into());
        before.push(
            "DELETE FROM _pgflume_syncs WHERE kind = 'pull' AND name NOT IN (SELECT name FROM _pgflume_pulls)"
                .to_owned()
                .into(),
        );
        let claimed = self.store.write(Work { before, ..Work::default() }).await;
        if let Err(error) = claimed {
            return Err(self.taken(name, tables).await?.unwrap_or(error));
        }
        self.pull(name).await?.ok_or_else(|| Error::retry("the sync is not there yet; it will be tried again"))
    }

    /// Which of these tables belongs to another sync, as an error.
    async fn taken(&self, name: &str, tables: &[&str]) -> Result<Option<Error>> {
        let there = self.inventory().await?;
        if !there.has_pulls() {
            return Ok(None);
        }
        let is_others =
            |(table, sync): &(String, String)| sync != name && tables.iter().any(|own| own.to_lowercase() == *table);
        let other = self.owners().await?.into_iter().find(is_others);
        Ok(other.map(|(table, sync)| {
            Error::halt(format!(
                "the replica's table {table:?} belongs to the sync {sync:?}: leave it out of {name:?}, name another replica, or, if that sync is gone, take the table over with --adopt"
            ))
        }))
    }

    /// Where a sync stands; `None` if it was never here.
    pub async fn pull(&self, name: &str) -> Result<Option<Pull>> {
        let sql = "SELECT epoch, seq, token, source, caught_up_at FROM _pgflume_pulls WHERE name = ?1";
        let rows = self.query(sql, vec![text(name)]).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let [Cell::Text(epoch), Cell::Integer(seq), Cell::Text(token), source, caught_up_at] = &row[..] else {
            return Err(damaged("_pgflume_pulls"));
        };
        let head = Head { epoch: epoch.clone(), seq: *seq, token: token.clone() };
        // Read after the head: if it has moved on since, what is written from here fails.
        let sql = "SELECT \"table\", definition, since, until, place, rows, problem, compared_at FROM _pgflume_owners WHERE sync = ?1";
        let (mut tables, mut compared) = (BTreeMap::new(), BTreeMap::new());
        for mut row in self.query(sql, vec![text(name)]).await? {
            let at = row.pop().as_ref().and_then(optional);
            let (name, standing) = table(row)?;
            compared.extend(at.map(|at| (name.clone(), at)));
            tables.insert(name, standing);
        }
        let sql = "SELECT \"table\", \"key\", class FROM _pgflume_dead WHERE sync = ?1";
        let dead = dead(self.query(sql, vec![text(name)]).await?)?;
        Ok(Some(Pull { head, source: optional(source), caught_up_at: optional(caught_up_at), tables, compared, dead }))
    }

    /// Letters of a sync, oldest first.
    pub(crate) async fn letters(&self, name: &str, choice: &LetterChoice, limit: i64) -> Result<Vec<Kept>> {
        let sql = "SELECT id, at, \"table\", \"key\", class, reason FROM _pgflume_dead WHERE sync = ?1 \
                   AND (?2 IS NULL OR \"table\" = ?2) AND (?3 = '[]' OR id IN (SELECT value FROM json_each(?3))) ORDER BY id LIMIT ?4";
        let ids = serde_json::json!(choice.ids).to_string();
        let table = choice.table.clone().map_or(Cell::Null, Cell::Text);
        let args = vec![text(name), table, Cell::Text(ids), Cell::Integer(limit)];
        self.query(sql, args).await?.into_iter().map(kept).collect()
    }

    /// Marks letters, so that the next pass tries their rows again, if the sync still is at `from`.
    pub(crate) async fn retry_letters(&self, name: &str, from: &Head, to: &Head, ids: &[i64]) -> Result<()> {
        let sql =
            "UPDATE _pgflume_dead SET class = 'retry' WHERE sync = ?1 AND id IN (SELECT value FROM json_each(?2))";
        let marks = Statement::new(sql, vec![text(name), Cell::Text(serde_json::json!(ids).to_string())]);
        let carried = self.carrying(name, from, to).await?;
        let before = [At::Pull(name, from).advance(to), marks].into_iter().chain(carried).collect();
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// The tables of a sync whose rows were last compared longer ago, or that somebody asked for.
    pub(crate) async fn due(&self, name: &str, every: Option<Duration>) -> Result<Vec<String>> {
        let sql = "SELECT \"table\" FROM _pgflume_owners WHERE sync = ?1 AND since IS NOT NULL \
                   AND coalesce(julianday('now') - julianday(compared_at), 1e9) >= ?2 ORDER BY 1";
        let days = every.map_or(1e9, |every| every.as_secs_f64() / 86_400.0);
        let rows = self.query(sql, vec![text(name), Cell::Real(days)]).await?;
        Ok(rows.into_iter().flatten().filter_map(|cell| optional(&cell)).collect())
    }

    /// All tables that some sync owns, in lower case as SQLite compares them, with the sync.
    pub(crate) async fn owners(&self) -> Result<BTreeMap<String, String>> {
        let rows = self.query("SELECT \"table\", sync FROM _pgflume_owners", Vec::new()).await?;
        let owner = |row: Vec<Cell>| match <[Cell; 2]>::try_from(row) {
            Ok([Cell::Text(table), Cell::Text(sync)]) => Ok((table.to_lowercase(), sync)),
            _ => Err(damaged("_pgflume_owners")),
        };
        rows.into_iter().map(owner).collect()
    }

    /// Applies `work` as the batch of the sync `name` that leads from `from` to `to`, or changes nothing if the sync is
    /// anywhere else (`Unknown`: read it).
    pub async fn apply_pull(
        &self,
        name: &str,
        from: &Head,
        to: &Head,
        progress: &Progress,
        mut work: Work,
    ) -> Result<()> {
        self.check_rowids(work.items())?;
        work.before.insert(0, At::Pull(name, from).advance(to));
        let cut = progress.cut.as_ref();
        self.logging.add(&mut work, Feeds::Pull(name), (from, to), cut, &BTreeSet::new());
        work.after.extend(record(name, &to.epoch, progress)?);
        self.store.write(work).await?;
        self.logging.added(cut);
        Ok(())
    }

    /// Alters tables of the sync `name` as a batch of its own, which may take long.
    pub async fn alter_pull(
        &self,
        name: &str,
        from: &Head,
        to: &Head,
        progress: &Progress,
        statements: Vec<String>,
    ) -> Result<()> {
        let mut work = Work { before: vec![At::Pull(name, from).advance(to)], is_long: true, ..Work::default() };
        self.logging.add_altering(&mut work, Feeds::Pull(name), (from, to), !statements.is_empty());
        work.before.extend(statements.into_iter().map(Statement::from));
        work.after.extend(record(name, &to.epoch, progress)?);
        self.store.write(work).await?;
        self.logging.added(None);
        Ok(())
    }

    /// All rows of these tables of a sync are due to be compared, and the request is recorded.
    pub(crate) async fn forget_compared(&self, name: &str, tables: &[String], record: Vec<String>) -> Result<()> {
        let sql = "UPDATE _pgflume_owners SET compared_at = NULL WHERE sync = ?1 AND \"table\" IN (SELECT value FROM json_each(?2))";
        let args = vec![text(name), Cell::Text(serde_json::json!(tables).to_string())];
        let before = record.into_iter().map(Statement::from).chain([Statement::new(sql, args)]).collect();
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// Nothing of a sync is known to be as the source is.
    pub(crate) fn forget_caught_up(name: &str) -> [String; 3] {
        let name = literal(name);
        [
            format!(
                "UPDATE _pgflume_syncs SET caught_up_at = NULL, drained_at = NULL, seen_below = NULL WHERE name = {name}"
            ),
            format!("UPDATE _pgflume_pulls SET caught_up_at = NULL WHERE name = {name}"),
            format!("UPDATE _pgflume_owners SET compared_at = NULL WHERE sync = {name}"),
        ]
    }

    /// The sync `name` gives a table up.
    pub(crate) fn disown(name: &str, table: &str) -> [String; 2] {
        let (table, name) = (literal(table), literal(name));
        ["_pgflume_owners", "_pgflume_states"]
            .map(|of| format!("DELETE FROM {of} WHERE \"table\" = {table} AND sync = {name}"))
    }

    /// Whether what was said to be committed is there: something that answers as a server need not be one.
    pub async fn check_pull(&self, name: &str, to: &Head) -> Result<()> {
        match self.pull(name).await?.map(|pull| pull.head) {
            Some(head) if head == *to => Ok(()),
            Some(head) if head.epoch == to.epoch && head.seq > to.seq => Err(fenced()),
            _ => Err(Error::side(
                "the replica says that it committed a batch, and has not kept it: what answers there is no libSQL database, or one that loses writes",
            )),
        }
    }
}

fn record(name: &str, epoch: &str, progress: &Progress) -> Result<Vec<Statement>> {
    let now = freshness::NOW;
    let mut all = Vec::new();
    for (table, standing) in &progress.tables {
        let sql = "UPDATE _pgflume_owners SET definition = ?3, since = ?4, until = ?5, place = ?6, rows = ?7, problem = ?8 \
                   WHERE \"table\" = ?1 AND sync = ?2";
        let PulledTable { definition, since, until, place, rows, problem } = standing;
        let mut args = vec![text(table), text(name)];
        args.extend([definition, since, until, place].map(|part| part.clone().map_or(Cell::Null, Cell::Text)));
        args.push(rows.map_or(Cell::Null, Cell::Integer));
        args.push(problem.clone().map_or(Cell::Null, Cell::Text));
        all.push(Statement::new(sql, args));
    }
    for table in &progress.compared {
        let sql = format!("UPDATE _pgflume_owners SET compared_at = {now} WHERE \"table\" = ?1 AND sync = ?2");
        all.push(Statement::new(sql, vec![text(table), text(name)]));
    }
    for (table, key) in &progress.covered {
        let sql = "DELETE FROM _pgflume_dead WHERE sync = ?1 AND \"table\" = ?2 AND \"key\" = ?3";
        all.push(Statement::new(sql, vec![text(name), text(table), Cell::Text(key_text(key)?)]));
    }
    for letter in &progress.letters {
        let sql = format!(
            "INSERT INTO _pgflume_dead (sync, \"table\", \"key\", class, reason, at) VALUES (?1, ?2, ?3, ?4, ?5, {now}) \
             ON CONFLICT (sync, \"table\", \"key\") DO UPDATE SET class = excluded.class, reason = excluded.reason"
        );
        let key = Cell::Text(key_text(&letter.key)?);
        let args = vec![text(name), text(&letter.table), key, text(letter.class), text(&letter.reason)];
        all.push(Statement::new(sql, args));
    }
    let sql = format!(
        "UPDATE _pgflume_pulls SET source = coalesce(?2, source), caught_up_at = coalesce(?3, caught_up_at), applied_at = {now} WHERE name = ?1"
    );
    let optional = |part: &Option<String>| part.clone().map_or(Cell::Null, Cell::Text);
    all.push(Statement::new(sql, vec![text(name), optional(&progress.source), optional(&progress.caught_up_at)]));
    if let Some(job) = &progress.job {
        all.push(jobs::of_batch(job, progress.caught_up_at.is_some()));
    }
    let states: Vec<TableState> =
        progress.tables.iter().map(|(table, standing)| state(table, standing, progress)).collect();
    all.extend(freshness::pulled_states(Feeds::Pull(name), &states));
    if progress.forgets {
        all.extend(Replica::forget_caught_up(name).map(Statement::from));
    }
    all.extend(outbox::add(name, &progress.events));
    let is_caught_up = progress.caught_up_at.is_some();
    let freshness = Freshness {
        checked_at: progress.caught_up_at.clone().or_else(|| progress.looked.at.clone()),
        is_caught_up,
        is_drained: is_caught_up,
        queued: 0,
        seen: progress.looked.seen.clone(),
    };
    all.extend(freshness.record(Feeds::Pull(name), epoch));
    Ok(all)
}

fn state(table: &str, standing: &PulledTable, progress: &Progress) -> TableState {
    let Copied { source, types } = progress.looked.sources.get(table).cloned().unwrap_or_default();
    TableState {
        table: table.to_owned(),
        source,
        state: standing.state(),
        rows: standing.rows,
        problem: standing.problem.clone(),
        types,
    }
}

impl PulledTable {
    /// What is done to it: `new`, `copying`, `reading`, `following` or `waiting` (see the problem).
    pub(crate) fn state(&self) -> &'static str {
        match (&self.problem, &self.since, &self.until) {
            (Some(_), _, _) => "waiting",
            (_, None, Some(_)) => "copying",
            (_, None, None) => "new",
            (_, Some(_), Some(_)) => "reading",
            (_, Some(_), None) => "following",
        }
    }
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn optional(cell: &Cell) -> Option<String> {
    if let Cell::Text(text) = cell { Some(text.clone()) } else { None }
}

fn table(row: Vec<Cell>) -> Result<(String, PulledTable)> {
    let [Cell::Text(name), definition, since, until, place, rows, problem] = &row[..] else {
        return Err(damaged("_pgflume_owners"));
    };
    let standing = PulledTable {
        definition: optional(definition),
        since: optional(since),
        until: optional(until),
        place: optional(place),
        rows: if let Cell::Integer(rows) = rows { Some(*rows) } else { None },
        problem: optional(problem),
    };
    Ok((name.clone(), standing))
}

fn dead(rows: Rows) -> Result<BTreeMap<String, BTreeMap<MarkedKey, String>>> {
    let mut dead: BTreeMap<String, BTreeMap<MarkedKey, String>> = BTreeMap::new();
    for row in rows {
        let [Cell::Text(table), Cell::Text(key), Cell::Text(class)] = &row[..] else {
            return Err(damaged("_pgflume_dead"));
        };
        let key = serde_json::from_str(key).map_err(|_| damaged("_pgflume_dead"))?;
        dead.entry(table.clone()).or_default().insert(key, class.clone());
    }
    Ok(dead)
}

fn kept(row: Vec<Cell>) -> Result<Kept> {
    match &row[..] {
        [
            Cell::Integer(id),
            Cell::Text(at),
            Cell::Text(table),
            Cell::Text(key),
            Cell::Text(class),
            Cell::Text(reason),
        ] => {
            let key = serde_json::from_str(key).map_err(|_| damaged("_pgflume_dead"))?;
            let [at, table, class, reason] = [at, table, class, reason].map(Clone::clone);
            Ok(Kept { id: *id, at, table, key, class, reason })
        }
        _ => Err(damaged("_pgflume_dead")),
    }
}

fn key_text(key: &MarkedKey) -> Result<String> {
    serde_json::to_string(key).map_err(|e| Error::halt(format!("a key cannot be written ({e})")))
}

fn damaged(table: &str) -> Error {
    Error::new(
        ErrorKind::Halt,
        format!("the replica's table {table} is damaged: drop it, and the sync copies its tables anew"),
    )
}
