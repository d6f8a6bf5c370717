//! What a run of `init` did, in words.

use crate::core::schema::SourceName;
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
    /// Columns that Postgres has and a kept table does not name.
    pub available: Vec<String>,
    /// What else has to be said.
    pub notes: Vec<String>,
    left_out: Vec<(String, Vec<String>)>,
}

impl InitReport {
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
