//! What one meets in the first hour: variables as orchestrators make them, URLs as other tools take them,
//! pipes that end early, exit codes that scripts go by.

use crate::support::{Db, Home, Path, Rig, Server, config, schema, until};
use pgflume::core::error::ErrorKind;
use pgflume::replica::target::Target;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

const PG: (&str, &str) = ("PGMQ_URL", "postgres://u:hunter2hunter2@127.0.0.1:1/x");
const LIBSQL: (&str, &str) = ("LIBSQL_URL", "file:/nonexistent/replica.db");
const SIGNATURE: (&str, &str) = ("WEBHOOK_SIGNATURE", "0123456789abcdef");
const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command
}

fn pgflume(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(arguments, variables).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The file that `schema.json` is in for a test.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A captured table with a row, and the variables of a worker for it.
struct Place {
    rig: Rig,
    definition: tempfile::NamedTempFile,
}

impl Place {
    async fn new() -> Self {
        let rig = Rig::new(Path::File, schema(T)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'x')").await;
        Self { rig, definition: file(T) }
    }

    fn run(&self, arguments: &[&str], more: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let (url, Target::File(replica)) = (self.rig.db.url(), self.rig.home.target()) else { unreachable!() };
        let mut variables = vec![
            ("PGMQ_URL", url.as_str()),
            ("LIBSQL_URL", replica.to_str().unwrap()),
            ("SCHEMA_FILE", self.definition.path().to_str().unwrap()),
        ];
        variables.extend(more);
        pgflume(arguments, &variables)
    }
}

#[test]
fn what_cannot_work_is_refused_at_start_in_words_that_help() {
    let pg = |rest: &str| format!("postgres://u:hunter2hunter2@127.0.0.1:1/x{rest}");
    let cases: &[(&str, String, &str)] = &[
        ("PGMQ_URL", pg("?target_session_attrs=standby"), "writes to Postgres"),
        ("PGMQ_URL", pg("?target_session_attrs=prefer-standby"), "writes to Postgres"),
        ("PGMQ_URL", pg("?target_session_attrs=read-only"), "writes to Postgres"),
        ("PGMQ_URL", pg("?target_session_attrs=hunter2"), "target_session_attrs"),
        ("PGMQ_URL", pg("?sslcert=/nonexistent/c.pem&sslkey=/nonexistent/k.pem"), "sslcert in PGMQ_URL cannot be read"),
        ("PGMQ_URL", pg("?sslcert=/nonexistent/c.pem"), "sslkey"),
        (
            "PGMQ_URL",
            pg("?sslmode=verify-ca&sslrootcert=/nonexistent/ca.pem"),
            "sslrootcert in PGMQ_URL cannot be read",
        ),
        ("PGMQ_URL", pg("?sslpassword=hunter2"), "sslpassword"),
        ("PGMQ_URL", pg("?sslcrl=/crl.pem"), "sslcrl"),
        ("PGMQ_URL", pg("?require_auth=scram-sha-256"), "require_auth"),
        ("PGMQ_URL", pg("?passfile=/x"), "passfile"),
        ("PGMQ_URL", pg("?gssencmode=require"), "gssencmode"),
        ("PGMQ_URL", pg("?ssl_min_protocol_version=TLSv1.3"), "ssl_min_protocol_version"),
        ("PGMQ_URL", pg("?service=x"), "service"),
        ("PGMQ_URL", "postgres://u:hunter2?x@127.0.0.1:1/x".into(), "%3F"),
        ("PGMQ_URL", "postgres://u:hunter2@x@127.0.0.1:1/x".into(), "%40"),
        ("PGMQ_URL", "postgres://u:hunter2".into(), "%23"),
        ("PGMQ_URL", pg("#hunter2"), "%23"),
        ("PGMQ_URL", "postgres://u:hunter2@127.0.0.1:1/a\nb".into(), "line break"),
        ("LIBSQL_URL", "libsql://h?authToken=hunter2".into(), "LIBSQL_AUTH_TOKEN"),
        ("LIBSQL_URL", "libsql://h?tls=2".into(), "tls"),
        ("LIBSQL_URL", "libsql://10.0.0.1:80?tls=0".into(), "unencrypted"),
        ("LIBSQL_URL", "wss://h".into(), "https://"),
        ("LIBSQL_URL", "ws://h".into(), "http://"),
        ("LIBSQL_URL", "file:x.db?mode=ro".into(), "mode=ro"),
        ("LIBSQL_URL", "file:x.db?cache=shared".into(), "without parameters"),
        ("LIBSQL_URL", "sqlite:x.db".into(), "file:"),
        ("LIBSQL_URL", "libsql:x".into(), "libsql://"),
        ("LIBSQL_URL", ":memory:".into(), "names no file"),
        ("LIBSQL_URL", "file::memory:?cache=shared".into(), "names no file"),
        ("LIBSQL_URL", "file:a\nb.db".into(), "line break"),
        ("LIBSQL_URL", " file:a.db".into(), "blank"),
        ("LIBSQL_AUTH_TOKEN", " ".into(), "LIBSQL_AUTH_TOKEN is empty"),
        ("LIBSQL_AUTH_TOKEN", "hunter2\nhunter2".into(), "LIBSQL_AUTH_TOKEN holds a line break"),
        ("LIBSQL_AUTH_TOKEN", "hunter2 ".into(), "LIBSQL_AUTH_TOKEN begins or ends with a blank"),
        ("WEBHOOK_SIGNATURE", " ".into(), "WEBHOOK_SIGNATURE is empty"),
        ("WEBHOOK_SIGNATURE", "\n".into(), "WEBHOOK_SIGNATURE is empty"),
        ("WEBHOOK_SIGNATURE", "\r\n\t ".into(), "WEBHOOK_SIGNATURE is empty"),
        ("WEBHOOK_SIGNATURE", "whsec_AA==".into(), "WEBHOOK_SIGNATURE holds fewer than 16 bytes"),
        ("WEBHOOK_SIGNATURE", "whsec_aHVudGVyMmh1bnRlcg==\n".into(), "WEBHOOK_SIGNATURE holds fewer than 16 bytes"),
        ("WEBHOOK_SIGNATURE", "0123456789abcdef\n0123456789abcdef".into(), "WEBHOOK_SIGNATURE holds a line break"),
        ("WEBHOOK_SIGNATURE", "0123456789abcdef\u{1b}[1m".into(), "WEBHOOK_SIGNATURE holds a line break"),
        ("WEBHOOK_SIGNATURE_PREVIOUS", "whsec_".into(), "WEBHOOK_SIGNATURE_PREVIOUS is empty"),
        ("WEBHOOK_SIGNATURE_PREVIOUS", "whsec_AA==".into(), "WEBHOOK_SIGNATURE_PREVIOUS holds fewer"),
        ("NUKE_SIGNATURE", "whsec_AA==".into(), "NUKE_SIGNATURE holds fewer"),
        ("NUKE_SIGNATURE", "\t".into(), "NUKE_SIGNATURE is empty"),
    ];
    for (name, value, words) in cases {
        let mut variables = vec![PG, LIBSQL, SIGNATURE, ("LIBSQL_AUTH_TOKEN", "hunter2hunter2hunter2")];
        variables.retain(|(given, _)| given != name);
        variables.push((name, value));
        let (code, _, text) = pgflume(&["serve", "--port", "0"], &variables);
        assert_eq!(code, Some(2), "{name}={value:?}: {text}");
        assert!(text.contains(name) && text.contains(words) && text.lines().count() == 1, "{name}={value:?}: {text}");
        assert!(!text.contains("hunter2"), "{name}={value:?}: {text}");
    }
    let (code, _, text) = pgflume(&["setup", "--sync-url", "https://h/sy nc"], &[PG, LIBSQL]);
    assert!(code == Some(2) && text.contains("SYNC_URL"), "{text}");
    let (code, _, text) = pgflume(&["setup"], &[PG, LIBSQL, ("WEBHOOK_SIGNATURE", "whsec_AA==")]);
    assert!(code == Some(2) && text.contains("WEBHOOK_SIGNATURE holds fewer than 16 bytes"), "{text}");
}

#[test]
fn forms_that_other_tools_take_are_taken() {
    let pg = |rest: &str| ("PGMQ_URL", format!("postgres://u:hunter2hunter2@127.0.0.1:1/x{rest}"));
    let cases = [
        pg("?sslmode=no-verify"),
        pg("?ssl=true"),
        pg("?target_session_attrs=primary"),
        pg("?target_session_attrs=read-write"),
        pg("?target_session_attrs=any"),
        ("PGMQ_URL", "postgres://u:a%23b%40c@127.0.0.1:1/x".into()),
        ("PGMQ_URL", "postgres://u:a#b/c%x@127.0.0.1:1/x".into()),
        ("LIBSQL_URL", "libsql://127.0.0.1:1?tls=0".into()),
        ("LIBSQL_URL", "libsql://127.0.0.1:1?tls=1".into()),
        ("LIBSQL_URL", "file:/nonexistent/x.db?mode=rwc".into()),
    ];
    for (name, value) in cases {
        let mut variables = vec![PG, LIBSQL, SIGNATURE];
        variables.retain(|(given, _)| *given != name);
        variables.push((name, &value));
        // Refused because of the port only, so behind all that is looked at before.
        let (code, _, text) = pgflume(&["serve", "--port", "x"], &variables);
        assert!(code == Some(2) && text.contains("PORT must be"), "{value}: {text}");
    }
}

#[test]
fn a_short_secret_is_warned_about_by_its_own_name_only() {
    let (_, _, text) = pgflume(&["serve", "--port", "x"], &[PG, LIBSQL, ("WEBHOOK_SIGNATURE", "short")]);
    assert!(text.contains("WEBHOOK_SIGNATURE is shorter than 16 bytes") && !text.contains("NUKE_SIGNATURE"), "{text}");
    let previous = ("WEBHOOK_SIGNATURE_PREVIOUS", "short");
    let (_, _, text) = pgflume(&["serve", "--port", "x"], &[PG, LIBSQL, SIGNATURE, previous]);
    assert!(text.contains("WEBHOOK_SIGNATURE_PREVIOUS is shorter") && !text.contains("NUKE_SIGNATURE"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_break_at_the_end_of_any_variable_is_cut_off() {
    let place = Place::new().await;
    let (url, Target::File(replica)) = (place.rig.db.url(), place.rig.home.target()) else { unreachable!() };
    let (url, path) = (format!("{url}\n"), format!("file:{}\r\n", replica.display()));
    let definition = format!("{}\n", place.definition.path().display());
    let variables = [
        ("PGMQ_URL", url.as_str()),
        ("LIBSQL_URL", &path),
        ("SCHEMA_FILE", &definition),
        ("QUEUE_NAME", "replicate_data_libsql\n"),
        ("RETENTION", "0\n"),
        ("SNAPSHOT_ROWS_PER_SECOND", "1000\n"),
        ("LIBSQL_INSECURE", "1\n"),
        ("LOG_FORMAT", "text\n"),
        ("RUST_LOG", "info\n"),
        ("SYNC_URL", "https://worker.example.org/sync\n"),
        ("WEBHOOK_SIGNATURE", "0123456789abcdef0123\n"),
    ];
    for arguments in [&["setup"][..], &["sync"], &["status"]] {
        let (code, _, text) = pgflume(arguments, &variables);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
    let settings = place.rig.db.all("select value from pgflume.settings order by name").await;
    assert!(settings.iter().all(|value| !value.contains('\n')) && settings.len() == 2, "{settings:?}");
    let there: Vec<_> = std::fs::read_dir(replica.parent().unwrap()).unwrap().flatten().collect();
    assert!(there.iter().all(|f| !f.file_name().to_string_lossy().contains(['\n', '\r'])), "{there:?}");
    let variables: Vec<_> =
        [("PORT", "x\n"), ("HOST", "127.0.0.1\n"), ("FOLLOW", "true\n")].into_iter().chain(variables).collect();
    let (_, _, text) = pgflume(&["serve"], &variables);
    assert!(text.contains("PORT must be"), "{text}");
}

/// A server that does this with each connection and closes it.
fn answering(with: impl Fn(std::net::TcpStream) + Send + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(with));
    address
}

/// Reads the first record of TLS whole.
fn hello(stream: &mut std::net::TcpStream) {
    use std::io::Read as _;
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u16::from_be_bytes([head[3], head[4]]);
    stream.read_exact(&mut vec![0; length.into()]).unwrap();
}

#[test]
fn libsql_urls_of_a_server_without_tls_say_http() {
    use std::io::{Read as _, Write as _};
    let plain = answering(|mut stream| {
        hello(&mut stream);
        // What it reads is no HTTP.
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    });
    let closes = answering(|mut stream| hello(&mut stream));
    // A connection that is closed with something unread is reset.
    let resets = answering(|mut stream| assert!(matches!(stream.read(&mut [0]), Ok(1))));
    let sqld = crate::parts::Sqld::start(crate::parts::SqldOptions::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (url, kind) in [
        (format!("https://{plain}"), Some(ErrorKind::WholeSide)),
        (sqld.url().replace("http://", "https://"), None),
        (format!("https://{closes}"), Some(ErrorKind::Retry)),
        (format!("https://{resets}"), Some(ErrorKind::Retry)),
    ] {
        let remote = pgflume::replica::remote::Remote::new(&url, None).unwrap();
        let asked = pgflume::replica::Statement::new("SELECT 1", vec![]);
        let error = runtime.block_on(pgflume::replica::Store::read(&remote, asked)).unwrap_err();
        assert!(error.to_string().contains("http://"), "{error}");
        assert!(kind.is_none_or(|kind| &kind == error.kind()), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_crash() {
    let place = Place::new().await;
    assert_eq!(place.run(&["setup"], &[]).0, Some(0));
    // Enough letters to fill a pipe.
    place.rig.db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('x', repeat('y', 100)) from generate_series(1, 3000)").await;
    assert_eq!(place.run(&["sync"], &[]).0, Some(0));
    let (url, Target::File(replica)) = (place.rig.db.url(), place.rig.home.target()) else { unreachable!() };
    let variables = [
        ("PGMQ_URL", url.as_str()),
        ("LIBSQL_URL", replica.to_str().unwrap()),
        ("SCHEMA_FILE", place.definition.path().to_str().unwrap()),
    ];
    let commands: [&[&str]; 9] = [
        &["dead", "list", "--limit", "3000"],
        &["status"],
        &["status", "--json"],
        &["verify"],
        &["resync"],
        &["setup", "--print"],
        &["setup", "--plan"],
        &["init", "--stdout"],
        &["sync"],
    ];
    for arguments in commands {
        let mut child = command(arguments, &variables).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && !text.contains("panicked"), "{arguments:?} {output:?}");
    }
    // The log has gone, too.
    let mut child = command(&["sync"], &variables).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut child = command(&["status", "--watch"], &variables).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("queue"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(0), "it ends with its reader");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_exits_1_where_a_side_does_not_answer() {
    let place = Place::new().await;
    assert_eq!(place.run(&["status"], &[]).0, Some(0), "a replica that was never there is no failure");
    for json in [&["status"][..], &["status", "--json"]] {
        let (code, text, _) = place.run(json, &[("LIBSQL_URL", "http://127.0.0.1:1")]);
        assert!(code == Some(1) && text.contains("cannot be reached"), "{code:?} {text}");
        let (code, _, text) = place.run(json, &[("PGMQ_URL", PG.1)]);
        assert!(code == Some(1) && text.contains("PGMQ_URL"), "{code:?} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_once() {
    let place = Place::new().await;
    for (more, words) in [
        (("LIBSQL_URL", "http://127.0.0.1:1"), "the libSQL server cannot be reached"),
        (("PGMQ_URL", PG.1), "Postgres cannot be reached"),
    ] {
        for arguments in [&["sync"][..], &["verify"], &["resync"], &["status"]] {
            let (code, out, err) = place.run(arguments, &[more]);
            assert_eq!(code, Some(1), "{arguments:?}: {err}");
            // What is tried again is warned about; what is given up is said once.
            let given_up: Vec<_> =
                err.lines().chain(out.lines()).filter(|l| l.contains(words) && !l.contains(" WARN ")).collect();
            assert_eq!(given_up.len(), 1, "{arguments:?}: {err}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn teardown_says_what_is_gone_and_all_that_stays() {
    let place = Place::new().await;
    let other = Db::new().await;
    other.sql("create table t (id int primary key, v text)").await;
    assert_eq!(place.run(&["setup"], &[]).0, Some(0));
    assert_eq!(place.run(&["sync"], &[]).0, Some(0));
    let second = other.url();
    assert_eq!(place.run(&["setup"], &[("PGMQ_URL", &second)]).0, Some(0)); // so that the roles are in use
    let (code, text, _) = place.run(&["teardown", "--yes"], &[]);
    assert_eq!(code, Some(0), "{text}");
    let (gone, left) = text.split_once("Left:").unwrap();
    assert!(!gone.contains("role"), "{text}");
    for stays in [
        "the queue replicate_data_libsql",
        "the schema pgmq",
        "the replica",
        "_pgflume_",
        "pgflume_capture",
        "pgflume_worker",
    ] {
        assert!(left.contains(stays), "{stays}: {text}");
    }
    let (_, text, _) = place.run(&["teardown", "--yes", "--queue"], &[]);
    let (gone, left) = text.split_once("Left:").unwrap();
    assert!(gone.contains("the queue") && !left.contains("the queue replicate_data_libsql"), "{text}");
    assert!(left.contains("the schema pgmq") && left.contains("the replica"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_column_never_reaches_the_replica() {
    let place = Place::new().await;
    assert_eq!(place.run(&["sync"], &[]).0, Some(0));
    let typo = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT","nmae":"TEXT"}}}"#;
    std::fs::write(place.definition.path(), typo).unwrap();
    for captured in [false, true] {
        if captured {
            std::fs::write(place.definition.path(), T).unwrap();
            assert_eq!(place.run(&["setup"], &[]).0, Some(0));
            assert_eq!(place.run(&["sync"], &[]).0, Some(0));
            std::fs::write(place.definition.path(), typo).unwrap();
        }
        let (code, out, text) = place.run(&["sync"], &[]);
        let expected = Some(i32::from(captured)); // a table that nobody captured may be fed by images
        assert!(code == expected && text.contains("lacks the column \"nmae\""), "{captured} {code:?} {out} {text}");
        let columns = place.rig.rows("SELECT name FROM pragma_table_info('t')").await;
        assert_eq!(columns, ["id", "v"], "captured: {captured}");
    }
    // A replica that is not there yet gets no such table either.
    let home = tempfile::tempdir().unwrap();
    let fresh = home.path().join("fresh.db");
    let other = Db::new().await;
    other.sql("create table t (id int primary key, v text)").await;
    let (code, _, text) = place.run(&["sync"], &[("LIBSQL_URL", fresh.to_str().unwrap()), ("PGMQ_URL", &other.url())]);
    assert!(code == Some(0) && text.contains("lacks the column \"nmae\""), "{code:?} {text}");
    let replica = pgflume::replica::Replica::open(&Target::File(fresh)).await.unwrap();
    let columns = replica.query("SELECT group_concat(name) FROM pragma_table_info('t')", vec![]).await.unwrap();
    assert_eq!(crate::store::show(&columns[0][0]), "id,v");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_following_are_counted() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    db.sql("create table t (id int primary key, v text)").await;
    let broken = db.url().replace(&db.name, "no_such_database");
    let server = Server::following(config(&broken, home.target(), schema(T))).await;
    until("failures are counted", async || {
        let text = server.call("GET", "/metrics", None).await.body;
        let line = text.lines().find(|l| l.starts_with("pgflume_drain_failures_total")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() >= 2.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_outlive_an_idle_session_timeout() {
    let place = Place::new().await;
    assert_eq!(place.run(&["setup"], &[]).0, Some(0));
    assert_eq!(place.run(&["sync"], &[]).0, Some(0));
    place.rig.db.sql("insert into t select i, 'x' from generate_series(2, 4000) i").await;
    place.rig.db.sql(&format!("alter database {} set idle_session_timeout = '300ms'", place.rig.db.name)).await;
    let slow = [("SNAPSHOT_ROWS_PER_SECOND", "2000")];
    for arguments in [&["resync"][..], &["verify"], &["status"], &["dead", "retry", "--all"], &["setup"], &["sync"]] {
        let (code, out, text) = place.run(arguments, &slow);
        assert_eq!(code, Some(0), "{arguments:?}: {out} {text}");
    }
}

#[test]
fn machinery_is_no_source() {
    let schemas =
        ["pg_catalog", "information_schema", "pgflume", "pgmq", "vault", "cron", "net", "pg_toast", "pg_temp_3"];
    for schema in schemas {
        for source in [format!("{schema}.x"), format!("\\\"{schema}\\\".x")] {
            let text = format!(r#"{{"t":{{"primaryKey":"id","columns":{{"id":"TEXT"}},"source":"{source}"}}}}"#);
            let definition = file(&text);
            let schema_file = ("SCHEMA_FILE", definition.path().to_str().unwrap());
            for arguments in [&["serve"][..], &["sync"], &["setup"], &["verify"], &["status"]] {
                let (code, _, said) = pgflume(arguments, &[PG, LIBSQL, SIGNATURE, schema_file]);
                assert!(code == Some(2) && said.contains("$.t.source"), "{arguments:?} {source}: {said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_proposes_no_machinery_even_by_name() {
    let db = Db::new().await;
    let url = db.url();
    for table in
        ["pgmq.meta", "pgmq.q_replicate_data_libsql", "pg_catalog.pg_authid", "information_schema.tables", "pgmq.*"]
    {
        let (code, out, text) = pgflume(&["init", "--stdout", "--table", table], &[("PGMQ_URL", &url)]);
        assert!(code == Some(2) && out.is_empty(), "{table}: {code:?} {out} {text}");
    }
}
