//! What a process and its children take: processor time and memory, by `proc(5)`.

use rustix::param::{clock_ticks_per_second, page_size};
use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at memory: a first copy of pgflume takes a second.
const LOOK: Duration = Duration::from_millis(50);

/// Seconds of `root` and of all below it, those that have ended included.
pub fn processor_s(root: u32) -> f64 {
    tree(root).iter().map(|stat| stat.ticks).sum::<f64>() / clock_ticks_per_second() as f64
}

/// Seconds of the children of this process that have ended.
pub fn ended_s() -> f64 {
    let own = Stat::read("self").unwrap();
    own.ended_ticks / clock_ticks_per_second() as f64
}

/// The most memory that a tree had while this value lived.
pub struct Peak {
    bytes: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    /// Looks at `root` and all below it from now on.
    pub fn watch(root: u32) -> Self {
        let (bytes, is_over): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (most, stop) = (bytes.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(memory_bytes(root), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        Self { bytes, is_over, thread: Some(thread) }
    }

    /// Megabytes.
    pub fn end(mut self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.bytes.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Private memory of a tree's processes, and what they map of files once: processes of one program share it.
pub fn memory_bytes(root: u32) -> u64 {
    let sizes: Vec<[u64; 2]> = tree(root).iter().filter_map(|stat| resident_and_shared(stat.pid)).collect();
    let private: u64 = sizes.iter().map(|[resident, shared]| resident.saturating_sub(*shared)).sum();
    let shared = sizes.iter().map(|[_, shared]| *shared).max().unwrap_or(0);
    (private + shared) * page_size() as u64
}

/// The same as `ps` shows it, process by process: what they share is in each of them.
pub fn resident_bytes(root: u32) -> u64 {
    let sizes = tree(root).into_iter().filter_map(|stat| resident_and_shared(stat.pid));
    sizes.map(|[resident, _]| resident).sum::<u64>() * page_size() as u64
}

fn resident_and_shared(pid: u32) -> Option<[u64; 2]> {
    let text = read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split_whitespace().skip(1).map_while(|field| field.parse().ok());
    Some([fields.next()?, fields.next()?])
}

struct Stat {
    pid: u32,
    parent: u32,
    ticks: f64,
    ended_ticks: f64,
}

impl Stat {
    /// Fields 4 and 14 to 17 of `stat`; the name before them may hold anything.
    fn read(pid: &str) -> Option<Self> {
        let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: Vec<f64> = fields.get(11..15)?.iter().filter_map(|field| field.parse().ok()).collect();
        let pid = text.split(' ').next()?.parse().ok()?;
        let parent = fields.get(1)?.parse().ok()?;
        Some(Self { pid, parent, ticks: ticks.iter().sum(), ended_ticks: ticks.get(2)? + ticks.get(3)? })
    }
}

fn tree(root: u32) -> Vec<Stat> {
    let names = read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut children: HashMap<u32, Vec<Stat>> = HashMap::new();
    let mut found = Vec::new();
    for stat in names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).filter_map(|n| Stat::read(&n)) {
        if stat.pid == root {
            found.push(stat);
        } else {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut at = 0;
    while let Some(pid) = found.get(at).map(|stat| stat.pid) {
        found.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    found
}
