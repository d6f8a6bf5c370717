//! The commands of the tutorials, as they stand there.

mod first_replica;

use crate::pulls;
use crate::support::{Db, Path};
use std::process::{Command, Output};

const TABLES: &str = "create table orders (id int primary key, v text); insert into orders select i, 'old' from generate_series(1, 20) i";
const JSON: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// All that a page has a shell run, with another server in place of its own.
fn script(page: &str, from: &str, to: &str) -> String {
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split_once("```"));
    let script: Vec<&str> = blocks.map(|(block, _)| block).collect();
    let script = script.concat();
    assert!(script.contains(from) && script.contains("pgflume service stop"), "{script}");
    script.replace(from, to)
}

fn run(directory: &std::path::Path, script: &str) -> Output {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_pgflume")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-x", "-c", script]).current_dir(directory).env_clear();
    let done = command.env("PATH", path).env("PORT", "0").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_may_only_be_read_is_copied_as_the_page_says() {
    let rig = pulls::Rig::new(Path::File, TABLES, JSON).await;
    let page = include_str!("../../docs/tutorial-read-only.md");
    let directory = tempfile::tempdir().unwrap();
    let done = run(directory.path(), &script(page, "postgres://reader@db.example/shop", &rig.reader_url()));
    let said = String::from_utf8_lossy(&done.stdout);
    for words in ["orders: exact", "orders: equal, 20 rows compared", "  orders: following, 20 rows", "has ended"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_syncs_run_as_the_page_says() {
    let rig = pulls::Rig::new(Path::File, "", JSON).await;
    let mut tenants = Vec::new();
    for i in 1..=20 {
        let db = Db::named(format!("{}_tenant{i}", rig.db.name), pulls::cluster(), "template1").await;
        db.sql(&format!("{TABLES}; grant select on orders to {}", rig.reader())).await;
        tenants.push(db);
    }
    let page = include_str!("../../docs/tutorial-many-syncs.md");
    let directory = tempfile::tempdir().unwrap();
    let to = format!("{}_tenant", rig.reader_url());
    let done = run(directory.path(), &script(page, "postgres://reader@db.example/tenant", &to));
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(said.matches("\"rows\":20").count(), 20, "{said}");
    for i in 1..=20 {
        assert!(said.contains(&format!("tenant{i}: caught up at")), "{i}: {said}");
    }
}
