//! The tables and plots of what was found.

use super::Found;
use super::engine::{Engine, Installed};
use super::reader::LOOK_MS;
use super::source::Source;
use super::turn::{CONNECTIONS, Cost, Plan, RATES, STEADY, Step, Turn};
use crate::report::{Section, median, thousands};
use std::fs::read_to_string;
use std::process::Command;

/// Who has a column of figures, in its order.
const COLUMNS: [Engine; 4] = [Engine::Pgflume, Engine::ZeroCache, Engine::Dlt, Engine::Nobody];

/// Where somebody has no answer.
const NONE: &str = "—";

/// How many times as fast as zero-cache the first copy has to be, and bulk.
const COPY_BAR: f64 = 4.0;
const BULK_BAR: f64 = 5.0;

/// What part of its memory may be taken.
const MEMORY_BAR: f64 = 20.0;

/// How many times its time a change may take until it is readable.
const FRESHNESS_BAR: f64 = 1.5;

/// What one turn found, in a line for the terminal.
pub fn brief(turn: &Turn) -> String {
    let costs = turn.costs.iter().map(|(step, cost)| {
        let Cost { written_s, readable_s, process_s, postgres_s, wal_mb } = cost;
        format!("{step:?} {written_s:.2} + {readable_s:.2} s, processor {process_s:.2} + {postgres_s:.2} s, log {wal_mb:.1} MB")
    });
    let rates = turn.late_ms.iter().map(|(rate, late)| format!("{rate}/s {:.1} ms", median(late.clone())));
    let shares = [turn.steady, turn.idle].map(|share| format!("{share:.1?}"));
    let memory = format!("{:.0} MB, at rest {:.0}", turn.peak_mb, turn.rest_mb.unwrap_or_default());
    costs.chain(rates).chain(shares).chain([memory]).collect::<Vec<_>>().join("; ")
}

/// Seconds, processor time, bytes and memory.
pub async fn costs(found: &Found, plan: &Plan, installed: &Installed, source: &Source) -> Section {
    let fifth = thousands((plan.rows / 5) as f64);
    let singles = thousands(plan.singles as f64);
    let mut lines = Lines { found, rows: Vec::new(), bars: Vec::new() };
    lines.step(Step::Copy, &format!("first copy of {} rows", thousands(plan.rows as f64)), Some(COPY_BAR));
    lines.step(Step::Update, &format!("update of {fifth} rows by one statement"), Some(BULK_BAR));
    lines.step(Step::Delete, &format!("delete of {fifth} rows by one statement"), Some(BULK_BAR));
    lines.step(Step::Singles, &format!("{singles} transactions of a row each, {CONNECTIONS} connections"), None);
    lines.share(&format!("processor at {STEADY} commits/s, %: its own + Postgres"), |turn| turn.steady);
    lines.share("processor while nothing is written, %: its own + Postgres", |turn| turn.idle);
    lines.memory();
    Section {
        name: "peers",
        what: what(found, plan, installed, source).await,
        head: vec!["", "pgflume", "zero-cache", "pgflume to zero-cache (aimed at)", "dlt", "the writes alone"],
        rows: lines.rows,
        plot: ("From the first write until all is readable, s".into(), lines.bars),
    }
}

/// Who was measured, in which versions, where.
async fn what(found: &Found, plan: &Plan, installed: &Installed, source: &Source) -> String {
    let node = said(Command::new(installed.zero.join("node_modules/.bin/node")).arg("--version"));
    let logged = middle(found, Engine::ZeroCache, |turn| turn.logged_copy_s).map_or_else(String::new, |seconds| {
        format!(" Of zero-cache's first copy, its log gives {seconds:.2} s to the copy itself; before that its processes start.")
    });
    format!(
        "{} rows of eight columns, medians of {} turns each. One PostgreSQL {} with `wal_level = logical` for all and `fsync` on; pgflume {} (`setup`, then `serve --follow`); zero-cache {} on Node {}, with one sync worker; dlt {} by its `pyarrow` backend, merging by a key that its replica has (`create_primary_keys`), a run for each line. The reader looks every {LOOK_MS} ms. {}.{logged}",
        thousands(plan.rows as f64),
        plan.rounds,
        source.version().await,
        env!("CARGO_PKG_VERSION"),
        installed.version("@rocicorp/zero"),
        node.trim_start_matches('v'),
        said(Command::new(&installed.python).args(["-c", "import dlt; print(dlt.__version__)"])),
        machine(),
    )
}

fn said(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
}

/// Processors and memory.
fn machine() -> String {
    let value = |file: &str, name: &str| {
        let text = read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let processors = std::thread::available_parallelism().unwrap();
    let memory: f64 = value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap();
    format!("{processors} processors ({}), {:.0} GB of memory", value("/proc/cpuinfo", "model name"), memory * 1024e-9)
}

/// The median of the turns that have it.
fn middle(found: &Found, engine: Engine, of: impl Fn(&Turn) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = found[&engine].iter().filter_map(of).collect();
    (!values.is_empty()).then(|| median(values))
}

/// A table in the making, and its plot.
struct Lines<'a> {
    found: &'a Found,
    rows: Vec<Vec<String>>,
    bars: Vec<(String, f64)>,
}

impl Lines<'_> {
    /// All that one step took; how much faster than zero-cache it has to be.
    fn step(&mut self, step: Step, name: &str, bar: Option<f64>) {
        let of = |figure: fn(&Cost) -> f64| move |turn: &Turn| turn.costs.get(&step).map(figure);
        let readable = |engine: Engine| {
            let seconds = middle(self.found, engine, of(|cost| cost.readable_s));
            seconds.filter(|_| engine != Engine::Nobody)
        };
        let times = COLUMNS.map(readable);
        let faster = times[1].unwrap() / times[0].unwrap();
        let against = bar.map_or_else(String::new, |bar| format!("{faster:.1} × as fast (≥ {bar:.0})"));
        let is_copy = step == Step::Copy;
        let after = if is_copy { "readable after, s" } else { "readable after the last commit, s" };
        let whole = [Engine::Pgflume, Engine::ZeroCache].map(|engine| {
            let total = middle(self.found, engine, of(|cost| cost.written_s + cost.readable_s)).unwrap();
            (format!("{name}, {}", engine.name()), total)
        });
        self.bars.extend(whole);
        self.add(&format!("{name}: {after}"), times.map(|seconds| text(seconds, 2)), against);
        if !is_copy {
            self.figures("its writer takes, s", 2, of(|cost| cost.written_s));
        }
        let own = COLUMNS.map(|engine| middle(self.found, engine, of(|cost| cost.process_s)));
        let postgres = COLUMNS.map(|engine| middle(self.found, engine, of(|cost| cost.postgres_s)));
        self.sums("processor, s: its own + Postgres", 2, own, postgres);
        self.figures("log of Postgres, MB", 1, of(|cost| cost.wal_mb));
    }

    /// A part of a processor, of its own and of Postgres.
    fn share(&mut self, name: &str, of: fn(&Turn) -> Option<[f64; 2]>) {
        let part = |i: usize| COLUMNS.map(|engine| middle(self.found, engine, |turn| Some(of(turn)?[i])));
        self.sums(name, 1, part(0), part(1));
    }

    /// Megabytes, at the peak and at rest; dlt does not rest, it ends.
    fn memory(&mut self) {
        let peak = |turn: &Turn| (turn.peak_mb > 0.0).then_some(turn.peak_mb);
        for (name, of) in [
            ("memory at its peak, MB", &peak as &dyn Fn(&Turn) -> _),
            ("memory at rest, MB", &|t| t.rest_mb),
            ("the same as `ps` adds it up, MB", &|t| t.rest_resident_mb),
        ] {
            let memory = COLUMNS.map(|engine| middle(self.found, engine, of));
            let part = memory[1].unwrap() / memory[0].unwrap();
            self.add(name, memory.map(|mb| text(mb, 0)), format!("1/{part:.0} (≤ 1/{MEMORY_BAR:.0})"));
        }
    }

    fn figures(&mut self, name: &str, digits: usize, of: impl Fn(&Turn) -> Option<f64>) {
        let figures = COLUMNS.map(|engine| text(middle(self.found, engine, &of), digits));
        self.add(name, figures, String::new());
    }

    /// Two figures a column, but where there is nobody who has the first.
    fn sums(&mut self, name: &str, digits: usize, own: [Option<f64>; 4], postgres: [Option<f64>; 4]) {
        let both = |i: usize| match COLUMNS[i] {
            Engine::Nobody => text(postgres[i], digits),
            _ if own[i].is_none() => NONE.to_owned(),
            _ => format!("{} + {}", text(own[i], digits), text(postgres[i], digits)),
        };
        self.add(name, [0, 1, 2, 3].map(both), String::new());
    }

    fn add(&mut self, name: &str, [ours, theirs, dlt, nobody]: [String; 4], against: String) {
        self.rows.push(vec![name.to_owned(), ours, theirs, against, dlt, nobody]);
    }
}

fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or(NONE.to_owned(), |value| format!("{value:.digits$}"))
}

/// From commit to readable.
pub fn freshness(found: &Found, plan: &Plan) -> Section {
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for rate in RATES {
        let all = [Engine::Pgflume, Engine::ZeroCache].map(|engine| sorted(found, engine, rate));
        let [ours, theirs] = all.each_ref().map(|late| [0.5, 0.95].map(|part| share(late, part)));
        rows.push(vec![
            format!("{} commits/s", thousands(rate as f64)),
            format!("{:.1} / {:.1}", ours[0], ours[1]),
            format!("{:.1} / {:.1}", theirs[0], theirs[1]),
            format!("{:.2} × (≤ {FRESHNESS_BAR})", ours[0] / theirs[0]),
            all.each_ref().map(|late| thousands(late.len() as f64)).join(" / "),
        ]);
        // One who falls behind at the highest rate would leave the others no length to be told apart by.
        for (name, [p50, _]) in [("pgflume", ours), ("zero-cache", theirs)].into_iter().filter(|_| rate <= STEADY) {
            bars.push((format!("{rate} commits/s, {name}, p50"), p50));
        }
    }
    Section {
        name: "peers-freshness",
        what: format!(
            "Milliseconds from the return of a commit until the reader sees it, p50 / p95 of the commits of all turns; {} s of commits at each rate in each turn.",
            plan.seconds.map(|seconds| seconds.to_string()).join(", ")
        ),
        head: vec!["", "pgflume", "zero-cache", "p50 to zero-cache's (aimed at)", "commits"],
        rows,
        plot: (format!("From commit to readable up to {STEADY} commits/s, ms"), bars),
    }
}

fn sorted(found: &Found, engine: Engine, rate: u64) -> Vec<f64> {
    let mut all: Vec<f64> =
        found[&engine].iter().filter_map(|turn| turn.late_ms.get(&rate)).flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    all
}

fn share(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}
