//! `pgflume doctor`: planted misconfigurations, each named by its code with the command that mends it; nothing where
//! nothing is wrong.

use crate::parts::proxy::{Fault, Proxy};
use crate::parts::{Pgbouncer, Sqld, SqldOptions};
use crate::support::{SECRET, schema};
use pgflume::config::Config;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::operate::doctor::{Examination, Finding, Process, examine};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

const TABLES: &str = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "b":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// A server of its own with everything in order: a keeper that is no superuser, pg_cron with its job, something that
/// posts, a replica that is up to date.
struct Place {
    cluster: Cluster,
    admin: tokio_postgres::Client,
    keeper: tokio_postgres::Client,
    directory: tempfile::TempDir,
}

/// What this place is looked at with.
struct Look {
    json: &'static str,
    url: Option<String>,
    queue: &'static str,
    target: Option<Target>,
    row_bytes: i64,
    examination: Examination,
}

impl Default for Look {
    fn default() -> Self {
        let process = Process { signature: Some(Secret::new(SECRET)), ..Process::default() };
        Self {
            json: TABLES,
            url: None,
            queue: DEFAULT_QUEUE,
            target: None,
            row_bytes: DEFAULT_ROW_BYTES,
            examination: Examination { process, ..Examination::default() },
        }
    }
}

impl Place {
    async fn new() -> Self {
        let settings = [
            ("fsync", "off"),
            ("shared_preload_libraries", "pg_cron"),
            ("cron.database_name", "postgres"),
            ("cron.launch_active_jobs", "off"),
            ("max_prepared_transactions", "5"),
            ("max_connections", "40"),
        ];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
        let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
        admin
            .batch_execute(
                "create role keeper login createrole; create role anon; grant pg_monitor to keeper; alter database postgres owner to keeper; grant create, usage on schema public to keeper;
                 create extension pg_cron; grant usage on schema cron to keeper",
            )
            .await
            .unwrap();
        admin.batch_execute(include_str!("parts/net_http_post.sql")).await.unwrap();
        admin
            .batch_execute("grant usage on schema net to keeper; grant select on net._http_response to keeper")
            .await
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keeper = PgUrl::parse(&url_of(&cluster, "keeper")).unwrap().connect().await.unwrap();
        keeper
            .batch_execute("create table a (id int primary key, v text); create table b (id int primary key, v text); insert into a select g, 'x' from generate_series(1, 10) g")
            .await
            .unwrap();
        let place = Self { cluster, admin, keeper, directory };
        let options = SetupOptions {
            sync_url: Some("http://127.0.0.1:3000/sync".into()),
            webhook_signature: Some(Secret::new(SECRET)),
            ..SetupOptions::default()
        };
        let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
        setup(&PgUrl::parse(&place.url()).unwrap(), &schema(TABLES), &queue, &options).await.unwrap();
        place.worker(&Look::default()).drain(Duration::from_secs(60)).await.unwrap();
        place
    }

    fn url(&self) -> String {
        url_of(&self.cluster, "keeper")
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("replica.db")
    }

    fn worker(&self, look: &Look) -> Worker {
        let target = look.target.clone().unwrap_or_else(|| Target::File(self.file()));
        Worker::new(Config {
            postgres: PgUrl::parse(look.url.as_ref().unwrap_or(&self.url())).unwrap(),
            target,
            schema: schema(look.json),
            queue: QueueName::parse(look.queue).unwrap(),
            rows_per_second: None,
            retention: Duration::ZERO,
            heartbeat: None,
            has_events: false,
            row_bytes: look.row_bytes,
            adopt: false,
            feeding: Default::default(),
        })
    }

    async fn found(&self, look: &Look) -> Vec<Finding> {
        examine(&self.worker(look), &look.examination).await
    }

    /// Each planted by SQL of a superuser, and undone by it.
    async fn plant(&self, code: &str, plant: &str, undo: &str, look: Look) {
        self.admin.batch_execute(plant).await.unwrap_or_else(|e| panic!("{code}: {e:?}"));
        self.expect(code, &look).await;
        self.admin.batch_execute(undo).await.unwrap_or_else(|e| panic!("{code}: {e:?}"));
        self.clean(code).await;
    }

    async fn expect(&self, code: &str, look: &Look) -> Finding {
        let found = self.found(look).await;
        let all: Vec<String> = found.iter().map(|f| format!("{} {}: {}", f.code, f.subject, f.found)).collect();
        let Some(finding) = found.into_iter().find(|finding| finding.code.code == code) else {
            panic!("{code} is not found, but {all:#?}");
        };
        assert!(finding.command.is_some(), "{finding:?}");
        finding
    }

    async fn clean(&self, what: &str) {
        // The job may have run meanwhile.
        self.admin.batch_execute("delete from cron.job_run_details").await.unwrap();
        let found = self.found(&Look::default()).await;
        assert!(found.is_empty(), "{what}: {found:#?}");
    }
}

fn url_of(cluster: &Cluster, role: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{}/postgres", cluster.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_misconfiguration_is_named_with_its_command_and_none_where_all_is_well() {
    let place = Place::new().await;
    place.clean("at first").await;
    // As the worker logs in, who sees less.
    place.admin.batch_execute("create role worker login in role pgflume_worker").await.unwrap();
    let found = place.found(&Look { url: Some(url_of(&place.cluster, "worker")), ..Look::default() }).await;
    assert!(found.is_empty(), "{found:#?}");
    // By SQL in Postgres.
    let queue = format!("pgmq.q_{DEFAULT_QUEUE}");
    let q = |sql: &str| sql.replace("QUEUE", &queue).replace("NAME", DEFAULT_QUEUE);
    let plants = [
        ("PF-102", "alter table b rename to c", "alter table c rename to b"),
        ("PF-103", "alter table b rename column v to w", "alter table b rename column w to v"),
        (
            "PF-105",
            "alter table b owner to postgres; revoke select on b from pgflume_worker",
            "alter table b owner to keeper; grant select on b to pgflume_worker",
        ),
        (
            "PF-106",
            "alter table b enable row level security; alter table b force row level security; create policy p on b using (id > 5)",
            "drop policy p on b; alter table b no force row level security; alter table b disable row level security",
        ),
        (
            "PF-108",
            "grant usage on schema pgflume to public; grant execute on function pgflume.get_libsql_webhook_signature() to public",
            "revoke usage on schema pgflume from public; revoke execute on function pgflume.get_libsql_webhook_signature() from public",
        ),
        // As Capgo's migration leaves it.
        (
            "PF-108",
            "create function public.get_libsql_webhook_signature() returns text language sql as 'select ''x''' ; grant usage on schema public to anon",
            "drop function public.get_libsql_webhook_signature()",
        ),
        (
            "PF-111",
            "insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) values (99999, 'pgmq', 10, 'pgmq'::regnamespace, false, '1.3.3')",
            "delete from pg_extension where oid = 99999",
        ),
        (
            "PF-113",
            "alter table b disable trigger all",
            "do $$ declare t name; begin for t in select tgname from pg_trigger where tgrelid = 'b'::regclass and tgname like 'pgflume%' loop execute format('alter table b enable always trigger %I', t); end loop; end $$",
        ),
        ("PF-114", "alter table QUEUE set unlogged", "alter table QUEUE set logged"),
        (
            "PF-114",
            "create function public.noise() returns trigger language plpgsql as 'begin return new; end'; create trigger noise before insert on QUEUE for each row execute function public.noise()",
            "drop function public.noise() cascade",
        ),
        ("PF-115", "select pgmq.enable_notify_insert('NAME')", "select pgmq.disable_notify_insert('NAME')"),
        (
            "PF-116",
            "alter table QUEUE set (autovacuum_enabled = false)",
            "alter table QUEUE reset (autovacuum_enabled)",
        ),
        (
            "PF-118",
            "select pg_create_physical_replication_slot('forgotten', true)",
            "select pg_drop_replication_slot('forgotten')",
        ),
        (
            "PF-119",
            "insert into pgmq.a_NAME (msg_id, read_ct, enqueued_at, vt, message) select g, 0, now(), now(), jsonb_build_object('x', repeat(md5(g::text), 20)) from generate_series(1, 5000) g",
            "truncate pgmq.a_NAME",
        ),
        (
            "PF-120",
            "update cron.job set jobname = 'gone'",
            "update cron.job set jobname = 'process_libsql_replication'",
        ),
        ("PF-121", "update cron.job set active = false", "update cron.job set active = true"),
        (
            "PF-122",
            "insert into cron.job_run_details (jobid, runid, username, database, command, status, return_message) select jobid, 1, 'keeper', 'postgres', command, 'failed', 'ERROR: no such thing' from cron.job",
            "delete from cron.job_run_details",
        ),
        (
            "PF-123",
            r#"insert into net._http_response (id, status_code, content) values (1, 401, '{"success":false,"error":"wrong or missing signature"}')"#,
            "delete from net._http_response",
        ),
        (
            "PF-123",
            "insert into net._http_response (id, timed_out, error_msg) values (1, true, 'Timeout was reached')",
            "delete from net._http_response",
        ),
        (
            "PF-124",
            "alter function net.http_post rename to http_past",
            "alter function net.http_past rename to http_post",
        ),
        (
            "PF-125",
            "update pgflume.settings set value = 'another secret of some length' where name = 'libsql_webhook_signature'",
            "update pgflume.settings set value = 'SECRET' where name = 'libsql_webhook_signature'",
        ),
        (
            "PF-126",
            "delete from pgflume.settings where name = 'libsql_sync_url'",
            "insert into pgflume.settings values ('libsql_sync_url', 'https://worker.example/sync')",
        ),
        (
            "PF-127",
            "update pgflume.settings set value = 'http://worker.example/sync' where name = 'libsql_sync_url'",
            "update pgflume.settings set value = 'https://worker.example/sync' where name = 'libsql_sync_url'",
        ),
        // Postgres' own clock, as SQL tells it.
        (
            "PF-130",
            "set allow_system_table_mods = on; alter function pg_catalog.clock_timestamp() rename to true_clock; create function pg_catalog.clock_timestamp() returns timestamptz language sql as 'select pg_catalog.true_clock() + pg_catalog.make_interval(mins => 1)'",
            "drop function pg_catalog.clock_timestamp(); alter function pg_catalog.true_clock() rename to clock_timestamp; reset allow_system_table_mods",
        ),
        (
            "PF-133",
            "create function public.trigger_http_queue_post_to_function_libsql() returns trigger language plpgsql as 'begin return new; end'; create trigger replicate_b after insert on b for each row execute function public.trigger_http_queue_post_to_function_libsql()",
            "drop function public.trigger_http_queue_post_to_function_libsql() cascade",
        ),
        ("PF-134", "select pgmq.send('NAME_dead', '{\"reason\":\"x\"}')", "delete from pgmq.q_NAME_dead"),
        (
            "PF-135",
            "update pgflume.resyncs set phase = 'failed', problem = 'no key' where name = 'b'",
            "update pgflume.resyncs set phase = 'done', problem = null where name = 'b'",
        ),
    ];
    for (code, plant, undo) in plants {
        place.plant(code, &q(plant), &q(undo).replace("SECRET", SECRET), Look::default()).await;
    }
    // Messages that went, and one that is old: the next drain deals with both.
    place.keeper.batch_execute("insert into b values (1, 'x')").await.unwrap();
    place.admin.batch_execute(&q("update QUEUE set enqueued_at = now() - interval '2 hours'")).await.unwrap();
    place.expect("PF-136", &Look::default()).await;
    place.admin.batch_execute(&q("delete from QUEUE")).await.unwrap();
    place.expect("PF-132", &Look::default()).await;
    place.worker(&Look::default()).drain(Duration::from_secs(60)).await.unwrap();
    place.clean("drained").await;
    bloat(&place, &queue).await;
    old_transactions(&place).await;
    crowd(&place).await;
    by_looking_otherwise(&place).await;
    of_the_replica(&place).await;
    of_clients(&place).await;
}

/// Statistics come late.
async fn bloat(place: &Place, queue: &str) {
    place.admin.batch_execute(&format!("alter table {queue} disable trigger all; insert into {queue} (vt, message) select now(), '{{}}' from generate_series(1, 30000)")).await.unwrap();
    place.admin.batch_execute(&format!("delete from {queue}; select pg_stat_force_next_flush()")).await.unwrap();
    crate::support::until("statistics tell", async || {
        let found = place.found(&Look::default()).await;
        found.iter().any(|finding| finding.code.code == "PF-117" && finding.is_fixable())
    })
    .await;
    place.admin.batch_execute(&format!("do $$ declare t name; begin for t in select tgname from pg_trigger where tgrelid = '{queue}'::regclass and tgname like 'pgflume%' loop execute format('alter table {queue} enable always trigger %I', t); end loop; end $$")).await.unwrap();
    place.admin.batch_execute(&format!("vacuum {queue}")).await.unwrap();
}

async fn old_transactions(place: &Place) {
    let look = || {
        let look = Look::default();
        Look { examination: Examination { old_transaction: Duration::ZERO, ..look.examination.clone() }, ..look }
    };
    let open = PgUrl::parse(&place.url()).unwrap().connect().await.unwrap();
    open.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    let finding = place.expect("PF-118", &look()).await;
    assert!(finding.command.as_ref().unwrap().starts_with("select pg_catalog.pg_terminate_backend("), "{finding:?}");
    open.batch_execute("prepare transaction 'forgotten'").await.unwrap();
    let finding = place.expect("PF-118", &look()).await;
    assert_eq!(finding.command.as_deref(), Some("rollback prepared 'forgotten'"));
    place.admin.batch_execute("rollback prepared 'forgotten'").await.unwrap();
}

async fn crowd(place: &Place) {
    let mut all = Vec::new();
    for _ in 0..30 {
        all.push(PgUrl::parse(&place.url()).unwrap().connect().await.unwrap());
    }
    place.expect("PF-131", &Look::default()).await;
    drop(all);
}

/// What lies in how the worker is told to look.
async fn by_looking_otherwise(place: &Place) {
    let one = r#"{"apps":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    place.expect("PF-101", &Look { json: one, ..Look::default() }).await;
    place
        .keeper
        .batch_execute("create table keyless (id int not null, v text); create table fresh (id int primary key)")
        .await
        .unwrap();
    let keyless = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"keyless":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    place.expect("PF-104", &Look { json: keyless, ..Look::default() }).await;
    place.keeper.batch_execute("select pgmq.create('bare')").await.unwrap();
    place
        .expect(
            "PF-112",
            &Look {
                queue: "bare",
                target: Some(Target::File(place.directory.path().join("bare.db"))),
                ..Look::default()
            },
        )
        .await;
    place.keeper.batch_execute("select pgmq.drop_queue('bare')").await.unwrap();
    place.expect("PF-107", &Look { url: Some(place.cluster.url("postgres")), ..Look::default() }).await;
    place.expect("PF-110", &Look { queue: "nobody", ..Look::default() }).await;
    let port = place.cluster.port();
    let open = format!("host=db.example hostaddr=127.0.0.1 port={port} user=keeper dbname=postgres sslmode=prefer");
    place.expect("PF-128", &Look { url: Some(open), ..Look::default() }).await;
    let pooler = Pgbouncer::pooling(port, "statement");
    place.expect("PF-129", &Look { url: Some(pooler.url("postgres")), ..Look::default() }).await;
    place
        .expect("PF-001", &Look { url: Some("postgres://keeper@127.0.0.1:1/postgres".into()), ..Look::default() })
        .await;
    let process = |signature: Option<&str>| {
        let process = Process { signature: signature.map(Secret::new), ..Process::default() };
        Look { examination: Examination { process, ..Examination::default() }, ..Look::default() }
    };
    place.expect("PF-301", &process(Some("short"))).await;
    place.expect("PF-302", &process(None)).await;
    let examination = Examination { least_room: u64::MAX, ..Look::default().examination };
    place.expect("PF-207", &Look { examination, ..Look::default() }).await;
    let nowhere = Target::File(place.directory.path().join("nowhere/replica.db"));
    place.expect("PF-208", &Look { target: Some(nowhere), ..Look::default() }).await;
    let sqld = Sqld::start(SqldOptions::default());
    let remote = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
    place.expect("PF-210", &Look { target: Some(remote), row_bytes: 1 << 30, ..Look::default() }).await;
    let proxy = Proxy::start(sqld.url().rsplit(':').next().unwrap().parse().unwrap());
    proxy.set(Fault::Delay(Duration::from_millis(400)));
    let far = Target::Remote { url: proxy.url(), token: Some(Secret::new(sqld.token_rw())) };
    place.expect("PF-209", &Look { target: Some(far), ..Look::default() }).await;
    drop(sqld);
    let gone = Target::Remote { url: "http://127.0.0.1:1".into(), token: None };
    place.expect("PF-002", &Look { target: Some(gone), ..Look::default() }).await;
    place.keeper.batch_execute("drop table keyless, fresh").await.unwrap();
    place.clean("looked at as it is").await;
}

async fn of_the_replica(place: &Place) {
    let plants: [(&str, &[&str], &[&str]); 5] = [
        (
            "PF-201",
            &["DROP TABLE b", "CREATE TABLE b (id INTEGER PRIMARY KEY NOT NULL, v TEXT REFERENCES a (v))"],
            &["DROP TABLE b", "CREATE TABLE b (id INTEGER PRIMARY KEY NOT NULL, v TEXT)"],
        ),
        ("PF-202", &["CREATE UNIQUE INDEX only_one ON a (v, id)"], &["DROP INDEX only_one"]),
        (
            "PF-203",
            &["CREATE TRIGGER noisy AFTER INSERT ON a BEGIN DELETE FROM b WHERE id = new.id; END"],
            &["DROP TRIGGER noisy"],
        ),
        (
            "PF-204",
            &["ALTER TABLE a RENAME COLUMN v TO w", "ALTER TABLE a ADD COLUMN v INTEGER"],
            &["ALTER TABLE a DROP COLUMN v", "ALTER TABLE a RENAME COLUMN w TO v"],
        ),
        ("PF-206", &["PRAGMA journal_mode = DELETE"], &["PRAGMA journal_mode = WAL"]),
    ];
    for (code, plant, undo) in plants {
        sqlite(place, plant);
        place.expect(code, &Look::default()).await;
        sqlite(place, undo);
        place.clean(code).await;
    }
    // The replica of another queue.
    let other = "other";
    let queue = QueueName::parse(other).unwrap();
    setup(&PgUrl::parse(&place.url()).unwrap(), &schema(TABLES), &queue, &SetupOptions::default()).await.unwrap();
    place.expect("PF-205", &Look { queue: other, ..Look::default() }).await;
}

/// What clients are fed, and write.
async fn of_clients(place: &Place) {
    const FED: &str = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"public":true}},
        "b":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"public":true}}}"#;
    const MATCHED: &str =
        r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"match":{"v":"org"}}}}"#;
    const WRITABLE: &str = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},
        "writable":{"columns":["v"],"ops":["update"]}}}"#;
    let look = |json: &'static str| Look { json, ..Look::default() };
    let codes = async |look: &Look| -> BTreeSet<&'static str> {
        place.found(look).await.iter().map(|finding| finding.code.code).collect()
    };
    place.expect("PF-212", &look(FED)).await;
    place.worker(&look(FED)).drain(Duration::from_secs(60)).await.unwrap();
    assert!(place.found(&look(FED)).await.is_empty(), "{:#?}", place.found(&look(FED)).await);
    sqlite(place, &["UPDATE _pgflume_feed_tables SET is_held = 1 WHERE name = 'b'"]);
    assert_eq!(place.expect("PF-213", &look(FED)).await.subject, "b");
    sqlite(place, &["UPDATE _pgflume_feed_tables SET is_held = 0"]);
    sqlite(
        place,
        &[
            "INSERT INTO _pgflume_feed SELECT tab, 1 << 20, 0, 1, 1, '[[[1],null]]' FROM _pgflume_feed_tables WHERE name = 'a'",
        ],
    );
    assert_eq!(place.expect("PF-214", &look(FED)).await.subject, "a");
    sqlite(place, &["DELETE FROM _pgflume_feed"]);
    sqlite(
        place,
        &[
            "DROP TABLE b",
            "CREATE TABLE b (id INTEGER PRIMARY KEY NOT NULL, v TEXT) WITHOUT ROWID",
            "DELETE FROM _pgflume_feed_tables WHERE name = 'b'",
        ],
    );
    place.expect("PF-211", &look(FED)).await;
    assert!(!codes(&look(FED)).await.contains("PF-212"), "it is told once");
    place.expect("PF-303", &look(MATCHED)).await;
    let of_push = |push: String| {
        let process = Process { push: Some(PgUrl::parse(&push).unwrap()), ..Look::default().examination.process };
        Look { json: WRITABLE, examination: Examination { process, ..Examination::default() }, ..Look::default() }
    };
    let lacks = codes(&of_push(place.url())).await;
    assert!(["PF-137", "PF-138", "PF-139", "PF-303"].iter().all(|code| lacks.contains(code)), "{lacks:?}");
    place
        .keeper
        .batch_execute("alter table a enable row level security; create policy p on a using (true)")
        .await
        .unwrap();
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let options = SetupOptions::default();
    setup(&PgUrl::parse(&place.url()).unwrap(), &schema(WRITABLE), &queue, &options).await.unwrap();
    place
        .admin
        .batch_execute("create role clients login noinherit; create role others nologin; grant others to clients")
        .await
        .unwrap();
    let clients = of_push(url_of(&place.cluster, "clients"));
    let finding = place.expect("PF-138", &clients).await;
    assert!(finding.command.as_ref().unwrap().contains("grant pgflume_push"), "{finding:?}");
    place.admin.batch_execute("grant pgflume_push to clients").await.unwrap();
    let left = codes(&clients).await;
    assert!(["PF-137", "PF-138", "PF-139", "PF-140"].iter().all(|code| !left.contains(code)), "{left:?}");
    let old = "insert into pgflume.pushes (client, key, digest, at) values ('c', 'k', 'd', now() - interval '9 days')";
    place.admin.batch_execute(old).await.unwrap();
    // Whoever may read it sees that.
    let admin = Look { url: Some(place.cluster.url("postgres")), ..clients };
    place.expect("PF-140", &admin).await;
    place.expect("PF-138", &of_push("postgres://nobody@127.0.0.1:1/x".into())).await;
}

/// As any other program would; pgflume's own connections set the journal mode.
fn sqlite(place: &Place, statements: &[&str]) {
    let file = place.file();
    let statements: Vec<String> = statements.iter().map(|statement| (*statement).to_owned()).collect();
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let database = libsql::Builder::new_local(file).build().await.unwrap();
            let connection = database.connect().unwrap();
            for statement in &statements {
                let mut rows = connection.query(statement, ()).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
                while rows.next().await.unwrap_or_else(|e| panic!("{statement}: {e}")).is_some() {}
            }
        });
    });
    done.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_codes_mends_what_is_safe_and_ends_with_4_where_it_found_something() {
    let place = Place::new().await;
    std::fs::write(place.directory.path().join("schema.json"), TABLES).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.arg("doctor").args(arguments).env_clear().current_dir(place.directory.path());
        let variables =
            [("PGMQ_URL", place.url()), ("LIBSQL_URL", "file:replica.db".into()), ("WEBHOOK_SIGNATURE", SECRET.into())];
        let done = command.envs(variables).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (code, out, err) = run(&[]);
    assert_eq!((code, out.as_str()), (Some(0), "Nothing is wrong, as far as can be seen from here.\n"), "{err}");
    let queue = format!("pgmq.q_{DEFAULT_QUEUE}");
    place.keeper.batch_execute(&format!("select pgmq.enable_notify_insert('{DEFAULT_QUEUE}'); alter table {queue} set (autovacuum_enabled = false); alter table b disable trigger all")).await.unwrap();
    let (code, out, err) = run(&["--json"]);
    assert_eq!(code, Some(4), "{out} {err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let of = |json: &serde_json::Value| -> BTreeSet<String> {
        json["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(&json), ["PF-113", "PF-115", "PF-116"].map(str::to_owned).into(), "{json}");
    assert!(
        json["findings"].as_array().unwrap().iter().all(|f| f["command"].is_string() && f["title"].is_string()),
        "{json}"
    );
    let (code, out, err) = run(&["--fix", "--json"]);
    assert_eq!(code, Some(4), "{out} {err}");
    assert!(err.contains("mended PF-115") && err.contains("mended PF-116"), "{err}");
    let left: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(of(&left), ["PF-113".to_owned()].into(), "what is not safe unasked stays: {left}");
    assert!(!out.contains(SECRET) && !err.contains(SECRET));
    let (code, page, _) = run(&["--codes"]);
    assert_eq!((code, page.as_str()), (Some(0), include_str!("../../docs/errors.md")));
}
