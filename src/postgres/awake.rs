//! Long work of the replica while a transaction of Postgres holds what others wait for. Postgres takes it from a
//! process that has stopped; one that is at work says so now and then. Takes a client inside its transaction.

use crate::core::error::Result;
use crate::postgres::Client;
use std::time::Duration;

/// Between two signs of life: several fit into [`SILENCE`](crate::postgres::SILENCE).
const PULSE: Duration = Duration::from_secs(5);

/// Does `work` and keeps the transaction of `client` from being taken for a dead one. Where it is gone nonetheless, the
/// next statement says so.
pub async fn awake<T>(client: &Client, work: impl Future<Output = Result<T>>) -> Result<T> {
    let signs = async {
        loop {
            tokio::time::sleep(PULSE).await;
            if client.pulse().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        done = work => done,
        () = signs => std::future::pending().await,
    }
}
