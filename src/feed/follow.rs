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
    waiting: Waiting,
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
        let waiting = board.wait(&shape, subject);
        herald.wake();
        Self { herald, board, shape, offset, handle, waiting, generation: Default::default(), asked: None }
    }

    /// What it hears next, at the latest then: [`Answer::Nothing`] where nothing has become of its rows.
    pub async fn next(&mut self, until: Instant) -> Result<Answer> {
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
                _ = self.waiting.news() => {}
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
        match (self.waiting.subject(), &told.body.snapshot) {
            (Some(subject), Some(snapshot)) => self.herald.is_news(subject, self.waiting.name(), snapshot),
            _ => false,
        }
    }

    fn hear(&mut self) -> Heard {
        let known = &mut self.generation;
        let follows = |generation: &str| {
            if known.0 != generation {
                *known = (generation.to_owned(), self.shape.is_named(&self.handle, generation));
            }
            known.1
        };
        self.board.hear((&self.shape, self.waiting.name()), self.offset, follows, self.asked, self.herald.memory())
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
