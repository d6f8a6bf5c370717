//! What goes wrong, one fault after another, drawn from the seed. (The faults of sqld's proxy and the stops and stalls
//! inside the workers happen by themselves.)

use super::scene::Scene;
use crate::faults::{freeze, number};
use crate::judge::Violation;
use crate::parts::Fault;
use crate::plan::{millis, pick, rng};
use crate::stage::Failure;
use pgflume::demo::postgres::Stop;
use pgflume::replica::target::Target;
use rand::RngExt;
use rand::rngs::StdRng;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// For a pass after a side was put back or replaced; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(90);
/// Of 1,000 writes to sqld, so many are struck.
const WEATHER: [u32; 5] = [0, 50, 100, 200, 400];
/// For a command beside the workers.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

pub struct Faults {
    scene: Arc<Scene>,
    rng: StdRng,
    background: JoinSet<()>,
    /// The pass after a side was put back or replaced: until it has ended, versions may go back.
    settling: Option<tokio::task::JoinHandle<bool>>,
    weather: Instant,
    next_era: Instant,
    next_crash: Instant,
    older_source: Option<TempDir>,
    older_replica: Option<TempDir>,
    is_away: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kill,
    Freeze,
    Disconnect,
    Network,
    Lock,
    Server,
    Sync,
    Verify,
    Crash,
    Era,
}

/// Each as often as its share.
const KINDS: [(Kind, u32); 10] = [
    (Kind::Kill, 2),
    (Kind::Freeze, 3),
    (Kind::Disconnect, 2),
    (Kind::Network, 4),
    (Kind::Lock, 3),
    (Kind::Server, 2),
    (Kind::Sync, 2),
    (Kind::Verify, 2),
    (Kind::Crash, 2),
    (Kind::Era, 4),
];

/// What is put back or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    OtherSource,
    Replica,
    EmptyReplica,
}

impl Faults {
    pub fn new(scene: Arc<Scene>, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            scene,
            rng: rng(seed, "faults"),
            background: JoinSet::new(),
            settling: None,
            weather: now,
            next_era: now + Duration::from_secs(2),
            next_crash: now + Duration::from_secs(3),
            older_source: None,
            older_replica: None,
            is_away: false,
        }
    }

    /// One after another for so long; then everything is up and sound, and nobody writes.
    pub async fn run(mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until || self.settling.is_some() {
            self.scene.tend();
            self.settled().await?;
            self.change_weather();
            self.one().await?;
            let pause = millis(&mut self.rng, 10, 200);
            tokio::time::sleep(pause).await;
            if Instant::now() >= until + LIMIT {
                return Err("no pass ended after a side was put back or replaced".into());
            }
        }
        while self.background.join_next().await.is_some() {}
        self.scene.proxy.iter().for_each(|proxy| proxy.set_rate(0));
        if self.is_away {
            self.begin_era().await?;
            self.scene.leads_home(true);
        }
        self.scene.network.set(Fault::Pass);
        self.scene.rest().await?;
        self.scene.kill_all();
        while self.scene.proxy.as_ref().is_some_and(|proxy| proxy.late() > 0) {
            tokio::time::sleep(POLL).await;
        }
        let settled = self.scene.settle(LIMIT).await;
        self.scene.era.reopen();
        if settled { Ok(()) } else { Err("the last pass did not end".into()) }
    }

    fn change_weather(&mut self) {
        if Instant::now() < self.weather {
            return;
        }
        self.weather = Instant::now() + millis(&mut self.rng, 500, 3_000);
        let rate = if self.settling.is_some() { WEATHER[1] } else { *pick(&mut self.rng, &WEATHER) };
        self.scene.proxy.iter().for_each(|proxy| proxy.set_rate(rate));
    }

    async fn one(&mut self) -> Result<(), Failure> {
        let worker = self.rng.random_range(0..2);
        let mut left = self.rng.random_range(0..KINDS.iter().map(|(_, share)| share).sum());
        let drawn = KINDS.iter().find(|(_, share)| match left.checked_sub(*share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        match drawn.map_or(Kind::Kill, |(kind, _)| *kind) {
            Kind::Kill => {
                self.fault("worker killed");
                self.scene.kill(worker);
            }
            Kind::Freeze => {
                self.fault("worker frozen");
                let (scene, time) = (self.scene.clone(), millis(&mut self.rng, 50, 1_500));
                self.background.spawn(async move { scene.freeze(worker, time).await });
            }
            Kind::Disconnect => {
                self.fault("connections to the source cut");
                self.scene.network.drop_connections();
            }
            Kind::Network => self.network(),
            Kind::Lock => self.lock(),
            Kind::Server => self.server(),
            Kind::Sync => {
                self.fault("sync by hand");
                let scene = self.scene.clone();
                self.background.spawn(async move { drop(scene.run(&["sync", "all"], COMMAND_LIMIT).await) });
            }
            Kind::Verify => self.verify().await,
            Kind::Crash => self.crash().await?,
            Kind::Era => self.era().await?,
        }
        Ok(())
    }

    fn fault(&self, kind: &str) {
        self.scene.tally.fault(kind);
    }

    /// The way to the source is bad for a while.
    fn network(&mut self) {
        let fault = match self.rng.random_range(0..4) {
            0 => Fault::Delay(millis(&mut self.rng, 5, 60)),
            1 => Fault::CutBeforeSend,
            2 => Fault::CutAfterSend,
            _ => Fault::Blackhole,
        };
        self.fault(match fault {
            Fault::Delay(_) => "source slow",
            Fault::CutBeforeSend => "source: requests lost",
            Fault::CutAfterSend => "source: answers lost",
            _ => "source silent",
        });
        let (scene, time) = (self.scene.clone(), millis(&mut self.rng, 50, 1_200));
        self.background.spawn(async move {
            scene.network.set(fault);
            tokio::time::sleep(time).await;
            scene.network.set(Fault::Pass);
            if fault == Fault::Blackhole {
                scene.network.drop_connections(); // what was swallowed does not come again
            }
        });
    }

    fn lock(&mut self) {
        let Target::File(path) = self.scene.target.clone() else { return };
        if self.settling.is_some() || !path.exists() {
            return;
        }
        self.fault("file locked by another");
        let time = millis(&mut self.rng, 20, 400);
        self.background.spawn(crate::faults::hold(path, time));
    }

    fn server(&mut self) {
        let Some(id) = self.scene.sqld.as_ref().and_then(number) else { return };
        self.fault("sqld frozen");
        let (scene, time) = (self.scene.clone(), millis(&mut self.rng, 50, 1_200));
        self.background.spawn(async move { freeze(id, time, || scene.sqld.as_ref().and_then(number)).await });
    }

    /// The replica has nothing to repair, whatever happens around it.
    async fn verify(&mut self) {
        if self.settling.is_some() {
            return;
        }
        self.fault("verify");
        let failpoints = *pick(&mut self.rng, &["", "", "compared=return", "compared=50%return(300)"]);
        let arguments = ["verify", "--sync", "all", "--json"];
        let (code, said) = self.scene.run_with(&arguments, failpoints, COMMAND_LIMIT).await;
        match code {
            Some(3) => self.scene.tally.violation(Violation(format!("pgflume verify found differences: {said}"))),
            Some(0) => self.scene.tally.command_done("verify"),
            _ => {}
        }
    }

    async fn crash(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.next_crash || self.settling.is_some() {
            return Ok(());
        }
        self.fault("Postgres crashed");
        self.scene.rest().await?;
        let down = millis(&mut self.rng, 0, 500);
        self.scene
            .between(Stop::Immediate, move |_| {
                std::thread::sleep(down);
                Ok(())
            })
            .await?;
        self.scene.write();
        self.next_crash = Instant::now() + millis(&mut self.rng, 6_000, 15_000);
        Ok(())
    }

    /// Looks whether the pass after a side was put back or replaced has ended.
    async fn settled(&mut self) -> Result<(), Failure> {
        if self.settling.as_ref().is_none_or(|settling| !settling.is_finished()) {
            return Ok(());
        }
        let Some(settling) = self.settling.take() else { return Ok(()) };
        if !settling.await? {
            return Err("no pass ended after a side was put back or replaced".into());
        }
        self.scene.era.reopen();
        if !self.is_away {
            self.scene.rest().await?; // one that was not stopped
            self.scene.write();
        }
        self.next_era = Instant::now() + millis(&mut self.rng, 1_500, 5_000);
        Ok(())
    }

    /// From now on versions may go back, until it is reopened.
    async fn begin_era(&mut self) -> Result<(), Failure> {
        self.scene.era.close();
        let began = Instant::now();
        while self.scene.era.parked() == 0 {
            if began.elapsed() > LIMIT {
                return Err("the reader does not let go of the replica".into());
            }
            tokio::time::sleep(POLL).await;
        }
        self.scene.era.begin();
        Ok(())
    }

    /// A side is put back to an older state, emptied, or another one takes its place.
    async fn era(&mut self) -> Result<(), Failure> {
        if self.settling.is_some() || Instant::now() < self.next_era {
            return Ok(());
        }
        let side = *pick(&mut self.rng, &[Side::Source, Side::OtherSource, Side::Replica, Side::EmptyReplica]);
        let side = if self.is_away { Side::OtherSource } else { side };
        // Copies are made of what stands still.
        if side == Side::Source && self.older_source.is_none() {
            self.scene.rest().await?;
            let copy = tempfile::tempdir()?;
            let to = copy.path().join("data");
            self.scene.between(Stop::Fast, move |place| copy_all(&place.join("data"), &to)).await?;
            self.older_source = Some(copy);
            self.scene.write();
            return Ok(());
        }
        while self.background.join_next().await.is_some() {}
        self.begin_era().await?;
        match side {
            Side::Source => {
                self.fault("source put back as it was before");
                self.scene.rest().await?;
                let Some(copy) = self.older_source.take() else { return Ok(()) };
                self.scene
                    .between(Stop::Fast, move |place| {
                        std::fs::remove_dir_all(place.join("data"))?;
                        copy_all(&copy.path().join("data"), &place.join("data"))
                    })
                    .await?;
            }
            Side::OtherSource => {
                self.fault("another source behind the name");
                self.is_away = !self.is_away;
                self.scene.leads_home(!self.is_away);
            }
            Side::Replica | Side::EmptyReplica => self.replica(side == Side::EmptyReplica).await?,
        }
        let scene = self.scene.clone();
        self.settling = Some(tokio::spawn(async move { scene.settle(LIMIT).await }));
        Ok(())
    }

    /// The replica is emptied, or put back, or, where there is no older copy yet, one is made.
    async fn replica(&mut self, is_emptied: bool) -> Result<(), Failure> {
        self.scene.kill_all();
        let older = self.older_replica.take().filter(|_| !is_emptied);
        let copy = match &older {
            None if !is_emptied => Some(tempfile::tempdir()?),
            _ => None,
        };
        let (from, to) =
            (older.as_ref().map(|dir| dir.path().join("r")), copy.as_ref().map(|dir| dir.path().join("r")));
        match (&from, &to) {
            (Some(_), _) => self.fault("replica put back as it was before"),
            (None, Some(_)) => {}
            (None, None) => self.fault("replica emptied"),
        }
        let scene = self.scene.clone();
        let work = move |place: &Path| match (&from, &to) {
            (Some(from), _) => replace(place, Some(from)),
            (None, Some(to)) => copy_replica(place, to),
            (None, None) => replace(place, None),
        };
        tokio::task::spawn_blocking(move || match (&scene.target, &scene.sqld) {
            (Target::File(path), _) => work(path),
            (_, Some(sqld)) => {
                let mut sqld = sqld.lock().unwrap_or_else(PoisonError::into_inner);
                sqld.kill();
                let done = work(&sqld.directory());
                sqld.start_again();
                done
            }
            _ => Ok(()),
        })
        .await??;
        self.older_replica = copy.or(self.older_replica.take());
        Ok(())
    }
}

/// Parts of a file replica; a server's data are one directory.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

fn part(place: &Path, part: &str) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push(part);
    path.into()
}

fn copy_replica(place: &Path, to: &Path) -> io::Result<()> {
    match place.is_dir() {
        true => copy_all(place, to),
        false => PARTS[..2]
            .iter()
            .filter(|p| part(place, p).exists())
            .try_for_each(|p| copy_all(&part(place, p), &part(to, p))),
    }
}

fn replace(place: &Path, from: Option<&Path>) -> io::Result<()> {
    if place.is_dir() {
        std::fs::remove_dir_all(place)?;
        return from.map_or(Ok(()), |from| copy_all(from, place));
    }
    PARTS.iter().for_each(|p| drop(std::fs::remove_file(part(place, p))));
    let Some(from) = from else { return Ok(()) };
    PARTS[..2].iter().filter(|p| part(from, p).exists()).try_for_each(|p| copy_all(&part(from, p), &part(place, p)))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("cp: {status}"))) }
}
