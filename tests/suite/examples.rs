//! The SQL and the programs of `docs/freshness.md`, and the receivers of `docs/events.md`: what the pages show is what is
//! run here.

use crate::parts::http;
use crate::parts::process::Process;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema, until};
use crate::volume::set_up;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use pgflume::demo::postgres::free_port;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PAGE: &str = include_str!("../../docs/freshness.md");
const EVENTS: &str = include_str!("../../docs/events.md");
const ORDERS: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","note":"TEXT"}}}"#;

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The page's only SQL that has these words in it.
pub fn sql(words: &str) -> &'static str {
    let blocks = PAGE.split("```sql\n").skip(1).filter_map(|block| block.split_once("```"));
    let mut found = blocks.map(|(block, _)| block.trim()).filter(|block| block.contains(words));
    let one = found.next().unwrap();
    assert_eq!(found.next(), None, "{words}");
    one
}

/// What it tells readers to ask; the token is `?1`.
pub fn arrived() -> &'static str {
    sql("seen_below")
}

/// A replica that follows, and an application's login that may write and ask for tokens.
struct Place {
    rig: Rig,
    server: Server,
    app: String,
}

impl Place {
    async fn new() -> Self {
        let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(ORDERS));
        let app = format!("app_of_{}", rig.db.name);
        rig.db.sql(&format!("drop role if exists {app}; create role {app} login; create table orders (id int generated always as identity primary key, note text); grant select, insert on orders to {app}")).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rig.db.sql(&sql("grant").replace(" to app;", &format!(" to {app};"))).await;
        let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
        until("the copy is done", async || server.call("GET", "/ready", None).await.status == 200).await;
        Self { rig, server, app }
    }

    fn url(&self) -> String {
        let mut url = url::Url::parse(&self.rig.db.url()).unwrap();
        url.set_username(&self.app).unwrap();
        url.set_query(Some("sslmode=disable"));
        url.into()
    }

    /// Runs a program of the page.
    async fn run(&self, mut program: Command) {
        let pgflume::replica::target::Target::File(file) = self.rig.home.target() else { panic!("a file") };
        program.env("DATABASE_URL", self.url()).env("WORKER_URL", &self.server.address);
        program.env("REPLICA_URL", format!("file:{}", file.display()));
        let done = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!((done.status.code(), out.as_ref()), (Some(0), "by waited\nby arrived\n"), "{err}");
    }
}

/// What there was to install, in place.
pub async fn installed(kind: &'static str) -> PathBuf {
    let mut script = Command::new(root().join("scripts/install-examples.sh"));
    let done = tokio::task::spawn_blocking(move || script.arg(kind).output().unwrap()).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    PathBuf::from(String::from_utf8(done.stdout).unwrap().trim())
}

/// The file, which the page shows as it is.
fn shown(file: &str, language: &str) -> PathBuf {
    shown_on(PAGE, &format!("read-your-own-write/{file}"), language)
}

fn shown_on(page: &str, file: &str, language: &str) -> PathBuf {
    let path = root().join("examples").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(page.contains(&format!("```{language}\n{text}```\n")), "the page does not show {file} as it is");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_the_page_does_what_it_says() {
    let place = Place::new().await;
    let app = pgflume::postgres::PgUrl::parse(&place.url()).unwrap().connect().await.unwrap();
    let row = app.query_one(sql("returning id"), &[]).await.unwrap();
    let token: String = row.get(1);
    let answer = place.server.call("GET", &format!("/wait?token={token}&timeout=10"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(place.rig.rows("SELECT id, note FROM orders").await, [format!("{}|mine", row.get::<_, i32>(0))]);
    let asked = async |token: &str| place.rig.rows(&arrived().replace("?1", &format!("'{token}'"))).await;
    assert_eq!(asked(&token).await, ["1"]);
    assert_eq!(asked(&(token.parse::<i64>().unwrap() + 1_000_000).to_string()).await, ["0"]);
    let fresh = place.rig.rows(sql("looked_seconds_ago")).await;
    let ages: Vec<i64> = fresh[0].split('|').map(|number| number.parse().unwrap()).collect();
    assert!((-1..60).contains(&ages[0]) && (-1..60).contains(&ages[1]) && ages[2] == 0, "{fresh:?}");
    until("the table follows", async || {
        let tables = place.rig.rows(sql("\"table\", state")).await;
        tables.len() == 1 && tables[0].starts_with("orders|following|20")
    })
    .await;
    // That of a pull is taken by whoever writes.
    app.query_one(sql("pg_current_snapshot"), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reads_its_own_write() {
    let (place, parts, file) = (Place::new().await, installed("node").await, shown("node.mjs", "js"));
    // Modules are looked for where the program lies.
    let beside = tempfile::tempdir().unwrap();
    std::fs::copy(file, beside.path().join("node.mjs")).unwrap();
    std::os::unix::fs::symlink(parts.join("node_modules"), beside.path().join("node_modules")).unwrap();
    let mut node = Command::new("node");
    node.arg(beside.path().join("node.mjs"));
    place.run(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_reads_its_own_write() {
    let (place, parts, file) = (Place::new().await, installed("python").await, shown("python.py", "python"));
    let mut python = Command::new(parts.join("bin/python"));
    python.arg("-I").arg(file);
    place.run(python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_reads_its_own_write() {
    let (place, parts, file) = (Place::new().await, installed("go").await, shown("go/main.go", "go"));
    let root = parts.join("usr/lib/go-1.19");
    let libraries = parts.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut go = Command::new(root.join("bin/go"));
    go.arg("run").arg(file).env("GOROOT", root).env("GOPATH", parts.join("usr/share/gocode"));
    // Debian's packages are not modules.
    go.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", parts.join("cache")).env("CGO_ENABLED", "1");
    go.env("CGO_CFLAGS", format!("-I{}", parts.join("usr/include").display()));
    go.env("CGO_LDFLAGS", format!("-L{0} -Wl,-rpath,{0}", libraries.display()));
    place.run(go).await;
}

/// The headers of an event that was signed so many seconds ago with this key.
fn signed(key: &[u8], seconds_ago: u64, body: &str) -> Vec<(String, String)> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds_ago;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("evt_forged.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let headers = [
        ("webhook-id", "evt_forged".to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", signature),
    ];
    headers.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// A receiver of the page takes what pgflume delivers, and refuses what others do.
async fn receives(program: &'static str, file: &'static str, language: &str) {
    let file = shown_on(EVENTS, file, language);
    let rig = Rig::new(Path::File, schema(ORDERS)).await;
    rig.db.sql("create table orders (id int primary key, note text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    // The secret is made, and is found by the worker, as the page says.
    let folder = tempfile::tempdir().unwrap();
    let (_, script) = EVENTS.split_once("```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let made = Command::new("/bin/sh").args(["-e", "-c", script]).current_dir(folder.path()).status().unwrap();
    assert!(made.success());
    let variables = std::fs::read_to_string(folder.path().join(".env")).unwrap();
    let secret = variables.trim().strip_prefix("EVENTS_SECRET=").unwrap();
    let port = free_port().unwrap().to_string();
    let url = format!("http://127.0.0.1:{port}/");

    let mut command = Command::new(program);
    command.arg(file).env("EVENTS_SECRET", secret).env("PORT", &port);
    let heard = folder.path().join("heard");
    let mut receiver = Process::spawn(&mut command, &heard, None);
    receiver.wait_until("it listens", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    let heard = || std::fs::read_to_string(&heard).unwrap();

    std::fs::write(folder.path().join("schema.json"), ORDERS).unwrap();
    let pgflume::replica::target::Target::File(replica) = rig.home.target() else { panic!("a file") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(["serve", "--follow", "--port", "0"]).current_dir(folder.path()).env_clear();
    command.env("PGMQ_URL", rig.db.url()).env("LIBSQL_URL", replica).env("WEBHOOK_SIGNATURE", SECRET);
    command.env("EVENTS_URL", &url);
    let _worker = Process::spawn(&mut command, &folder.path().join("log"), None);
    rig.db.send(r#"{"hello":"world"}"#).await;
    until("the event is taken", async || heard().contains(r#""type":"dead_letter""#)).await;
    until("it waits no more", async || rig.db.one("select count(*) from pgflume.events").await == "0").await;

    let (key, body) = (STANDARD.decode(&secret["whsec_".len()..]).unwrap(), r#"{"type":"made.up"}"#);
    let sent = |headers: Vec<(String, String)>, body: &str| {
        http::request("POST", &url, &headers, body.as_bytes(), Duration::from_secs(30)).unwrap().status
    };
    for (what, headers) in [
        ("another secret", signed(b"another secret of sixteen bytes", 0, body)),
        ("the string itself as key", signed(secret.as_bytes(), 0, body)),
        ("another body", signed(&key, 0, "{}")),
        ("too old", signed(&key, 310, body)),
        ("no headers", Vec::new()),
    ] {
        assert_eq!(sent(headers, body), 401, "{what}");
    }
    assert!(!heard().contains("made.up"), "{}", heard());
    // These were refused for what is wrong with them, not for how they are sent.
    assert_eq!(sent(signed(&key, 0, body), body), 204);
    until("it is heard", async || heard().contains("evt_forged {\"type\":\"made.up\"}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_in_python_takes_events_and_refuses_forged_ones() {
    receives("python3", "events/receiver.py", "python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_in_node_takes_events_and_refuses_forged_ones() {
    receives("node", "events/receiver.mjs", "js").await;
}
