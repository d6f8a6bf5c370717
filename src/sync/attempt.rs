//! Reading behind a savepoint, so that a step goes on where a row cannot be read.

use super::session::Session;
use crate::core::error::{Error, Result, Side};
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::Savepoint;
use crate::postgres::rows::fault::Fault;
use tokio::time::Instant;

/// Rows that could not be read: one of them is at fault, or it took too long.
pub(super) struct Unreadable {
    /// Which of the two.
    pub fault: Fault,
    /// What was said.
    pub error: Error,
}

impl Session<'_> {
    /// Does `reading` of a table behind a savepoint, within the time of a statement. Where one of its rows is at fault,
    /// the step goes on from before it; what is the whole table's matter is an error of the table.
    pub(super) async fn attempt<T>(
        &self,
        source: &SourceTable,
        reading: impl Future<Output = Result<T>>,
    ) -> Result<Result<T, Unreadable>> {
        let limit = self.worker.statement_time;
        self.link.savepoint(Savepoint::Read, Some(limit)).await?;
        let since = Instant::now();
        let done = match reading.await {
            Ok(done) => Ok(done),
            Err(error) => match Fault::of(&error, since, limit) {
                fault @ (Fault::Row | Fault::Slow) => {
                    self.link.rollback_to(Savepoint::Read).await?;
                    Err(Unreadable { fault, error })
                }
                Fault::Table => return Err(error.of_table(&source.table.name, Side::Source)),
                Fault::Other => return Err(error),
            },
        };
        self.link.release(Savepoint::Read).await?;
        Ok(done)
    }
}
