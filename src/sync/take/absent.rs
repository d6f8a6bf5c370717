//! Which keys of the replica the source lacks, asked within a step.

use crate::core::absent::{self, Absent, AsksKeys};
use crate::core::error::Result;
use crate::core::message::MarkedKey;
use crate::postgres::catalog::SourceTable;
use crate::sync::session::Session;
use async_trait::async_trait;

/// A table of a step, behind savepoints.
struct Asked<'a> {
    session: &'a Session<'a>,
    source: &'a SourceTable,
}

#[async_trait]
impl AsksKeys for Asked<'_> {
    async fn absent(&self, keys: &[MarkedKey]) -> Result<Option<Vec<usize>>> {
        let Self { session, source } = self;
        Ok(session.attempt(source, session.link.absent(source, keys)).await?.ok())
    }

    async fn try_key(&self, key: &MarkedKey) -> Result<Option<()>> {
        let Self { session, source } = self;
        Ok(session.attempt(source, session.link.try_key(source, key)).await?.ok())
    }

    async fn absent_by_text(&self, keys: &[MarkedKey], filtered: bool) -> Result<Option<Vec<usize>>> {
        let Self { session, source } = self;
        Ok(session.attempt(source, session.link.absent_by_text(source, keys, filtered)).await?.ok())
    }

    fn is_filtered(&self) -> bool {
        self.source.table.filter.is_some()
    }
}

/// Which of `keys` the source lacks.
pub(in crate::sync) async fn absent(session: &Session<'_>, source: &SourceTable, keys: &[MarkedKey]) -> Result<Absent> {
    absent::absent(&Asked { session, source }, keys).await
}
