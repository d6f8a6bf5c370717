//! The server, the role and the queue.

use super::finding::{Finding, asked};
use crate::core::codes;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::postgres::Client;
use std::time::{Duration, SystemTime};
use tokio_postgres::types::Type;

/// How far the clocks may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// Whether there are transactions at all: a pooler that gives each statement another connection has none.
pub(super) async fn transactions(client: &Client) -> Result<()> {
    client.begin("", "").await?;
    client.rollback().await?;
    Ok(())
}

/// What `sql/doctor.sql` asks.
pub(super) async fn examine(client: &Client, queue: &QueueName, old: Duration) -> Result<Vec<Finding>> {
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&old.as_secs_f64() as _, Type::FLOAT8)];
    asked(client, include_str!("../../../sql/doctor.sql"), &parameters).await
}

/// Whether both machines have the same time.
pub(super) async fn clock(client: &Client) -> Result<Vec<Finding>> {
    let before = SystemTime::now();
    let row = client.query_typed_one("select pg_catalog.clock_timestamp()", &[]).await?;
    Ok(skew(before, row.try_get(0)?, SystemTime::now()).into_iter().collect())
}

/// `there` was read between `before` and `after`.
fn skew(before: SystemTime, there: SystemTime, after: SystemTime) -> Option<Finding> {
    let (late, early) = (before.duration_since(there), there.duration_since(after));
    let apart = late.or(early).unwrap_or_default();
    (apart > CLOCK_TOLERANCE).then(|| {
        Finding::new(&codes::CLOCK, "this machine", format!("Postgres' clock is {} s away", apart.as_secs()))
            .mended_by("timedatectl set-ntp true")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_the_answer_took_are_told() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(skew(at(100), at(105), at(130)), None);
        assert_eq!(skew(at(100), at(95), at(130)), None);
        for there in [40, 200] {
            assert_eq!(skew(at(100), at(there), at(130)).map(|f| f.code), Some(&codes::CLOCK), "{there}");
        }
    }
}
