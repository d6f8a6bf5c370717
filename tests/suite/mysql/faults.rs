//! Two workers that follow a server under writers, and what befalls them: each is killed, the log is purged or begun anew,
//! the server is put back as it was, or another one with its data takes its place. At rest both sides are equal each time.
//! `FAULT_ROUNDS` rounds of all of that for each seed (1), `FAULT_SEEDS` (1).

use super::told_writers::{MORE, MORE_ROWS, number, untold};
use super::writers::{Dice, TABLES, TABLES_ROWS, assert_equal, write};
use super::{NONE, Rig, said};
use crate::parts::{MySqlServer, Program};
use crate::support::{Home, PATHS, Path, until};
use mysql_async::prelude::Queryable;
use pgflume::replica::target::Target;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const WRITERS: u64 = 4;

#[derive(Debug, Clone, Copy)]
enum Fault {
    WorkerKilled,
    ServerKilled,
    LogPurged,
    LogBegunAnew,
    /// As it was when the round began.
    PutBack,
    Swapped,
}

use Fault::{LogBegunAnew, LogPurged, PutBack, ServerKilled, Swapped, WorkerKilled};

const FAULTS: [Fault; 6] = [WorkerKilled, ServerKilled, LogPurged, LogBegunAnew, PutBack, Swapped];

struct Scene {
    rig: Rig,
    workers: [Program; 2],
    /// Rows for LOAD DATA, and what was saved.
    folder: TempDir,
    dice: Dice,
    /// How many servers there have been.
    servers: u64,
}

impl Scene {
    async fn new(path: Path, seed: u64) -> Self {
        let arguments = [
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-lock-wait-timeout=2",
            "--lock-wait-timeout=2",
        ];
        let server = Arc::new(MySqlServer::start(&arguments));
        let mut rig = Rig::on(server, Path::File, &format!("{TABLES}; {MORE}"), NONE).await;
        rig.home = Home::new(path);
        rig.may_read_binlog(true).await;
        let workers = [worker(&rig), worker(&rig)];
        let folder = tempfile::tempdir().unwrap();
        let rows = (0..40).map(|row| format!("{},{row}\n", (seed * 31 + row * 17) % 3_000)).collect::<String>();
        std::fs::write(folder.path().join("rows"), rows).unwrap();
        let mut scene = Self { rig, workers, folder, dice: Dice(seed), servers: 7 };
        for worker in &mut scene.workers {
            worker.serve(&[]);
        }
        scene.assert_equal("the first copy").await;
        scene
    }

    /// Writers that go on as long as there is a server, until that is set.
    async fn writers(&mut self) -> (Vec<JoinHandle<u64>>, Arc<AtomicBool>) {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (conn, rows) = (self.rig.server().connect(Some(&self.rig.name)).await, self.folder.path().join("rows"));
            let statement = move |dice: &mut Dice| untold(dice, &rows);
            writers.push(tokio::spawn(write(
                conn,
                self.dice.below(1 << 30),
                Duration::ZERO,
                statement,
                is_over.clone(),
            )));
        }
        (writers, is_over)
    }

    async fn some_time(&mut self) {
        tokio::time::sleep(Duration::from_millis(200 + self.dice.below(500))).await;
    }

    /// What befalls one of the two while others write, and that both sides are equal after it.
    async fn survive(&mut self, fault: Fault, context: &str) {
        if matches!(fault, PutBack) {
            self.down(|scene| copy(&scene.rig.server().data(), &scene.saved()), None);
            self.assert_equal(context).await;
        }
        let before = self.writers().await;
        self.some_time().await;
        self.befall(fault).await;
        let after = self.writers().await;
        self.some_time().await;
        for (writers, is_over) in [before, after] {
            is_over.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.await.unwrap();
            }
        }
        self.assert_equal(&format!("{context}, {fault:?}")).await;
    }

    async fn befall(&mut self, fault: Fault) {
        let gone = "flush binary logs; flush binary logs; purge binary logs before now() + interval 1 day";
        match fault {
            WorkerKilled => {
                let which = self.dice.below(2) as usize;
                self.workers[which].kill();
                self.some_time().await;
                self.workers[which].serve(&[]);
            }
            ServerKilled => self.down(|_| {}, None),
            LogPurged => self.do_to_log(gone).await,
            LogBegunAnew => self.do_to_log("reset master").await,
            PutBack => self.down(
                |scene| {
                    let data = scene.rig.server().data();
                    std::fs::remove_dir_all(&data).unwrap();
                    copy(&scene.saved(), &data);
                },
                None,
            ),
            Swapped => {
                self.servers += 1;
                let number = format!("--server-id={}", self.servers);
                self.down(
                    |scene| drop(std::fs::remove_file(scene.rig.server().data().join("auto.cnf"))),
                    Some(&number),
                );
            }
        }
    }

    /// What a MySQL does only where no writer is in its way.
    async fn do_to_log(&self, sql: &str) {
        let mut root = self.rig.server().connect(None).await;
        until(sql, async || root.query_drop(said(sql)).await.is_ok()).await;
    }

    /// Kills the server, and starts it again when something is done.
    fn down(&mut self, meanwhile: impl FnOnce(&Self), argument: Option<&str>) {
        self.rig.server().kill();
        meanwhile(self);
        self.rig.server().start_again(argument);
    }

    fn saved(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    /// A command brings what was committed before it began, whatever the workers do.
    async fn assert_equal(&mut self, context: &str) {
        let mut said = String::new();
        until(&format!("{context}: a pass"), async || {
            let done = self.workers[0].run(&["sync", "shop"]).await;
            said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            done.status.success()
        })
        .await;
        assert!(said.contains(r#""problems":{}"#), "{context}: {said}");
        let context = format!("{context}: {said}");
        assert_equal(&self.rig, &TABLES_ROWS, &context).await;
        assert_equal(&self.rig, &MORE_ROWS, &context).await;
    }
}

/// A process that follows the server and writes the rig's replica.
fn worker(rig: &Rig) -> Program {
    let (url, token) = match rig.home.target() {
        Target::File(path) => (path.display().to_string(), None),
        Target::Remote { url, token } => (url, token),
        Target::Given(_) => unreachable!(),
    };
    let mut worker = Program::new("{}", &[("LIBSQL_URL", &url), ("PW", "p@:/ß")]);
    if let Some(token) = token {
        worker.set("LIBSQL_AUTH_TOKEN", token.expose());
    }
    let server = format!("mysql://{0}@127.0.0.1:{1}/{0}", rig.name, rig.server().port());
    let file = format!(
        r#"{{"connections":{{"shop":{{"url":"{server}","password":"${{PW}}"}}}},"syncs":{{"shop":{{"from":"shop","every":"1s"}}}}}}"#
    );
    worker.write("pgflume.json", &file);
    worker
}

fn copy(from: &FilePath, to: &FilePath) {
    drop(std::fs::remove_dir_all(to));
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_server_and_workers_both_sides_are_equal_at_rest() {
    for seed in 1..=number("FAULT_SEEDS", 1) {
        for path in PATHS {
            let mut scene = Scene::new(path, seed).await;
            for round in 1..=number("FAULT_ROUNDS", 1) {
                let mut left = FAULTS.to_vec();
                while !left.is_empty() {
                    let fault = left.swap_remove(scene.dice.below(left.len() as u64) as usize);
                    scene.survive(fault, &format!("{path:?}, seed {seed}, round {round}")).await;
                }
            }
        }
    }
}
