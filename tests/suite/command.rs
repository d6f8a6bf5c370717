//! The command line as a user runs it: exit codes, one line for each mistake, no secret anywhere.

use crate::support::{Db, Home, Path, Rig, repository_schema, schema};
use std::process::{Command, Output};

/// The binary with just these variables.
fn pgflume(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).envs(variables.iter().copied());
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const PG: (&str, &str) = ("PGMQ_URL", "postgres://u:hunter2hunter2@127.0.0.1:1/x");
const LIBSQL: (&str, &str) = ("LIBSQL_URL", "file:/nonexistent/replica.db");
const SIGNATURE: (&str, &str) = ("WEBHOOK_SIGNATURE", "0123456789abcdef");

#[test]
fn each_variable_missing_or_malformed_is_one_line_with_its_name_and_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.json");
    std::fs::write(&broken, r#"{"t":{"primaryKey":"id","columns":{"id":"VARCHAR"}}}"#).unwrap();
    let broken = broken.to_str().unwrap();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[LIBSQL, SIGNATURE], "PGMQ_URL is missing"),
        (&[("PGMQ_URL", ""), LIBSQL, SIGNATURE], "PGMQ_URL is missing"),
        (&[("PGMQ_URL", "nonsense"), LIBSQL, SIGNATURE], "PGMQ_URL is not a Postgres URL"),
        (
            &[("PGMQ_URL", "postgres://u:hunter2hunter2@h/x?sslmode=never"), LIBSQL, SIGNATURE],
            "PGMQ_URL has an unknown sslmode",
        ),
        (&[("PGMQ_URL_FILE", "/nonexistent"), LIBSQL, SIGNATURE], "PGMQ_URL_FILE names a file"),
        (&[PG, SIGNATURE], "LIBSQL_URL is missing"),
        (&[PG, ("LIBSQL_URL", "ftp://x"), SIGNATURE], "LIBSQL_URL begins with ftp://"),
        (
            &[PG, ("LIBSQL_URL", "http://10.0.0.1"), ("LIBSQL_AUTH_TOKEN", "hunter2hunter2"), SIGNATURE],
            "LIBSQL_URL would send",
        ),
        (
            &[PG, LIBSQL, ("LIBSQL_AUTH_TOKEN", ""), SIGNATURE, ("LIBSQL_URL", "http://127.0.0.1:1")],
            "LIBSQL_AUTH_TOKEN is empty",
        ),
        (&[PG, LIBSQL], "WEBHOOK_SIGNATURE is missing"),
        (&[PG, LIBSQL, ("WEBHOOK_SIGNATURE", "")], "WEBHOOK_SIGNATURE is empty"),
        (&[PG, LIBSQL, ("WEBHOOK_SIGNATURE", "whsec_hunter2hunter2!")], "WEBHOOK_SIGNATURE begins with whsec_"),
        (&[PG, LIBSQL, SIGNATURE, ("WEBHOOK_SIGNATURE_PREVIOUS", "")], "WEBHOOK_SIGNATURE_PREVIOUS is empty"),
        (&[PG, LIBSQL, SIGNATURE, ("NUKE_SIGNATURE", "")], "NUKE_SIGNATURE is empty"),
        (&[PG, LIBSQL, SIGNATURE, ("PORT", "http")], "PORT must be a number"),
        (&[PG, LIBSQL, SIGNATURE, ("HOST", "999.1.1.1")], "HOST and PORT"),
        (&[PG, LIBSQL, SIGNATURE, ("FOLLOW", "maybe")], "FOLLOW must be true or false"),
        (&[PG, LIBSQL, SIGNATURE, ("QUEUE_NAME", "a b; drop")], "QUEUE_NAME must be"),
        (&[PG, LIBSQL, SIGNATURE, ("SCHEMA_FILE", "nowhere.json")], "SCHEMA_FILE nowhere.json"),
        (&[PG, LIBSQL, SIGNATURE, ("SCHEMA_FILE", broken)], "$.t.columns.id has no known type"),
        (&[PG, LIBSQL, SIGNATURE, ("LOG_FORMAT", "xml")], "LOG_FORMAT must be"),
        (&[PG, LIBSQL, SIGNATURE, ("RUST_LOG", "a=b=c")], "RUST_LOG"),
    ];
    for (variables, expected) in cases {
        let output = pgflume(&["serve"], variables);
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{expected}: {text}");
        assert!(text.contains(expected) && text.lines().count() == 1, "{expected}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_and_verify_tell_by_exit_code_and_words_what_they_found() {
    let definition = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(definition)).await;
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 30) i")
        .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), definition).unwrap();
    let pgflume::replica::target::Target::File(replica) = rig.home.target() else { unreachable!() };
    let url = rig.db.url();
    let variables = [
        ("PGMQ_URL", url.as_str()),
        ("LIBSQL_URL", replica.to_str().unwrap()),
        ("SCHEMA_FILE", file.path().to_str().unwrap()),
    ];
    let run = |arguments: &[&str]| {
        let output = pgflume(arguments, &variables);
        (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), errors(&output)))
    };
    let expect = |arguments: &[&str], code: i32, words: &str| {
        let (found, text) = run(arguments);
        assert!(found == Some(code) && text.contains(words), "{arguments:?}: {found:?} {text}");
    };
    expect(&["verify"], 3, "30 missing");
    expect(&["resync", "nope"], 2, "names no table \"nope\"");
    expect(&["verify", "nope"], 2, "names no table \"nope\"");
    expect(&["resync"], 0, "t: 30 rows copied, 0 removed");
    expect(&["verify", "t"], 0, "t: equal, 30 rows compared");
    crate::snapshot::write_by_hand(&rig, "UPDATE t SET v = 'y' WHERE id = 7").await;
    expect(&["verify"], 3, "[\"7\"]: Different in v");
    expect(&["verify", "--json"], 3, "\"different\": 1");
    expect(&["verify", "--repair"], 0, "1 of them repaired");
    expect(&["verify", "--sample", "0"], 2, "a share is more than 0%");
    expect(&["verify", "--sample", "5%"], 0, "t: equal");
    expect(&["verify", "--repair", "--target", "other.db"], 2, "cannot be used with");
    expect(&["resync", "--detach"], 0, "the next drains rebuild: t");
    expect(&["status"], 0, "being rebuilt (request)");
    expect(&["sync"], 0, "\"rebuilding\":0");
    expect(&["status"], 0, "every row compared within");
}

#[test]
fn secrets_come_from_files_too_and_help_shows_none() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let output =
        pgflume(&["serve"], &[PG, LIBSQL, ("WEBHOOK_SIGNATURE_FILE", secret.to_str().unwrap()), ("PORT", "x")]);
    assert!(errors(&output).contains("PORT must be"), "{}", errors(&output));
    let help = pgflume(&["serve", "--help"], &[PG, LIBSQL, SIGNATURE]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("PGMQ_URL") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_drains_once_and_status_tells() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
    let url = db.url();
    let pgflume::replica::target::Target::File(file) = home.target() else { unreachable!() };
    let variables = [("PGMQ_URL", url.as_str()), ("LIBSQL_URL", file.to_str().unwrap())];
    let output = pgflume(&["sync"], &variables);
    assert!(output.status.success(), "{}", errors(&output));
    let drained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&drained["processed"], &drained["queued"]), (&1.into(), &0.into()));
    let log = errors(&output);
    assert!(
        log.contains("messages read") && log.contains("batch applied") && log.contains("drain.processed=1"),
        "{log}"
    );
    let status = pgflume(&["status", "--json"], &variables);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["replica"]["seq"], 1);
    let text = pgflume(&["status"], &variables);
    assert!(String::from_utf8_lossy(&text.stdout).contains("0 messages, lag none, 0 dead letters"));
    let rig = Rig::with(db, home, repository_schema());
    assert_eq!(rig.rows("SELECT id FROM orgs").await, ["a"]);
    let failed = pgflume(&["sync"], &[PG, LIBSQL]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(!errors(&failed).contains("hunter2"), "{}", errors(&failed));
}
