//! A sync of `pgflume.json` with what its connections lead to.

use super::feeding::Feeding;
use super::file::{BUILT_IN, ConfigFile, Limit, Resolved, SyncDefinition};
use super::options::{Config, GlobalOptions};
use crate::core::config_error::{ConfigError, wrong};
use crate::core::schema::Schema;
use crate::mysql::MySqlUrl;
use crate::postgres::PgUrl;
use crate::replica::target::Target;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a sync reads.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A Postgres.
    Postgres(Box<PgUrl>),
    /// A MySQL or MariaDB.
    MySql(Box<MySqlUrl>),
}

impl Origin {
    /// The Postgres, for what only a Postgres can have.
    pub(crate) fn postgres(self, sync: &str) -> Result<PgUrl, ConfigError> {
        match self {
            Self::Postgres(url) => Ok(*url),
            Self::MySql(_) => wrong(format!("the sync {sync:?} reads a MySQL, and this takes a Postgres")),
        }
    }
}

/// A sync whose connections are known.
#[derive(Debug, Clone)]
pub struct Pair {
    /// What the file says of it.
    pub definition: SyncDefinition,
    /// What it reads.
    pub source: Origin,
    /// What it writes.
    pub target: Target,
    /// The tables, where a file defines them.
    pub schema: Option<Arc<Schema>>,
    /// Whether rows of a replica that was never written to may be replaced.
    pub adopt: bool,
    /// Bytes beyond which a row is not fetched.
    pub row_bytes: i64,
    /// How often the replica is told that nothing has changed; `None`: never.
    pub heartbeat: Option<Duration>,
    /// How clients are fed from the replica.
    pub feeding: Feeding,
    /// How often its source may be asked.
    pub limit: Option<Limit>,
    /// What a queue needs; `None`: it is pulled.
    pub config: Option<Config>,
}

/// What a command about one sync works on.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// One that a queue feeds.
    Queued(Box<Config>),
    /// One that pulls.
    Pulled(Box<Pair>),
}

impl Chosen {
    /// What a queue needs.
    ///
    /// # Errors
    /// Where it pulls: says what is to be done in place of this.
    pub(crate) fn queued(self, instead: &str) -> Result<Config, ConfigError> {
        match self {
            Self::Queued(config) => Ok(*config),
            Self::Pulled(pair) => wrong(format!("the sync {:?} pulls: {instead}", pair.definition.name)),
        }
    }
}

impl GlobalOptions {
    /// What a command about one sync works on: the sync of this name; without one the queue of the variables, else the
    /// only sync of the file.
    pub(crate) fn chosen(&self, sync: Option<&str>) -> Result<Chosen, ConfigError> {
        let file = match sync {
            Some(name) => return self.named_pair(name).map(Chosen::of),
            None => self.file()?,
        };
        let names: Vec<&str> = file.syncs.keys().map(String::as_str).collect();
        match names[..] {
            [] => self.config().map(Box::new).map(Chosen::Queued),
            _ if self.names_a_pair(&file)? => self.config().map(Box::new).map(Chosen::Queued),
            [only] => self.named_pair(only).map(Chosen::of),
            _ => wrong(format!("there are several syncs: name one with --sync, of {}", names.join(", "))),
        }
    }

    /// A connection by its name: one of the file, else that of the variables.
    pub(crate) fn connection(&self, file: &ConfigFile, name: &str) -> Result<Resolved, ConfigError> {
        match (file.connections.get(name), name) {
            (Some(connection), _) => connection.resolve(&file.directory(), self.is_insecure()),
            (None, "postgres") => self.postgres().map(Box::new).map(Resolved::Postgres),
            (None, "replica") => self.target().map(Resolved::Target),
            (None, _) => wrong(format!(
                "there is no connection {name:?}: known are {}",
                file.connections.keys().map(String::as_str).chain(BUILT_IN).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// A sync with what its connections lead to.
    pub(crate) fn pair(&self, file: &ConfigFile, definition: &SyncDefinition) -> Result<Pair, ConfigError> {
        let (name, path) = (&definition.name, file.path.display());
        let source = self.source_of(file, definition)?;
        let target = match self.connection(file, &definition.to)? {
            Resolved::Target(target) => target,
            Resolved::Postgres(_) | Resolved::MySql(_) => {
                return wrong(format!(
                    "{path}: $.syncs.{name}.to names {:?}, a source, and a sync writes a replica",
                    definition.to
                ));
            }
        };
        let schema = definition.schema.as_ref().map(|schema| {
            let place = file.beside(schema);
            let text = std::fs::read_to_string(&place).map_err(|e| {
                ConfigError(format!(
                    "{path}: $.syncs.{name}.schema names {}, which cannot be read ({e})",
                    place.display()
                ))
            })?;
            Schema::parse(&text)
                .map(Arc::new)
                .map_err(|e| ConfigError(format!("{}: {} {}", place.display(), e.path, e.problem)))
        });
        let schema = schema.transpose()?;
        let row_bytes = self.row_bytes()?;
        let heartbeat = self.heartbeat(&target)?;
        let feeding = self.feeding()?;
        let limit = file.connections.get(&definition.from).and_then(|connection| connection.limit);
        if let Some(table) = definition.changed.keys().next() {
            let wrong_place = |why: &str| wrong(format!("{path}: $.syncs.{name}.changed.{table} {why}"));
            match &schema {
                _ if definition.queue.is_some() => {
                    return wrong_place("tells how rows are pulled, and a queue feeds this sync: leave it out");
                }
                Some(schema) if schema.get(table).is_none() => {
                    return wrong_place("names a table that the schema does not define: correct it");
                }
                _ => {}
            }
        }
        let config = match (&definition.queue, &schema) {
            (Some(queue), Some(schema)) => Some(Config {
                postgres: source.clone().postgres(name)?,
                retention: self.retention(&target)?,
                heartbeat,
                has_events: false,
                target: target.clone(),
                schema: schema.clone(),
                queue: queue.clone(),
                rows_per_second: self.rows_per_second()?,
                row_bytes,
                adopt: self.adopt,
                feeding,
            }),
            _ => None,
        };
        Ok(Pair {
            definition: definition.clone(),
            source,
            target,
            schema,
            adopt: self.adopt,
            row_bytes,
            heartbeat,
            feeding,
            limit,
            config,
        })
    }

    fn source_of(&self, file: &ConfigFile, definition: &SyncDefinition) -> Result<Origin, ConfigError> {
        match self.connection(file, &definition.from)? {
            Resolved::Postgres(url) => Ok(Origin::Postgres(url)),
            Resolved::MySql(url) => Ok(Origin::MySql(url)),
            Resolved::Target(_) => wrong(format!(
                "{}: $.syncs.{}.from names {:?}, a replica, and a sync reads a source",
                file.path.display(),
                definition.name,
                definition.from
            )),
        }
    }

    /// The source of a sync, what the file says of it, and where the file is that defines its tables, which need not be
    /// there yet.
    pub(crate) fn origin(&self, name: &str) -> Result<(Origin, SyncDefinition, Option<PathBuf>), ConfigError> {
        let file = self.file()?;
        let definition = file.sync(name)?;
        let schema = definition.schema.as_ref().map(|schema| file.beside(schema));
        Ok((self.source_of(&file, definition)?, definition.clone(), schema))
    }

    /// The sync of this name.
    pub(crate) fn named_pair(&self, name: &str) -> Result<Pair, ConfigError> {
        let pairs = self.pairs(&self.file()?, &[name.to_owned()])?;
        pairs.into_iter().next().ok_or_else(|| ConfigError(format!("there is no sync {name:?}")))
    }

    /// Those of the file's syncs that are asked for; all that are enabled where none is. Refuses two that would write one
    /// table, as far as the file tells; what patterns mean is known when they run, and refused then.
    pub(crate) fn pairs(&self, file: &ConfigFile, names: &[String]) -> Result<Vec<Pair>, ConfigError> {
        names.iter().try_for_each(|name| file.sync(name).map(|_| ()))?;
        let is_asked_for = |sync: &&SyncDefinition| match names.is_empty() {
            true => sync.enabled,
            false => names.contains(&sync.name),
        };
        let pairs = file.syncs.values().filter(is_asked_for).map(|sync| self.pair(file, sync));
        let pairs: Vec<Pair> = pairs.collect::<Result<_, _>>()?;
        check_tables(&pairs).map(|()| pairs)
    }
}

impl Chosen {
    fn of(mut pair: Pair) -> Self {
        match pair.config.take() {
            Some(config) => Self::Queued(Box::new(config)),
            None => Self::Pulled(Box::new(pair)),
        }
    }
}

impl Config {
    /// Refuses syncs beside the queue of the variables that would feed its replica by another queue.
    pub(crate) fn check_beside(&self, pairs: &[Pair]) -> Result<(), ConfigError> {
        let own = crate::replica::address::of(&self.target);
        let is_rival = |pair: &&Pair| pair.config.is_some() && crate::replica::address::of(&pair.target) == own;
        match pairs.iter().find(is_rival) {
            None => Ok(()),
            Some(pair) => wrong(format!(
                "the sync {:?} would feed the replica of LIBSQL_URL by a queue, as QUEUE_NAME does: one queue a replica",
                pair.definition.name
            )),
        }
    }
}

fn check_tables(pairs: &[Pair]) -> Result<(), ConfigError> {
    let mut fed: BTreeMap<String, &str> = BTreeMap::new();
    for pair in pairs.iter().filter(|pair| pair.config.is_some()) {
        let name = &pair.definition.name;
        if let Some(other) = fed.insert(crate::replica::address::of(&pair.target), name) {
            return wrong(format!(
                "the syncs {other:?} and {name:?} would both feed one replica by a queue: one queue a replica"
            ));
        }
    }
    let mut owners: BTreeMap<(String, String), &str> = BTreeMap::new();
    for pair in pairs {
        let replica = crate::replica::address::of(&pair.target);
        for table in pair.table_names() {
            if let Some(other) = owners.insert((replica.clone(), table.to_lowercase()), &pair.definition.name) {
                return wrong(format!(
                    "the syncs {other:?} and {:?} would both write the table {table:?} of one replica: leave it out of one, or name another replica",
                    pair.definition.name
                ));
            }
        }
    }
    Ok(())
}

impl Pair {
    /// The replica's tables that the file names: those of a schema, or such as are spelled out.
    fn table_names(&self) -> Vec<String> {
        match &self.schema {
            Some(schema) => schema.tables().map(|table| table.name.clone()).collect(),
            None => {
                let is_plain = |name: &&String| !name.contains(['*', '?', '"']);
                let own_name = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
                self.definition.tables.iter().filter(is_plain).map(own_name).collect()
            }
        }
    }
}
