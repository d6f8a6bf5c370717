//! By which way changes of a MySQL are found: its binlog, where the server keeps one of rows and the login may read it, else
//! by what SELECT shows. And what the binlog does not tell: rows that follow others by a foreign key.

use super::marks::{Parent, Watched};
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
}

impl Default for Way {
    fn default() -> Self {
        Self { binlog: Err("nothing is known of it yet".into()), references: Vec::new() }
    }
}

/// Finds out.
pub(super) async fn find(session: &mut Session, url: &MySqlUrl, databases: &BTreeSet<String>) -> Result<Way> {
    let binlog = match obstacle(session, databases).await? {
        Ok(place) => match read_to_end(url, &place).await {
            Ok(()) => Ok(()),
            Err(Failed::Forbidden) => Err("the login lacks REPLICATION SLAVE".into()),
            Err(Failed::Gone(why)) => Err(format!("the server does not give it ({why})")),
            Err(Failed::Error(e)) => return Err(e),
        },
        Err(why) => Err(why),
    };
    let references = match binlog {
        Ok(()) => references::read(session, databases).await?,
        Err(_) => Vec::new(),
    };
    Ok(Way { binlog, references })
}

/// Where the log ends now, or why it is not read.
async fn obstacle(session: &mut Session, databases: &BTreeSet<String>) -> Result<Result<Place, String>> {
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
    // A replica that logs nothing of what it replays tells nothing of it.
    let replays = match session.server.is_mariadb {
        true => "select @@gtid_slave_pos <> '' and not @@log_slave_updates, @@log_bin_compress",
        false => "select not @@log_replica_updates, 0",
    };
    let row = session.row(replays, ()).await?;
    let (is_silent, is_compressed): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
    if is_silent != 0 {
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
    let listed = |list: &str, database: &String| list.split(',').any(|name| name.eq_ignore_ascii_case(database));
    let is_left_out = |database: &&String| !only.is_empty() && !listed(&only, database) || listed(&never, database);
    Ok(match databases.iter().find(is_left_out) {
        Some(database) => Err(format!("the server leaves {database} out of it (binlog_do_db, binlog_ignore_db)")),
        None => Ok(place),
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

/// Where the log was at the snapshot of this session's view: of a MariaDB alone, which tells it.
pub(super) async fn at_snapshot(session: &mut Session) -> Result<Place> {
    let (mut file, mut at) = (String::new(), None);
    for row in session.rows("show status like 'binlog\\_snapshot\\_%'", ()).await? {
        match get::<String>(&row, 0)?.to_lowercase().as_str() {
            "binlog_snapshot_file" => file = get(&row, 1)?,
            "binlog_snapshot_position" => at = get::<String>(&row, 1)?.parse().ok(),
            _ => {}
        }
    }
    match at {
        Some(at) if !file.is_empty() => Ok(Place { file, at }),
        _ => Err(Error::retry("MariaDB does not tell where in its binlog a snapshot is; it will be asked again")),
    }
}

async fn read_to_end(url: &MySqlUrl, from: &Place) -> Result<(), Failed> {
    let mut stream = Stream::open(url, from, Tail::Ends).await?;
    while stream.next(PATIENCE).await?.is_some() {}
    Ok(())
}

impl Way {
    /// Why the rows of a table are not told by the binlog.
    pub fn obstacle(&self, table: &Table, source: &MyTable) -> Option<String> {
        if let Err(why) = &self.binlog {
            return Some(why.clone());
        }
        if source.is_view() {
            return Some("it knows no views".into());
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
            self.follow(place, true, &names, &mut parent, &mut BTreeSet::new());
            if parent.counted.is_empty() && parent.changed.is_empty() {
                continue;
            }
            let referring = self.references.iter().filter(|reference| reference.to == *place);
            let referred: BTreeSet<&String> = referring.flat_map(|reference| &reference.columns).collect();
            parent.layout = catalog.get(place).filter(|source| source.is_shown_whole()).map(|source| Layout {
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
        parent: &mut Parent,
        seen: &mut BTreeSet<(&'a (String, String), bool)>,
    ) {
        if !seen.insert((place, go)) {
            return;
        }
        for reference in self.references.iter().filter(|reference| reference.to == *place) {
            let of = |of: &(String, String)| names.get(of).into_iter().flatten().cloned().collect::<Vec<_>>();
            if reference.deletes && go {
                parent.counted.extend(of(&reference.from));
                self.follow(&reference.from, true, names, parent, seen);
            }
            if reference.sets {
                parent.changed.extend(of(&reference.from));
                self.follow(&reference.from, false, names, parent, seen);
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
    fn what_goes_takes_along_all_that_follows_it() {
        let reference = |from: &str, to: &str, deletes, sets| Reference {
            from: at(from),
            to: at(to),
            columns: BTreeSet::from(["id".to_owned()]),
            deletes,
            sets,
        };
        let references = vec![
            reference("b", "a", true, false),
            reference("c", "b", true, false),
            reference("d", "c", false, true),
            reference("b", "b", true, false),
        ];
        let way = Way { binlog: Ok(()), references };
        let definition = |name: &str| format!(r#""{name}":{{"primaryKey":"id","columns":{{"id":"INTEGER"}}}}"#);
        let all: Vec<String> = ["c", "d"].map(definition).to_vec();
        let schema = Schema::parse(&format!("{{{}}}", all.join(","))).unwrap();
        let tables: Vec<_> = schema.tables().map(|table| (at(&table.name), table.clone())).collect();
        let catalog = ["a", "b", "c", "d"].map(|name| (at(name), MyTable::default())).into();
        let watched = way.watched(&tables, &catalog);
        let names = |set: &BTreeSet<Arc<str>>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let parent = |name: &str| watched[&at(name)].parent.as_ref().unwrap();
        for name in ["a", "b"] {
            assert_eq!(
                (names(&parent(name).counted), names(&parent(name).changed)),
                ("c".into(), "d".into()),
                "{name}"
            );
        }
        assert_eq!(names(&parent("c").changed), "d");
        assert!(watched[&at("d")].parent.is_none());
    }
}
