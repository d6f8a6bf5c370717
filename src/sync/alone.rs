//! Work on the replica that takes long, while no step of anybody runs: a server takes a transaction away that another
//! one waits for.

use crate::core::error::{Error, Result};
use crate::postgres::awake::awake;
use crate::postgres::link::Link;
use std::time::Duration;

/// How long to wait for the step of another worker before tables or indexes are made.
const MAKING_PATIENCE: Duration = Duration::from_secs(10);

/// Does `work` under the single flight.
pub(super) async fn alone<T>(link: &dyn Link, work: impl Future<Output = Result<T>>) -> Result<T> {
    link.begin_waiting(MAKING_PATIENCE).await?;
    if !link.wait_for_flight().await? {
        return Err(Error::retry(
            "the replica lacks tables or indexes, and another worker's step takes long; it will be tried again",
        ));
    }
    let made = awake(|| link.pulse(), work).await?;
    link.commit().await?;
    Ok(made)
}
