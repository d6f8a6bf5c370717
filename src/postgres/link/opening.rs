//! How a step opens that knows what it will do first.

use super::journal::{Begun, Flight, Queue, ReadsMessage, Savepoint, Transaction};
use super::source::Source;
use crate::core::error::Result;
use crate::postgres::books::progress::Snapshot;
use crate::postgres::catalog::SourceTable;
use crate::postgres::queue::{Take, TakenMessages};
use async_trait::async_trait;

/// A step that is open.
pub struct Opened {
    /// What it sees, with the single flight.
    pub snapshot: Snapshot,
    /// See [`Source::fingerprint`]; `None` where it was not asked for.
    pub fingerprint: Option<Result<String>>,
    /// What it has taken, behind [`Savepoint::Take`].
    pub taken: Result<TakenMessages>,
    /// See [`Source::measure`].
    pub measured: Result<()>,
}

/// The beginning of a step, and what it takes first, as one.
#[async_trait]
pub trait Opening: Transaction + Flight + Queue + Source {
    /// Begins with locks on these tables and the single flight, asks for the fingerprint if it `looks`, and takes at
    /// once, each message told to `read` as it comes: before anybody knows whether this step may, so that whoever finds
    /// that it may not rolls back. `None`, and nothing is begun, where somebody has one of the locks.
    async fn open(
        &self,
        tables: &[&SourceTable],
        looks: bool,
        take: Take<'_>,
        read: &mut ReadsMessage<'_>,
    ) -> Result<Option<Opened>> {
        if self.begin(tables).await? != Begun::Locked {
            return Ok(None);
        }
        let Some(snapshot) = self.lock().await? else {
            self.rollback().await?;
            return Ok(None);
        };
        let fingerprint = if looks { Some(self.fingerprint().await) } else { None };
        self.savepoint(Savepoint::Take, None).await?;
        let taken = self.take(take, read).await;
        let measured = self.measure(tables).await;
        Ok(Some(Opened { snapshot, fingerprint, taken, measured }))
    }
}
