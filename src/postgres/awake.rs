//! Long work of the replica while a transaction of Postgres holds what others wait for. Postgres takes it from a
//! process that has stopped; one that is at work says so now and then. Takes how that is said.

use crate::core::error::Result;
use std::time::Duration;

/// Between two signs of life: several fit into [`SILENCE`](crate::postgres::client::SILENCE).
const PULSE: Duration = Duration::from_secs(5);

/// Does `work` and keeps a transaction from being taken for a dead one by its `pulse`. Where it is gone nonetheless, the
/// next statement says so.
pub(crate) async fn awake<T, E, P: Future<Output = Result<(), E>>>(
    pulse: impl Fn() -> P,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let signs = async {
        loop {
            tokio::time::sleep(PULSE).await;
            if pulse().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = signs => std::future::pending().await,
    }
}
