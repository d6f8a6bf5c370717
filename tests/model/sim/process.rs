//! A process that runs a worker, as its surroundings see it: each call that leaves it may fail, stall, take effect
//! without an answer, or be the last thing that the process did.

use super::world::World;
use pgflume::core::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// It does not arrive.
    Fails,
    /// It takes effect, and nobody answers.
    IsLost,
    /// It takes this long to arrive.
    Stalls(Duration),
    /// The process ends before it.
    Ends,
    /// It is the last thing that the process did.
    EndsAfter,
}

/// The longest that a call stalls: longer than anybody waits for it.
const LONGEST_STALL: Duration = Duration::from_secs(70);

pub struct Process {
    pub world: Arc<World>,
    pub name: usize,
    is_dead: AtomicBool,
    dies: Notify,
    /// Whether one of its transactions has taken the single flight and not ended since.
    pub has_flight: AtomicBool,
}

impl Process {
    pub fn new(world: Arc<World>, name: usize) -> Arc<Self> {
        let (is_dead, has_flight) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { world, name, is_dead, dies: Notify::new(), has_flight })
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// Comes back when the process ends.
    pub async fn death(&self) {
        self.dies.notified().await;
    }

    /// It ends here.
    pub async fn end<T>(&self) -> T {
        self.is_dead.store(true, Ordering::Relaxed);
        self.world.tell(|| format!("process {}: ends", self.name));
        self.dies.notify_one();
        std::future::pending().await
    }

    pub fn fate(&self, call: &str) -> Fate {
        let (world, dice) = (&self.world, &self.world.dice);
        if world.is_quiet() || !dice.one_in(world.mood.faults) {
            return Fate::Passes;
        }
        let stall = || Fate::Stalls(dice.time(LONGEST_STALL));
        let fate = match dice.below(8) {
            0 => Fate::Fails,
            1 | 2 => Fate::IsLost,
            3 | 4 => stall(),
            5 => Fate::Ends,
            6 => Fate::EndsAfter,
            // What is applied and acknowledged matters most.
            _ if ["commit", "write"].contains(&call) => dice.of(&[Fate::IsLost, Fate::EndsAfter, Fate::Ends]),
            _ => stall(),
        };
        world.tell(|| format!("process {}: {call} {fate:?}", self.name));
        fate
    }

    /// Does `work`, or what its fate is. The answer of a call that did not arrive is `failure`.
    pub async fn act<T>(
        &self,
        call: &str,
        failure: impl Fn(bool) -> Error,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.fate(call) {
            Fate::Passes => work.await,
            Fate::Fails => Err(failure(false)),
            Fate::IsLost => {
                drop(work.await);
                Err(failure(true))
            }
            Fate::Stalls(time) => {
                tokio::time::sleep(time).await;
                work.await
            }
            Fate::Ends => self.end().await,
            Fate::EndsAfter => {
                drop(work.await);
                self.end().await
            }
        }
    }
}
