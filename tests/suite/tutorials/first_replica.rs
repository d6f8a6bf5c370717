//! The first tutorial: its commands and its SQL are run as they stand there, one after the other, on a Postgres of its
//! own, and what is shown under each is what came out. Only the addresses are put in place of the page's.

use crate::parts::http;
use crate::support::until;
use pgflume::demo::postgres::{Cluster, ClusterOptions, free_port};
use pgflume::postgres::PgUrl;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/tutorial-first-replica.md");
const INSTALL: &str = "cargo install --path . --locked";
const SERVE: &str = "pgflume serve --follow";

/// One thing that a reader does, and what is shown to come of it.
struct Step {
    /// The prose before it.
    said: &'static str,
    language: &'static str,
    text: &'static str,
    shown: Option<&'static str>,
}

fn steps(page: &'static str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let parts: Vec<&str> = page.split("\n```").collect();
    for (said, block) in parts.iter().step_by(2).zip(parts.iter().skip(1).step_by(2)) {
        let (language, text) = block.split_once('\n').unwrap();
        match (language, steps.last_mut()) {
            ("text", Some(step)) => step.shown = Some(text),
            _ => steps.push(Step { said, language, text, shown: None }),
        }
    }
    steps
}

/// Whether a text is what is shown, where `…` stands for anything.
fn is_shown(shown: &str, text: &str) -> bool {
    let (shown, text) = (shown.trim(), text.trim());
    let Some((first, parts)) = shown.split_once('…') else { return shown == text };
    let parts: Vec<&str> = parts.split('…').collect();
    let (last, between) = parts.split_last().unwrap();
    let rest = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    between.iter().try_fold(rest, |rest, part| rest?.split_once(part).map(|(_, rest)| Some(rest))).flatten().is_some()
}

/// The reader's folder and terminals.
struct Reader {
    directory: tempfile::TempDir,
    path: String,
    /// What holds in the first terminal from a line on: its folder and its variables.
    prelude: String,
    worker: Option<Child>,
    /// What stands on the page, and what is put there.
    places: [(&'static str, String); 3],
}

impl Reader {
    fn new(cluster: &Cluster, owner: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("pgflume/deploy/prometheus");
        std::fs::create_dir_all(&rules).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(root.join("deploy/prometheus/alerts.yml"), rules.join("alerts.yml")).unwrap();
        let promtool = Command::new(root.join("scripts/install-promtool.sh")).output().unwrap();
        let promtool = PathBuf::from(String::from_utf8(promtool.stdout).unwrap().trim());
        let folders = [Path::new(env!("CARGO_BIN_EXE_pgflume")), &promtool].map(|file| file.parent().unwrap());
        let path = format!("{}:{}:{}", folders[0].display(), folders[1].display(), std::env::var("PATH").unwrap());
        let places = [
            ("postgres:password@", format!("{owner}:password@")),
            ("127.0.0.1:5432", format!("127.0.0.1:{}", cluster.port())),
            ("127.0.0.1:3000", format!("127.0.0.1:{}", free_port().unwrap())),
        ];
        Self { directory, path, prelude: String::new(), worker: None, places }
    }

    fn replaced(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn replica(&self) -> PathBuf {
        self.directory.path().join("first-replica")
    }

    /// A shell in the first folder.
    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        let port = self.places[2].1.rsplit(':').next().unwrap();
        shell.args(["-c", script]).current_dir(self.directory.path().join("pgflume")).env_clear();
        shell.env("PATH", &self.path).env("PORT", port).stdin(Stdio::null());
        shell
    }

    /// What comes out beside log lines, and whether all of it ended well; `doctor` with findings does not.
    fn run(&self, step: &Step) -> (String, bool) {
        let text = match step.language {
            "sh" => self.replaced(step.text),
            "sql" => format!("psql -v ON_ERROR_STOP=1 \"$DATABASE_URL\" <<'END'\n{}\nEND", step.text),
            other => panic!("{other}: {}", step.text),
        };
        let set = if step.text.contains("pgflume doctor") { "" } else { "set -e;" };
        let done = self.shell(&format!("exec 2>&1; {set}{}{text}", self.prelude)).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let said = said.lines().filter(|line| !line.contains("  INFO pgflume::"));
        (said.collect::<Vec<_>>().join("\n"), done.status.success())
    }

    /// What a reader who only looks may do again until it is there: what follows takes its time.
    async fn does(&mut self, step: &Step) {
        let shown = step.shown.map(|shown| self.replaced(shown));
        let looks = ["pgflume status", "pgflume doctor", "pgflume dead list", "pgflume verify"];
        let only_looks = |line: &str| {
            looks.contains(&line) || line.starts_with("sqlite3 -readonly ") || line.starts_with("curl -s ")
        };
        if step.language == "sh" && step.text.lines().all(only_looks) {
            let mut last = String::new();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            while !is_shown(shown.as_deref().unwrap(), &last) {
                assert!(tokio::time::Instant::now() < deadline, "{}: {last}", step.text);
                last = self.run(step).0;
            }
            return;
        }
        let (said, is_well) = self.run(step);
        assert!(is_well || step.text.contains("pgflume doctor"), "{}: {said}", step.text);
        assert!(shown.as_deref().is_none_or(|shown| is_shown(shown, &said)), "{}: {said}", step.text);
        let kept = step.text.lines().filter(|line| line.starts_with("cd ") || line.starts_with("export "));
        let kept: Vec<_> = kept.map(|line| format!("{}\n", self.replaced(line))).collect();
        self.prelude.extend(kept);
    }

    async fn serves(&mut self, step: &Step) {
        let log = self.directory.path().join("log");
        let mut serve = self.shell(&format!("cd ../first-replica; exec {SERVE}"));
        let file = File::create(&log).unwrap();
        self.worker = Some(serve.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
        let shown = self.replaced(step.shown.unwrap_or("… following: changes are applied as they come\n…"));
        until("it follows", async || is_shown(&shown, &std::fs::read_to_string(&log).unwrap())).await;
    }

    /// As Ctrl-C does.
    async fn stops(&mut self) {
        let Some(mut worker) = self.worker.take() else { return };
        let pid = rustix::process::Pid::from_child(&worker);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        until("the worker ends", async || worker.try_wait().unwrap().is_some()).await;
        assert!(worker.wait().unwrap().success());
    }

    /// With the secret of `.env`.
    async fn signs_in(&self, secret: &str) {
        let site = format!("http://{}", self.places[2].1);
        let ask = |method: &str, path: &str, headers: &[(String, String)], body: &str| {
            http::request(method, &format!("{site}{path}"), headers, body.as_bytes(), Duration::from_secs(10)).unwrap()
        };
        let form = [("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        let answer = ask("POST", "/session", &form, &format!("secret={secret}"));
        assert_eq!(answer.status, 303, "{}", answer.body);
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let session = [("cookie".to_owned(), cookie)];
        until("the dashboard shows the queue", async || {
            ask("GET", "/dashboard/data", &session, "").json()["shown"]["queues"][0]["status"]["queued"] == 0
        })
        .await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            drop((worker.kill(), worker.wait()));
        }
    }
}

/// The logins of which the page says that they will do.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_comes_of_a_postgres_as_the_page_says() {
    for owner in ["postgres", "owner"] {
        followed_by(owner).await;
    }
}

async fn followed_by(owner: &str) {
    let bin_dir = std::env::var_os("PGFLUME_TEST_PG").map(PathBuf::from);
    let settings = vec![("fsync".to_owned(), "off".to_owned())];
    let cluster = Cluster::start(ClusterOptions { bin_dir, settings, ..ClusterOptions::default() }).unwrap();
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    admin.batch_execute("create role owner login createrole createdb").await.unwrap();
    let mut reader = Reader::new(&cluster, owner);
    let (mut installed, mut served) = (0, 0);
    for step in steps(PAGE) {
        if step.said.contains("with Ctrl-C") {
            reader.stops().await;
        }
        match step.text.trim() {
            INSTALL => installed += 1,
            SERVE => {
                served += 1;
                reader.serves(&step).await;
            }
            _ => reader.does(&step).await,
        }
        if step.text.starts_with("grep WEBHOOK_SIGNATURE") {
            let file = std::fs::read_to_string(reader.replica().join(".env")).unwrap();
            let secret = file.lines().find_map(|line| line.strip_prefix("WEBHOOK_SIGNATURE=")).unwrap();
            reader.signs_in(secret).await;
        }
    }
    assert_eq!((installed, served), (1, 2));
    assert!(include_str!("../../../README.md").contains(INSTALL));
    reader.stops().await;
}

#[test]
fn what_is_shown_is_told_from_what_is_not() {
    for (shown, text, expected) in [
        ("a\nb", "a\nb\n", true),
        ("a\nb", "a\nb\nc", false),
        ("a\n…\nc", "a\nb\nb\nc", true),
        ("a …\n…", "a b\nc", true),
        ("… b", "a b", true),
        ("… b", "a b c", false),
        ("… b", "a b b", true),
        ("a …", "b a c", false),
        ("a … b", "a b", false),
    ] {
        assert_eq!(is_shown(shown, text), expected, "{shown:?} {text:?}");
    }
}
