//! What `pgflume demo` leaves open to others on the same machine: nothing.

use crate::support::until;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The part of a line between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("{text}")).0
}

#[tokio::test(flavor = "multi_thread")]
async fn its_postgres_is_on_a_socket_of_its_own_and_knows_no_secret() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command
        .args(["demo", "--keep"])
        .env_clear()
        .envs(std::env::vars_os().filter(|(k, _)| k == "PATH" || k == "PG_BIN"));
    command.env("WEBHOOK_SIGNATURE", "hush-0123456789abcdef").env("NUKE_SIGNATURE", "hush-0123456789abcdef");
    command.env("PGMQ_URL", "postgres://u:hush@h/x").env("LIBSQL_AUTH_TOKEN", "hush").env("ANYTHING_ELSE", "hush");
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("equal on both sides"), "{output:?}");
    let directory = PathBuf::from(between(&said, "pg_ctl -D ", "/data stop"));
    let replica = PathBuf::from(between(&said, "the replica stays in ", "\n"));
    let started = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    let lines: Vec<&str> = started.lines().map(str::trim).collect();
    let (server, socket, address) = (lines[0].to_owned(), lines[4], lines[5]);
    assert_eq!((socket, address), (directory.to_str().unwrap(), ""), "{started}");
    assert_eq!((mode(&directory), mode(&replica), mode(&replica.join("replica.db"))), (0o700, 0o700, 0o600));
    let environment = std::fs::read(format!("/proc/{server}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("hush"));
    let rules = std::fs::read_to_string(directory.join("data/pg_hba.conf")).unwrap();
    assert!(rules.lines().filter(|rule| rule.starts_with("host")).all(|rule| rule.ends_with("reject")), "{rules}");
    let ended = Command::new("kill").args(["-QUIT", &server]).status().unwrap();
    assert!(ended.success());
    until("its server has ended", async || !Path::new(&format!("/proc/{server}")).exists()).await;
    std::fs::remove_dir_all(directory).unwrap();
    std::fs::remove_dir_all(replica).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_shown_with_the_proof_that_both_sides_are_equal() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command
        .args(["demo", "--pull"])
        .env_clear()
        .envs(std::env::vars_os().filter(|(k, _)| k == "PATH" || k == "PG_BIN"));
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("equal on both sides"), "{output:?}");
    assert!(said.matches(" 0 missing, 0 extra, 0 different").count() == 9, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_is_followed_with_the_proof_that_both_sides_are_equal() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(["demo", "--mysql"]).env_clear().envs(std::env::vars_os().filter(|(k, _)| k == "PATH"));
    command.env("WEBHOOK_SIGNATURE", "hush-0123456789abcdef").env("ANYTHING_ELSE", "hush");
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("equal on both sides"), "{output:?}");
    assert!(said.matches(" 0 missing, 0 extra, 0 different").count() == 12, "{said}");
    assert!(said.contains("following: a commit is readable after"), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    let output = command.args(["demo", "--mysql"]).env_clear().env("PATH", "/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("apt-get install mariadb-server-core"), "{said}");
}
