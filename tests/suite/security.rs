//! Who may do what, what is shown to whom, and what strangers may cost: attacks on the rights that `setup`
//! gives, on secrets, and on the HTTP worker.

use crate::parts::http::{self, Answer};
use crate::parts::process::Process;
use crate::parts::{Sqld, SqldOptions};
use crate::support::{Db, Home, Path, Rig, config, schema};
use pgflume::config::{Config, Signatures};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions, free_port};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

const ITEMS: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}}}"#;

async fn setup(db: &Db, json: &str) {
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let url = PgUrl::parse(&db.url()).unwrap();
    capture::setup(&url, &schema(json), &queue, &SetupOptions::default()).await.unwrap();
}

/// A role of this database's test that may log in.
async fn role(db: &Db, name: &str, granted: &str) -> (String, String) {
    let role = format!("{name}_{}", db.name);
    db.sql(&format!("create role {role} login; {}", granted.replace("{role}", &role))).await;
    (db.url().replace("postgres@", &format!("{role}@")), role)
}

/// Each of these has to be refused for want of a right.
async fn denied(url: &str, attempts: &[&str]) {
    let client = PgUrl::parse(url).unwrap().connect().await.unwrap();
    for sql in attempts {
        let code = match client.batch_execute(sql).await {
            Ok(()) => panic!("{url} may: {sql}"),
            Err(e) => e.code().map_or("none".to_owned(), |code| code.code().to_owned()),
        };
        assert_eq!(code, "42501", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_nothing_but_its_role_drains_resyncs_verifies_and_nukes() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text); insert into items select i, 'x' from generate_series(1, 500) i").await;
    setup(&db, ITEMS).await;
    let (url, _) = role(&db, "worker", "grant pgflume_worker to {role}").await;
    let home = Home::new(Path::File);
    let worker = Worker::new(config(&url, home.target(), schema(ITEMS)));
    let rig = Rig { db, home, worker: Arc::new(worker) };
    let settled = async || loop {
        let done = rig.drain().await;
        assert!(done.stuck.is_empty(), "{done:?}");
        if done.rebuilding == 0 && done.queued == 0 {
            break;
        }
    };
    settled().await;
    assert_eq!(rig.rows("SELECT count(*) FROM items").await, ["500"]);
    rig.db.sql("update items set name = 'y' where id = 1; delete from items where id = 2; truncate items; insert into items values (3, 'z')").await;
    rig.db.send(r#"{"v":1,"table":"items","keys":"wrong"}"#).await;
    settled().await;
    assert_eq!(rig.rows("SELECT * FROM items").await, ["3|z"]);
    assert_eq!(rig.db.dead().await.len(), 1);
    pgflume::operate::resync::request(&rig.worker, &["items"]).await.unwrap();
    settled().await;
    pgflume::sync::pairing::nuke(&rig.worker, Some("an-id"), true).await.unwrap();
    settled().await;
    pgflume::operate::status::status(&rig.worker).await.unwrap();
    assert!(pgflume::operate::status::unready(&rig.worker).await.is_empty());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ITEMS).unwrap();
    let Target::File(replica) = rig.home.target() else { unreachable!() };
    for arguments in [&["verify"][..], &["verify", "--repair"], &["verify", "--sample", "50"], &["status"], &["resync"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_pgflume"))
            .args(arguments)
            .env_clear()
            .env("PGMQ_URL", &url)
            .env("LIBSQL_URL", &replica)
            .env("SCHEMA_FILE", file.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_do_more_than_is_meant_for_them() {
    // Its member of pgflume_capture would stop every set-up of the cluster.
    let cluster = crate::intruders::cluster_of_its_own();
    let db = Db::named("meant".to_owned(), cluster, "with_pgmq").await;
    db.sql(
        "create table items (id int primary key, name text); create table hidden (id int); select pgmq.create('other')",
    )
    .await;
    setup(&db, ITEMS).await;
    let (worker, _) = role(&db, "worker", "grant pgflume_worker to {role}").await;
    let (capture, _) = role(&db, "capture", "grant pgflume_capture to {role}").await;
    let (application, _) = role(&db, "app", "grant select, insert, update, delete, truncate on items to {role}").await;
    let of_all = [
        "select pgflume.get_libsql_webhook_signature()",
        "select pgflume.get_libsql_sync_url()",
        "select pgflume.process_libsql_replication_batch()",
        "select * from pgflume.settings",
        "insert into pgflume.settings values ('libsql_sync_url', 'http://elsewhere')",
        "select pgmq.drop_queue('replicate_data_libsql')",
        "select pgmq.purge_queue('replicate_data_libsql')",
        "truncate pgmq.q_replicate_data_libsql",
        "select * from pgmq.q_other",
        "select pgmq.send('other', '{}')",
        "select * from pgmq.read('other', 0, 1)",
        "select * from pgmq.a_replicate_data_libsql",
        "alter table items disable trigger all",
        "drop trigger pgflume_replicate_data_libsql_insert on items",
        "create table public.x ()",
        "create table pgflume.x ()",
        "create table pgmq.x ()",
        "create function pgflume.x() returns int language sql as 'select 1'",
        "create role x superuser",
        "set role postgres",
        "set session_replication_role = replica",
        "select * from hidden",
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/passwd')",
    ];
    for url in [&worker, &capture, &application] {
        denied(url, &of_all).await;
    }
    denied(
        &worker,
        &[
            "insert into items values (1)",
            "update items set name = 'x'",
            "delete from items",
            "truncate items",
            "insert into pgflume.losses (queue, by, who) values ('q', 'DELETE', 'x')",
            "update pgmq.q_replicate_data_libsql set vt = now()",
            "update pgmq.q_replicate_data_libsql_dead set vt = now()",
            "delete from pgflume.progress",
            "update pgflume.captured set at = now()",
        ],
    )
    .await;
    denied(
        &capture,
        &[
            "select * from pgmq.q_replicate_data_libsql",
            "delete from pgmq.q_replicate_data_libsql",
            "select * from pgmq.q_replicate_data_libsql_dead",
            "select * from pgflume.progress",
            "select * from items",
        ],
    )
    .await;
    denied(
        &application,
        &[
            "insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{}')",
            "select pgmq.send('replicate_data_libsql', '{}')",
            "select * from pgmq.q_replicate_data_libsql",
            "select * from pgmq.q_replicate_data_libsql_dead",
            "select * from pgflume.progress",
            "select * from pgflume.resyncs",
            "create table pg_temp.t (id int); create trigger t after insert on pg_temp.t for each row execute function pgflume.\"replicate_data_libsql.public.items.insert\"()",
            "create table pg_temp.u (id int); create trigger t after insert on pg_temp.u for each row execute function pgflume.trigger_http_queue_post_to_function_libsql()",
        ],
    )
    .await;
    assert_eq!(db.queued().await, 0);
}

/// The capture functions run as another role: nothing of the writer's may take the place of what they call.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_cannot_put_functions_of_its_own_into_the_capture() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text)").await;
    setup(&db, ITEMS).await;
    let owned =
        "grant select, insert, update, delete, truncate on items to {role}; create schema {role} authorization {role}";
    let (url, role) = role(&db, "app", owned).await;
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let signatures = [
        ("clock_timestamp", "", "timestamptz"),
        ("jsonb_build_object", "variadic \"any\"", "jsonb"),
        ("jsonb_build_object", "text, int, text, text, text, jsonb", "jsonb"),
        ("to_jsonb", "text[]", "jsonb"),
        ("to_jsonb", "anyelement", "jsonb"),
        ("array_agg", "text[]", "text[]"),
        ("row_number", "", "bigint"),
        ("octet_length", "text", "int"),
        ("text", "int", "text"),
    ];
    for (place, name) in [(role.as_str(), "schema"), ("pg_temp", "temp")] {
        for (function, arguments, returns) in signatures {
            // Some cannot be made at all, such as a variadic "any" in PL/pgSQL: those are no danger.
            let body = format!("begin raise exception 'ran {name} as %', current_user; end");
            let sql = format!(
                "create function {place}.{function}({arguments}) returns {returns} language plpgsql as $f${body}$f$"
            );
            client.batch_execute(&sql).await.ok();
        }
        for operator in ["=", "<>", "||", "/", "+"] {
            let sql = format!(
                "create function {place}.compare(int, int) returns boolean language plpgsql as $f$begin raise exception 'ran as %', current_user; end$f$;
                 create operator {place}.{operator} (leftarg = int, rightarg = int, function = {place}.compare)"
            );
            client.batch_execute(&sql).await.ok();
        }
    }
    let made = format!("select count(*) from pg_proc where proowner = '{role}'::regrole");
    assert!(db.one(&made).await.parse::<u32>().unwrap() >= 10, "the attack is armed");
    client
        .batch_execute(&format!(
            "create temp table old_rows (id int, name text); create temp table new_rows (id int, name text); create temp table items (id int);
             create temp table q_replicate_data_libsql (vt timestamptz, message jsonb);
             set search_path = pg_temp, {role}, pg_catalog, public, pgmq"
        ))
        .await
        .unwrap();
    for sql in [
        "insert into public.items values (1, 'a'), (2, 'b')",
        "update public.items set name = 'c'",
        "delete from public.items where id operator(pg_catalog.=) 1",
        "truncate public.items",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    assert_eq!(db.queued().await, 4);
    let row = client.query_one("select count(*) from pg_temp.q_replicate_data_libsql", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

/// What no output may hold is in every secret and every row of these tests.
const HUSH: &str = "hush";
const PASSWORD: &str = "hush-password-0123456789";
pub const WEBHOOK: &str = "hush-webhook-0123456789";
const NUKE: &str = "hush-nuke-0123456789";
const TOKEN: &str = "hush.token.0123456789";

fn hushed(what: &str, text: &str) {
    let shown = text.lines().find(|line| line.contains(HUSH));
    assert!(shown.is_none(), "{what} shows a secret or a row: {}", shown.unwrap_or_default());
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("RUST_LOG", "trace").envs(variables.iter().copied());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watching = watch_arguments();
    let output = child.wait_with_output().unwrap();
    watching.store(1, Ordering::Relaxed);
    output
}

/// Looks at the arguments of all processes until told to end: of ours and of what they start.
fn watch_arguments() -> Arc<AtomicUsize> {
    let end = Arc::new(AtomicUsize::new(0));
    let ended = end.clone();
    std::thread::spawn(move || {
        while ended.load(Ordering::Relaxed) == 0 {
            arguments_are_hushed();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    end
}

fn arguments_are_hushed() {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if arguments.contains("pgflume") && arguments.contains("hush-") {
            // A panic on this thread would be seen by nobody.
            eprintln!("a process shows a secret: {arguments}");
            std::process::abort();
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_when_it_fails() {
    let db = Db::new().await;
    let sqld = Sqld::start(SqldOptions::default());
    let good = db.url();
    let closed = format!("postgres://u:{PASSWORD}@127.0.0.1:1/x");
    let urls = [
        closed.clone(),
        format!("postgres://u:{PASSWORD}@no-such-host.invalid/x"),
        format!("postgres://u:{PASSWORD}@h:port/x"),
        format!("postgres://u:{PASSWORD}@[::1/x"),
        format!("postgres:/u:{PASSWORD}@h/x"),
        format!("host=127.0.0.1 port=1 password='{PASSWORD}"),
        format!("host=127.0.0.1 port=1 password={PASSWORD} user=u nonsense={PASSWORD}"),
        format!("postgres://u:{PASSWORD}@127.0.0.1:1/x?sslmode={PASSWORD}"),
        format!("postgres://u:{PASSWORD}@127.0.0.1:1/x?connect_timeout={PASSWORD}"),
        good.clone(),
    ];
    let targets = [
        sqld.url(),
        "http://127.0.0.1:1".to_owned(),
        format!("https://u:{PASSWORD}@127.0.0.1:1"),
        format!("https://127.0.0.1:1/?authToken={TOKEN}"),
        format!("hush-scheme://u:{PASSWORD}@h").replace("hush-scheme", "ftp"),
        format!("http://[{PASSWORD}"),
    ];
    let mut cases: Vec<(&str, &str)> = urls.iter().map(|url| (url.as_str(), targets[1].as_str())).collect();
    cases.extend(targets.iter().map(|target| (good.as_str(), target.as_str())));
    let check = |arguments: &[&str], url: &str, target: &str, format: &str| {
        let variables = [
            ("PGMQ_URL", url),
            ("LIBSQL_URL", target),
            ("LIBSQL_AUTH_TOKEN", TOKEN),
            ("WEBHOOK_SIGNATURE", WEBHOOK),
            ("NUKE_SIGNATURE", NUKE),
            ("LOG_FORMAT", format),
        ];
        let output = run(arguments, &variables);
        hushed(&format!("{arguments:?} with {url} and {target}"), &said(&output));
        output.status.code()
    };
    for (url, target) in &cases {
        assert_ne!(check(&["sync"], url, target, "text"), Some(0), "{url} {target}");
    }
    for arguments in
        [&["status"][..], &["verify"], &["resync"], &["setup"], &["setup", "--plan"], &["init", "--stdout"]]
    {
        for url in [&closed, &good] {
            check(arguments, url, &targets[0], "json");
        }
    }
    for arguments in
        [&["--help"][..], &["serve", "--help"], &["setup", "--help"], &["setup", "--print"], &["serve", "--port", "x"]]
    {
        check(arguments, &closed, &targets[0], "text");
    }
}

#[test]
fn nothing_shows_a_secret_in_debug_output() {
    use clap::Parser as _;
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: pgflume::config::GlobalOptions,
    }
    let url = format!("postgres://u:{PASSWORD}@h/x");
    let line = Line::parse_from(["pgflume", "--pgmq-url", &url, "--libsql-url", &format!("https://u:{PASSWORD}@h")]);
    hushed("GlobalOptions", &format!("{line:?} {line:#?}"));
    let target = Target::Remote { url: "https://h".into(), token: Some(Secret::new(TOKEN)) };
    let config: Config = config(&url, target, schema(ITEMS));
    hushed("Config", &format!("{config:?} {config:#?}"));
    let secret = || vec![Secret::new(WEBHOOK)];
    hushed("Signatures", &format!("{:?}", Signatures { webhook: secret(), nuke: secret() }));
    for bad in [format!("{url}?sslmode=x"), format!("host=h password='{PASSWORD}"), PASSWORD.to_owned()] {
        hushed("an error", &format!("{:?}", PgUrl::parse(&bad).unwrap_err()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_shows_a_row() {
    let db = Db::new().await;
    db.sql("create table items (id int primary key, name text unique); insert into items values (1, 'hush-row');
            create function check_it(t text) returns boolean language plpgsql immutable as $$ begin raise exception 'no %', t; end $$").await;
    for sql in
        ["insert into items values (2, 'hush-row')", "select name::int from items", "select check_it(name) from items"]
    {
        let error = pgflume::core::error::Error::from(db.client.batch_execute(sql).await.unwrap_err());
        hushed(sql, &format!("{error} {error:?} {error:#?}"));
    }
}

/// The worker as a process of its own.
pub struct Served {
    process: Process,
    directory: tempfile::TempDir,
    pub address: String,
}

impl Served {
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let mut command = Command::new("/bin/sh");
        // As many files as a process usually may open.
        command.args(["-c", r#"ulimit -n 1024; exec "$0" serve"#, env!("CARGO_BIN_EXE_pgflume")]);
        command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).env("PORT", port.to_string());
        command.env("WEBHOOK_SIGNATURE", WEBHOOK).env("NUKE_SIGNATURE", NUKE).envs(variables.iter().copied());
        let address = format!("http://127.0.0.1:{port}");
        let health = format!("{address}/health");
        let mut process = Process::spawn(&mut command, &directory.path().join("log"), None);
        process.wait_until("the worker listens", || http::get_status(&health) == Some(200));
        Self { process, directory, address }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers: Vec<_> = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let url = format!("{}{path}", self.address);
        http::request(method, &url, &headers, body.as_bytes(), Duration::from_secs(60)).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    pub fn memory_mib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    /// How long `/health` takes; it has to answer.
    pub fn health(&self) -> Duration {
        let begin = Instant::now();
        assert_eq!(self.call("GET", "/health", &[], "").status, 200);
        begin.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_answer_of_the_worker_shows_a_secret_or_a_row() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let hba = cluster.directory().join("data/pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all hushed all scram-sha-256\n{rules}")).unwrap();
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    let prepare = format!(
        "select pg_reload_conf(); create role quiet login superuser password '{PASSWORD}';
         create table items (id text primary key, name text);
         insert into items values ('hush-key', 'hush-row'), ('hush-refused', 'hush-row'), ('hush-large', repeat('hush', 100000))"
    );
    admin.batch_execute(&prepare).await.unwrap();
    let schema_text = r#"{"items": {"primaryKey": "id", "columns": {"id": "TEXT", "name": "TEXT"}}}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), schema_text).unwrap();
    let file = file.path().to_str().unwrap();
    let sqld = Sqld::start(SqldOptions::default());
    let token = sqld.token_rw();
    let url = |password: &str| cluster.url("postgres").replace("postgres@", &format!("quiet:{password}@"));
    let (right, wrong) = (url(PASSWORD), url("hush-wrong"));
    let home = Home::new(Path::File);
    let Target::File(local) = home.target() else { unreachable!() };
    let (remote, local) = (sqld.url(), local.to_str().unwrap().to_owned());
    assert!(
        run(&["setup"], &[("PGMQ_URL", &right), ("SCHEMA_FILE", file), ("WEBHOOK_SIGNATURE", WEBHOOK)])
            .status
            .success()
    );
    // 'hush-refused' has 12 letters; a constraint's own words may be shown.
    let ruin = "CREATE TABLE items (id TEXT NOT NULL PRIMARY KEY, name TEXT CHECK (length(id) <> 12))";
    for target in [Target::Remote { url: remote.clone(), token: Some(Secret::new(token.clone())) }, home.target()] {
        Replica::open(&target).await.unwrap().query(ruin, vec![]).await.ok();
    }
    for (url, target, token, format) in [
        (&right, &remote, token.as_str(), "text"),
        (&right, &local, TOKEN, "json"),
        (&right, &remote, TOKEN, "json"),
        (&wrong, &remote, token.as_str(), "text"),
    ] {
        let variables = [
            ("PGMQ_URL", url.as_str()),
            ("LIBSQL_URL", target.as_str()),
            ("LIBSQL_AUTH_TOKEN", token),
            ("SCHEMA_FILE", file),
            ("RUST_LOG", "trace"),
            ("LOG_FORMAT", format),
        ];
        let served = Served::start(&variables);
        for message in [
            r#"{"v":1,"table":"items","keys":[["hush-key"],["hush-refused"]]}"#,
            r#"{"v":1,"table":"items","keys":["hush-key"]}"#,
            r#"{"type":"INSERT","table":"items","record":{"name":"hush-row"}}"#,
            r#"{"type":"INSERT","table":"items","record":{"id":"hush-refused","name":"hush-row"}}"#,
            r#"{"type":"INSERT","table":"unknown","record":{"id":"hush-row"}}"#,
            r#"["hush-row"]"#,
        ] {
            let sql = "select pgmq.send($1, $2::text::jsonb)";
            admin.execute(sql, &[&DEFAULT_QUEUE, &message]).await.unwrap();
        }
        let mut answers = String::new();
        let (as_webhook, as_nuke) = ([("x-webhook-signature", WEBHOOK)], [("x-webhook-signature", NUKE)]);
        for (method, path, headers, body) in [
            ("POST", "/sync", &as_webhook, ""),
            ("POST", "/sync", &as_nuke, ""),
            ("POST", "/resync", &as_webhook, "{}"),
            ("POST", "/resync", &as_webhook, "[1]"),
            ("POST", "/sync", &as_webhook, "{}"),
            ("POST", "/nuke", &as_nuke, ""),
            ("POST", "/nuke", &as_webhook, ""),
            ("POST", "/sync", &as_webhook, ""),
            ("GET", "/status", &as_webhook, ""),
            ("GET", "/ready", &as_webhook, ""),
            ("GET", "/metrics", &as_webhook, ""),
            ("GET", "/health", &as_webhook, ""),
            ("GET", "/nowhere?x-webhook-signature=y", &as_webhook, ""),
        ] {
            let answer = served.call(method, path, headers, body);
            answers.push_str(&format!("{method} {path}: {} {:?} {}\n", answer.status, answer.headers, answer.body));
        }
        arguments_are_hushed();
        hushed("an answer", &answers);
        hushed(&format!("the log of {target} as {format}"), &served.log());
        assert!(served.log().len() > 10_000, "it is a trace");
    }
    let dead = admin.query_one("select count(*) from pgmq.q_replicate_data_libsql_dead", &[]).await.unwrap();
    assert!(dead.get::<_, i64>(0) >= 4, "rows and messages were refused");
}

/// Postgres and libSQL that are not there.
const NOWHERE: [(&str, &str); 2] = [("PGMQ_URL", "postgres://u@127.0.0.1:1/x"), ("LIBSQL_URL", "http://127.0.0.1:1")];

#[test]
fn whoever_holds_connections_open_locks_nobody_out() {
    let served = Served::start(&NOWHERE);
    let mut held = Vec::new();
    let bounded = |what: &str| {
        assert!(served.health() < Duration::from_secs(5), "{what}");
        let (files, memory) = (served.files(), served.memory_mib());
        assert!(files < 700 && memory < 150, "{what}: {files} files, {memory} MiB");
    };
    for _ in 0..1500 {
        let mut stream = served.connect();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx").unwrap();
        held.push(stream);
    }
    bounded("heads that are never finished");
    // Those that were given up answer with an error; the others go on, a byte at a time.
    let still_open = held.iter_mut().filter_map(|stream| stream.write_all(b"y").ok()).count();
    assert!(still_open > 0);
    bounded("heads that go on");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let head = format!(
        "POST /sync HTTP/1.1\r\nhost: x\r\nwebhook-id: a\r\nwebhook-timestamp: {now}\r\nwebhook-signature: v1,x\r\ncontent-length: 1000000\r\n\r\n"
    );
    for _ in 0..700 {
        let mut stream = served.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // The server may have refused it already.
        stream.write_all(&[b'x'; 400_000]).ok();
        held.push(stream);
    }
    bounded("bodies that are never finished");
    let right = served.call("POST", "/sync", &[("x-webhook-signature", WEBHOOK)], "");
    assert_eq!(right.status, 503, "it is let in, and Postgres is not there: {}", right.body);
}

#[test]
fn large_heads_and_bodies_are_refused() {
    let served = Served::start(&NOWHERE);
    let mut stream = served.connect();
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    stream.write_all(head.as_bytes()).ok();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    let large = "x".repeat(pgflume::http::BODY_BYTES + 1);
    assert_eq!(served.call("POST", "/sync", &[("x-webhook-signature", WEBHOOK)], &large).status, 413);
    let mut stream = served.connect();
    let chunked = format!(
        "POST /sync HTTP/1.1\r\nhost: x\r\nx-webhook-signature: {WEBHOOK}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(chunked.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
    for _ in 0..20 {
        stream.write_all(chunk.as_bytes()).ok();
    }
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[test]
fn a_crowd_costs_postgres_next_to_nothing() {
    let connections = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@127.0.0.1:{}/x", listener.local_addr().unwrap().port());
    let counted = connections.clone();
    // A Postgres that hangs up.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let served = Served::start(&[("PGMQ_URL", &url), ("LIBSQL_URL", "http://127.0.0.1:1")]);
    let begin = Instant::now();
    while connections.load(Ordering::SeqCst) < 2 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the worker looks for tables to rebuild when it starts, and for what rights it has"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let crowd = |method: &'static str, path: &'static str, expected: u16| {
        let before = connections.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..500 {
                scope.spawn(|| {
                    let answer = served.call(method, path, &[("x-webhook-signature", "hush-wrong")], "");
                    assert_eq!(answer.status, expected, "{path}: {}", answer.body);
                });
            }
            assert!(served.health() < Duration::from_secs(5), "{path}");
        });
        connections.load(Ordering::SeqCst) - before
    };
    for path in ["/sync", "/nuke", "/resync"] {
        assert_eq!(crowd("POST", path, 401), 0, "{path}");
    }
    assert_eq!(crowd("GET", "/status", 401), 0);
    assert!(crowd("GET", "/metrics", 200) <= 5);
    let asked = crowd("GET", "/ready", 503);
    assert!(asked < 50, "{asked} connections for 500 requests");
}
