//! By which way changes of a MySQL are found: its binlog, where the server keeps one of rows and the login may read it, else
//! by what SELECT shows. And what the binlog does not tell: rows that follow others by a foreign key.

use super::watched::{Following, Parent, Watched};
use crate::core::error::{Error, Result};
use crate::core::schema::Table;
use crate::mysql::MySqlUrl;
use crate::mysql::binlog::{Failed, Layout, Place, Stream, Tail, is_walkable, key_obstacle};
use crate::mysql::catalog::{MyTable, get};
use crate::mysql::references::{self, Reference};
use crate::mysql::session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How changes are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// By the binlog; or why not, with the remedy.
    pub binlog: Result<(), String>,
    /// Whose rows follow others.
    references: Vec<Reference>,
    /// The server's number, by which its log is known.
    pub server: u32,
    /// Whether the server tells which transactions of its log a snapshot does not show yet.
    pub tells_open: bool,
    /// Where the log ended then.
    pub place: Option<Place>,
    /// A file of it, and when it was begun: seconds since 1970.
    pub made: Option<(String, u32)>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            binlog: Err("nothing is known of it yet".into()),
            references: Vec::new(),
            server: 0,
            tells_open: true,
            place: None,
            made: None,
        }
    }
}

/// Finds out.
pub(super) async fn find(session: &mut Session, url: &MySqlUrl) -> Result<Way> {
    let server: u32 = get(&session.row("select @@server_id", ()).await?, 0)?;
    let (mut made, mut ended) = (None, None);
    let binlog = match obstacle(session).await? {
        Ok(place) => match read_to_end(url, server, &place).await {
            Ok(begun) => {
                (made, ended) = (begun, Some(place));
                Ok(())
            }
            Err(Failed::Forbidden) => Err("the login lacks REPLICATION SLAVE".into()),
            Err(Failed::Gone(why)) => Err(format!("the server does not give it ({why})")),
            Err(Failed::Error(e)) => return Err(e),
        },
        Err(why) => Err(why),
    };
    let references = match binlog {
        Ok(()) => references::read(session).await?,
        Err(_) => Vec::new(),
    };
    let tells_open = session.server.is_mariadb || has_gtids(&owned(session).await?.0);
    Ok(Way { binlog, references, server, tells_open, place: ended, made })
}

/// Where the log ends now, or why it is not read.
async fn obstacle(session: &mut Session) -> Result<Result<Place, String>> {
    // Asked for what it may not have, a server counts the login among those that it refused.
    let grants = session.rows("show grants", ()).await?;
    let grants = grants.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>>>()?;
    let may = |rights: &[&str]| grants.iter().any(|grant| rights.iter().any(|right| grant.contains(right)));
    const ALL: &str = "ALL PRIVILEGES ON *.*";
    if !may(&["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER", ALL]) {
        return Ok(Err("the login lacks BINLOG MONITOR (REPLICATION CLIENT of a MySQL)".into()));
    }
    if !may(&["REPLICATION SLAVE", ALL]) {
        return Ok(Err("the login lacks REPLICATION SLAVE".into()));
    }
    let row = session.row("select @@log_bin, @@binlog_format", ()).await?;
    let (has_log, format): (i64, String) = (get(&row, 0)?, get(&row, 1)?);
    if has_log == 0 {
        return Ok(Err("the server keeps none (log_bin is off)".into()));
    }
    if !format.eq_ignore_ascii_case("row") {
        return Ok(Err(format!("it is one of statements (binlog_format is {format}): set ROW")));
    }
    // A server that logs nothing of what it replays tells nothing of it.
    let replays = match session.server.is_mariadb {
        true => {
            "select @@log_slave_updates, @@log_bin_compress, @@gtid_slave_pos <> '' or exists (select 1 from information_schema.global_status s
                where s.variable_name = 'SLAVES_RUNNING' and s.variable_value > 0
                union all select 1 from information_schema.global_variables v where v.variable_name = 'WSREP_ON' and v.variable_value = 'ON')"
        }
        false => "select @@log_replica_updates, 0, true",
    };
    let row = session.row(replays, ()).await?;
    let (logs, is_compressed, replays): (i64, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    if replays != 0 && logs == 0 {
        return Ok(Err("the server replays another one's log and does not log that (log_slave_updates is off)".into()));
    }
    if is_compressed != 0 {
        return Ok(Err("its events are compressed (log_bin_compress is on)".into()));
    }
    let status = match status(session).await {
        Ok(status) => status,
        Err(e) if e.sqlstate() == Some("42000") => {
            return Ok(Err("the login lacks BINLOG MONITOR (REPLICATION CLIENT of a MySQL)".into()));
        }
        Err(e) => return Err(e),
    };
    let Some((place, [only, never])) = status else { return Ok(Err("the server keeps none".into())) };
    // A statement is left out by the database it was said in, whatever it alters.
    Ok(match only.is_empty() && never.is_empty() {
        true => Ok(place),
        false => Err("the server leaves databases out of it (binlog_do_db, binlog_ignore_db)".into()),
    })
}

/// Where the log ends, and which databases alone it has, or has not.
pub(super) async fn status(session: &mut Session) -> Result<Option<(Place, [String; 2])>> {
    // MySQL has renamed it in 8.2, and 8.4 no longer knows the old name.
    let rows = match session.server.is_mariadb {
        true => session.rows("show master status", ()).await?,
        false => match session.rows("show binary log status", ()).await {
            Err(e) if e.sqlstate().is_some() => session.rows("show master status", ()).await?,
            rows => rows?,
        },
    };
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((Place { file: get(row, 0)?, at: get(row, 1)? }, [get(row, 2)?, get(row, 3)?])))
}

/// Waits until the tables of a MySQL show all that its log holds now; false where that takes too long. A transaction is
/// written to the log first, and owns its number until the tables have it, too (`gtid_owned`).
pub(super) async fn engine_follows(session: &mut Session) -> Result<bool> {
    let (mode, mut open) = owned(session).await?;
    if !has_gtids(&mode) {
        // Nobody tells.
        tokio::time::sleep(ENGINE_TIME).await;
        return Ok(true);
    }
    let (began, mut rest) = (tokio::time::Instant::now(), OWNED_REST);
    while !open.is_empty() {
        if began.elapsed() > OWNED_TIME {
            return Ok(false);
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(MOST_REST);
        let (_, now) = owned(session).await?;
        open.retain(|transaction| now.contains(transaction));
    }
    Ok(true)
}

/// How far the tables of a MySQL whose transactions have no numbers are taken to be behind its log.
const ENGINE_TIME: Duration = Duration::from_millis(50);

/// How long they are waited for where they have.
const OWNED_TIME: Duration = Duration::from_secs(1);
const OWNED_REST: Duration = Duration::from_micros(500);
const MOST_REST: Duration = Duration::from_millis(50);

fn has_gtids(mode: &str) -> bool {
    mode.eq_ignore_ascii_case("on")
}

/// Whether its transactions have numbers, and those that are open.
async fn owned(session: &mut Session) -> Result<(String, BTreeSet<String>)> {
    let row = session.row("select @@gtid_mode, @@global.gtid_owned", ()).await?;
    Ok((get(&row, 0)?, owned_of(&get::<String>(&row, 1)?)))
}

/// `uuid:7#12:tag:9#13,\nuuid:…`: numbers of a server's, or of a tag of it, each with the session that has it.
fn owned_of(text: &str) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for of_server in text.split(',') {
        let mut parts = of_server.trim().split(':');
        let (server, mut tag) = (parts.next().unwrap_or_default(), "");
        for part in parts {
            match part.split_once('#') {
                Some((number, _)) => drop(open.insert(format!("{server}:{tag}:{number}"))),
                None => tag = part,
            }
        }
    }
    open
}

/// A place in the log before which all is committed for whoever opens a snapshot after this: of a MariaDB alone.
pub(super) async fn committed(session: &mut Session) -> Result<Place> {
    let none = || Error::retry("MariaDB does not tell where in its binlog a snapshot is; it will be asked again");
    snapshot_place(session).await?.ok_or_else(none)
}

/// Where the snapshot of a session is in the log of a MariaDB, without one where it would be; `None` where there is no log.
/// It takes another session's for it now and then (10.11), but never one to come.
pub(super) async fn snapshot_place(session: &mut Session) -> Result<Option<Place>> {
    let (mut file, mut at) = (String::new(), None);
    for row in session.rows("show status like 'binlog\\_snapshot\\_%'", ()).await? {
        match get::<String>(&row, 0)?.to_lowercase().as_str() {
            "binlog_snapshot_file" => file = get(&row, 1)?,
            "binlog_snapshot_position" => at = get::<String>(&row, 1)?.parse().ok(),
            _ => {}
        }
    }
    Ok(at.filter(|_| !file.is_empty()).map(|at| Place { file, at }))
}

/// Reads from there on; the last file, and when it was begun.
async fn read_to_end(url: &MySqlUrl, server: u32, from: &Place) -> Result<Option<(String, u32)>, Failed> {
    let mut stream = Stream::open(url, server, from, None, Tail::Ends).await?;
    while stream.next(PATIENCE, |_, _| false).await?.is_some() {}
    Ok(stream.made().map(|(file, made)| (file.to_owned(), made)))
}

/// Engines of which each write is in the log.
const ENGINES: [&str; 4] = ["innodb", "rocksdb", "myisam", "aria"];

impl Way {
    /// The databases that rows follow each other in.
    pub fn databases(&self) -> impl Iterator<Item = &String> {
        self.references.iter().flat_map(|reference| [&reference.from.0, &reference.to.0])
    }

    /// Whether rows follow each other as they did.
    pub async fn is_current(&self, session: &mut Session) -> Result<bool> {
        Ok(self.binlog.is_err() || references::read(session).await? == self.references)
    }

    /// Whether what is told is the same, however far the log is.
    pub fn is_like(&self, other: &Self) -> bool {
        let told = |way: &Self| (way.binlog.clone(), way.server, way.tells_open);
        told(self) == told(other) && self.references == other.references
    }

    /// Why the rows of a table are not told by the binlog.
    pub fn obstacle(&self, table: &Table, source: &MyTable) -> Option<String> {
        if let Err(why) = &self.binlog {
            return Some(why.clone());
        }
        if source.is_view() {
            return Some("it knows no views".into());
        }
        if !ENGINES.contains(&source.engine.to_ascii_lowercase().as_str()) {
            return Some(format!("rows of the engine {} are written elsewhere, too", source.engine));
        }
        if !source.is_shown_whole() {
            return Some("the login does not see all columns of the table".into());
        }
        if let Some(column) = source.columns.iter().find(|column| !is_walkable(&column.of)) {
            return Some(format!("the column {:?} is {}, which has no length in it", column.name, column.of.declared));
        }
        table.key_columns().find_map(|column| key_obstacle(&source.column(&column.name)?.of))
    }

    /// What has to be watched so that all is known of these tables: each with where it is and its definition.
    pub fn watched(
        &self,
        tables: &[((String, String), Arc<Table>)],
        catalog: &BTreeMap<(String, String), MyTable>,
    ) -> BTreeMap<(String, String), Watched> {
        let mut names: BTreeMap<&(String, String), Vec<Arc<str>>> = BTreeMap::new();
        let mut watched: BTreeMap<(String, String), Watched> = BTreeMap::new();
        for (place, table) in tables {
            let Some(source) = catalog.get(place) else { continue };
            let name: Arc<str> = table.name.as_str().into();
            names.entry(place).or_default().push(name.clone());
            let at = |column: &str| source.columns.iter().position(|there| there.name == column);
            let key = table.key_columns().filter_map(|column| Some((at(&column.name)?, column.kind))).collect();
            let columns = source.columns.iter().map(|column| column.of.clone()).collect();
            let layout = Layout { columns, key, referred: BTreeSet::new() };
            watched.entry(place.clone()).or_default().targets.push((name, layout));
        }
        for place in self.references.iter().map(|reference| &reference.to) {
            let mut parent = Parent::default();
            self.follow(place, true, &names, &mut parent.on_delete, &mut BTreeSet::new());
            self.follow(place, false, &names, &mut parent.on_update, &mut BTreeSet::new());
            if parent.on_delete.is_empty() && parent.on_update.is_empty() {
                continue;
            }
            let referring = self.references.iter().filter(|reference| reference.to == *place);
            let referred: BTreeSet<&String> = referring.flat_map(|reference| &reference.columns).collect();
            // Rows of a table with versions go by an update.
            let is_plain = |source: &&MyTable| source.is_shown_whole() && source.kind == "BASE TABLE";
            parent.layout = catalog.get(place).filter(is_plain).map(|source| Layout {
                columns: source.columns.iter().map(|column| column.of.clone()).collect(),
                key: Vec::new(),
                referred: (0..source.columns.len()).filter(|&at| referred.contains(&source.columns[at].name)).collect(),
            });
            watched.entry(place.clone()).or_default().parent = Some(parent);
        }
        watched
    }

    /// What follows from rows of a table that go, or that get other keys.
    fn follow<'a>(
        &'a self,
        place: &'a (String, String),
        go: bool,
        names: &BTreeMap<&(String, String), Vec<Arc<str>>>,
        following: &mut Following,
        seen: &mut BTreeSet<(&'a (String, String), bool)>,
    ) {
        if !seen.insert((place, go)) {
            return;
        }
        for reference in self.references.iter().filter(|reference| reference.to == *place) {
            let of = names.get(&reference.from).into_iter().flatten().cloned();
            if go && reference.deletes {
                following.counted.extend(of);
                self.follow(&reference.from, true, names, following, seen);
            } else if if go { reference.sets_on_delete } else { reference.sets_on_update } {
                following.changed.extend(of);
                self.follow(&reference.from, false, names, following, seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    fn at(table: &str) -> (String, String) {
        ("d".into(), table.into())
    }

    #[test]
    fn open_transactions_are_read_whatever_their_servers_and_tags() {
        let open = owned_of("3e11:7#12:8#13:blue:7#14,\n4f22:1#2");
        assert_eq!(open.into_iter().collect::<Vec<_>>(), ["3e11::7", "3e11::8", "3e11:blue:7", "4f22::1"]);
        assert!(owned_of("").is_empty());
    }

    #[test]
    fn what_goes_takes_along_all_that_follows_it() {
        let reference = |from: &str, to: &str, deletes, sets_on_update| Reference {
            from: at(from),
            to: at(to),
            columns: BTreeSet::from(["id".to_owned()]),
            deletes,
            sets_on_delete: !deletes,
            sets_on_update,
        };
        let references = vec![
            reference("b", "a", true, false),
            reference("c", "b", true, false),
            reference("d", "c", false, true),
            reference("b", "b", true, false),
        ];
        let way = Way { binlog: Ok(()), references, ..Way::default() };
        let definition = |name: &str| format!(r#""{name}":{{"primaryKey":"id","columns":{{"id":"INTEGER"}}}}"#);
        let all: Vec<String> = ["c", "d"].map(definition).to_vec();
        let schema = Schema::parse(&format!("{{{}}}", all.join(","))).unwrap();
        let tables: Vec<_> = schema.tables().map(|table| (at(&table.name), table.clone())).collect();
        let catalog = ["a", "b", "c", "d"].map(|name| (at(name), MyTable::default())).into();
        let watched = way.watched(&tables, &catalog);
        let names = |set: &BTreeSet<Arc<str>>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let parent = |name: &str| watched[&at(name)].parent.as_ref().unwrap();
        for name in ["a", "b"] {
            let following = &parent(name).on_delete;
            assert_eq!((names(&following.counted), names(&following.changed)), ("c".into(), "d".into()), "{name}");
            assert!(parent(name).on_update.is_empty(), "{name}");
        }
        assert_eq!(
            (names(&parent("c").on_delete.changed), names(&parent("c").on_update.changed)),
            ("d".into(), "d".into())
        );
        assert!(watched[&at("d")].parent.is_none());
    }
}
