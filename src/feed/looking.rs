//! Brings a board to where its table is by now.

use super::board::Board;
use super::changes::Wanted;
use super::limits::Means;
use super::snapshot::Snapshot;
use crate::core::error::Result;
use crate::replica::Replica;

/// Reads what has changed since a board was last looked at; `snapshot`: the replica saw as much of the source before.
pub async fn look_at(board: &Board, replica: &Replica, snapshot: Snapshot, means: &Means) -> Result<()> {
    match board.at() {
        None => board.begin_behind(replica.fed(board.table()).await?.as_ref(), None, snapshot),
        Some((generation, since)) => {
            let (table, needed, limits) = (&**board.table(), board.needed(), means.limits);
            let wanted = Wanted { table, needed, since, keep: |_: &_| true, limits };
            board.go_on(wanted.read(replica, |fed| *fed.generation == *generation).await?, &means.kept, snapshot);
        }
    }
    Ok(())
}
