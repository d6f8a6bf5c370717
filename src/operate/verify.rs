//! `pgflume verify`: compares tables with the replica, row by row, while writes go on. Takes a worker and
//! what to compare; gives a report. The comparing itself is done by steps that have drained the queue
//! ([`crate::sync::compare`]), so that both sides are at the same snapshot.

use crate::core::difference::VerifyReport;
use crate::core::error::{Error, Result};
use crate::replica::Replica;
use crate::replica::target::Target;
use crate::sync::Worker;
use crate::sync::compare::Comparison;
use crate::sync::compare::report::{Counters, VerifyOptions};
use std::sync::Arc;
use std::time::Duration;

/// Compares until all is compared; the queue is drained on the way.
pub async fn verify(worker: &Worker, options: VerifyOptions, counters: Arc<Counters>) -> Result<VerifyReport> {
    let target = match &options.target {
        None => None,
        Some(Target::File(path)) if !path.exists() => {
            return Err(Error::halt(format!("there is no database {} to verify: check --target", path.display())));
        }
        Some(target) => {
            let replica = Replica::open(target).await?;
            replica.check_readable(worker.schema()).await?;
            Some(replica)
        }
    };
    worker.verify(Comparison::new(options, target, counters), BUDGET).await
}

/// No caller waits for it: it goes on until it is done.
const BUDGET: Duration = Duration::from_secs(7 * 24 * 60 * 60);
