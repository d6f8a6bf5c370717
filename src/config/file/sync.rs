//! A named sync: from where, to where, what, and how often.

use super::read::{Broken, Members, members, texts};
use crate::core::json::Node;
use crate::core::queue_name::QueueName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const MEMBERS: [&str; 13] = [
    "from",
    "to",
    "tables",
    "exclude",
    "every",
    "compare",
    "schemaEvery",
    "retryDelay",
    "retries",
    "enabled",
    "schema",
    "queue",
    "changed",
];

/// How often a source is looked at where nothing else is said.
const EVERY: Duration = Duration::from_secs(300);

/// How often all rows are compared.
const COMPARE: Duration = Duration::from_secs(24 * 3600);

/// How often the source's tables are described anew.
const SCHEMA_EVERY: Duration = Duration::from_secs(300);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Wait after a pass that failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Tries before a pass counts as failed.
const RETRIES: u32 = 3;

/// A time, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// How long.
    pub time: Duration,
    /// Like `5s`.
    pub text: String,
}

/// A sync as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncDefinition {
    /// Its name.
    pub name: String,
    /// The connection that it reads.
    pub from: String,
    /// The connection that it writes.
    pub to: String,
    /// Patterns of tables; all where there are none.
    pub tables: Vec<String>,
    /// Patterns of tables that are left out.
    pub exclude: Vec<String>,
    /// How often the source is looked at.
    pub every: Interval,
    /// How often all rows are compared; `None`: never.
    pub compare: Option<Interval>,
    /// Whether the file says so itself.
    pub is_compare_said: bool,
    /// How often the tables are described anew.
    pub schema_every: Duration,
    /// Wait after a failure, at first.
    pub retry_delay: Duration,
    /// Tries.
    pub retries: u32,
    /// Whether it runs.
    pub enabled: bool,
    /// The file that defines the tables.
    pub schema: Option<PathBuf>,
    /// The queue that feeds it; `None`: it is pulled.
    pub queue: Option<QueueName>,
    /// Columns by which a changed row of a table is known, where nothing better is.
    pub changed: BTreeMap<String, Vec<String>>,
}

impl SyncDefinition {
    pub(super) fn of(name: &str, node: &Node, path: &str) -> Result<Self, Broken> {
        let m = Members::of(node, path, &MEMBERS)?;
        let Some(from) = m.text("from")? else {
            return Err(Broken::new(path, "lacks from: name the connection that it reads"));
        };
        let time = |name: &str, default: Duration| {
            let text =
                m.text(name)?.map(str::to_owned).unwrap_or_else(|| humantime::format_duration(default).to_string());
            Ok(Interval { time: duration(&text, &m.path_of(name))?, text })
        };
        let queue =
            m.text("queue")?.map(|queue| QueueName::parse(queue).map_err(|e| Broken::new(&m.path_of("queue"), e.0)));
        let compare = match m.text("compare")? {
            Some("never") => None,
            _ => Some(time("compare", COMPARE)?),
        };
        let mut changed = BTreeMap::new();
        for (table, node, path) in members(m.get("changed"), &m.path_of("changed"))? {
            changed.insert(table, texts(node, &path)?);
        }
        let retries =
            u32::try_from(m.number("retries")?.unwrap_or(RETRIES.into())).ok().filter(|retries| *retries <= 100);
        let sync = Self {
            name: name.to_owned(),
            from: from.to_owned(),
            to: m.text("to")?.unwrap_or("replica").to_owned(),
            tables: m.texts("tables")?.unwrap_or_default(),
            exclude: m.texts("exclude")?.unwrap_or_default(),
            every: time("every", EVERY)?,
            compare,
            is_compare_said: m.get("compare").is_some(),
            schema_every: time("schemaEvery", SCHEMA_EVERY)?.time,
            retry_delay: time("retryDelay", RETRY_DELAY)?.time,
            retries: retries.ok_or_else(|| Broken::new(&m.path_of("retries"), "must be a number from 0 to 100"))?,
            enabled: m.flag("enabled", true)?,
            schema: m.text("schema")?.map(PathBuf::from),
            queue: queue.transpose()?,
            changed,
        };
        match (&sync.schema, &sync.queue) {
            (Some(_), _) if !sync.tables.is_empty() || !sync.exclude.is_empty() => {
                Err(Broken::new(&m.path_of("schema"), "defines the tables: leave tables and exclude out beside it"))
            }
            (None, Some(_)) => {
                Err(Broken::new(path, "has a queue and lacks schema: name the file that defines its tables"))
            }
            _ => Ok(sync),
        }
    }
}

fn duration(text: &str, path: &str) -> Result<Duration, Broken> {
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_millis(100)..=LONGEST).contains(&time) => Ok(time),
        Ok(time) if time > LONGEST => Err(Broken::new(path, "is too long: a year is the most")),
        Ok(_) => Err(Broken::new(path, "is too short: 100ms is the least")),
        Err(_) => Err(Broken::new(path, format!("{text:?} is no time: write it like 5s, 10m, 1h or 2days"))),
    }
}
