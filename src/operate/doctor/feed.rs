//! What clients are fed and write: tokens, the login of their writes, its journal, policies, the log.

use super::finding::Finding;
use super::process::Process;
use crate::core::codes;
use crate::core::error::{Error, Result};
use crate::core::schema::{Readers, Schema, Table};
use crate::operate::feed::{FedTable, FeedState};
use crate::postgres::{Client, Purpose};
use crate::replica::FEED_RETENTION;
use crate::replica::inventory::Inventory;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::Type;

/// How much older than it should be the log may be: it is pruned with batches, bit by bit.
const LOG_TOLERANCE: Duration = Duration::from_secs(3600);

/// What the settings lack that `schema.json` asks for.
pub(super) fn settings<'a>(tables: impl Iterator<Item = &'a Arc<Table>>, process: &Process) -> Option<Finding> {
    let is_closed = |table: &&Table| table.feed.as_ref().is_some_and(|feed| feed.readers != Readers::Anybody);
    let closed = tables.map(|table| &**table).find(is_closed).map(|table| table.name.as_str());
    let subject = closed.or_else(|| process.push.is_some().then_some("PUSH_URL"))?;
    let finding = || {
        Finding::new(
            &codes::FEED_TOKENS,
            subject,
            "none of FEED_JWT_SECRET, FEED_JWKS_URL and FEED_AUTH_URL is set here",
        )
        .mended_by("FEED_JWKS_URL='https://example.org/.well-known/jwks.json' pgflume serve --follow")
    };
    (!process.has_tokens).then(finding)
}

/// Policies of tables that clients write, and the journal, as far as this role may look.
pub(super) async fn written(client: &Client, schema: &Schema) -> Result<Vec<Finding>> {
    let writable: Vec<&Table> =
        schema.tables().map(|table| &**table).filter(|table| table.writable.is_some()).collect();
    if writable.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for table in &writable {
        let is_unchecked = table.writable.as_ref().is_some_and(|writable| writable.unchecked);
        if !is_unchecked && !has_row_security(client, table).await? {
            let relation = table.source.quoted();
            found.push(
                Finding::new(&codes::WRITABLE_OPEN, &table.name, format!("{relation} has none"))
                    .mended_by(format!("alter table {relation} enable row level security")),
            );
        }
    }
    found.extend(journal(client).await?);
    Ok(found)
}

/// A table that is not there is told of elsewhere.
async fn has_row_security(client: &Client, table: &Table) -> Result<bool> {
    let sql = "select not exists (select from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
                   where n.nspname operator(pg_catalog.=) $1 and c.relname operator(pg_catalog.=) $2 and not c.relrowsecurity)";
    let names = [(&table.source.schema as _, Type::TEXT), (&table.source.table as _, Type::TEXT)];
    Ok(client.query_typed_one(sql, &names).await?.try_get(0)?)
}

async fn journal(client: &Client) -> Result<Option<Finding>> {
    let sql = "select exists (select from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) 'pgflume_push'),
                   (select pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
                    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
                    where n.nspname operator(pg_catalog.=) 'pgflume' and c.relname operator(pg_catalog.=) 'pushes')";
    let row = client.query_typed_one(sql, &[]).await?;
    let (has_role, is_readable): (bool, Option<bool>) = (row.try_get(0)?, row.try_get(1)?);
    let Some(is_readable) = is_readable.filter(|_| has_role) else {
        let found = "the role or its table is missing";
        return Ok(Some(Finding::new(&codes::PUSH_JOURNAL, "pgflume.pushes", found).mended_by("pgflume setup")));
    };
    if !is_readable {
        return Ok(None); // as a rule nobody but pgflume_push may
    }
    let sql = "select pg_catalog.min(p.at) operator(pg_catalog.<) (pg_catalog.now() operator(pg_catalog.-) pg_catalog.make_interval(days => 8))
               from pgflume.pushes as p";
    let is_old: Option<bool> = client.query_typed_one(sql, &[]).await?.try_get(0)?;
    let finding = || {
        Finding::new(&codes::PUSH_JOURNAL_OLD, "pgflume.pushes", "its oldest answer is older than eight days")
            .mended_by("delete from pgflume.pushes where at < now() - interval '7 days'")
    };
    Ok((is_old == Some(true)).then(finding))
}

/// What is wrong with the login of clients' writes.
pub(super) async fn login(process: &Process) -> Option<Finding> {
    let push = process.push.as_ref()?;
    let asked = async {
        let client = push.pinned(Purpose::Doctor).await?;
        let row = client.query_typed_one(include_str!("../../../sql/push_login.sql"), &[]).await?;
        let (is_above, inherits, has_journal, is_member): (bool, bool, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        Ok(match (is_above, inherits, has_journal, is_member) {
            (true, ..) => Some(("it is a superuser, or has BYPASSRLS, CREATEROLE or REPLICATION", MAKE)),
            (_, true, ..) => Some(("it inherits rights of another role", "alter role LOGIN noinherit")),
            (_, _, true, false) => Some(("it may not write the journal", "grant pgflume_push to LOGIN")),
            _ => None, // a journal that is not there is told of by whoever looks at the queue
        })
    };
    let (problem, command) = match asked.await {
        Ok(found) => found.map(|(problem, command)| (problem.to_owned(), command))?,
        Err::<_, Error>(e) => (e.to_string().replace("PGMQ_URL", "PUSH_URL"), "psql \"$PUSH_URL\" -c 'select 1'"),
    };
    Some(Finding::new(&codes::PUSH_LOGIN, push.place(), problem).mended_by(command))
}

/// A login as it has to be.
const MAKE: &str = "create role pgflume_clients login noinherit; grant pgflume_push to pgflume_clients";

/// Tables that cannot be fed from the replica as it is.
pub(super) fn tables(schema: &Schema, there: &Inventory) -> Vec<Finding> {
    let is_there = |table: &&Table| there.tables.contains_key(&table.name.to_lowercase());
    let fed = schema.tables().map(|table| &**table).filter(|table| table.feed.is_some()).filter(is_there);
    let finding = |table: &Table| {
        Finding::new(&codes::FEED_ROWIDS, &table.name, "it is there WITHOUT ROWID, or has a column called rowid")
            .mended_by("pgflume nuke")
    };
    fed.filter(|table| !there.has_rowids(table)).map(finding).collect()
}

/// How the log stands; `is_copied`: whether a table is being copied.
pub(super) fn log(feed: Option<&FeedState>, is_copied: impl Fn(&str) -> bool, process: &Process) -> Vec<Finding> {
    let most = process.feed_retention.unwrap_or(FEED_RETENTION) + LOG_TOLERANCE;
    let tables = feed.iter().flat_map(|feed| &feed.tables);
    let of = |(name, table): (&String, &FedTable)| {
        let is_copied = is_copied(name);
        let mut found = Vec::new();
        if !table.whole && !is_copied {
            let said = "clients are answered 503, and it is not being copied";
            found.push(Finding::new(&codes::FEED_UNWHOLE, name, said).mended_by("pgflume sync"));
        }
        if table.held && !is_copied {
            let said = "it was left out of the last cut, and is not being copied";
            found.push(Finding::new(&codes::FEED_HELD, name, said).mended_by("pgflume status"));
        }
        if table.span_seconds > most.as_secs_f64() {
            let hours = table.span_seconds / 3600.0;
            let said = format!("it reaches back {hours:.0} hours");
            found.push(Finding::new(&codes::FEED_LOG, name, said).mended_by("pgflume sync"));
        }
        found
    };
    tables.flat_map(of).collect()
}
