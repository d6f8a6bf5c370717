//! `docs/to-the-edge.md`: its commands and its program, from Postgres through a primary and a read replica of it into
//! files by libSQL's client.

use crate::examples::{self, arrived, installed};
use crate::parts::process::Process;
use crate::parts::{Program, Tokens, http, sqld};
use crate::store::show;
use crate::support::{Db, until};
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::free_port;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const PAGE: &str = include_str!("../../docs/to-the-edge.md");
const PROGRAM: &str = include_str!("../../examples/to-the-edge/edge.mjs");
const TABLES: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","note":"TEXT"},"evolve":true},
    "lines":{"primaryKey":"id","columns":{"id":"INTEGER","bytes":"BLOB","price":"DECIMAL"}}}"#;
const MAKE: &str = "create table orders (id int primary key, note text);
    create table lines (id int primary key, bytes bytea, price numeric);
    insert into orders select i, 'old' from generate_series(1, 500) i;
    insert into lines select i, '\\x00ff', 1.10 from generate_series(1, 500) i";
/// The same text of a row on each side.
const ROWS: &str =
    "SELECT 'orders', id, note FROM orders UNION ALL SELECT 'lines', id, hex(bytes) || price FROM lines ORDER BY 1, 2";
const ROWS_IN_POSTGRES: &str = "select concat_ws('|', what, id, coalesce(v, 'NULL')) from (select 'orders' as what, id, note as v from orders
    union all select 'lines', id, coalesce(upper(encode(bytes, 'hex')), '') || price from lines) q order by what collate \"C\", id";

/// A server of the page.
struct Server {
    command: String,
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Server {
    /// By the page's command for this directory, with the ports in place of its own.
    fn start(directory: &Path, name: &str, ports: &[(&str, u16)], port: u16) -> Self {
        let shown = PAGE.lines().find(|line| line.starts_with(&format!("sqld -d {name} "))).unwrap();
        let command = ports.iter().fold(shown.to_owned(), |line, (old, new)| line.replace(old, &format!(":{new}")));
        let mut server = Self { command, directory: directory.to_owned(), port, process: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = Command::new(sqld::binary());
        command.args(self.command.split(' ').skip(1)).current_dir(&self.directory);
        let mut process = Process::spawn(&mut command, &self.directory.join("sqld.log"), None);
        let health = format!("{}/health", self.url());
        process.wait_until("sqld is healthy", || http::get_status(&health) == Some(200));
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and the end of it.
    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        assert!(Command::new("kill").arg(process.id().to_string()).status().unwrap().success());
        let begin = std::time::Instant::now();
        while process.ended().is_none() {
            assert!(begin.elapsed().as_secs() < 60, "{} does not end", self.command);
            std::thread::yield_now();
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Postgres, the worker, the primary, the read replica, and a file synced from each.
struct Chain {
    db: Db,
    worker: Program,
    primary: Server,
    nearby: Server,
    tokens: Tokens,
    directory: TempDir,
}

impl Chain {
    async fn new() -> Self {
        let db = Db::new().await;
        db.sql(MAKE).await;
        let (directory, tokens) = (tempfile::tempdir().unwrap(), Tokens::new());
        let place = directory.path();
        tokens.write_key(&place.join("jwt.key"));
        let [http, grpc, near] = [(); 3].map(|()| free_port().unwrap());
        let ports = [(":8080", http), (":5001", grpc), (":8081", near)];
        let primary = Server::start(place, "primary", &ports, http);
        let nearby = Server::start(place, "nearby", &ports, near);
        let (url, token) = (primary.url(), tokens.rw());
        let (shown, _) = PAGE.split_once(" pgflume serve --follow\n").unwrap();
        let (_, heartbeat) = shown.rsplit_once(" HEARTBEAT=").unwrap();
        let variables =
            [("PGMQ_URL", &*db.url()), ("LIBSQL_URL", &*url), ("LIBSQL_AUTH_TOKEN", &*token), ("HEARTBEAT", heartbeat)];
        let mut worker = Program::new(TABLES, &variables);
        worker.said(&["setup"]).await;
        worker.serve(&["--follow"]);
        // Modules are looked for where the program lies.
        let modules = installed("node").await.join("node_modules");
        std::os::unix::fs::symlink(modules, place.join("node_modules")).unwrap();
        std::fs::write(place.join("edge.mjs"), PROGRAM).unwrap();
        let chain = Self { db, worker, primary, nearby, tokens, directory };
        until("the copy is done", async || chain.worker.call("GET", "/ready").await.status == 200).await;
        chain
    }

    /// Rows that a server answers, as text.
    async fn asked(&self, server: &Server, sql: &str) -> Option<Vec<String>> {
        let token = Some(Secret::new(self.tokens.ro()));
        let replica = Replica::open(&Target::Remote { url: server.url(), token }).await.ok()?;
        let rows = replica.query(sql.to_owned(), vec![]).await.ok()?;
        Some(rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect())
    }

    /// Runs the page's program on the file that is synced from this server.
    async fn program(&self, server: &Server, arguments: &[&str]) -> Output {
        self.program_with(server, &self.tokens.ro(), arguments).await
    }

    async fn program_with(&self, server: &Server, token: &str, arguments: &[&str]) -> Output {
        let mut node = Command::new("node");
        node.arg("edge.mjs").args(arguments).current_dir(self.directory.path()).env("SYNC_URL", server.url());
        node.env("EDGE_FILE", format!("file:from-{}.db", server.port)).env("SYNC_TOKEN", token);
        tokio::task::spawn_blocking(move || node.output().unwrap()).await.unwrap()
    }

    /// Rows of that file, once it holds what the token is of.
    async fn at_the_edge(&self, server: &Server, sql: &str, token: Option<&str>) -> Vec<String> {
        let arguments: Vec<&str> = [sql].into_iter().chain(token).collect();
        let done = self.program(server, &arguments).await;
        assert!(done.status.success(), "{done:?}");
        let value = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "NULL".to_owned(),
            other => other.to_string(),
        };
        let row = |line: &str| {
            let row: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
            row.iter().map(value).collect::<Vec<_>>().join("|")
        };
        // The client logs there, too, when a server does not answer.
        let printed = String::from_utf8_lossy(&done.stdout);
        printed.lines().filter(|line| line.starts_with('[')).map(row).collect()
    }

    /// The file that is synced from this server, and what the client keeps beside it.
    fn remove_file(&self, server: &Server) {
        for suffix in ["", "-client_wal_index", "-wal", "-shm"] {
            std::fs::remove_file(self.directory.path().join(format!("from-{}.db{suffix}", server.port))).ok();
        }
    }

    /// The token of a write, in its own transaction.
    async fn write(&self, sql: &str) -> String {
        self.db.sql(&format!("begin; {sql}")).await;
        let token = self.db.one("select pgflume.token()").await;
        self.db.sql("commit").await;
        token
    }

    /// Both servers and both files show what Postgres has, once they hold this write.
    async fn assert_equal(&self, token: &str) {
        let expected = self.db.all(ROWS_IN_POSTGRES).await;
        for server in [&self.primary, &self.nearby] {
            let question = arrived().replace("?1", &format!("'{token}'"));
            until("it has arrived", async || self.asked(server, &question).await.is_some_and(|rows| rows == ["1"]))
                .await;
            assert_eq!(self.asked(server, ROWS).await.unwrap(), expected, "{}", server.command);
            assert_eq!(self.at_the_edge(server, ROWS, Some(token)).await, expected, "a file by {}", server.command);
        }
        for target in [self.primary.url(), self.nearby.url()] {
            let said = self.worker.said(&["verify", "--target", &target]).await;
            assert_eq!(said.matches(": equal, ").count(), 2, "{said}");
        }
    }
}

#[test]
fn the_page_shows_the_program_as_it_is() {
    assert!(PAGE.contains(&format!("```js\n{PROGRAM}```\n")), "docs/to-the-edge.md does not show edge.mjs as it is");
    assert!(PROGRAM.contains(&arrived().replace("?1", "?")), "the question of docs/freshness.md");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_columns_nukes_and_resyncs_reach_the_read_replica_and_the_files() {
    let chain = Chain::new().await;
    let token = chain.write("update orders set note = 'first' where id = 1").await;
    chain.assert_equal(&token).await;
    let writes = "insert into orders select i, 'new' from generate_series(1001, 4000) i;
        insert into lines values (600, '\\x0102', 12345678901234567890.50), (601, null, 'NaN');
        update orders set note = 'changed' where id % 7 = 0; update lines set id = id + 10000 where id = 5;
        delete from orders where id % 5 = 0; delete from lines where id between 100 and 200";
    let token = chain.write(writes).await;
    chain.assert_equal(&token).await;
    let token = chain.write("truncate lines; insert into lines values (1, '\\x', 0.00)").await;
    chain.assert_equal(&token).await;

    chain.db.sql("alter table orders add column state text default 'open'").await;
    let token = chain.write("update orders set state = 'shut' where id = 1").await;
    chain.assert_equal(&token).await;
    let states = "SELECT state, count(*) AS number FROM orders GROUP BY 1 ORDER BY 1";
    let expected = chain.db.all("select state || '|' || count(*) from orders group by state order by 1").await;
    until("the column is filled", async || chain.asked(&chain.primary, states).await.as_ref() == Some(&expected)).await;
    for server in [&chain.primary, &chain.nearby] {
        until("the file has it", async || chain.at_the_edge(server, states, None).await == expected).await;
    }

    // Somebody has damaged the primary: a resync sets it right, everywhere.
    let target = Target::Remote { url: chain.primary.url(), token: Some(Secret::new(chain.tokens.rw())) };
    let damage = "UPDATE orders SET note = 'damaged' WHERE id = 2";
    Replica::open(&target).await.unwrap().query(damage, vec![]).await.unwrap();
    let note = "SELECT note FROM orders WHERE id = 2";
    until("it is everywhere", async || chain.at_the_edge(&chain.nearby, note, None).await == ["damaged"]).await;
    assert!(chain.worker.said(&["resync", "orders"]).await.contains("orders:"));
    let token = chain.write("update orders set note = 'later' where id = 1").await;
    chain.assert_equal(&token).await;

    let answer = chain.worker.call("POST", "/nuke").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = chain.write("insert into orders values (9999, 'after the nuke')").await;
    until("the copy is done", async || chain.worker.call("GET", "/ready").await.status == 200).await;
    chain.assert_equal(&token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_shows_whole_transactions_and_waits_for_its_own_write() {
    let chain = Chain::new().await;
    let writes = async {
        for i in 1..=400 {
            let both = "insert into orders values ({i}, 'x'); insert into lines values ({i}, null, 1)";
            chain.db.sql(&both.replace("{i}", &(1000 + i).to_string())).await;
        }
    };
    let reads = async {
        let pairs = "SELECT (SELECT count(*) FROM orders) - (SELECT count(*) FROM lines) AS torn, (SELECT count(*) FROM orders) AS rows";
        for server in [&chain.primary, &chain.nearby].repeat(5) {
            let seen = chain.at_the_edge(server, pairs, None).await;
            assert!(seen[0].starts_with("0|"), "half a transaction: {seen:?}");
        }
    };
    futures_util::join!(writes, reads);
    for i in 1..=3 {
        let token = chain.write(&format!("update orders set note = 'mine {i}' where id = 3")).await;
        for server in [&chain.primary, &chain.nearby] {
            let seen = chain.at_the_edge(server, "SELECT note FROM orders WHERE id = 3", Some(&token)).await;
            assert_eq!(seen, [format!("mine {i}")]);
        }
    }
    // One that has not been given out yet is said not to be there.
    let never = (chain.write("select 1").await.parse::<u64>().unwrap() + 1_000_000).to_string();
    let question = arrived().replace("?1", &never);
    assert_eq!(chain.at_the_edge(&chain.nearby, &question, None).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_tells_how_old_it_is_and_is_read_while_servers_are_down() {
    let mut chain = Chain::new().await;
    let checked = "SELECT checked_at FROM _pgflume_freshness";
    let token = chain.write("update orders set note = 'before' where id = 1").await;
    chain.assert_equal(&token).await;
    for server in [&chain.primary, &chain.nearby] {
        let ages = chain.at_the_edge(server, examples::sql("looked_seconds_ago"), None).await;
        let ages: Vec<i64> = ages[0].split('|').map(|age| age.parse().unwrap()).collect();
        assert!((-1..60).contains(&ages[0]) && (-1..60).contains(&ages[1]) && ages[2] == 0, "{ages:?}");
        // It moves while nothing changes.
        let first = chain.at_the_edge(server, checked, None).await;
        until("a heartbeat arrives", async || chain.at_the_edge(server, checked, None).await > first).await;
    }
    let before = chain.db.all(ROWS_IN_POSTGRES).await;
    chain.primary.kill();
    let token = chain.write("update orders set note = 'while it was down' where id = 1").await;
    assert_eq!(chain.asked(&chain.nearby, ROWS).await.unwrap(), before, "the read replica answers");
    for server in [&chain.primary, &chain.nearby] {
        assert_eq!(chain.at_the_edge(server, ROWS, None).await, before, "the file is read");
    }
    let alone = chain.program(&chain.primary, &[checked]).await;
    assert!(String::from_utf8_lossy(&alone.stderr).contains("as of the last time"), "{alone:?}");
    assert_eq!(chain.program(&chain.primary, &[checked]).await.stdout, alone.stdout, "it stands still");
    chain.nearby.kill();
    assert_eq!(chain.at_the_edge(&chain.nearby, ROWS, None).await, before, "nor does it need the read replica");
    chain.primary.run();
    chain.nearby.run();
    until("the worker is back", async || chain.worker.call("GET", "/ready").await.status == 200).await;
    chain.assert_equal(&token).await;
}

/// The primary's disk is lost: pgflume fills another, and that is another log to those who copy it.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_begun_anew_reaches_those_who_had_the_old_one() {
    let mut chain = Chain::new().await;
    let token = chain.write("update orders set note = 'before' where id = 1").await;
    chain.assert_equal(&token).await;
    chain.primary.kill();
    std::fs::remove_dir_all(chain.directory.path().join("primary")).unwrap();
    let token = chain.write("update orders set note = 'after' where id = 1; delete from lines where id < 100").await;
    chain.primary.run();
    let question = arrived().replace("?1", &format!("'{token}'"));
    until("it is filled", async || chain.asked(&chain.primary, &question).await.is_some_and(|rows| rows == ["1"]))
        .await;
    chain.assert_equal(&token).await;
}

/// sqld does not notice that its directory is an older copy: those who are further mix two histories. pgflume does, and
/// sets the primary right; for the others the page has a remedy.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_older_copy_of_the_primary_was_put_back_copies_that_are_made_anew_are_right() {
    let mut chain = Chain::new().await;
    let (place, copy) = (chain.directory.path().join("primary"), chain.directory.path().join("copy"));
    let token = chain.write("update orders set note = 'before' where id = 1").await;
    chain.assert_equal(&token).await;
    chain.primary.stop();
    assert!(Command::new("cp").arg("-a").args([&place, &copy]).status().unwrap().success());
    chain.primary.run();
    let token = chain.write("delete from lines where id < 100; update orders set note = 'lost' where id < 200").await;
    chain.assert_equal(&token).await;
    chain.primary.stop();
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&copy, &place).unwrap();
    let token = chain.write("update orders set note = 'after' where id < 300; delete from lines where id > 300").await;
    chain.nearby.stop();
    std::fs::remove_dir_all(chain.directory.path().join("nearby")).unwrap();
    for server in [&chain.primary, &chain.nearby] {
        chain.remove_file(server);
    }
    chain.primary.run();
    chain.nearby.run();
    chain.assert_equal(&token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_reads_is_enough_and_writes_nothing() {
    let chain = Chain::new().await;
    for server in [&chain.primary, &chain.nearby] {
        assert_eq!(chain.at_the_edge(server, "SELECT count(*) AS n FROM orders", None).await, ["500"]);
        let done = chain.program(server, &["DELETE FROM orders"]).await;
        assert!(!done.status.success(), "{done:?}");
        assert_eq!(chain.at_the_edge(server, "SELECT count(*) AS n FROM orders", None).await, ["500"]);
    }
    assert_eq!(chain.asked(&chain.primary, "SELECT count(*) FROM orders").await.unwrap(), ["500"]);
    // Nobody's token, and one whose time is over, bring nothing.
    for token in [String::new(), chain.tokens.expired()] {
        chain.remove_file(&chain.nearby);
        let done = chain.program_with(&chain.nearby, &token, &["SELECT count(*) FROM orders"]).await;
        assert!(!done.status.success(), "{done:?}");
    }
}
