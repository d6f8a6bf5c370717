//! The real chain: pg_cron runs the job that `setup` wrote, pg_net's function posts, `/sync` answers,
//! rows are in sqld, and in a read replica of it.

use crate::parts::PgNet;
use crate::support::{Db, Home, Path, SECRET, Server, cluster, config, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::secret::Secret;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_written_in_postgres_arrives_in_sqld_by_the_cron_job_that_setup_wrote() {
    let db = Db::named("cron".into(), cluster(), "with_pgmq").await;
    db.sql("create extension pg_cron; create table items (id int primary key, name text)").await;
    let _net = PgNet::start(&db.url());
    let schema = schema(r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT"}}}"#);
    let home = Home::new(Path::Sqld);
    let server = Server::start(config(&db.url(), home.target(), schema.clone())).await;
    let options = SetupOptions {
        sync_url: Some(format!("{}/sync", server.address)),
        webhook_signature: Some(Secret::new(SECRET)),
        schedule: Some("* * * * *".into()),
        ..SetupOptions::default()
    };
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(&db.url()).unwrap(), &schema, &queue, &options).await.unwrap();
    assert_eq!(db.one("select jobname || ' ' || active from cron.job").await, "process_libsql_replication true");
    db.sql("insert into items values (1, 'by cron')").await;

    let Home::Sqld(sqld) = &home else { unreachable!() };
    let follower = sqld.start_replica();
    let token = Some(Secret::new(sqld.token_ro()));
    let read = Replica::open(&Target::Remote { url: follower.url(), token }).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(150); // cron runs each minute
    loop {
        // No table yet is no failure.
        let rows = read.query("SELECT name FROM items", vec![]).await.unwrap_or_default();
        if !rows.is_empty() {
            assert_eq!(crate::store::show(&rows[0][0]), "by cron");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "cron: {:?}",
            db.all("select status || ' ' || return_message from cron.job_run_details").await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // It is readable before it is acknowledged.
    crate::support::until("it is acknowledged", async || db.queued().await == 0).await;
}
