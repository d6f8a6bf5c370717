//! Columns that `schema.json` names and a table that can be looked at does not have: mistyped, or dropped. The
//! replica does not get them, because nobody would take them away again; a captured table waits.

use crate::postgres::catalog::SourceTable;
use std::collections::BTreeMap;

/// Says which, and gives the captured tables among them, which wait, each with its problem.
pub(in crate::sync) fn told(sources: &BTreeMap<String, SourceTable>) -> BTreeMap<String, String> {
    let mut waiting = BTreeMap::new();
    for (name, source) in sources.iter().filter(|(_, source)| !source.lacking.is_empty()) {
        let Some(problem) = source.access.problem(&source.table) else { continue };
        let what = if source.captured { "changes of this table wait on the queue" } else { "the replica goes without" };
        tracing::error!(table = name, columns = ?source.lacking, "{what}: {problem}");
        if source.captured {
            waiting.insert(name.clone(), problem);
        }
    }
    waiting
}
