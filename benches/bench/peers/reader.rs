//! The one reader of every replica here: `benches/peers/reader.mjs`, a process that looks at short intervals.

use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two looks.
pub const LOOK_MS: f64 = 0.5;

/// Between two looks at a file that may not be there, or that its writer has for itself.
const FIRST_LOOK_MS: f64 = 2.0;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// One that is running; ended with its value.
pub struct Reader {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The system's monotonic clock, which the reader tells, too.
pub fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

impl Reader {
    /// Waits for the first moment at which both queries are true.
    pub async fn until(zero: &Path, file: &Path, [hint, whole]: &[String; 2]) -> Self {
        let ms = if file.exists() { LOOK_MS } else { FIRST_LOOK_MS };
        Self::start(zero, file, ms, &["until", hint, whole]).await
    }

    /// Notes every change of what `sql` gives.
    pub async fn watch(zero: &Path, file: &Path, sql: &str) -> Self {
        Self::start(zero, file, LOOK_MS, &["watch", sql]).await
    }

    async fn start(zero: &Path, file: &Path, ms: f64, arguments: &[&str]) -> Self {
        let mut command = Command::new(zero.join("node_modules/.bin/node"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/reader.mjs"));
        command.arg(zero.join("node_modules")).arg(file).arg(ms.to_string()).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (output, written) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || output.lines().for_each(|line| written.lock().unwrap().push(line.unwrap())));
        let reader = Self { child, lines };
        reader.wait_for(|lines| !lines.is_empty()).await;
        reader
    }

    /// When both were true.
    pub async fn found_ns(self) -> i64 {
        self.wait_for(|lines| lines.len() > 1).await;
        self.lines.lock().unwrap()[1].parse().unwrap()
    }

    /// What was seen when, oldest first.
    pub fn seen(&self) -> Vec<(i64, Vec<i64>)> {
        self.lines.lock().unwrap().iter().map(|line| parsed(line)).collect()
    }

    /// Waits until the values are these.
    pub async fn shows(&self, values: &[i64]) {
        self.wait_for(|lines| lines.last().is_some_and(|line| parsed(line).1 == values)).await;
    }

    async fn wait_for(&self, is_there: impl Fn(&[String]) -> bool) {
        let began = Instant::now();
        while !is_there(&self.lines.lock().unwrap()) {
            assert!(began.elapsed() < PATIENCE, "the replica never showed it: {:?}", self.lines.lock().unwrap().last());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn parsed(line: &str) -> (i64, Vec<i64>) {
    let (ns, values) = line.split_once(' ').unwrap();
    (ns.parse().unwrap(), values.split(',').filter_map(|value| value.parse().ok()).collect())
}
