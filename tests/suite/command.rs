//! The command line as a user runs it: exit codes, one line for each mistake, no secret anywhere.

use crate::support::{Db, Home, Path, Rig, repository_schema};
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

#[test]
fn commands_that_are_not_built_yet_say_so_and_exit_2() {
    for command in ["resync", "verify", "dead"] {
        let output = pgflume(&[command, "list", "--json"], &[]);
        assert_eq!(
            (output.status.code(), errors(&output).trim()),
            (Some(2), format!("pgflume: the command {command} is not built yet").as_str())
        );
    }
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
    db.send(r#"{"type":"INSERT","table":"apps","record":{"id":"a"}}"#).await;
    let url = db.url();
    let pgflume::config::Target::File(file) = home.target() else { unreachable!() };
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
    assert_eq!(rig.rows("SELECT id FROM apps").await, ["a"]);
    let failed = pgflume(&["sync"], &[PG, LIBSQL]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(!errors(&failed).contains("hunter2"), "{}", errors(&failed));
}
