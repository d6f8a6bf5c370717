//! The rules of the seam between a step and its Postgres (`tests/seam`), run on the real one.

use crate::seam::{self, Application, Bench, Odd, Place};
use crate::support::{Db, schema};
use crate::volume::set_up;
use async_trait::async_trait;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::postgres::link::{Connect, Link, Pg};
use pgflume::postgres::queue::{self, Paused, Take};
use pgflume::postgres::{PgUrl, Purpose};
use std::time::Duration;
use tokio_postgres::Client;

const TABLES: &str = "create table t (id bigint primary key, v text);
    create table w (id bigint primary key, n numeric, d int not null);";

const CAPTURED: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

struct OnPostgres {
    db: Db,
    pg: Pg,
}

impl OnPostgres {
    async fn new() -> Self {
        let db = Db::new().await;
        db.sql(TABLES).await;
        set_up(&db.url(), &schema(CAPTURED)).await;
        let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
        Self {
            db,
            pg: Pg {
                url,
                queue,
                schema: seam::schema(),
                row_bytes: DEFAULT_ROW_BYTES,
                has_events: false,
                watch: std::sync::Arc::default(),
            },
        }
    }
}

#[async_trait]
impl Bench for OnPostgres {
    async fn connect(&self) -> Box<dyn Link> {
        self.pg.connect(Purpose::Step).await.unwrap()
    }

    async fn begin(&self) -> Box<dyn Application> {
        let client = self.pg.url.connect().await.unwrap();
        client.batch_execute("begin").await.unwrap();
        Box::new(Session(client))
    }

    async fn put_odd(&self, id: i64, odd: Odd) {
        let (n, d) = match odd {
            Odd::Fits => ("1", 1),
            Odd::Unfit => ("1.5", 1),
            Odd::Unreadable => ("1", 0),
            Odd::Slow => ("1", 2),
        };
        let set = "on conflict (id) do update set n = excluded.n, d = excluded.d";
        self.db.sql(&format!("insert into w values ({id}, {n}, {d}) {set}")).await;
    }

    async fn remake_column(&self) {
        self.db.sql("alter table t drop column v; alter table t add column v text").await;
    }
}

/// An application's connection, in a transaction.
struct Session(Client);

impl Session {
    async fn sql(&self, sql: &str) {
        self.0.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Whether it had its lock within this time.
    async fn within(&self, patience: Duration, sql: &str) -> bool {
        let limited = format!("set local lock_timeout = {}; {sql}", patience.as_millis());
        match self.0.batch_execute(&limited).await {
            Err(e) if e.code().is_some_and(|code| code.code() == "55P03") => false,
            done => done.map(|()| true).unwrap(),
        }
    }
}

#[async_trait]
impl Application for Session {
    async fn put(&mut self, id: i64, v: &str) {
        let exists = self.0.query("select from t where id = $1", &[&id]).await.unwrap();
        // An upsert would run both triggers.
        let sql = if exists.is_empty() { "insert into t values ($1, $2)" } else { "update t set v = $2 where id = $1" };
        self.0.execute(sql, &[&id, &v]).await.unwrap();
    }

    async fn delete(&mut self, id: i64) {
        self.0.execute("delete from t where id = $1", &[&id]).await.unwrap();
    }

    async fn rekey(&mut self, from: i64, to: i64) {
        self.0.execute("update t set id = $2 where id = $1", &[&from, &to]).await.unwrap();
    }

    async fn truncate(&mut self, patience: Duration) -> bool {
        self.within(patience, "truncate t").await
    }

    async fn send(&mut self, text: &str) -> i64 {
        let sql = "select pgmq.send($1, $2::text::jsonb)";
        self.0.query_one(sql, &[&DEFAULT_QUEUE, &text]).await.unwrap().get(0)
    }

    async fn delete_message(&mut self, id: i64) {
        assert!(
            self.0
                .query_one("select pgmq.delete($1, $2::bigint)", &[&DEFAULT_QUEUE, &id])
                .await
                .unwrap()
                .get::<_, bool>(0)
        );
    }

    async fn touch_message(&mut self, id: i64) {
        let sql = format!(
            "update pgmq.q_{DEFAULT_QUEUE} set vt = now() + interval '1 h', read_ct = read_ct + 1 where msg_id = $1"
        );
        assert_eq!(self.0.execute(&sql, &[&id]).await.unwrap(), 1);
    }

    async fn lock(&mut self, place: Place, patience: Duration) -> bool {
        let place = if place == Place::Table { "t".to_owned() } else { format!("pgmq.q_{DEFAULT_QUEUE}") };
        self.within(patience, &format!("lock table {place} in access exclusive mode")).await
    }

    async fn commit(self: Box<Self>) {
        self.sql("commit").await;
    }

    async fn rollback(self: Box<Self>) {
        self.sql("rollback").await;
    }
}

macro_rules! on_postgres {
    ($($rule:ident)*) => {
        $(#[tokio::test]
        async fn $rule() {
            seam::$rule(&OnPostgres::new().await).await;
        })*
    };
}

seam::each_rule!(on_postgres);

/// A cancel may come between the arrival of a beginning and its run: what was sent behind it is then on its own.
#[tokio::test]
async fn a_take_behind_a_beginning_that_never_was_takes_nothing() {
    let bench = OnPostgres::new().await;
    bench.db.send(r#"{"v":1,"table":"t","keys":[["1"]]}"#).await;
    let client = bench.pg.url.pinned(Purpose::Step).await.unwrap();
    let paused = Paused::default();
    let take = Take { after: 0, paused: &paused, limit: 9, keeps: false, as_bytes: false, most_bytes: 1 << 20 };
    let (begun, taken) =
        futures_util::join!(client.begin("at once", ""), queue::take(&client, &bench.pg.queue, take, |_| {}));
    assert!(begun.is_err() && taken.unwrap().messages.is_empty());
    client.rollback().await.unwrap();
    client.begin("", "").await.unwrap();
    let taken = queue::take(&client, &bench.pg.queue, take, |_| {}).await.unwrap();
    client.rollback().await.unwrap();
    assert_eq!(taken.messages.len(), 1);
    assert!(queue::take(&client, &bench.pg.queue, take, |_| {}).await.is_err(), "without a transaction");
    assert_eq!(bench.db.queued().await, 1);
}
