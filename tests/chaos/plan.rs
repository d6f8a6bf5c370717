//! What is asked for (environment), and the random numbers that follow from the seed. The seed fixes what is
//! chosen, not how processes interleave.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::PathBuf;
use std::time::Duration;

/// One minute of the whole suite: half of it on each path.
const DEFAULT_SECONDS: u64 = 30;
const DEFAULT_PULL_SECONDS: u64 = 15;

/// The write path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    File,
    Sqld,
}

impl Path {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Sqld => "sqld",
        }
    }
}

/// What brings the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Queue,
    Pull,
}

/// What is asked for.
pub struct Plan {
    pub seed: u64,
    pub time: Duration,
    pub pull_time: Duration,
    pub paths: Vec<Path>,
    pub engines: Vec<Engine>,
    pub report: Option<PathBuf>,
    /// Whether the logs of a good run stay.
    pub keeps: bool,
}

impl Plan {
    pub fn from_env() -> Result<Self, String> {
        let paths = match std::env::var("CHAOS_PATH").as_deref().unwrap_or("both") {
            "file" => vec![Path::File],
            "sqld" => vec![Path::Sqld],
            "both" => vec![Path::File, Path::Sqld],
            other => return Err(format!("CHAOS_PATH is file, sqld or both, not {other:?}")),
        };
        let engines = match std::env::var("CHAOS_ENGINE").as_deref().unwrap_or("both") {
            "queue" => vec![Engine::Queue],
            "pull" => vec![Engine::Pull],
            "both" => vec![Engine::Queue, Engine::Pull],
            other => return Err(format!("CHAOS_ENGINE is queue, pull or both, not {other:?}")),
        };
        let seconds = number("CHAOS_SECONDS")?;
        let seed = number("CHAOS_SEED")?.unwrap_or_else(|| entropy().random_range(0..1 << 32));
        let report = std::env::var_os("CHAOS_REPORT").map(PathBuf::from);
        Ok(Self {
            seed,
            time: Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS)),
            pull_time: Duration::from_secs(seconds.unwrap_or(DEFAULT_PULL_SECONDS)),
            engines,
            paths,
            report,
            keeps: std::env::var_os("CHAOS_KEEP").is_some_and(|keep| !keep.is_empty()),
        })
    }
}

fn number(name: &str) -> Result<Option<u64>, String> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| format!("{name} is a number, not {text:?}")),
        _ => Ok(None),
    }
}

fn entropy() -> StdRng {
    StdRng::seed_from_u64(uuid::Uuid::new_v4().as_u64_pair().0)
}

/// The random numbers of one actor.
pub fn rng(seed: u64, actor: &str) -> StdRng {
    // FNV-1a: the same on every machine and version.
    let hash = actor.bytes().fold(0xcbf2_9ce4_8422_2325_u64 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    StdRng::seed_from_u64(hash)
}

/// One of them.
pub fn pick<'a, T>(rng: &mut StdRng, all: &'a [T]) -> &'a T {
    &all[rng.random_range(0..all.len())]
}

/// A duration between the two, in milliseconds.
pub fn millis(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}
