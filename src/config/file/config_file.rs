//! The whole file.

use super::connection::Connection;
use super::read::{Broken, Members, members};
use super::sync::SyncDefinition;
use crate::core::config_error::{ConfigError, wrong};
use crate::core::json::Node;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the JSON Schema of `pgflume.json` is published. `docs/pgflume-v1.json` is the file behind it.
pub const JSON_SCHEMA: &str = "https://raw.githubusercontent.com/pgflume/pgflume/main/docs/pgflume-v1.json";

/// The source and the replica that need no entry: those of `PGMQ_URL` and `LIBSQL_URL`.
pub const BUILT_IN: [&str; 2] = ["postgres", "replica"];

/// Names that are subcommands of `sync`.
pub const RESERVED: [&str; 5] = ["add", "list", "enable", "disable", "remove"];

/// What a file says.
#[derive(Clone, Default)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text; empty where there is no file.
    pub text: String,
    /// Connections by name.
    pub connections: BTreeMap<String, Connection>,
    /// Syncs by name.
    pub syncs: BTreeMap<String, SyncDefinition>,
}

/// Without the text, which people may have put secrets into.
impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, connections, syncs, .. } = self;
        let mut shown = f.debug_struct("ConfigFile");
        shown.field("path", path).field("connections", connections).field("syncs", syncs).finish_non_exhaustive()
    }
}

impl ConfigFile {
    /// Reads the file; an empty one where there is none and nobody asked for it.
    pub fn load(path: &Path, is_asked_for: bool) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_asked_for => {
                Ok(Self { path: path.to_owned(), ..Self::default() })
            }
            Err(e) => wrong(format!(
                "CONFIG_FILE {}: cannot be read ({e}); name the file of connections and syncs, or make it with `pgflume sync add`",
                path.display()
            )),
        }
    }

    /// Parses and checks the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let broken = |e: Broken| ConfigError(format!("{}: {} {}", path.display(), e.path, e.problem));
        let root: Node = serde_json::from_str(text)
            .map_err(|e| ConfigError(format!("{}: $ is not valid JSON ({e})", path.display())))?;
        Self::of(&root).map(|file| Self { path: path.to_owned(), text: text.to_owned(), ..file }).map_err(broken)
    }

    fn of(root: &Node) -> Result<Self, Broken> {
        let root = Members::of(root, "$", &["$schema", "connections", "syncs"])?;
        root.text("$schema")?;
        let mut file = Self::default();
        for (name, node, path) in members(root.get("connections"), &root.path_of("connections"))? {
            check_name(&name, &path)?;
            file.connections.insert(name, Connection::of(node, &path)?);
        }
        for (name, node, path) in members(root.get("syncs"), &root.path_of("syncs"))? {
            check_name(&name, &path)?;
            if RESERVED.contains(&name.as_str()) {
                return Err(Broken::new(
                    &path,
                    format!("is a command of `pgflume sync`: choose another name than {}", RESERVED.join(", ")),
                ));
            }
            let sync = SyncDefinition::of(&name, node, &path)?;
            for (member, used) in [("from", &sync.from), ("to", &sync.to)] {
                if !BUILT_IN.contains(&used.as_str()) && !file.connections.contains_key(used) {
                    return Err(Broken::new(
                        &format!("{path}.{member}"),
                        format!("names the connection {used:?}, which is not there: add it under $.connections"),
                    ));
                }
            }
            file.syncs.insert(name, sync);
        }
        file.check_queues()?;
        Ok(file)
    }

    /// One queue a replica: two would each take the other's batches for strange.
    fn check_queues(&self) -> Result<(), Broken> {
        let mut fed: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, sync) in self.syncs.iter().filter(|(_, sync)| sync.queue.is_some()) {
            if let Some(other) = fed.insert(&sync.to, name) {
                return Err(Broken::new(
                    &format!("$.syncs.{name}.to"),
                    format!("names the replica that the sync {other:?} feeds by its queue, too: one queue a replica"),
                ));
            }
        }
        Ok(())
    }

    /// The sync of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn sync(&self, name: &str) -> Result<&SyncDefinition, ConfigError> {
        let known: Vec<_> = self.syncs.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "none is there".to_owned() } else { format!("known are {}", known.join(", ")) };
        self.syncs.get(name).ok_or_else(|| {
            ConfigError(format!(
                "{}: there is no sync {name:?}: {known}; add it with `pgflume sync add`",
                self.path.display()
            ))
        })
    }

    /// The syncs that use a connection.
    pub fn users_of(&self, connection: &str) -> Vec<&str> {
        let uses = |sync: &&SyncDefinition| sync.from == connection || sync.to == connection;
        self.syncs.values().filter(uses).map(|sync| sync.name.as_str()).collect()
    }

    /// Where files lie that it names.
    pub fn directory(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// A file that a member names, beside this one.
    pub fn beside(&self, file: &Path) -> PathBuf {
        self.directory().join(file)
    }
}

/// Names are labels of metrics, parts of paths and of commands.
fn check_name(name: &str, path: &str) -> Result<(), Broken> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match starts_well && name.len() <= 64 && name.chars().all(is_plain) {
        true => Ok(()),
        false => {
            Err(Broken::new(path, "is no name: use letters, digits, - and _, at most 64, a letter or digit first"))
        }
    }
}
