//! `setup`, its script, its refusals, the take-over and `teardown`.

use crate::parts::Pgbouncer;
use crate::support::{Db, schema};
use pgflume::core::error::Error;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions, SetupReport, TeardownOptions};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::Client;

const ITEMS: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}}}"#;

fn queue() -> QueueName {
    QueueName::parse(DEFAULT_QUEUE).unwrap()
}

async fn setup_with(url: &str, json: &str, options: &SetupOptions) -> Result<SetupReport, Error> {
    capture::setup(&PgUrl::parse(url).unwrap(), &schema(json), &queue(), options).await
}

async fn setup(db: &Db, json: &str) -> Result<SetupReport, Error> {
    setup_with(&db.url(), json, &SetupOptions::default()).await
}

async fn refusal(db: &Db, json: &str) -> String {
    setup(db, json).await.unwrap_err().to_string()
}

/// Everything that a set-up makes, as text: triggers, functions with settings and rights, rights on tables.
async fn fingerprint(client: &Client) -> Vec<String> {
    let sql = "
        select 'trigger ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text from pg_trigger t where tgname like 'pgflume%'
        union all
        select 'function ' || pg_get_functiondef(p.oid) || ' ' || coalesce(p.proacl::text, '') || pg_get_userbyid(p.proowner)
            from pg_proc p where p.pronamespace = 'pgflume'::regnamespace
        union all
        select 'table ' || c.oid::regclass || ' ' || coalesce(c.relacl::text, '') || c.relowner::regrole
            from pg_class c where c.relkind in ('r', 'p') and c.relnamespace in ('pgflume'::regnamespace, 'pgmq'::regnamespace, 'public'::regnamespace)
        union all
        select 'schema ' || nspname || coalesce(nspacl::text, '') from pg_namespace where nspname in ('pgflume', 'pgmq', 'public')
        order by 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Runs a script as psql would, and gives what it said on failure.
fn psql(url: &str, script: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut psql = Command::new("psql");
    psql.args([url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

const SHOP: &str = "create table items (id int primary key, name text, kind int, secret text);
    create table events (id int, r int, v text, primary key (id, r)) partition by list (r);
    create table events_1 partition of events for values in (1)";
const SHOP_JSON: &str = r#"{
    "items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}, "where": "kind = 1"},
    "events": {"primaryKey": ["id", "r"], "columns": {"id": "INTEGER", "r": "INTEGER", "v": "TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn running_it_twice_changes_nothing() {
    let db = Db::new().await;
    db.sql(SHOP).await;
    let first = setup(&db, SHOP_JSON).await.unwrap();
    assert!(first.done.iter().any(|d| d.contains("items")), "{first}");
    let made = fingerprint(&db.client).await;
    let second = setup(&db, SHOP_JSON).await.unwrap();
    assert_eq!(fingerprint(&db.client).await, made);
    assert!(second.unchanged.iter().any(|u| u.contains("items")), "{second}");
    assert!(!second.done.iter().any(|d| d.starts_with("capture of")), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_capture_is_repaired() {
    let db = Db::new().await;
    db.sql(SHOP).await;
    setup(&db, SHOP_JSON).await.unwrap();
    let made = fingerprint(&db.client).await;
    let function = format!("pgflume.\"{DEFAULT_QUEUE}.public.items.insert\"()");
    for damage in [
        "alter table items disable trigger all".to_owned(),
        "alter table items enable trigger all".to_owned(),
        "drop trigger pgflume_replicate_data_libsql_truncate on items".to_owned(),
        "drop trigger pgflume_replicate_data_libsql_truncate on events_1".to_owned(),
        "alter table events_1 disable trigger pgflume_replicate_data_libsql_row".to_owned(),
        format!("alter function {function} security invoker"),
        format!("alter function {function} reset search_path"),
        format!(
            "create or replace function {function} returns trigger language plpgsql security definer set search_path = '' as 'begin return null; end'"
        ),
    ] {
        db.sql(&damage).await;
        assert_ne!(fingerprint(&db.client).await, made, "{damage}");
        setup(&db, SHOP_JSON).await.unwrap();
        assert_eq!(fingerprint(&db.client).await, made, "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_does_the_same_and_holds_no_secret() {
    let options = SetupOptions {
        sync_url: Some("https://worker.example.org/sync".into()),
        webhook_signature: Some(Secret::new("hunter2hunter2hunter2")),
        ..SetupOptions::default()
    };
    let (set_up, printed) = (Db::new().await, Db::new().await);
    for db in [&set_up, &printed] {
        db.sql(SHOP).await;
    }
    let url = PgUrl::parse(&printed.url()).unwrap();
    let script = capture::print(&url, &schema(SHOP_JSON), &queue(), &options).await.unwrap();
    assert!(!script.contains("hunter2") && !script.contains("worker.example.org"));
    assert!(script.contains("insert into pgflume.settings"));
    assert_eq!(
        printed.one("select count(*) from pg_trigger where tgname like 'pgflume_replicate%'").await,
        "0",
        "printing changes nothing"
    );
    setup_with(&set_up.url(), SHOP_JSON, &options).await.unwrap();
    for _ in 0..2 {
        psql(&printed.url(), &script).unwrap();
        assert_eq!(fingerprint(&printed.client).await, fingerprint(&set_up.client).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_database_gets_pgmq_too() {
    for by_script in [false, true] {
        let db = Db::on(crate::support::cluster(), "template1").await;
        db.sql("create table items (id int primary key, name text)").await;
        if by_script {
            let url = PgUrl::parse(&db.url()).unwrap();
            let script = capture::print(&url, &schema(ITEMS), &queue(), &SetupOptions::default()).await.unwrap();
            psql(&db.url(), &script).unwrap();
            psql(&db.url(), &script).unwrap();
        } else {
            setup(&db, ITEMS).await.unwrap();
        }
        db.sql("insert into items values (1, 'a')").await;
        assert_eq!(db.one("select message->'keys' from pgmq.read('replicate_data_libsql', 1, 10)").await, r#"[["1"]]"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_cannot_be_captured_is_refused_at_once_with_its_remedy() {
    let db = Db::new().await;
    db.sql("create table nokey (id int); create table nullable (id int unique); create table partial (id int not null);
            create unique index on partial (id) where id > 0;
            create unlogged table fleeting (id int primary key); create view seen as select 1 as id;
            create table parent (id int primary key); create table child () inherits (parent);
            create table whole (id int primary key) partition by range (id); create table part partition of whole default;
            create table ok (id int primary key, name text, at timestamptz)").await;
    let table =
        |name: &str, more: &str| format!(r#""{name}": {{"primaryKey": "id", "columns": {{"id": "INTEGER"}}{more}}}"#);
    let filtered =
        |name: &str, condition: &str| table(name, &format!(r#", "source": "public.ok", "where": "{condition}""#));
    let json = format!(
        "{{{}}}",
        [
            table("absent", ""),
            table("nokey", ""),
            table("nullable", ""),
            table("partial", ""),
            table("fleeting", ""),
            table("seen", ""),
            table("parent", ""),
            table("whole", ""),
            table("part", ""),
            r#""columns": {"primaryKey": "id", "columns": {"id": "INTEGER", "nope": "TEXT"}, "source": "public.ok"}"#
                .to_owned(),
            r#""otherkey": {"primaryKey": "name", "columns": {"name": "TEXT"}, "source": "public.ok"}"#.to_owned(),
            filtered("volatile", "random() > 0"),
            filtered("stable", "at > now()"),
            filtered("syntax", "id ="),
            filtered("query", "id in (select 1)"),
            filtered("typo", "nope = 1"),
            filtered("escape", "true); drop table ok; --"),
            filtered("unqualified", "ok.id = 1"),
        ]
        .join(", ")
    );
    let refused = refusal(&db, &json).await;
    for (path, remedy) in [
        ("$.absent:", "create it"),
        ("$.nokey.primaryKey:", "add primary key (\"id\")"),
        ("$.nullable.primaryKey:", "NOT NULL"),
        ("$.partial.primaryKey:", "add primary key"),
        ("$.fleeting:", "set logged"),
        ("$.seen:", "`source`"),
        ("$.parent:", "children"),
        ("\"public\".\"part\":", "keep one"),
        ("$.columns.columns.nope:", "add it"),
        ("$.otherkey.primaryKey:", "unique"),
        ("$.volatile.where:", "immutable"),
        ("$.stable.where:", "immutable"),
        ("$.syntax.where:", "immutable"),
        ("$.query.where:", "immutable"),
        ("$.typo.where:", "immutable"),
        ("$.escape.where:", "immutable"),
        ("$.unqualified.where:", "immutable"),
    ] {
        let line = refused.lines().find(|l| l.contains(path)).unwrap_or_else(|| panic!("{path} is not in {refused}"));
        assert!(line.contains(remedy), "{line}");
    }
    assert_eq!(refused.lines().count(), 18, "{refused}");
    assert_eq!(
        db.one("select to_regnamespace('pgflume') is null and to_regclass('ok') is not null").await,
        "true",
        "nothing was changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_could_lose_or_reorder_messages_is_refused() {
    for (damage, remedy) in [
        ("alter table pgmq.q_replicate_data_libsql set unlogged", "set logged"),
        ("alter table pgmq.q_replicate_data_libsql alter column msg_id set cache 20", "set cache 1"),
        ("alter table pgmq.q_replicate_data_libsql rename column vt to visible", "update PGMQ"),
        ("select pgmq.enable_notify_insert('replicate_data_libsql')", "disable_notify_insert"),
        (
            "drop table pgmq.q_replicate_data_libsql; create table pgmq.q_replicate_data_libsql (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz, message jsonb) partition by range (msg_id)",
            "pgmq.drop_queue",
        ),
    ] {
        let db = Db::new().await;
        db.sql("create table items (id int primary key, name text)").await;
        db.sql(damage).await;
        let refused = refusal(&db, ITEMS).await;
        assert!(refused.contains(remedy), "{damage}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_row_level_security_takes_marks() {
    let db = Db::new().await;
    db.sql(
        "alter table pgmq.q_replicate_data_libsql enable row level security;
            select pgmq.create('replicate_data_libsql_dead');
            create table items (id int primary key, name text); grant all on items to public",
    )
    .await;
    let report = setup(&db, ITEMS).await.unwrap();
    assert!(report.warnings().iter().any(|w| w.contains("BYPASSRLS")), "{report}");
    let role = format!("rls_{}", db.name);
    db.sql(&format!("create role {role}; set role {role}; set row_security = off; insert into items values (1, 'a'); update items set name = 'b'; reset role")).await;
    assert_eq!(db.queued().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_hold_rows_are_scheduled_for_a_copy_once_and_said_so() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text); insert into items values (1, 'a')").await;
    let said = |report: &SetupReport| report.to_string().contains("the worker copies them");
    let scheduled = "select name || ' ' || reason from pgflume.resyncs where phase = 'copy'";
    assert!(said(&setup(&db, ITEMS).await.unwrap()));
    assert_eq!(db.all(scheduled).await, ["items setup"]);
    db.sql("update pgflume.resyncs set phase = 'done'").await;
    assert!(!said(&setup(&db, ITEMS).await.unwrap()));
    assert!(db.all(scheduled).await.is_empty());
    db.sql("alter table items disable trigger pgflume_replicate_data_libsql_update").await;
    assert!(said(&setup(&db, ITEMS).await.unwrap()), "changes may have been missed");
    assert_eq!(db.all(scheduled).await, ["items setup"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_switch_between_statement_and_row_triggers() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    let by_row = SetupOptions { row_triggers: ["items".to_owned()].into(), ..SetupOptions::default() };
    let triggers = "select string_agg(replace(tgname, 'pgflume_replicate_data_libsql_', ''), ' ' order by tgname) from pg_trigger where tgname like 'pgflume_replicate%'";
    for (options, expected) in [
        (SetupOptions::default(), "delete insert truncate update"),
        (by_row.clone(), "row truncate"),
        (SetupOptions::default(), "delete insert truncate update"),
    ] {
        setup_with(&db.url(), ITEMS, &options).await.unwrap();
        assert_eq!(db.one(triggers).await, expected);
        db.sql("insert into items values (1, 'a'); update items set name = 'b'; update items set name = 'b'; update items set id = 2; delete from items").await;
        let keys = db.all("select message->'keys' from pgmq.q_replicate_data_libsql order by msg_id").await;
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(keys[2].contains("\"1\"") && keys[2].contains("\"2\""), "{keys:?}");
        db.sql("truncate pgmq.q_replicate_data_libsql").await;
    }
    let wrong = SetupOptions { row_triggers: ["itmes".to_owned()].into(), ..SetupOptions::default() };
    assert!(setup_with(&db.url(), ITEMS, &wrong).await.unwrap_err().to_string().contains("--row-triggers itmes"));
}

/// Triggers as Capgo's migration makes them.
const CAPGO: &str = "
    create function public.get_libsql_webhook_signature() returns text language sql as 'select ''x''';
    create function public.trigger_http_queue_post_to_function_libsql() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
        perform pgmq.send('replicate_data_libsql', jsonb_build_object('record', to_jsonb(new), 'old_record', to_jsonb(old), 'type', tg_op, 'table', tg_table_name));
        return new;
    end $$;
    create table items (id int primary key, name text);
    create table others (id int primary key);
    create trigger replicate_items_libsql after insert or update or delete on items for each row execute function public.trigger_http_queue_post_to_function_libsql();
    create trigger replicate_others_libsql after insert or update or delete on others for each row execute function public.trigger_http_queue_post_to_function_libsql()";

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_loses_and_doubles_no_message() {
    let db = Db::new().await;
    db.sql(CAPGO).await;
    let plain = setup(&db, ITEMS).await.unwrap();
    assert!(
        plain.warnings().iter().any(|w| w.contains("replicate_items_libsql") && w.contains("--take-over")),
        "{plain}"
    );
    capture::teardown(&PgUrl::parse(&db.url()).unwrap(), &queue(), TeardownOptions::default()).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (stop, url) = (stop.clone(), db.url());
            tokio::spawn(async move {
                let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    written += 1;
                    let id = writer * 1_000_000 + written;
                    client.batch_execute(&format!("insert into items values ({id}, 'a')")).await.unwrap();
                }
                written
            })
        })
        .collect();
    let options = SetupOptions { take_over: true, ..SetupOptions::default() };
    while db.queued().await < 100 {}
    setup_with(&db.url(), ITEMS, &options).await.unwrap();
    let before = db.queued().await;
    while db.queued().await < before + 100 {}
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    let ids = "select coalesce(message->'record'->>'id', k->>0) from pgmq.q_replicate_data_libsql
               left join jsonb_array_elements(message->'keys') k on true";
    let mut found = db.all(ids).await;
    assert_eq!(found.len(), usize::try_from(written).unwrap());
    found.sort();
    found.dedup();
    assert_eq!(found.len(), usize::try_from(written).unwrap());
    let left = db.all("select tgname from pg_trigger where tgname like 'replicate%' order by 1").await;
    assert_eq!(left, ["replicate_others_libsql"], "only the tables of schema.json are taken over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    let other = PgUrl::parse(&db.url()).unwrap().connect().await.unwrap();
    other.batch_execute("begin; insert into items values (1, 'a')").await.unwrap();
    let url = db.url();
    let running = tokio::spawn(async move { setup_with(&url, ITEMS, &SetupOptions::default()).await });
    // Held until a first attempt has given up, so that it takes a second one.
    let log = "select count(*) from pg_stat_database where datname = current_database() and xact_rollback > 0";
    while db.one(log).await == "0" {
        db.sql("select pg_stat_clear_snapshot()").await;
    }
    other.batch_execute("commit").await.unwrap();
    running.await.unwrap().unwrap();
    db.sql("insert into items values (2, 'b')").await;
    assert_eq!(db.queued().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_through_a_transaction_pooler() {
    let db = Db::new().await;
    db.sql(SHOP).await;
    let pooler = Pgbouncer::start(db.cluster().port());
    let options = SetupOptions { sync_url: Some("http://127.0.0.1:1/sync".into()), ..SetupOptions::default() };
    for _ in 0..2 {
        setup_with(&pooler.url(&db.name), SHOP_JSON, &options).await.unwrap();
    }
    db.sql("insert into items values (1, 'a', 1)").await;
    assert_eq!(db.queued().await, 1);
}

/// With a cluster of its own, where the roles are not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_database_needs_no_superuser() {
    let bin_dir = std::env::var_os("PGFLUME_TEST_PG").map(Into::into);
    let cluster = Cluster::start(ClusterOptions {
        bin_dir,
        settings: vec![("fsync".into(), "off".into())],
        ..ClusterOptions::default()
    })
    .unwrap();
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    for sql in
        ["create role installer login createrole", "create role stranger login", "create database shop owner installer"]
    {
        admin.batch_execute(sql).await.unwrap();
    }
    let as_role = |role: &str| cluster.url("shop").replace("postgres@", &format!("{role}@"));
    let url = PgUrl::parse(&as_role("installer")).unwrap();
    let client = url.connect().await.unwrap();
    client.batch_execute(SHOP).await.unwrap();

    let refused = setup_with(&as_role("stranger"), SHOP_JSON, &SetupOptions::default()).await.unwrap_err().to_string();
    for needed in ["belongs to installer", "grant pgflume_capture to", "may not create schemas"] {
        assert!(refused.contains(needed), "{needed}: {refused}");
    }
    for _ in 0..2 {
        setup_with(&as_role("installer"), SHOP_JSON, &SetupOptions::default()).await.unwrap();
    }
    let refused = setup_with(&as_role("stranger"), SHOP_JSON, &SetupOptions::default()).await.unwrap_err().to_string();
    assert!(refused.contains("of installer"), "{refused}");

    client
        .batch_execute("insert into items values (1, 'a', 1); insert into events_1 values (1, 1, 'v')")
        .await
        .unwrap();
    let one = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(one("select count(*) from pgmq.q_replicate_data_libsql").await, 2);
    let owned = "select count(*) from pg_proc where proowner = 'pgflume_capture'::regrole";
    assert_eq!(one(owned).await, 9);
    let report = capture::teardown(&url, &queue(), TeardownOptions { drop_queue: true }).await.unwrap();
    assert_eq!(one("select count(*) from pg_roles where rolname like 'pgflume%'").await, 0, "{report}");
    client.batch_execute("insert into items values (2, 'a', 1); truncate items, events").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_role_may_do_what_it_needs_and_nothing_else() {
    let db = Db::new().await;
    db.sql("create table hidden (id int primary key)").await;
    db.sql(SHOP).await;
    setup(&db, SHOP_JSON).await.unwrap();
    let role = format!("worker_{}", db.name);
    db.sql(&format!("create role {role}; grant pgflume_worker to {role}; set role {role}")).await;
    for allowed in [
        "select * from pgmq.q_replicate_data_libsql",
        "delete from pgmq.q_replicate_data_libsql returning *",
        "insert into pgmq.q_replicate_data_libsql_dead (vt, message) values (now(), '{}'); delete from pgmq.q_replicate_data_libsql_dead",
        "begin; lock table items, events in access share mode; select * from items; select * from events; commit",
        "insert into pgflume.progress (queue) values ('q'); select * from pgflume.progress for update; update pgflume.progress set seq = 1",
        "insert into pgflume.wakeup (queue) values ('q'); update pgflume.wakeup set calls = 1",
        "insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{}')",
    ] {
        db.sql(allowed).await;
    }
    for denied in [
        "update pgmq.q_replicate_data_libsql set message = '{}'",
        "truncate pgmq.q_replicate_data_libsql",
        "insert into items values (1)",
        "select * from hidden",
        "delete from pgflume.progress",
        "select * from pgflume.settings",
        "select pgflume.get_libsql_webhook_signature()",
        "select pgflume.process_libsql_replication_batch()",
        "create table pgflume.x ()",
    ] {
        let error = db.client.batch_execute(denied).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{denied}");
    }
    db.sql("reset role; set role pgflume_capture").await;
    db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{}')").await;
    for denied in [
        "select * from pgmq.q_replicate_data_libsql",
        "select * from items",
        "create table pgflume.x ()",
        "insert into pgmq.q_replicate_data_libsql_dead (vt) values (now())",
    ] {
        let error = db.client.batch_execute(denied).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{denied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_secret_are_stored_where_cron_looks_for_them() {
    let options = SetupOptions {
        sync_url: Some("https://worker.example.org/sync".into()),
        webhook_signature: Some(Secret::new("hunter2hunter2hunter2")),
        ..SetupOptions::default()
    };
    // Supabase's Vault, as far as its interface goes
    let vault = "create schema vault; create table vault.secrets (id serial, name text unique, secret text);
        create view vault.decrypted_secrets as select id, name, secret as decrypted_secret from vault.secrets;
        create function vault.create_secret(new_secret text, new_name text default null) returns int language sql as 'insert into vault.secrets (name, secret) values ($2, $1) returning id';
        create function vault.update_secret(secret_id int, new_secret text) returns void language sql as 'update vault.secrets set secret = $2 where id = $1'";
    for (prepare, place) in
        [("", "select count(*) from pgflume.settings"), (vault, "select count(*) from vault.secrets")]
    {
        let db = Db::new().await;
        db.sql("create table items (id int primary key, name text)").await;
        db.sql(prepare).await;
        let report = setup_with(&db.url(), ITEMS, &options).await.unwrap();
        assert!(!format!("{report} {report:?}").contains("hunter2"));
        let again = setup_with(&db.url(), ITEMS, &options).await.unwrap();
        assert!(again.unchanged.iter().any(|u| u.contains("libsql_webhook_signature")), "{again}");
        let rotated =
            SetupOptions { webhook_signature: Some(Secret::new("hunter3hunter3hunter3")), ..SetupOptions::default() };
        setup_with(&db.url(), ITEMS, &rotated).await.unwrap();
        assert_eq!(db.one("select pgflume.get_libsql_sync_url()").await, "https://worker.example.org/sync");
        assert_eq!(db.one("select pgflume.get_libsql_webhook_signature()").await, "hunter3hunter3hunter3");
        assert_eq!(db.one(place).await, "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_job_posts_once_or_says_what_is_missing() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    setup(&db, ITEMS).await.unwrap();
    db.sql("select pgflume.process_libsql_replication_batch()").await;
    let options = SetupOptions {
        sync_url: Some("https://worker.example.org/sync".into()),
        webhook_signature: Some(Secret::new("hunter2hunter2hunter2")),
        ..SetupOptions::default()
    };
    setup_with(&db.url(), ITEMS, &options).await.unwrap();
    let error = db.client.batch_execute("select pgflume.process_libsql_replication_batch()").await.unwrap_err();
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("create extension pg_net"));
    db.sql("create schema net; create table net.posted (url text, body jsonb, params jsonb, headers jsonb, ms int);
            create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000)
                returns bigint language sql as 'insert into net.posted values ($1, $2, $3, $4, $5) returning 1::bigint'").await;
    db.sql("select pgflume.process_libsql_replication_batch()").await;
    assert_eq!(
        db.all("select jsonb_build_array(url, body, params, headers, ms) from net.posted").await,
        [
            r#"["https://worker.example.org/sync", {"type": "sync"}, {}, {"Content-Type": "application/json", "x-webhook-signature": "hunter2hunter2hunter2"}, 30000]"#
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_job_posts_through_the_http_extension_where_pg_net_is_not_there() {
    let db = Db::new().await;
    // The extension's interface, and its entry in the catalog
    db.sql("create table items (id int primary key, name text); create schema ext; set search_path = ext, public;
            create domain http_method as text; create type http_header as (field varchar, value varchar);
            create type http_request as (method http_method, uri varchar, headers http_header[], content_type varchar, content varchar);
            create type http_response as (status int, content_type varchar, headers http_header[], content varchar);
            create table posted (request http_request); create table options (name text, value text);
            create function http_header(field varchar, value varchar) returns http_header language sql as 'select $1, $2';
            create function http_set_curlopt(curlopt varchar, value varchar) returns boolean language sql as 'insert into ext.options values ($1, $2) returning true';
            create function http(request ext.http_request) returns http_response language sql
                as 'insert into ext.posted values ($1) returning (200, null, null, null)::ext.http_response';
            reset search_path; set allow_system_table_mods = on;
            insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
                values (99999, 'http', 10, 'ext'::regnamespace, true, '1.6')").await;
    let options = SetupOptions {
        sync_url: Some("https://worker.example.org/sync".into()),
        webhook_signature: Some(Secret::new("hunter2hunter2hunter2")),
        ..SetupOptions::default()
    };
    setup_with(&db.url(), ITEMS, &options).await.unwrap();
    db.sql("select pgflume.process_libsql_replication_batch()").await;
    assert_eq!(
        db.all("select request::text from ext.posted union all select name || value from ext.options").await,
        [
            r#"(POST,https://worker.example.org/sync,"{""(x-webhook-signature,hunter2hunter2hunter2)""}",application/json,"{""type"":""sync""}")"#,
            "CURLOPT_TIMEOUT_MS30000"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_table_that_left_schema_json_is_named() {
    let db = Db::new().await;
    db.sql(SHOP).await;
    setup(&db, SHOP_JSON).await.unwrap();
    let report = setup(&db, ITEMS).await.unwrap();
    let forgotten: Vec<_> = report.warnings().iter().filter(|w| w.contains("not in schema.json")).collect();
    assert!(
        forgotten[0].contains(r#"drop trigger "pgflume_replicate_data_libsql_row" on "public"."events""#),
        "{report}"
    );
    assert!(!forgotten.iter().any(|w| w.contains("items")), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_triggers_that_send_images_can_be_had() {
    let db = Db::new().await;
    db.sql(
        "create table items (id int primary key, name text); create table wide (id int primary key, at timestamptz)",
    )
    .await;
    setup(&db, ITEMS).await.unwrap();
    db.sql("create trigger images after insert or update or delete on wide for each row execute function pgflume.trigger_http_queue_post_to_function_libsql();
            set timezone = 'Asia/Tokyo'; insert into wide values (1, '2024-01-01 00:00:00+00')").await;
    assert_eq!(
        db.one("select message from pgmq.q_replicate_data_libsql").await,
        r#"{"type": "INSERT", "table": "wide", "record": {"at": "2024-01-01T00:00:00+00:00", "id": 1}, "old_record": null}"#
    );
    let refused =
        capture::teardown(&PgUrl::parse(&db.url()).unwrap(), &queue(), TeardownOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("images on public.wide"), "{refused}");
}

/// Roles and cron jobs belong to a whole cluster, so this one has its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_teardown_leaves_nothing_and_other_queues_alone() {
    let settings = [("fsync", "off"), ("shared_preload_libraries", "pg_cron"), ("cron.database_name", "postgres")];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
    let url = PgUrl::parse(&cluster.url("postgres")).unwrap();
    let client = url.connect().await.unwrap();
    client.batch_execute(SHOP).await.unwrap();
    let second = QueueName::parse("second").unwrap();
    for queue in [&queue(), &second] {
        capture::setup(&url, &schema(SHOP_JSON), queue, &SetupOptions::default()).await.unwrap();
    }
    let one = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    let jobs =
        "select count(*) from cron.job where jobname = 'process_libsql_replication' and schedule = '*/5 * * * *'";
    assert_eq!(one(jobs).await, 1);

    capture::teardown(&url, &queue(), TeardownOptions { drop_queue: true }).await.unwrap();
    client.batch_execute("insert into items values (1, 'a', 1); update events set v = v").await.unwrap();
    assert_eq!(one("select count(*) from pgmq.q_second").await, 1, "the other queue goes on");
    assert_eq!(one(jobs).await, 1);
    assert_eq!(one("select count(*) from pg_trigger where tgname like 'pgflume_replicate%'").await, 0);

    let report = capture::teardown(&url, &second, TeardownOptions::default()).await.unwrap();
    assert_eq!(one("select count(*) from pgmq.q_second").await, 1, "a queue stays unless it is asked for: {report}");
    for nothing in [
        "select count(*) from pg_trigger where tgname like 'pgflume%'",
        "select count(*) from pg_namespace where nspname = 'pgflume'",
        "select count(*) from pg_roles where rolname like 'pgflume%'",
        "select count(*) from cron.job",
        "select count(*) from pg_policy where polname like 'pgflume%'",
        "select count(*) from pg_class where relacl::text like '%pgflume%'",
        "select count(*) from pgmq.meta where queue_name like 'replicate%'",
    ] {
        assert_eq!(one(nothing).await, 0, "{nothing}");
    }
    client.batch_execute("insert into items values (2, 'a', 1); truncate items, events").await.unwrap();
    let report = capture::teardown(&url, &second, TeardownOptions { drop_queue: true }).await.unwrap();
    assert_eq!(one("select count(*) from pgmq.meta").await, 0, "{report}");
    capture::setup(&url, &schema(SHOP_JSON), &second, &SetupOptions::default()).await.unwrap();
}

/// As above: jobs belong to a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_replaces_the_cron_job_and_nothing_else_does() {
    let settings = [("fsync", "off"), ("shared_preload_libraries", "pg_cron"), ("cron.database_name", "postgres")];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
    let url = PgUrl::parse(&cluster.url("postgres")).unwrap();
    let client = url.connect().await.unwrap();
    client
        .batch_execute("create table items (id int primary key, name text); create extension pg_cron;
            select cron.schedule('process_libsql_replication', '* * * * *', 'select public.process_libsql_replication_batch()')")
        .await
        .unwrap();
    let command = async || {
        client.query_one("select schedule || ' ' || command from cron.job", &[]).await.unwrap().get::<_, String>(0)
    };
    let report = setup_with(&cluster.url("postgres"), ITEMS, &SetupOptions::default()).await.unwrap();
    assert!(report.warnings().iter().any(|w| w.contains("--take-over")), "{report}");
    assert_eq!(command().await, "* * * * * select public.process_libsql_replication_batch()");
    let options = SetupOptions { take_over: true, ..SetupOptions::default() };
    setup_with(&cluster.url("postgres"), ITEMS, &options).await.unwrap();
    assert_eq!(command().await, "*/5 * * * * select pgflume.process_libsql_replication_batch()");
    client.batch_execute("select cron.schedule('process_libsql_replication', '* * * * *', 'select pgflume.process_libsql_replication_batch()')").await.unwrap();
    setup_with(&cluster.url("postgres"), ITEMS, &options).await.unwrap();
    assert_eq!(
        command().await,
        "* * * * * select pgflume.process_libsql_replication_batch()",
        "a chosen schedule stays"
    );
}
