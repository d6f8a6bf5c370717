//! Connections.

use super::journal::Journal;
use super::opening::Opening;
use super::source::Source;
use crate::core::error::Result;
use crate::postgres::Purpose;
use async_trait::async_trait;

/// One connection. Dropped, its transaction is rolled back.
pub trait Link: Source + Journal + Opening {}

impl<T: Source + Journal + Opening> Link for T {}

/// Opens connections to one queue and its source.
#[async_trait]
pub trait Connect: Send + Sync {
    /// A connection for this purpose.
    async fn connect(&self, purpose: Purpose) -> Result<Box<dyn Link>>;
}
