//! What a run of `init` did, in words.

use super::definition::Definition;
use crate::core::schema::{ColumnType, SourceName};
use std::fmt;

/// How many names a line lists.
const LISTED: usize = 12;

/// What `init` did, and what it did not and why.
#[derive(Debug, Clone, Default)]
pub struct InitReport {
    /// Tables that were added.
    pub added: Vec<String>,
    /// Columns that were added to tables that were there, `--add-columns`.
    pub extended: Vec<String>,
    /// Tables that were there, and stay as they are.
    pub kept: Vec<String>,
    /// Columns that the source has and a kept table does not name.
    pub available: Vec<String>,
    /// What else has to be said.
    pub notes: Vec<String>,
    left_out: Vec<(String, Vec<String>)>,
}

impl InitReport {
    /// Notes a table that was added.
    pub(crate) fn add(&mut self, source: &SourceName, made: &Definition) {
        let (name, written) = (&made.name, source.written());
        let renamed = if *name == source.table { String::new() } else { format!(", as {name:?}") };
        let (width, key, extra) = (made.columns.len(), made.key.join(", "), made.indexes.len());
        self.added.push(format!("{written}{renamed}: {width} columns, key {key}, {extra} indexes"));
        self.notes.extend(made.left_out.iter().map(|what| format!("{written} without {what}")));
    }

    /// Notes columns that tables of the file do not have.
    pub(crate) fn lack(&mut self, table: &str, columns: &[(String, ColumnType)], are_added: bool) {
        if columns.is_empty() {
            return;
        }
        let named: Vec<_> = columns.iter().map(|(n, kind)| format!("{n} {}", kind.name())).collect();
        let line = format!("{table}: {}", named.join(", "));
        if are_added { self.extended.push(line) } else { self.available.push(line) }
    }

    /// Notes a relation that is left out; those with the same reason share a line.
    pub(crate) fn leave_out(&mut self, name: &SourceName, reason: impl Into<String>) {
        let reason = reason.into();
        match self.left_out.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, names)) => names.push(name.written()),
            None => self.left_out.push((reason, vec![name.written()])),
        }
    }

    /// Why a relation was left out.
    pub fn reason(&self, name: &SourceName) -> Option<&str> {
        let written = name.written();
        self.left_out.iter().find(|(_, names)| names.contains(&written)).map(|(reason, _)| reason.as_str())
    }

    /// What was left out, a line for each reason.
    pub(crate) fn left_out(&self) -> Vec<String> {
        self.left_out.iter().map(|(reason, names)| format!("{reason}: {}", listed(names))).collect()
    }
}

fn listed(names: &[String]) -> String {
    let first = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{first} and {} more", names.len() - LISTED) } else { first }
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.kept.is_empty() { Vec::new() } else { vec![listed(&self.kept)] };
        for (head, lines) in [
            ("Added:", &self.added),
            ("Columns added:", &self.extended),
            ("Kept as they are:", &kept),
            ("Columns that are not replicated (add all of them with --add-columns):", &self.available),
            ("Left out:", &self.left_out()),
            ("Take note:", &self.notes),
        ] {
            if !lines.is_empty() {
                writeln!(f, "{head}")?;
                lines.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
            }
        }
        Ok(())
    }
}
