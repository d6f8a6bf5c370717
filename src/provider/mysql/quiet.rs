//! Spares looks at tables whose changes nobody tells: while nothing was committed on the server, as its log says even to
//! whoever may only SELECT. What is kept out of the log is not seen by that (`sql_log_bin`, databases that are left out), so
//! each table is looked at from time to time all the same.

use super::way;
use crate::core::error::Result;
use crate::mysql::catalog::get;
use crate::mysql::session::Session;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So long at the most no look is made at a table.
const MOST: Duration = Duration::from_secs(60);

/// Looks at the tables of one sync whose rows the replica has, shared by the connections of a process.
#[derive(Debug, Clone, Default)]
pub struct Quiet(Arc<Mutex<BTreeMap<String, Looked>>>);

/// What a look at a table has found.
#[derive(Debug)]
pub(super) struct Looked {
    /// Where the log was.
    pub log: String,
    pub mark: String,
    pub rows: i64,
    pub at: Instant,
}

impl Quiet {
    /// The rows of a table, if the log is where it was at a look that led to this mark, and that is not long ago; `compare`:
    /// how often all rows are to be compared.
    pub(super) fn rows(&self, table: &str, log: &str, since: &str, compare: Option<Duration>) -> Option<i64> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = tables.get(table)?;
        let most = compare.map_or(MOST, |every| every.min(MOST));
        (looked.log == log && looked.mark == since && looked.at.elapsed() < most).then_some(looked.rows)
    }

    /// Keeps what looks have found, now that the replica has it.
    pub(super) fn keep(&self, looked: BTreeMap<String, Looked>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(looked);
    }
}

/// Where the log of a MySQL is: whoever opens a snapshot after this sees all that is in it. `None` of a MariaDB, and where
/// transactions have no numbers.
pub(super) async fn before_snapshot(session: &mut Session) -> Result<Option<String>> {
    if session.server.is_mariadb {
        return Ok(None);
    }
    let row = session.row("select @@log_bin and @@gtid_mode = 'ON', @@global.gtid_executed", ()).await?;
    let tells: i64 = get(&row, 0)?;
    Ok(if tells == 0 { None } else { Some(get(&row, 1)?) })
}

/// Where the log of a MariaDB was at the snapshot, and what the server has replayed, which its log may lack.
pub(super) async fn in_snapshot(session: &mut Session) -> Result<Option<String>> {
    if !session.server.is_mariadb {
        return Ok(None);
    }
    let Some(place) = way::snapshot_place(session).await? else { return Ok(None) };
    // What other nodes of a cluster write need not be in the log of this one.
    let numbers = "select concat_ws(' ', @@gtid_binlog_pos, @@gtid_slave_pos), exists (
        select 1 from information_schema.global_variables v where v.variable_name = 'WSREP_ON' and v.variable_value = 'ON')";
    let row = session.row(numbers, ()).await?;
    let (numbers, is_shared): (String, i64) = (get(&row, 0)?, get(&row, 1)?);
    Ok((is_shared == 0).then(|| format!("{} {} {numbers}", place.file, place.at)))
}
