//! What the application does: each kind of writer is a file that makes transactions up, and nothing else; this one
//! runs them, on a connection with odd settings, and goes on when Postgres dies.

mod bulk;
mod cascades;
mod deferred;
mod filtered;
mod held;
mod keys;
mod partitions;
mod rows;
mod twins;
mod upserts;
mod values;

use crate::plan::{millis, pick, rng};
use crate::stage::Stage;
use futures_util::SinkExt;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

/// A server that is down is asked again after this.
const RECONNECT: Duration = Duration::from_millis(300);

/// One step of a transaction.
pub enum Step {
    Sql(String),
    Pause(Duration),
    Copy { into: &'static str, lines: String },
}

/// A transaction: what it does, and whether it commits.
pub struct Transaction {
    steps: Vec<Step>,
    commits: bool,
}

impl Transaction {
    fn of(sql: impl Into<String>) -> Self {
        Self { steps: vec![Step::Sql(sql.into())], commits: true }
    }

    fn steps(steps: Vec<Step>) -> Self {
        Self { steps, commits: true }
    }
}

type Kind = fn(&mut StdRng) -> Transaction;

/// One connection for each; those of the second half never wait for the disk.
const KINDS: [(&str, Kind); 14] = [
    ("rows", rows::next),
    ("keys", keys::next),
    ("bulk", bulk::next),
    ("upserts", upserts::next),
    ("cascades", cascades::next),
    ("deferred", deferred::next),
    ("partitions", partitions::next),
    ("filtered", filtered::next),
    ("held", held::next),
    ("twins", twins::next),
    ("hasty rows", rows::next),
    ("hasty upserts", upserts::next),
    ("hasty filtered", filtered::next),
    ("hasty twins", twins::next),
];

/// Settings that values and names could depend on.
const ODD: [&str; 12] = [
    "set timezone = 'Asia/Kathmandu'",
    "set datestyle = 'SQL, DMY'",
    "set intervalstyle = 'iso_8601'",
    "set bytea_output = 'escape'",
    "set search_path = ''",
    "set extra_float_digits = -15",
    "set quote_all_identifiers = on",
    "set default_transaction_isolation = 'repeatable read'",
    "set default_transaction_isolation = 'serializable'",
    "set standard_conforming_strings = off",
    "set row_security = off",
    "set enable_indexscan = off",
];

/// All writers of a run.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    pub fn start(stage: &Arc<Stage>, seed: u64) -> Self {
        let mut writers = Self { stop: Arc::default(), tasks: JoinSet::new() };
        for (name, kind) in KINDS {
            let writer = Writer {
                stage: stage.clone(),
                next: kind,
                rng: rng(seed, name),
                is_hasty: name.starts_with("hasty"),
                stop: writers.stop.clone(),
            };
            writers.tasks.spawn(writer.run());
        }
        writers
    }

    /// Ends them, each after the transaction in hand.
    pub async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Writer {
    stage: Arc<Stage>,
    next: Kind,
    rng: StdRng,
    is_hasty: bool,
    stop: Arc<AtomicBool>,
}

impl Writer {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.stage.connect().await {
                Ok(client) => self.write(&client).await,
                Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
    }

    /// Until the connection is lost, or it is time for other settings.
    async fn write(&mut self, client: &Client) {
        let mut settings = String::from("set lock_timeout = '2s'; set statement_timeout = '20s'");
        for _ in 0..self.rng.random_range(0..4) {
            settings = format!("{settings}; {}", pick(&mut self.rng, &ODD));
        }
        if self.is_hasty {
            settings.push_str("; set synchronous_commit = off");
        }
        if client.batch_execute(&settings).await.is_err() {
            return;
        }
        for _ in 0..self.rng.random_range(20..200) {
            if self.stop.load(Ordering::Relaxed) || client.is_closed() {
                return;
            }
            let transaction = (self.next)(&mut self.rng);
            let done = self.transact(client, transaction).await;
            self.stage.tally.transaction(done.is_ok());
            if done.is_err() && client.batch_execute("rollback").await.is_err() {
                return;
            }
            tokio::time::sleep(millis(&mut self.rng, 0, 60)).await;
        }
    }

    async fn transact(&self, client: &Client, transaction: Transaction) -> Result<(), Error> {
        client.batch_execute("begin").await?;
        for step in transaction.steps {
            match step {
                Step::Sql(sql) => client.batch_execute(&sql).await?,
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Copy { into, lines } => {
                    let sink = client.copy_in(&format!("copy {into} from stdin")).await?;
                    futures_util::pin_mut!(sink);
                    sink.send(std::io::Cursor::new(lines.into_bytes())).await?;
                    sink.finish().await?;
                }
            }
        }
        if self.stage.hasty.load(Ordering::Relaxed) {
            client.batch_execute("set local synchronous_commit = off").await?;
        }
        client.batch_execute(if transaction.commits { "commit" } else { "rollback" }).await
    }
}
