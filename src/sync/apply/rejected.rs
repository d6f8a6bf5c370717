//! What the target has rejected since it last took a row of the same table: is it the rows, or the table? Kept for
//! the life of a worker. No IO.

use crate::core::batch::{Item, RowState};
use crate::core::error::{Error, Result, Side};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many rejected rows of a table that takes others halt it: finding each takes some requests,
/// and Postgres waits meanwhile.
const MAX_REJECTED: usize = 1_000;

/// The same in time, for a target that answers slowly: less than a step may take.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Rejected rows of a table that took none since, after which a step looks elsewhere in its batch; after twice as
/// many it is the table.
const DOUBTFUL: usize = 8;

/// Rejected rows by table.
#[derive(Debug, Default)]
pub(in crate::sync) struct Rejected(Mutex<BTreeMap<String, Rows>>);

#[derive(Debug, Default)]
struct Rows {
    /// Since the last step in which the table took one.
    in_a_row: usize,
    /// In this step.
    all: usize,
    /// The table took one in this step.
    has_taken: bool,
}

impl Rows {
    fn is_doubtful(&self) -> bool {
        !self.has_taken && self.in_a_row >= DOUBTFUL
    }
}

impl Rejected {
    /// Counts a row, `time` after the first of this step. Whether it is time to look elsewhere in the batch; an error
    /// where the target does not take this table.
    pub fn note(&self, table: &str, time: Duration, error: &Error) -> Result<bool> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = tables.entry(table.to_owned()).or_default();
        (rows.in_a_row, rows.all) = (rows.in_a_row + 1, rows.all + 1);
        let what = match rows {
            Rows { in_a_row, has_taken: false, .. } if *in_a_row >= 2 * DOUBTFUL => "any row".to_owned(),
            Rows { all, .. } if *all >= MAX_REJECTED => format!("{MAX_REJECTED} rows and more"),
            _ if time >= MAX_TIME => format!("so many rows that finding them takes more than {} s", MAX_TIME.as_secs()),
            rows => return Ok(rows.in_a_row == DOUBTFUL && !rows.has_taken),
        };
        (rows.all, rows.has_taken) = (0, false);
        Err(Error::halt(format!(
            "the replica does not take {what} of table {table:?} ({error}): correct the replica's table, or run `pgflume setup` with LIBSQL_URL, or POST /nuke; its changes wait on the queue"
        ))
        .of_table(table, Side::Target))
    }

    /// These were taken. A deleted key tells nothing.
    pub fn took(&self, items: &[Item]) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<&str> =
            items.iter().filter(|i| matches!(i.state, RowState::Row { .. })).map(|i| i.table.name.as_str()).collect();
        names.dedup(); // they are sorted by table
        for name in names {
            tables.entry(name.to_owned()).or_default().has_taken = true;
        }
    }

    /// The step is acknowledged: only of tables that took nothing it is remembered.
    pub fn end_step(&self) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|_, rows| {
            let is_fine = rows.has_taken;
            (rows.all, rows.has_taken) = (0, false);
            !is_fine
        });
    }

    /// Whether a table had only rejected rows lately, and more than a few.
    pub fn is_doubtful(&self) -> bool {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.values().any(Rows::is_doubtful)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::ErrorKind;

    fn reject(rejected: &Rejected, rows: usize, seconds: u64) -> Vec<Result<bool>> {
        (0..rows).map(|_| rejected.note("t", Duration::from_secs(seconds), &Error::reject("no"))).collect()
    }

    #[test]
    fn a_table_is_at_fault_that_takes_nothing_over_steps() {
        let rejected = Rejected::default();
        for step in 0..15 {
            assert!(reject(&rejected, 1, 0)[0].is_ok(), "step {step}");
            rejected.end_step();
        }
        let error = reject(&rejected, 1, 0).remove(0).unwrap_err();
        assert!(
            error.kind() == &ErrorKind::Table { name: "t".into(), side: Side::Target }
                && error.to_string().contains("any row"),
            "{error}"
        );
        assert!(reject(&rejected, 1, 0)[0].is_err(), "until it takes one");
    }

    #[test]
    fn finding_them_may_take_a_minute() {
        assert!(reject(&Rejected::default(), 1, 59)[0].is_ok());
        assert!(reject(&Rejected::default(), 1, 60)[0].is_err());
    }
}
