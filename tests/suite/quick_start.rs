//! The README's quick start, command by command, with the built binary: what a user sees in the first minutes.

use crate::limits::run;
use crate::parts::http;
use crate::parts::process::Process;
use crate::support::{Db, Home, PATHS, Rig, schema, until};
use pgflume::demo::postgres::free_port;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::time::Duration;

const SHOP: &str = "
    create type mood as enum ('new', 'known');
    create table customers (id bigint generated always as identity primary key, name text not null, mood mood, since timestamptz default now());
    create table orders (number uuid primary key default gen_random_uuid(), customer bigint references customers, total numeric(12,2), paid boolean, lines jsonb[]);
    create index on orders (customer);
    create table journal (at timestamptz, line text);
    insert into customers (name, mood) select 'customer ' || i, 'new' from generate_series(1, 500) i;
    insert into orders (customer, total, lines) select i % 500 + 1, i * 1.10, array[jsonb_build_object('n', i)] from generate_series(1, 2000) i";

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_starts_commands_follow_each_other() {
    for path in PATHS {
        let db = Db::new().await;
        db.sql(SHOP).await;
        let rig = Rig::with(db, Home::new(path), schema(r#"{"x": {"primaryKey": "x", "columns": {"x": "TEXT"}}}"#));
        let directory = tempfile::tempdir().unwrap();
        let done = async |arguments: &[&str]| {
            let run = run(&rig, directory.path(), arguments).await.succeeded();
            format!("{}{}", run.printed(), run.log())
        };

        let said = done(&["init"]).await;
        assert!(said.contains("public.journal") && said.contains("primary key"), "{said}");
        let plan = done(&["setup", "--plan"]).await;
        assert!(plan.contains("capture of \"public\".\"orders\"") && plan.contains("Run pgflume setup"), "{plan}");
        let said = done(&["setup"]).await;
        assert!(said.contains("start the worker: pgflume serve"), "{said}");
        let said = done(&["sync"]).await;
        assert!(said.contains("2500") || said.contains("500"), "{path:?}: {said}");
        let said = done(&["verify"]).await;
        assert!(said.contains("customers") && said.contains("orders"), "{said}");

        rig.db.sql("update orders set paid = true where total > 1000; delete from orders where total < 2; insert into customers (name) values ('late')").await;
        done(&["sync"]).await;
        done(&["verify"]).await;
        let status = done(&["status"]).await;
        assert!(status.contains("replicate_data_libsql") && !status.contains("cannot"), "{status}");
        let json: serde_json::Value =
            serde_json::from_str(&run(&rig, directory.path(), &["status", "--json"]).await.printed()).unwrap();
        assert_eq!((&json["queued"], &json["dead"]), (&0.into(), &0.into()), "{json}");
        assert_eq!(json["drift"].as_array().map(Vec::len), Some(0), "{json}");
        assert_eq!(rig.rows("SELECT count(*) FROM customers").await, ["501"]);

        // A second time changes nothing.
        let before = std::fs::read_to_string(directory.path().join("schema.json")).unwrap();
        done(&["init"]).await;
        assert_eq!(std::fs::read_to_string(directory.path().join("schema.json")).unwrap(), before);
        let plan = done(&["setup", "--plan"]).await;
        assert!(plan.contains("In the replica: nothing"), "{plan}");
    }
}

const README: &str = include_str!("../../README.md");

/// The blocks of the quick start in one language, as a reader copies them.
fn shown(language: &str) -> Vec<String> {
    let (_, page) = README.split_once("\n## Quick start").unwrap();
    let (page, _) = page.split_once("\n## ").unwrap();
    let begin = format!("   ```{language}\n");
    let blocks = page.split(&begin).skip(1).map(|rest| rest.split_once("   ```\n").unwrap().0);
    blocks.map(|block| block.lines().map(|line| format!("{}\n", line.trim_start_matches("   "))).collect()).collect()
}

/// No variable but those of `.env`: what is written down there is enough in every terminal.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_quick_start_writes_down_is_all_that_its_commands_need() {
    let db = Db::new().await;
    db.sql("create table apps (id text primary key, name text, retention bigint, settings json); insert into apps values ('a', 'x', 1, '{}')").await;
    let directory = tempfile::tempdir().unwrap();
    let checkout = directory.path().join("checkout");
    std::fs::create_dir(&checkout).unwrap();
    let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_pgflume")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let terminal = |folder: &str, script: &str| -> Output {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-e", "-c", script]).current_dir(directory.path().join(folder)).env_clear().env("PATH", &path);
        let done = shell.output().unwrap();
        assert!(done.status.success(), "{script}: {done:?}");
        done
    };
    let [install, setup, serve, look] = shown("sh").try_into().unwrap();
    let install = install.strip_prefix("cargo install --path . --locked\n").unwrap();
    let places = [
        ("postgres://user:password@host:5432/database?sslmode=verify-full", db.url()),
        ("libsql://your-database.example", "file:replica.db".to_owned()),
    ];
    let put = places.iter().fold(install.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}: {text}");
        text.replace(from, to)
    });
    terminal("checkout", &format!("umask 000\n{put}"));
    let written = directory.path().join("replica/.env");
    assert_eq!(std::fs::metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&written).unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("WEBHOOK_SIGNATURE=")).unwrap();
    assert_eq!(secret.len(), 64, "{text}");

    std::fs::write(directory.path().join("replica/schema.json"), &shown("json")[0]).unwrap();
    terminal("replica", &setup);
    let port = free_port().unwrap().to_string();
    let mut second = Command::new("/bin/sh");
    second.args(["-c", &format!("exec {serve}")]).current_dir(directory.path().join("replica"));
    second.env_clear().env("PATH", &path).env("PORT", &port);
    let _worker = Process::spawn(&mut second, &directory.path().join("log"), None);
    let site = format!("http://127.0.0.1:{port}");
    let ask = |method: &str, path: &str, headers: &[(String, String)], body: &str| {
        http::request(method, &format!("{site}{path}"), headers, body.as_bytes(), Duration::from_secs(30))
    };
    until("it is copied", async || ask("GET", "/ready", &[], "").is_ok_and(|answer| answer.status == 200)).await;
    let looked = terminal("replica", &look);
    assert!(String::from_utf8_lossy(&looked.stdout).contains("1 rows compared"), "{looked:?}");
    // The secret of the dashboard and of `/sync`, as the page has a reader find it.
    let found = README.split('`').find(|code| code.starts_with("grep WEBHOOK_SIGNATURE")).unwrap();
    let found = terminal("replica", found).stdout;
    let found = String::from_utf8(found).unwrap().trim().strip_prefix("WEBHOOK_SIGNATURE=").unwrap().to_owned();
    let form = [("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
    assert_eq!(ask("POST", "/session", &form, &format!("secret={found}")).unwrap().status, 303);
    let signature = [("x-webhook-signature".to_owned(), found)];
    assert_eq!(ask("POST", "/sync", &signature, "").unwrap().status, 200);
}
