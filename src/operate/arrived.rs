//! What a replica holds of its source, by its own word: whoever brought it there.

use crate::core::error::Result;
use crate::core::token::Seen;
use crate::replica::Replica;
use crate::replica::target::Target;
use std::time::Duration;

/// A file is asked so often, for all who wait.
const FILE_LOOK: Duration = Duration::from_millis(250);

/// The same of a server, which may bill reads.
const SERVER_LOOK: Duration = Duration::from_secs(2);

/// What the replica has seen when it last was as the source of the sync `name` was; `None` where it never was, or is not
/// there. Changes nothing.
pub(crate) async fn seen(target: &Target, name: &str) -> Result<Option<Seen>> {
    let Some(replica) = Replica::existing(target).await? else { return Ok(None) };
    replica.seen(name).await
}

/// How long such an answer is good for.
pub(crate) fn kept_for(target: &Target) -> Duration {
    if matches!(target, Target::Remote { .. }) { SERVER_LOOK } else { FILE_LOOK }
}
