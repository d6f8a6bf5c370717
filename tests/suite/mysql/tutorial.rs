//! The tutorial: its commands and its SQL, as they stand there, one after the other.

use super::server;
use mysql_async::prelude::Queryable;
use pgflume::core::value::Cell;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/tutorial-mysql.md");

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_is_copied_and_followed_as_the_page_says() {
    let mut root = server().connect(None).await;
    root.query_drop("create database tutorial character set utf8mb4; use tutorial").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_pgflume")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let url = format!("mysql://tutor@127.0.0.1:{}/tutorial", server().port());
    let (mut prelude, mut said) = (String::new(), String::new());
    for block in PAGE.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "sql" => {
                let sql = text.replace("reader@", "tutor@").replace("shop.*", "tutorial.*");
                root.query_drop(sql).await.unwrap();
            }
            "sh" => {
                let text = text.replace("mysql://reader@db.example/shop", &url);
                let script = format!("{prelude}\n{text}");
                let mut shell = Command::new("/bin/sh");
                shell.args(["-e", "-c", &script]).current_dir(directory.path()).env_clear();
                let done = shell.env("PATH", &path).env("PORT", "0").output().unwrap();
                assert!(done.status.success(), "{text}\n{done:?}");
                said += &String::from_utf8_lossy(&done.stdout);
                prelude.extend(text.lines().filter(|line| line.starts_with("export")).map(|line| format!("{line}\n")));
            }
            other => panic!("{other}: {text}"),
        }
    }
    for words in [
        server().kind().name(),
        "found by the server's binlog",
        "orders: exact: equal to one moment",
        "orders: equal, 3 rows compared",
        "has ended",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let replica = Replica::open(&Target::File(directory.path().join("replica.db"))).await.unwrap();
    let rows = replica.query("SELECT customer, total FROM orders ORDER BY id", vec![]).await.unwrap();
    let text = |text: &str| Cell::Text(text.into());
    assert_eq!(rows, [[text("Ada"), text("13.00")], [text("Grace"), text("99.99")]]);
}
