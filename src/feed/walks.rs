//! Parts of tables that many ask for at once, as all do who begin anew: each is read once.

use super::answer::{Answer, Asked};
use super::offset::{Offset, Walked};
use crate::core::error::Result;
use crate::replica::feed_reads::Fed;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a part is given again. What has changed since its walk began is told at its end.
const KEPT: Duration = Duration::from_secs(3);

/// Most parts.
const MOST: usize = 32;

/// By their shapes, and where they begin. One who begins a table shares with those who do while it is the same.
#[derive(Default)]
pub(super) struct Walks(Mutex<HashMap<String, Arc<Part>>>);

struct Part {
    begun_at: Instant,
    answer: OnceCell<Answer>,
}

impl Walks {
    /// What `answering` says, or what it said to another who asked for the same; `state`: where the table is.
    pub async fn share(
        &self,
        asked: &Asked<'_>,
        state: Option<&Fed>,
        answering: impl Future<Output = Result<Answer>>,
    ) -> Result<Answer> {
        let shape = || asked.shape.name();
        let name = match (asked.offset, state) {
            (Offset::Start, Some(fed)) => format!("{} {} {:?}", shape(), fed.generation, fed.last),
            (Offset::At(_, Walked::To(_)), _) => {
                // Of which history it is: the cut at its end names one client.
                let history = asked.handle.and_then(|handle| handle.rsplit_once('-')).map(|(history, _)| history);
                format!("{} {} {}", shape(), asked.offset, history.unwrap_or_default())
            }
            _ => return answering.await,
        };
        let part = self.part(&name);
        let answer = part.answer.get_or_try_init(|| answering).await?.clone();
        if !matches!(answer, Answer::Messages(_)) {
            self.parts().remove(&name);
        }
        Ok(answer.named(asked))
    }

    /// Lets go of old ones.
    pub fn tidy(&self) {
        self.parts().retain(|_, part| part.begun_at.elapsed() < KEPT);
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<String, Arc<Part>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, name: &str) -> Arc<Part> {
        let mut parts = self.parts();
        if let Some(part) = parts.get(name).filter(|part| part.begun_at.elapsed() < KEPT) {
            return part.clone();
        }
        if parts.len() >= MOST {
            parts.retain(|_, part| part.begun_at.elapsed() < KEPT);
        }
        let part = Arc::new(Part { begun_at: Instant::now(), answer: OnceCell::new() });
        if parts.len() < MOST {
            parts.insert(name.to_owned(), part.clone());
        }
        part
    }
}
