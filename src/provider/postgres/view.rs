//! How a view of Postgres begins: the locks that keep out what would make a table look empty, then the snapshot, then
//! what it is a snapshot of.

use super::known::Known;
use super::mark::Position;
use crate::core::error::{Error, Result};
use crate::core::failpoint::PullRule;
use crate::core::token::Seen;
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::versions::Leaves;
use crate::postgres::rows::{self, Server};
use crate::postgres::{Client, iso_text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One snapshot.
pub(super) struct Snapshot {
    pub position: Position,
    /// WAL up to it, as Postgres writes it.
    pub lsn: String,
    /// The oldest transaction that was open.
    pub xid: u64,
    /// Postgres' clock.
    pub at: String,
    /// Which transactions it sees.
    pub seen: Option<Seen>,
    /// The leaves of each table that was looked at.
    pub leaves: BTreeMap<String, Leaves>,
    /// What was read last is read by settings of its own.
    pub is_set_for_listing: bool,
}

/// How it began.
pub(super) enum Opened {
    Snapshot(Box<Snapshot>),
    /// The tables are no longer as they were described.
    Altered,
    /// Another session keeps readers out of one of them.
    Locked,
}

/// What of a snapshot is kept. A standby's timeline is that of its last restart point, because nobody may ask it for
/// that of what it replays.
fn facts() -> String {
    let clock = iso_text("pg_catalog.clock_timestamp()");
    format!(
        "
    select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text, s.is_standby, s.lsn::pg_catalog.text,
           (s.lsn - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8,
           (select system_identifier from pg_catalog.pg_control_system())::pg_catalog.text,
           case when s.is_standby
               then pg_catalog.upper(pg_catalog.lpad(pg_catalog.to_hex((select timeline_id from pg_catalog.pg_control_checkpoint())), 8, '0'))
               else pg_catalog.left(pg_catalog.pg_walfile_name(s.lsn), 8) end,
           (select oid::pg_catalog.text from pg_catalog.pg_database where datname = pg_catalog.current_database()),
           {clock},
           pg_catalog.pg_current_snapshot()::pg_catalog.text
    from (select r.is_standby, case when r.is_standby then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_insert_lsn() end as lsn
          from (select pg_catalog.pg_is_in_recovery() as is_standby offset 0) r offset 0) s"
    )
}

/// Begins one of these tables.
pub(super) async fn begin(
    client: &Client,
    known: &Known,
    sources: &[Arc<SourceTable>],
    server: Server,
) -> Result<Opened> {
    let tables: Vec<&SourceTable> = sources.iter().map(AsRef::as_ref).collect();
    match rows::begin(client, &tables, server).await {
        Ok(()) => {}
        Err(e) if e.is_locked() => {
            client.rollback().await?;
            return Ok(Opened::Locked);
        }
        // A table is gone, or no longer ours to read: what it was described as tells.
        Err(e) if e.needs_operator() && e.sqlstate().is_some() => {
            client.rollback().await?;
            tracing::debug!(error = %e, "the tables are described again");
            return Ok(Opened::Altered);
        }
        Err(e) => return Err(e),
    }
    client.batch_execute("set transaction read only").await?;
    let facts = match PullRule::OldestOpen.holds() {
        true => facts(),
        false => facts().replace("pg_snapshot_xmin", "pg_snapshot_xmax"),
    };
    let row = client.query_typed_one(&facts, &[]).await?;
    let number = |text: &str| text.parse().map_err(|_| Error::retry("Postgres gave a number that is none"));
    let is_standby: bool = row.try_get(1)?;
    let seen = Seen::parse(row.try_get(8)?).map(|seen| if is_standby { seen.of_standby() } else { seen.bounded() });
    let snapshot = Snapshot {
        seen,
        xid: number(row.try_get(0)?)?,
        lsn: row.try_get(2)?,
        at: row.try_get(7)?,
        leaves: BTreeMap::new(),
        is_set_for_listing: false,
        position: Position {
            is_standby,
            lsn: u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or_default(),
            system: row.try_get(4)?,
            timeline: row.try_get(5)?,
            database: row.try_get(6)?,
        },
    };
    if known.is_current(client).await? {
        return Ok(Opened::Snapshot(Box::new(snapshot)));
    }
    client.rollback().await?;
    Ok(Opened::Altered)
}

/// Those of the tables that another session keeps locked, waited for one by one and a little.
pub(super) async fn locked(client: &Client, sources: &[Arc<SourceTable>], server: Server) -> Result<Vec<String>> {
    let mut locked = Vec::new();
    for source in sources.iter().filter(|source| !source.kind.shows_others()) {
        match rows::wait_for(client, source, server.lock_wait).await {
            Err(e) if e.is_locked() => locked.push(source.table.name.clone()),
            other => other?,
        }
    }
    Ok(locked)
}
