//! One client that has come to where a table is, and hears what becomes of it.

use super::answer::{Answer, Asked, Told};
use super::board::{Board, Heard, Seen, Waiting};
use super::body::Body;
use super::herald::Herald;
use super::offset::{Offset, Walked};
use super::shape::Shape;
use crate::core::error::Result;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When the replica is asked again that was between two cuts.
const AGAIN: Duration = Duration::from_secs(1);

/// One client's.
pub struct Follower {
    herald: Arc<Herald>,
    board: Arc<Board>,
    shape: Arc<Shape>,
    offset: Offset,
    handle: String,
    /// `None` while there is no room for one more who waits.
    waiting: Option<Waiting>,
    subject: Option<String>,
    /// The last generation that was asked for, and whether the handle is of it.
    generation: (String, bool),
    /// When the replica was last asked.
    asked: Option<Seen>,
}

impl Follower {
    /// Of a shape, from an offset that came with a handle, for whoever has a token of this subject. What comes from now on is
    /// news.
    pub fn new(
        (herald, board): (Arc<Herald>, Arc<Board>),
        shape: Arc<Shape>,
        (offset, handle): (Offset, String),
        subject: Option<&str>,
    ) -> Self {
        let (generation, subject) = (Default::default(), subject.map(str::to_owned));
        let mut new = Self { herald, board, shape, offset, handle, waiting: None, subject, generation, asked: None };
        new.has_room();
        new
    }

    /// Whether there is room for it to wait.
    pub fn has_room(&mut self) -> bool {
        if self.waiting.is_none() {
            self.waiting = self.board.wait(&self.shape, self.subject.as_deref(), self.herald.room());
            self.waiting.iter().for_each(|_| self.herald.wake());
        }
        self.waiting.is_some()
    }

    /// What it hears next, at the latest then: [`Answer::Nothing`] where nothing has become of its rows.
    pub async fn next(&mut self, until: Instant) -> Result<Answer> {
        self.has_room();
        loop {
            let told = match self.hear() {
                Heard::Changes(body, cut) => {
                    self.offset = Offset::At(cut, Walked::Done);
                    let told = self.told(body);
                    self.is_news(&told);
                    return Ok(Answer::Messages(told));
                }
                Heard::Nothing(body, cut) => {
                    self.offset = Offset::At(cut, Walked::Done);
                    self.told(body)
                }
                Heard::Anew(generation, cut) => return Ok(Answer::anew(&self.shape, &generation, cut)),
                Heard::Busy => return Ok(Answer::Busy),
                Heard::Unknown => match self.ask().await? {
                    Answer::Nothing(told) => told,
                    answer => return Ok(answer),
                },
            };
            if self.is_news(&told) {
                return Ok(Answer::Nothing(told)); // what it wrote is there, and is none of its rows
            }
            // Between two cuts nobody says when there is one that concerns it.
            let again = if told.is_up_to_date { until } else { until.min(Instant::now() + AGAIN) };
            tokio::select! {
                () = news(&mut self.waiting) => {}
                () = tokio::time::sleep_until(again), if again < until => {}
                () = tokio::time::sleep_until(until) => {
                    // How far it is by now.
                    return Ok(match self.hear() {
                        Heard::Changes(body, cut) => {
                            self.offset = Offset::At(cut, Walked::Done);
                            Answer::Messages(self.told(body))
                        }
                        Heard::Nothing(body, cut) => {
                            self.offset = Offset::At(cut, Walked::Done);
                            Answer::Nothing(self.told(body))
                        }
                        _ => Answer::Nothing(told),
                    });
                }
            }
        }
    }

    /// Whether what it is told is the first to see what its token's subject has written.
    fn is_news(&self, told: &Told) -> bool {
        let Some(waiting) = &self.waiting else { return false };
        match (waiting.subject(), &told.body.snapshot) {
            (Some(subject), Some(snapshot)) => self.herald.is_news(subject, waiting.name(), snapshot),
            _ => false,
        }
    }

    fn hear(&mut self) -> Heard {
        let Some(waiting) = &self.waiting else { return Heard::Busy };
        let known = &mut self.generation;
        let follows = |generation: &str| {
            if known.0 != generation {
                *known = (generation.to_owned(), self.shape.is_named(&self.handle, generation));
            }
            known.1
        };
        self.board.hear((&self.shape, waiting.name()), self.offset, follows, self.asked, self.herald.memory())
    }

    async fn ask(&mut self) -> Result<Answer> {
        let asked = Asked { shape: &self.shape, offset: self.offset, handle: Some(&self.handle) };
        let answer = self.herald.ask(&asked).await?;
        if let Answer::Messages(told) | Answer::Nothing(told) = &answer {
            self.offset = told.offset;
        }
        self.asked = self.board.seen();
        Ok(answer)
    }

    fn told(&self, body: Body) -> Told {
        let is_up_to_date = body.up_to_date.is_some();
        Told { body, offset: self.offset, handle: self.handle.clone(), schema: None, is_up_to_date }
    }
}

/// When there may be something to hear.
async fn news(waiting: &mut Option<Waiting>) {
    match waiting {
        Some(waiting) => drop(waiting.news().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use crate::core::value::Cell;
    use crate::feed::limits::{LIMITS, Means};
    use crate::feed::memory::Memory;
    use crate::replica::freshness::Feeds;
    use crate::replica::target::Target;
    use tokio::sync::watch;

    #[tokio::test]
    async fn whoever_finds_no_room_to_wait_is_told_to_ask_again_until_there_is() {
        let schema = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","org":"INTEGER"},
            "feed":{"public":true,"filter":["org"]}}}"#;
        let tables = [Schema::parse(schema).unwrap().get("t").unwrap().clone()];
        let found = Memory::new(1_000);
        let means =
            Means { limits: LIMITS, memory: Memory::new(1_000), kept: Memory::new(1_000), found: found.clone() };
        let target = Target::File("/nowhere/replica.db".into());
        let herald = Arc::new(Herald::new(target, Feeds::Queue("q"), &tables, means, watch::channel(None).1));
        let mut shape = Shape::of(&tables[0]).unwrap();
        shape.allowed = [(1, vec![Cell::Integer(1)])].into();
        let (board, place) = (herald.boards()[0].clone(), (Offset::At(1, Walked::Done), "h".to_owned()));
        let taken = found.take(1_000);
        let mut follower = Follower::new((herald, board), Arc::new(shape), place, None);
        assert!(matches!(follower.next(Instant::now()).await, Ok(Answer::Busy)));
        drop(taken);
        assert!(
            !matches!(follower.next(Instant::now()).await, Ok(Answer::Busy)),
            "it asks the replica, which is not there"
        );
    }
}
