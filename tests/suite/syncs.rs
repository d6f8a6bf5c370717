//! `pgflume.json` from the command line, as a user has it: connections, syncs, one pass of each.

use crate::pulls;
use crate::support::{Db, Home, Path, Rig, schema, until};
use crate::volume::set_up;
use std::process::{Command, Output};

/// A folder in which commands are run.
struct Folder {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Folder {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().current_dir(self.directory.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// What a command says that ends well.
    fn said(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// What one says that fails with this code.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let done = self.run(arguments);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("pgflume.json")).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }
}

const TABLES: &str = "create table orders (id int primary key, v text); create table orders_log (id int primary key);
    insert into orders select i, 'v' || i from generate_series(1, 20) i; insert into orders_log values (1);
    create table seen (n int); create view shown as select * from orders";
const JSON: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_adds_tests_runs_and_removes() {
    let rig = pulls::Rig::new(Path::File, TABLES, JSON).await;
    let url = rig.reader_url();
    let folder = Folder::new();
    let replica = folder.directory.path().join("replica.db");
    assert!(folder.said(&["sync", "list"]).contains("pgflume sync add"));
    folder.said(&["connection", "add", "shop", "--url", &url]);
    folder.said(&["connection", "add", "edge", "--url", &format!("file:{}", replica.display())]);
    let said = folder.said(&["connection", "test", "shop"]);
    assert!(said.contains("PostgreSQL 15") && said.contains("a primary"), "{said}");
    assert!(said.contains("needs SELECT on the tables and nothing else"), "{said}");
    assert!(said.contains("orders: exact"), "{said}");
    assert!(folder.said(&["connection", "test", "edge"]).contains("not there yet"));
    folder.said(&["sync", "add", "shop", "--from", "shop", "--to", "edge", "--exclude", "*_log", "--every", "5s"]);
    let listed = folder.said(&["sync", "list"]);
    assert_eq!(listed, "shop: shop -> edge, all tables, every 5s\n");
    assert!(folder.said(&["connection", "list"]).contains("used by shop"));
    let done: serde_json::Value = serde_json::from_str(&folder.said(&["sync", "shop"])).unwrap();
    assert_eq!((done["sync"].as_str(), done["rows"].as_u64()), (Some("shop"), Some(20)), "{done}");
    assert!(done["caught_up_at"].is_string());
    let done: serde_json::Value = serde_json::from_str(&folder.said(&["sync"])).unwrap();
    assert_eq!(done["rows"].as_u64(), Some(0), "all that are enabled: {done}");
    folder.said(&["sync", "disable", "shop"]);
    assert_eq!(folder.said(&["sync"]), "", "none is enabled");
    assert!(folder.said(&["sync", "list"]).contains("disabled"));
    folder.said(&["sync", "enable", "shop"]);
    let refused = folder.refused(&["connection", "remove", "edge"], 2);
    assert!(refused.contains("used by shop"), "{refused}");
    folder.said(&["sync", "remove", "shop"]);
    folder.said(&["connection", "remove", "edge"]);
    let file: serde_json::Value = serde_json::from_str(&folder.file()).unwrap();
    assert_eq!(file["syncs"], serde_json::json!({}));
    assert_eq!(file["connections"].as_object().unwrap().len(), 1);
    let there = rusqlite_count(&replica).await;
    assert_eq!(there, ["20"], "what was synced stays");
}

async fn rusqlite_count(path: &std::path::Path) -> Vec<String> {
    let target = pgflume::replica::target::Target::File(path.to_owned());
    let replica = pgflume::replica::Replica::open(&target).await.unwrap();
    let rows = replica.query("SELECT count(*) FROM orders", vec![]).await.unwrap();
    rows.iter().map(|row| crate::store::show(&row[0])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_exit_2_and_no_secret_is_shown_or_written() {
    let folder = Folder::new().with("SHOP_PASSWORD", "hunter2hunter2");
    for (arguments, expected) in [
        (&["sync", "nowhere"][..], "there is no sync \"nowhere\""),
        (&["sync", "add", "s"], "--from is missing"),
        (&["sync", "add", "s", "--from", "nowhere"], "names the connection \"nowhere\""),
        (&["sync", "add", "list", "--from", "postgres"], "choose another name"),
        (&["sync", "add", "a/b", "--from", "postgres"], "is no name"),
        (&["sync", "add", "s", "--from", "postgres", "--every", "soon"], "is no time"),
        (&["sync", "remove", "s"], "there is no sync"),
        (&["sync", "enable", "s"], "there is no sync"),
        (&["connection", "add", "c"], "--url is missing"),
        (&["connection", "add", "c", "--url", "postgres://u:hunter2hunter2@h/d"], "--password-env"),
        (&["connection", "test", "c"], "there is no connection"),
        (&["connection", "remove", "c"], "there is no connection"),
        (&["--config-file", "nowhere.json", "sync", "list"], "CONFIG_FILE nowhere.json"),
    ] {
        let said = folder.refused(arguments, 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(!folder.directory.path().join("pgflume.json").exists(), "nothing was written");
    folder.said(&["connection", "add", "c", "--url", "postgres://u@127.0.0.1:1/d", "--password-env", "SHOP_PASSWORD"]);
    assert!(folder.file().contains("${SHOP_PASSWORD}") && !folder.file().contains("hunter2"));
    let said = folder.refused(&["connection", "add", "c", "--url", "file:x"], 2);
    assert!(said.contains("there already"), "{said}");
    let said = folder.refused(&["connection", "test", "c"], 1);
    assert!(said.contains("cannot be reached") && !said.contains("hunter2"), "{said}");
    folder.said(&["sync", "add", "s", "--from", "c"]);
    let said = folder.refused(&["sync", "s"], 2);
    assert!(said.contains("LIBSQL_URL is missing"), "{said}");
    let mut without = Folder::new();
    without.write("pgflume.json", &folder.file());
    let said = without.refused(&["connection", "test", "c"], 2);
    assert!(said.contains("needs the variable SHOP_PASSWORD, which is not set"), "{said}");
    // A .env is read, and what is set already wins.
    without.write(".env", "SHOP_PASSWORD=from-the-file\nLIBSQL_URL=ftp://x\n");
    let said = without.refused(&["sync", "s"], 2);
    assert!(said.contains("LIBSQL_URL begins with ftp://"), "{said}");
    without = without.with("LIBSQL_URL", "ws://x");
    let said = without.refused(&["sync", "s"], 2);
    assert!(said.contains("LIBSQL_URL begins with ws://"), "{said}");
    without.write(".env", "not a line");
    let said = without.refused(&["sync", "s"], 2);
    assert!(said.contains(".env"), "{said}");
    folder.write("pgflume.json", "{ broken");
    let said = folder.refused(&["sync"], 2);
    assert!(said.contains("pgflume.json: $ is not valid JSON"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_by_queue_and_by_pull_share_a_file_and_one_that_fails_keeps_no_other_back() {
    let queued = Rig::new(Path::File, schema(JSON)).await;
    queued.db.sql("create table orders (id int primary key, v text); insert into orders values (1, 'queued')").await;
    set_up(&queued.db.url(), queued.worker.schema()).await;
    let pulled =
        pulls::Rig::new(Path::File, "create table items (id int primary key); insert into items values (7)", JSON)
            .await;
    let homes = [Home::new(Path::File), Home::new(Path::File)];
    let place = |home: &Home| match home.target() {
        pgflume::replica::target::Target::File(path) => format!("file:{}", path.display()),
        other => panic!("{other:?}"),
    };
    let folder = Folder::new();
    folder.write("orders.json", JSON);
    folder.write(
        "pgflume.json",
        &serde_json::json!({
            "connections": {
                "hub": {"url": queued.db.url()},
                "plain": {"url": pulled.reader_url()},
                "down": {"url": "postgres://nobody@127.0.0.1:1/x"},
                "one": {"url": place(&homes[0])},
                "two": {"url": place(&homes[1])},
            },
            "syncs": {
                "a-down": {"from": "down", "to": "two", "retries": 0},
                "b-queue": {"from": "hub", "to": "one", "queue": "replicate_data_libsql", "schema": "orders.json"},
                "c-pull": {"from": "plain", "to": "two"},
            },
        })
        .to_string(),
    );
    let done = folder.run(&["sync"]);
    assert_eq!(done.status.code(), Some(1), "one failed: {done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0]["error"].as_str().unwrap().contains("cannot be reached"), "{said}");
    assert_eq!((lines[1]["sync"].as_str(), lines[2]["sync"].as_str()), (Some("b-queue"), Some("c-pull")));
    let count = async |home: &Home, table: &str| {
        let replica = pgflume::replica::Replica::open(&home.target()).await.unwrap();
        crate::store::show(&replica.query(format!("SELECT count(*) FROM {table}"), vec![]).await.unwrap()[0][0])
    };
    assert_eq!((count(&homes[0], "orders").await, count(&homes[1], "items").await), ("1".into(), "1".into()));
    // Two that would write one table are refused before anything is done.
    folder.write("items.json", r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#);
    let mut file: serde_json::Value = serde_json::from_str(&folder.file()).unwrap();
    file["syncs"]["d-same"] = serde_json::json!({"from": "plain", "to": "two", "schema": "items.json"});
    file["syncs"]["c-pull"]["tables"] = serde_json::json!(["public.items"]);
    folder.write("pgflume.json", &file.to_string());
    let said = folder.refused(&["sync"], 2);
    assert!(said.contains("\"c-pull\"") && said.contains("\"d-same\"") && said.contains("\"items\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_about_one_sync_take_its_name_and_ask_for_it_where_there_are_several() {
    let queued = pulls::Rig::new(Path::File, TABLES, JSON).await;
    let (rig, folder) = pulling().await;
    let mut file: serde_json::Value = serde_json::from_str(&folder.file()).unwrap();
    // The only one needs no name.
    folder.said(&["sync"]);
    assert!(folder.said(&["verify"]).contains("orders: equal, 20 rows"));
    assert_eq!(folder.said(&["dead", "list"]), "no dead letters\n");
    file["connections"]["hub"] = serde_json::json!({"url": queued.db.url()});
    file["connections"]["other"] = serde_json::json!({"url": "file:other.db"});
    file["syncs"]["fed"] = serde_json::json!({
        "from": "hub", "to": "other", "queue": "fed", "schema": "orders.json"
    });
    folder.write("pgflume.json", &file.to_string());
    for command in [&["verify"][..], &["dead", "list"], &["resync"], &["nuke", "--yes"]] {
        let said = folder.refused(command, 2);
        assert!(said.contains("name one with --sync, of fed, shop"), "{said}");
    }
    for command in ["init", "setup", "verify", "resync", "nuke"] {
        let said = folder.refused(&[command, "--sync", "nowhere"], 2);
        assert!(said.contains("there is no sync \"nowhere\": known are fed, shop"), "{said}");
    }
    // From a source to a filled replica, by the name of the sync alone.
    let said = folder.said(&["init", "--sync", "fed", "--table", "orders"]);
    assert!(said.contains("orders.json is written") && said.contains("pgflume setup --sync fed"), "{said}");
    let schema = std::fs::read_to_string(folder.directory.path().join("orders.json")).unwrap();
    assert!(schema.contains("\"orders\"") && !schema.contains("orders_log"), "{schema}");
    let said = folder.said(&["init", "--sync", "shop", "--stdout", "--output", "new.json"]);
    assert!(said.contains("\"orders\"") && !said.contains("orders_log"), "the patterns of the sync: {said}");
    folder.said(&["setup", "--sync", "fed"]);
    folder.said(&["sync", "fed"]);
    assert!(folder.said(&["verify", "--sync", "fed"]).contains("orders: equal, 20 rows"));
    assert!(folder.said(&["nuke", "--yes", "--sync", "fed"]).contains("made anew"));
    folder.said(&["sync", "fed"]);
    assert!(folder.said(&["resync", "--sync", "fed"]).contains("orders: 20 rows copied"));
    assert!(folder.said(&["verify", "--sync", "fed"]).contains("orders: equal, 20 rows"));
    // One that pulls has neither queue nor triggers.
    assert!(folder.refused(&["setup", "--sync", "shop"], 2).contains("pulls: nothing is installed in its source"));
    assert!(folder.refused(&["nuke", "--yes", "--sync", "shop", "--no-refill"], 2).contains("leave out --no-refill"));
    assert!(folder.said(&["nuke", "--yes", "--sync", "shop"]).contains("filled by the next pass"));
    folder.said(&["sync", "shop"]);
    assert!(folder.refused(&["init", "--sync", "shop"], 2).contains("names no file under schema"));
    assert!(folder.refused(&["verify", "--sync", "shop", "--sample", "5%"], 2).contains("leave out --sample"));
    assert!(folder.refused(&["resync", "--sync", "shop", "--detach", "nope"], 2).contains("it has orders"));
    assert!(folder.said(&["resync", "--sync", "shop", "--detach"]).contains("after the next pass: orders"));
    folder.said(&["sync", "shop"]);
    let replica = pgflume::replica::target::Target::File(folder.directory.path().join("replica.db"));
    let replica = pgflume::replica::Replica::open(&replica).await.unwrap();
    replica.query("UPDATE orders SET v = 'strange' WHERE id = 3", vec![]).await.unwrap();
    drop(replica);
    let said = folder.said(&["resync", "--sync", "shop"]);
    assert!(said.contains("1 different") && said.contains("1 of them repaired"), "{said}");
    assert!(folder.said(&["verify", "--sync", "shop"]).contains("orders: equal, 20 rows"));
    drop((queued, rig));
}

/// A folder with one sync that pulls into a file beside it, and the source.
async fn pulling() -> (pulls::Rig, Folder) {
    pulling_on(Db::on(pulls::cluster(), "template1").await).await
}

async fn pulling_on(db: Db) -> (pulls::Rig, Folder) {
    let rig = pulls::Rig::on(db, Path::File, TABLES, JSON).await;
    let folder = Folder::new().with("WEBHOOK_SIGNATURE", "0123456789abcdef");
    let file = serde_json::json!({
        "connections": {"shop": {"url": rig.reader_url()}, "edge": {"url": "file:replica.db"}},
        "syncs": {"shop": {"from": "shop", "to": "edge", "tables": ["orders"], "every": "200ms"}},
    });
    folder.write("pgflume.json", &file.to_string());
    (rig, folder)
}

async fn count(folder: &Folder) -> Option<String> {
    let path = folder.directory.path().join("replica.db");
    let replica = pgflume::replica::Replica::existing(&pgflume::replica::target::Target::File(path)).await.unwrap()?;
    let rows = replica.query("SELECT count(*) FROM orders", vec![]).await.ok()?;
    rows.first().map(|row| crate::store::show(&row[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_a_line_a_sync_and_verify_and_dead_take_its_name() {
    // On a server of its own: a transaction of another test would hold its marks back, and a row that is read again is
    // tried again.
    let cluster: &'static _ = Box::leak(Box::new(pulls::own_cluster()));
    let (rig, folder) = pulling_on(Db::on(cluster, "template1").await).await;
    let said = folder.said(&["status"]);
    assert!(said.starts_with("shop: never caught up; every 200ms"), "{said}");
    folder.said(&["sync"]);
    let said = folder.said(&["status"]);
    assert!(said.contains("caught up at") && said.contains("1 tables, 20 rows, 0 dead letters; exact"), "{said}");
    let said = folder.said(&["status", "shop"]);
    assert!(said.contains("  orders: following, 20 rows, compared at") && said.contains("exact"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&folder.said(&["status", "--json"])).unwrap();
    assert_eq!(json["syncs"]["shop"]["tables"]["orders"]["state"], "following", "{json}");
    assert!(json["syncs"]["shop"]["lag_seconds"].as_f64().unwrap() < 60.0);
    let said = folder.said(&["verify", "--sync", "shop"]);
    assert!(said.contains("orders: equal, 20 rows compared"), "{said}");
    let said = folder.refused(&["verify", "--sync", "nowhere"], 2);
    assert!(said.contains("there is no sync \"nowhere\""), "{said}");
    assert_eq!(folder.said(&["dead", "list", "--sync", "shop"]), "no dead letters\n");
    let replica = pgflume::replica::target::Target::File(folder.directory.path().join("replica.db"));
    let open = async || pgflume::replica::Replica::open(&replica).await.unwrap();
    let trigger = "CREATE TRIGGER no BEFORE UPDATE ON orders WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END";
    open().await.query(trigger, vec![]).await.unwrap();
    rig.db.sql("update orders set v = 'bad' where id = 7").await;
    folder.said(&["sync"]);
    let said = folder.said(&["dead", "list", "--sync", "shop"]);
    assert!(said.contains("\"orders\", key (7)"), "{said}");
    assert!(folder.said(&["status"]).contains("1 dead letters"));
    assert!(folder.refused(&["dead", "drop", "--all", "--yes", "--sync", "shop"], 1).contains("cannot be dropped"));
    open().await.query("DROP TRIGGER no", vec![]).await.unwrap();
    folder.said(&["sync"]);
    assert!(folder.said(&["dead", "list", "--sync", "shop"]).contains("key (7)"), "nobody has asked");
    assert!(folder.said(&["dead", "retry", "--all", "--sync", "shop"]).contains("1 are tried again"));
    folder.said(&["sync"]);
    assert_eq!(folder.said(&["dead", "list", "--sync", "shop"]), "no dead letters\n");
    assert!(folder.said(&["verify", "--sync", "shop"]).contains("equal"));
    let mut file: serde_json::Value = serde_json::from_str(&folder.file()).unwrap();
    file["connections"]["shop"]["url"] = "postgres://nobody@127.0.0.1:1/x".into();
    folder.write("pgflume.json", &file.to_string());
    let done = folder.run(&["status"]);
    assert_eq!(done.status.code(), Some(1), "a side does not answer");
    assert!(String::from_utf8_lossy(&done.stdout).contains("the source: Postgres cannot be reached"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_in_the_background_until_it_is_told_to_stop() {
    let (rig, folder) = pulling().await;
    let folder = folder.with("PORT", "0");
    assert_eq!(folder.run(&["service", "status"]).status.code(), Some(1));
    assert!(folder.said(&["service", "stop"]).contains("not running"));
    // A left-over of one that was killed.
    std::fs::create_dir(folder.directory.path().join(".pgflume")).unwrap();
    folder.write(".pgflume/pgflume.pid", "1\n");
    let said = folder.said(&["service", "start", "--daemon"]);
    assert!(said.contains("running in the background"), "{said}");
    let said = folder.refused(&["service", "start", "--daemon"], 2);
    assert!(said.contains("it runs already"), "{said}");
    assert!(folder.said(&["service", "status"]).contains("running, process"));
    until("it is brought", async || count(&folder).await == Some("20".into())).await;
    rig.db.sql("insert into orders values (100, 'later')").await;
    until("a change is brought", async || count(&folder).await == Some("21".into())).await;
    let restarted = folder.said(&["service", "restart"]);
    assert!(restarted.contains("has ended") && restarted.contains("running in the background"), "{restarted}");
    rig.db.sql("insert into orders values (101, 'later')").await;
    until("it goes on", async || count(&folder).await == Some("22".into())).await;
    let said = folder.said(&["service", "stop"]);
    assert!(said.contains("has ended"), "{said}");
    assert_eq!(folder.run(&["service", "status"]).status.code(), Some(1));
    let log = std::fs::read_to_string(folder.directory.path().join(".pgflume/pgflume.log")).unwrap();
    assert!(log.contains("listening") && log.contains("stopping"), "{log}");
    let unit = folder.said(&["service", "unit"]);
    assert!(unit.contains("[Service]") && unit.contains(" serve\n"), "{unit}");
    // What is wrong is said before anything is started.
    folder.write("pgflume.json", "{");
    assert!(folder.refused(&["service", "start", "--daemon"], 2).contains("is not valid JSON"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_dies_anywhere_loses_nothing_and_brings_nothing_twice() {
    for place in ["sent", "applied"] {
        for nth in 0..4 {
            let (rig, folder) = pulling().await;
            rig.db.sql("insert into orders select i, 'more' from generate_series(1000, 30000) i").await;
            let dying = Folder { directory: folder.directory, variables: folder.variables.clone() }
                .with("FAILPOINTS", &format!("{place}={nth}*off->return"));
            let died = dying.run(&["sync"]);
            let Folder { directory, variables } = dying;
            let folder = Folder {
                directory,
                variables: variables.into_iter().filter(|(name, _)| name != "FAILPOINTS").collect(),
            };
            assert!(!died.status.success() || nth == 3, "{place} {nth}: it did not die");
            rig.db.sql("update orders set v = 'changed' where id < 5; delete from orders where id = 6").await;
            folder.said(&["sync"]);
            let said = folder.said(&["verify", "--sync", "shop"]);
            assert!(said.contains("equal, 29020 rows"), "{place} {nth}: {said}");
        }
    }
}

#[test]
fn a_service_that_has_just_taken_its_process_file_is_waited_for() {
    use std::io::Write as _;
    let folder = Folder::new();
    std::fs::create_dir(folder.directory.path().join(".pgflume")).unwrap();
    let mut file = std::fs::File::create(folder.directory.path().join(".pgflume/pgflume.pid")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let number = std::process::id();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| folder.said(&["service", "status"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        writeln!(file, "{number}").unwrap();
        asked.join().unwrap()
    });
    assert!(asked.contains(&format!("running, process {number}")), "{asked}");
    let nobody = Folder::new();
    std::fs::create_dir(nobody.directory.path().join(".pgflume")).unwrap();
    let file = std::fs::File::create(nobody.directory.path().join(".pgflume/pgflume.pid")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(nobody.refused(&["service", "status"], 2).contains("holds no process number"));
}
