//! The changes of a request within its transaction, as the role of the token: all of them, or none.

use super::answer::{Outcome, Status};
use super::change::Change;
use super::login::become_role;
use super::request::Push;
use super::statement::{self, Statement};
use super::{login, refusal};
use crate::core::error::{Cause, Error, Result};
use crate::core::json::edit;
use crate::core::schema::Op;
use crate::postgres::Client;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A time that lies too far ahead (datetime field overflow).
const EARLY: &str = "22008";

/// A key that is there (unique violation).
const THERE: &str = "23505";

/// Of a row that policies show and do not let change, Postgres itself says nothing (insufficient privilege).
const FORBIDDEN: &str = "42501";

/// What the operator's function gives is no row (invalid parameter value).
const NO_ROW: &str = "22023";

/// Who writes.
pub(super) struct Writer<'a> {
    pub client: &'a Client,
    pub role: &'a str,
    pub claims: &'a str,
}

impl Writer<'_> {
    /// Applies all changes. Where one of them cannot be, nothing of them is left, and the results say which it was.
    pub async fn apply(&self, push: &Push) -> Result<Vec<Outcome>> {
        self.client.batch_execute("savepoint pgflume_push").await?;
        become_role(self.client, self.role, self.claims).await?;
        self.check_guards(push).await?;
        let mut done = Vec::with_capacity(push.changes.len());
        for change in &push.changes {
            let outcome = self.apply_one(change).await?;
            if outcome.status != Status::Applied {
                return self.take_back(push, done.len(), outcome).await;
            }
            done.push(outcome);
        }
        // Constraints that are checked at the end are checked here, where what they refuse can be told.
        match self.client.batch_execute("set constraints all immediate").await {
            Ok(()) => Ok(done),
            Err(e) => self.take_back(push, push.changes.len() - 1, refused(e.into())?).await,
        }
    }

    /// Row-level security may have been switched off since `setup`, or does not count for who owns the table.
    async fn check_guards(&self, push: &Push) -> Result<()> {
        let checked = push.changes.iter().filter(|change| !change.writable.unchecked);
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            checked.map(|change| (&*change.table.source.schema, &*change.table.source.table)).unzip();
        match login::unguarded(self.client, &schemas, &names).await? {
            Some(table) => Err(Error::halt(format!(
                "no row-level security of {table} counts for the role {:?}: enable it, and let another role own the table",
                self.role
            ))),
            None => Ok(()),
        }
    }

    async fn apply_one(&self, change: &Change) -> Result<Outcome> {
        let written = match statement::write(change) {
            Some(statement) => self.write(&statement).await,
            None => self.ask(change).await,
        };
        match written {
            Ok(1..) => Ok(Outcome::applied()),
            Ok(0) => match self.is_early(change).await? {
                true => Ok(Outcome::rejected(EARLY)),
                false => Ok(Outcome::conflict(None)),
            },
            Err(e) => refused(e),
        }
    }

    /// Undoes all of it and tells why, with the row as it is without this request.
    async fn take_back(&self, push: &Push, guilty: usize, outcome: Outcome) -> Result<Vec<Outcome>> {
        let back = "rollback to savepoint pgflume_push";
        self.client.batch_execute(back).await?;
        let mut results: Vec<Outcome> = push.changes.iter().map(|_| Outcome::skipped()).collect();
        if let (Some(change), Some(result)) = (push.changes.get(guilty), results.get_mut(guilty)) {
            let is_there = change.op == Op::Insert && outcome.code.as_deref() == Some(THERE);
            *result = match outcome.status == Status::Conflict || is_there {
                true => self.explained(change, outcome).await?,
                false => outcome,
            };
            self.client.batch_execute(back).await?;
        }
        Ok(results)
    }

    /// What it is that is in the way of a change.
    async fn explained(&self, change: &Change, outcome: Outcome) -> Result<Outcome> {
        become_role(self.client, self.role, self.claims).await?;
        let rows = match self.query(&statement::look(change)).await {
            Ok(rows) => rows,
            // Without the right to read a column, nothing is told.
            Err(e) => return refused(e).map(|_| outcome),
        };
        let Some(row) = rows.first() else {
            let is_conflict = outcome.status == Status::Conflict;
            return Ok(if is_conflict {
                Outcome::conflict(RawValue::from_string("null".into()).ok())
            } else {
                outcome
            });
        };
        let (text, holds): (Option<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
        if holds && change.op != Op::Insert {
            return Ok(Outcome::rejected(FORBIDDEN)); // it may be seen, and not written
        }
        Ok(Outcome::conflict(text.and_then(|text| RawValue::from_string(text).ok())))
    }

    async fn is_early(&self, change: &Change) -> Result<bool> {
        match statement::is_early(change) {
            Some(statement) => Ok(match self.query(&statement).await?.first() {
                Some(row) => row.try_get(0)?,
                None => false,
            }),
            None => Ok(false),
        }
    }

    /// Asks the operator's function, and does what it says.
    async fn ask(&self, change: &Change) -> Result<u64> {
        let Some(question) = statement::ask(change) else { return Ok(0) };
        let rows = self.query(&question).await?;
        let Some(row) = rows.first() else { return Ok(0) };
        let Some(said) = row.try_get::<_, Option<String>>(0)? else { return Ok(0) };
        let Some(members) = edit::members(&said) else {
            return Err(
                Error::reject("the function of a custom conflict gave no object").of_postgres(NO_ROW, Cause::Row)
            );
        };
        let is_said = |column: &&String| members.iter().any(|(name, _)| name == *column);
        let columns: Vec<String> = change.writable.columns.iter().filter(is_said).cloned().collect();
        if columns.is_empty() && change.op != Op::Delete {
            return Ok(1);
        }
        self.write(&statement::obey(change, &columns, said)).await
    }

    async fn write(&self, statement: &Statement) -> Result<u64> {
        Ok(self.client.execute_typed(&statement.sql, &parameters(statement)).await?)
    }

    async fn query(&self, statement: &Statement) -> Result<Vec<Row>> {
        Ok(self.client.query_typed(&statement.sql, &parameters(statement)).await?)
    }
}

fn parameters(statement: &Statement) -> Vec<(&(dyn ToSql + Sync), Type)> {
    statement.parameters.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect()
}

/// What Postgres refuses for good is a result; what may pass is an error.
fn refused(error: Error) -> Result<Outcome> {
    match refusal::code(&error) {
        Some(code) => Ok(Outcome::rejected(code)),
        None => Err(error),
    }
}
