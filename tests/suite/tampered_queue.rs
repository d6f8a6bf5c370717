//! The queue in the hands of others: what makes users' writes fail, or marks vanish, is told at once, and PGMQ's
//! notifications harm nobody.

use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema, until};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::operate::status;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::postgres::drift::{Drift, DriftKind};
use std::process::{Command, Stdio};

const ITEMS: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}}}"#;
const Q: &str = "pgmq.q_replicate_data_libsql";

async fn rig() -> Rig {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema(ITEMS), &queue, &SetupOptions::default()).await.unwrap();
    let rig = Rig::with(db, Home::new(Path::File), schema(ITEMS));
    rig.drain().await;
    rig
}

async fn drift(rig: &Rig) -> Vec<Drift> {
    status::status(&rig.worker).await.unwrap().drift
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_the_queue_fail_no_write_and_are_told() {
    let rig = rig().await;
    let role = format!("{}_writes", rig.db.name);
    rig.db
        .sql(&format!(
            "create role {role}; grant all on items to {role}; select pgmq.enable_notify_insert('{DEFAULT_QUEUE}')"
        ))
        .await;
    rig.db
        .sql(&format!("set role {role}; insert into items values (1, 'x'); update items set name = 'y'; reset role"))
        .await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT * FROM items").await, ["1|y"]);
    let found = drift(&rig).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, DriftKind::Queue);
    assert!(found[0].remedy.contains(&format!("pgmq.disable_notify_insert('{DEFAULT_QUEUE}')")), "{found:?}");
    assert!(status::unready(&rig.worker).await.contains_key("schema"));
    rig.db
        .sql(&format!("select pgmq.disable_notify_insert('{DEFAULT_QUEUE}'); drop owned by {role}; drop role {role}"))
        .await;
    assert_eq!(drift(&rig).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_queue_is_told_with_its_remedy() {
    let rig = rig().await;
    rig.db.sql(&format!("create rule r as on insert to {Q} do instead nothing")).await;
    let refused = status::status(&rig.worker).await.unwrap_err().to_string();
    assert!(refused.contains("rule r on pgmq.q_replicate_data_libsql") && refused.contains("drop it"), "{refused}");
    rig.db.sql(&format!("drop rule r on {Q}")).await;
    for (done, problem, remedy, undone) in [
        (format!("alter table {Q} set unlogged"), "unlogged", "set logged", format!("alter table {Q} set logged")),
        (
            format!("alter table {Q} alter msg_id set cache 20"),
            "20 at a time",
            "set cache 1",
            format!("alter table {Q} alter msg_id set cache 1"),
        ),
        (
            format!(
                "create function f() returns trigger language plpgsql as 'begin return new; end'; create trigger tr before insert on {Q} for each row execute function f()"
            ),
            "the trigger \"tr\"",
            "drop trigger \"tr\"",
            format!("drop trigger tr on {Q}"),
        ),
        (
            format!("revoke insert on {Q} from pgflume_capture"),
            "every write to a captured table fails",
            "pgflume setup",
            format!("grant insert on {Q} to pgflume_capture"),
        ),
        (
            "revoke usage on schema pgmq from pgflume_capture".into(),
            "every write to a captured table fails",
            "pgflume setup",
            "grant usage on schema pgmq to pgflume_capture".into(),
        ),
        (
            format!("alter table {Q} disable trigger pgflume_deleted"),
            "lacks pgflume_deleted",
            "pgflume setup",
            format!("alter table {Q} enable always trigger pgflume_deleted"),
        ),
        (
            format!("alter table {Q} enable trigger pgflume_changed"),
            "lacks pgflume_changed",
            "pgflume setup",
            format!("alter table {Q} enable always trigger pgflume_changed"),
        ),
        (
            format!("drop trigger pgflume_truncated on {Q}"),
            "lacks pgflume_truncated",
            "pgflume setup",
            format!(
                "create trigger pgflume_truncated after truncate on {Q} for each statement execute function pgflume.note_loss('{DEFAULT_QUEUE}'); alter table {Q} enable always trigger pgflume_truncated"
            ),
        ),
    ] {
        rig.db.sql(&done).await;
        let found = drift(&rig).await;
        let is_told = found
            .iter()
            .any(|d| d.kind == DriftKind::Queue && d.problem.contains(problem) && d.remedy.contains(remedy));
        assert!(is_told, "{done}: {found:?}");
        rig.db.sql(&undone).await;
        assert_eq!(drift(&rig).await, [], "{undone}");
    }
}

/// A worker that follows, and what it says.
struct Following {
    child: std::process::Child,
    log: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Following {
    fn start(rig: &Rig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (log, definition) = (directory.path().join("log"), directory.path().join("schema.json"));
        std::fs::write(&definition, ITEMS).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pgflume"))
            .args(["serve", "--follow"])
            .env_clear()
            .env("PGMQ_URL", rig.db.url())
            .env("LIBSQL_URL", format!("file:{}", directory.path().join("other.db").display()))
            .env("WEBHOOK_SIGNATURE", SECRET)
            .env("SCHEMA_FILE", &definition)
            .env("PORT", "0")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, _directory: directory }
    }

    async fn says(&self, words: &str) {
        until(words, async || std::fs::read_to_string(&self.log).unwrap().contains(words)).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_in_the_log_at_once_while_following() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema(ITEMS), &queue, &SetupOptions::default()).await.unwrap();
    let rig = Rig::with(db, Home::new(Path::File), schema(ITEMS));
    let following = Following::start(&rig);
    following.says("following").await;
    until("paired", async || {
        rig.db.one("select coalesce((select epoch is not null from pgflume.progress), false)").await == "true"
    })
    .await;
    rig.db.sql("alter table items add more int").await;
    following.says("items.more: the source has a new column").await;
    rig.db.sql("alter table items disable trigger pgflume_replicate_data_libsql_update").await;
    following.says("the update trigger is disabled").await;
    following.says("the table is copied again: the update trigger or its function was disabled").await;
    rig.db.sql(&format!("select pgmq.enable_notify_insert('{DEFAULT_QUEUE}')")).await;
    following.says("disable_notify_insert").await;
    rig.db.sql(&format!("select pgmq.drop_queue('{DEFAULT_QUEUE}')")).await;
    following.says("the queue replicate_data_libsql does not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_queue_is_told_at_once_and_setup_mends_it() {
    let rig = rig().await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), schema(ITEMS))).await;
    rig.db.sql("insert into items values (1, 'x')").await;
    until("it follows", async || rig.rows("SELECT * FROM items").await == ["1|x"]).await;
    rig.db.sql(&format!("select pgmq.drop_queue('{DEFAULT_QUEUE}')")).await;
    assert!(rig.db.client.batch_execute("insert into items values (2, 'y')").await.is_err(), "no silent gap");
    until("ready says so", async || {
        let answer = server.call("GET", "/ready", None).await;
        answer.status == 503 && answer.body.contains("does not exist: run `pgflume setup`")
    })
    .await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    capture::setup(&PgUrl::parse(&rig.db.url()).unwrap(), &schema(ITEMS), &queue, &SetupOptions::default())
        .await
        .unwrap();
    rig.db.sql("insert into items values (3, 'z')").await;
    until("it goes on", async || rig.rows("SELECT * FROM items ORDER BY id").await == ["1|x", "3|z"]).await;
}
