//! Dead letters of a sync: rows that could not be taken over. Each goes by itself when its row can be, or is gone.

use super::settings::Pull;
use crate::core::error::{Error, Result};
use crate::replica::Replica;
use crate::replica::pulls::{Kept, LetterChoice};

impl Pull {
    /// The chosen letters, oldest first; at most `limit`.
    pub async fn letters(&self, choice: &LetterChoice, limit: i64) -> Result<Vec<Kept>> {
        match self.replica_with_pulls().await? {
            Some(replica) => replica.letters(&self.name, choice, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Lets the next pass try the chosen rows again that the replica has refused; how many there are.
    pub async fn retry_letters(&self, choice: &LetterChoice) -> Result<u64> {
        let Some(replica) = self.replica_with_pulls().await? else { return Ok(0) };
        let letters = replica.letters(&self.name, choice, i64::MAX).await?;
        let Some(pull) = replica.pull(&self.name).await? else { return Ok(0) };
        let to = pull.head.next(self.chance.token());
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        replica.retry_letters(&self.name, &pull.head, &to, &ids).await?;
        Ok(ids.len() as u64)
    }

    async fn replica_with_pulls(&self) -> Result<Option<Replica>> {
        let Some(replica) = Replica::existing(&self.target).await? else { return Ok(None) };
        let has_pulls = replica.inventory_read().await?.has_pulls();
        Ok(has_pulls.then_some(replica))
    }

    /// Why letters of a sync are not dropped.
    pub fn undroppable(&self) -> Error {
        Error::halt(format!(
            "dead letters of the sync {:?}, which pulls, cannot be dropped: each goes by itself when its row can be taken over or is gone; leave the table or the column out to give it up",
            self.name
        ))
    }
}
