//! The main job end to end on throw-away parts: a private Postgres, PGMQ, the real HTTP worker, a
//! local libSQL file, and the proof that both sides are equal. Prints what happens.

pub mod compare;
pub mod mysql;
pub mod mysql_server;
pub mod postgres;
pub mod pull;

use crate::config::{Config, Signatures};
use crate::core::queue_name::{DEFAULT_QUEUE, QueueName};
use crate::core::schema::Schema;
use crate::core::secret::Secret;
use crate::http;
use crate::http::App;
use crate::http::auth::Auth;
use crate::postgres::capture::{SetupOptions, setup};
use crate::postgres::{Client, PgUrl, Purpose, queue};
use crate::replica::Replica;
use crate::replica::target::Target;
use crate::sync::Worker;
use postgres::{Cluster, ClusterOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The sample shop: its tables, and what is replicated of them.
const TABLES: &str = include_str!("shop.sql");
const SCHEMA: &str = include_str!("shop.json");

/// What an application does, one line a transaction: what it is, and its SQL.
const WRITES: [(&str, &str); 3] = [
    (
        "100,000 customers and 50,000 orders, one statement each",
        "insert into public.customers (email, name, plan, balance, settings)
             select 'c' || i || '@example.org', 'Customer ' || i, (array['free','team','pro'])[1 + i % 3], i / 7.0,
                    pg_catalog.jsonb_build_object('theme', 'dark', 'n', i) from pg_catalog.generate_series(1, 100000) i;
         insert into public.orders (region, number, customer_id, total, placed_at)
             select (array['eu','us','asia'])[1 + i % 3], i, 1 + i % 100000, (i % 9999) / 100.0, pg_catalog.now() - i * interval '1 minute'
             from pg_catalog.generate_series(1, 50000) i",
    ),
    (
        "half of the customers updated, a tenth of the orders deleted, some keys changed",
        "update public.customers set name = pg_catalog.upper(name), balance = balance + 1.10 where id % 2 = 0;
         delete from public.orders where number % 10 = 0;
         update public.orders set region = 'mars' where number % 1000 = 7;
         update public.customers set last_seen = pg_catalog.now()",
    ),
    (
        "a table truncated and filled again",
        "insert into public.sessions select pg_catalog.md5(i::pg_catalog.text)::pg_catalog.uuid, 1 + i % 1000, true from pg_catalog.generate_series(1, 2000) i;
         truncate public.sessions;
         insert into public.sessions select pg_catalog.md5('new' || i)::pg_catalog.uuid, i, i % 2 = 0 from pg_catalog.generate_series(1, 10) i",
    ),
];

/// Runs the demo; whether both sides ended equal. With `keep` everything stays for a look around.
pub async fn run(keep: bool) -> Result<bool, Failure> {
    let started = Instant::now();
    say("starting a private Postgres");
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(private())).await??;
    let private = std::fs::Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().prefix("pgflume-demo-").permissions(private).tempdir()?;
    let shop = Shop::open(&cluster, directory.path().join("replica.db")).await?;

    for (what, sql) in WRITES {
        shop.write(what, sql).await?;
        shop.sync().await?;
    }
    shop.show().await?;
    let equal = shop.prove().await?;
    say(&format!(
        "{} after {:.1} s",
        if equal { "equal on both sides" } else { "NOT EQUAL" },
        started.elapsed().as_secs_f64()
    ));
    if keep {
        say(&format!("Postgres stays at: {} (for the user that it runs as, and root)", cluster.url("postgres")));
        say(&format!("the replica stays in {}", directory.keep().display()));
        let data = cluster.keep_running()?;
        say(&format!("stop it with: pg_ctl -D {}/data stop", data.display()));
    }
    Ok(equal)
}

/// To whoever still reads: `pgflume demo | head` is no failure.
fn say(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}").ok();
}

/// Nobody else on this machine can reach it.
fn private() -> ClusterOptions {
    ClusterOptions { socket_only: true, ..ClusterOptions::default() }
}

/// The sample shop, replicated.
struct Shop {
    client: Client,
    file: PathBuf,
    schema: Arc<Schema>,
    queue: QueueName,
    address: String,
    secret: Secret,
    http: reqwest::Client,
}

impl Shop {
    async fn open(cluster: &Cluster, file: PathBuf) -> Result<Self, Failure> {
        let url = PgUrl::parse(&cluster.url("postgres"))?;
        let (schema, queue) = (Arc::new(Schema::parse(SCHEMA)?), QueueName::parse(DEFAULT_QUEUE)?);
        let client = url.pinned(Purpose::Demo).await?;
        client.batch_execute(TABLES).await?;
        let at = Instant::now();
        setup(&url, &schema, &queue, &SetupOptions::default()).await?;
        say(&format!(
            "pgflume setup: PGMQ, the queue {DEFAULT_QUEUE} and the capture of {} tables ({} ms)",
            schema.tables().count(),
            at.elapsed().as_millis()
        ));

        let secret = Secret::new(uuid::Uuid::new_v4().to_string());
        let signatures = Signatures { webhook: vec![secret.clone()], nuke: vec![secret.clone()] };
        let config = Config {
            postgres: url,
            target: Target::File(file.clone()),
            schema: schema.clone(),
            queue: queue.clone(),
            rows_per_second: None,
            retention: std::time::Duration::ZERO,
            heartbeat: None,
            has_events: false,
            row_bytes: crate::postgres::catalog::DEFAULT_ROW_BYTES,
            adopt: false,
            feeding: Default::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let app = App::new(Worker::new(config), Auth::new(signatures));
        tokio::spawn(http::serve(listener, Arc::new(app), std::future::pending()));
        say(&format!("pgflume serve: {address}, replica {}", file.display()));
        crate::core::crypto::install();
        Ok(Self { client, file, schema, queue, address, secret, http: reqwest::Client::builder().build()? })
    }

    async fn write(&self, what: &str, sql: &str) -> Result<(), Failure> {
        let at = Instant::now();
        self.client.batch_execute(sql).await?;
        let messages = queue::depth(&self.client, &self.queue).await?;
        say(&format!("\nPostgres  {what} ({} ms)\nqueue     {messages} messages", at.elapsed().as_millis()));
        Ok(())
    }

    /// Posts as pg_cron would.
    async fn sync(&self) -> Result<(), Failure> {
        let request =
            self.http.post(format!("{}/sync", self.address)).header("x-webhook-signature", self.secret.expose());
        let answer = request.send().await?;
        let body = answer.text().await?;
        say(&format!("POST /sync  {body}"));
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let rows = answer["rows"].as_f64().unwrap_or_default();
        let seconds = answer["elapsed_ms"].as_f64().unwrap_or_default() / 1000.0;
        say(&format!("SQLite    {rows} rows written in {seconds:.2} s ({:.0} rows/s)", rows / seconds.max(0.001)));
        Ok(())
    }

    async fn show(&self) -> Result<(), Failure> {
        let replica = Replica::open(&Target::File(self.file.clone())).await?;
        say("\na few rows as SQLite has them");
        let queries = [
            "SELECT id, email, name, plan, balance, settings FROM customers ORDER BY id LIMIT 3",
            "SELECT * FROM orders WHERE region = 'mars' LIMIT 3",
        ];
        for sql in queries {
            for row in replica.query(sql, Vec::new()).await? {
                let cells: Vec<_> =
                    row.iter().map(|cell| cell.to_postgres_text().unwrap_or_else(|| "NULL".into())).collect();
                say(&format!("  {}", cells.join(" | ")));
            }
        }
        Ok(())
    }

    async fn prove(&self) -> Result<bool, Failure> {
        let replica = Replica::open(&Target::File(self.file.clone())).await?;
        say("\ncomparing both sides row by row");
        let verdicts = compare::compare(&self.client, &replica, &self.schema, &self.queue).await?;
        for v in &verdicts {
            say(&format!(
                "  {:<10} {:>7} rows, {} missing, {} extra, {} different",
                v.table, v.rows, v.missing, v.extra, v.different
            ));
        }
        Ok(!verdicts.is_empty() && verdicts.iter().all(compare::Verdict::is_equal))
    }
}
