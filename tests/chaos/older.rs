//! An older copy of the replica: made while everything stands still, and put back later, so that the replica loses
//! the last batches that it had acknowledged.

use crate::parts::Sqld;
use crate::readers::READERS;
use crate::stage::{Failure, Stage};
use pgflume::replica::target::Target;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For readers to let go of a server that hangs.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A copy. No worker may run while it is made or put back.
pub struct Older(Arc<TempDir>);

impl Older {
    pub async fn copy(stage: &Arc<Stage>) -> Result<Self, Failure> {
        let copy = Arc::new(tempfile::tempdir()?);
        let to = copy.clone();
        alone(stage, move |place, is_file| match is_file {
            true => ["", "-wal"]
                .iter()
                .try_for_each(|part| copy_one(&with(place, part), &to.path().join(format!("replica{part}")))),
            false => copy_all(place, &to.path().join("data")),
        })
        .await?;
        Ok(Self(copy))
    }

    pub async fn put_back(self, stage: &Arc<Stage>) -> Result<(), Failure> {
        let era = stage.clone();
        alone(stage, move |place, is_file| {
            era.era.begin();
            let from = self.0.path();
            if !is_file {
                std::fs::remove_dir_all(place)?;
                return copy_all(&from.join("data"), place);
            }
            ["", "-wal", "-shm"].iter().for_each(|part| drop(std::fs::remove_file(with(place, part))));
            ["", "-wal"].iter().try_for_each(|part| copy_one(&from.join(format!("replica{part}")), &with(place, part)))
        })
        .await
    }
}

/// Does `work` with the place of the replica and whether it is a file, while nobody has it open.
async fn alone(
    stage: &Arc<Stage>,
    work: impl FnOnce(&Path, bool) -> io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    stage.era.close();
    let is_alone = wait(stage).await;
    let theirs = stage.clone();
    let done = tokio::task::spawn_blocking(move || match (&theirs.target, &theirs.sqld) {
        _ if !is_alone => Err(io::Error::other("somebody does not let go of the replica")),
        (Target::File(path), _) => work(path, true),
        (_, Some(sqld)) => stopped(&mut sqld.lock().unwrap_or_else(PoisonError::into_inner), work),
        _ => Ok(()),
    });
    let done = done.await;
    stage.era.reopen();
    Ok(done??)
}

fn stopped(sqld: &mut Sqld, work: impl FnOnce(&Path, bool) -> io::Result<()>) -> io::Result<()> {
    sqld.kill();
    let done = work(&sqld.directory(), false);
    sqld.start_again();
    done
}

/// Waits for the readers, and for whoever else here has the file open: closing it would write to it.
async fn wait(stage: &Stage) -> bool {
    let began = Instant::now();
    while stage.era.parked() < READERS || matches!(&stage.target, Target::File(path) if is_open(path)) {
        if began.elapsed() > LIMIT {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

fn is_open(path: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    open.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == path)
}

fn with(place: &Path, part: &str) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push(part);
    path.into()
}

/// A file that is not there needs no copy.
fn copy_one(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(|_| ()),
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("cp: {status}"))) }
}
