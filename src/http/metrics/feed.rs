//! What clients are fed, and what they write. Nothing where no table is fed and none is written.

use super::super::app::App;
use super::families::{Labels, Value, counted, with};
use crate::feed::board::Board;
use crate::feed::figures::{Figures, Outcome};
use crate::operate::feed::{FedTable, FeedState, made_at};
use crate::push::{Status, Taken};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// A sync that feeds clients.
pub(super) struct Fed {
    name: String,
    labels: Labels,
    tables: Vec<String>,
    state: Option<FeedState>,
}

fn labels(name: &str) -> Labels {
    if name.is_empty() { Labels::new() } else { vec![("sync", name.to_owned())] }
}

pub(super) async fn read(app: &App) -> Vec<Fed> {
    let read = app.fed_syncs().into_iter().map(|(name, fed)| async move {
        let state = app.feed_state(&name, &fed).await;
        Fed { labels: labels(&name), name, tables: fed.tables().to_vec(), state }
    });
    futures_util::future::join_all(read).await
}

pub(super) fn register(registry: &mut Registry, app: &App, fed: &[Fed]) {
    if !fed.is_empty() {
        logs(registry, app, fed);
        clients(registry, app, fed);
    }
    pushes(registry, app);
}

/// One figure of each sync, or of each of its tables.
fn family(all: impl Iterator<Item = (Labels, f64)>) -> Family<Labels, Value> {
    let family = Family::<Labels, Value>::default();
    for (labels, value) in all {
        family.get_or_create(&labels).set(value);
    }
    family
}

fn logs(registry: &mut Registry, app: &App, fed: &[Fed]) {
    let each = |of: fn(&FedTable) -> Option<f64>| {
        family(fed.iter().flat_map(move |fed| {
            let tables = fed.state.iter().flat_map(|state| &state.tables);
            tables.filter_map(move |(name, table)| Some((with(&fed.labels, &[("table", name)]), of(table)?)))
        }))
    };
    let tables = [
        (
            "feed_lag_seconds",
            "For how long the oldest change waits that is in the replica and that clients are not told of",
            each(|table| Some(table.lag_seconds)),
        ),
        (
            "feed_table_whole",
            "Whether all rows are there, without which nobody is served",
            each(|t| Some(f64::from(t.whole))),
        ),
        (
            "feed_table_held",
            "Whether it was left out of the last cut, because it waits or is copied",
            each(|table| Some(f64::from(table.held))),
        ),
        ("feed_log_rows", "Keys in the log of changes", each(|table| Some(table.log_rows as f64))),
        (
            "feed_log_seconds",
            "Age of the oldest row of the log of changes",
            each(|table| Some(table.log_seconds.unwrap_or_default())),
        ),
        (
            "feed_floor_timestamp_seconds",
            "When the log of changes begins: who was told less begins anew; 0 where nothing was forgotten",
            each(|table| Some(made_at(table.floor?))),
        ),
    ];
    for (name, help, family) in tables {
        registry.register(name, help, family);
    }
    let cuts = fed.iter().filter_map(|fed| Some((fed.labels.clone(), made_at(fed.state.as_ref()?.cut?))));
    registry.register(
        "feed_cut_timestamp_seconds",
        "When all tables last equalled one moment of the source together, but for those that are held",
        family(cuts),
    );
    let impatient = app.named_lanes().filter(|(name, _)| fed.iter().any(|fed| fed.name == *name));
    let impatient = impatient.map(|(name, lane)| (labels(name), lane.worker.counts().impatient_cuts));
    registry.register(
        "feed_impatient_cuts",
        "Ends of steps that clients were told of though more was on the queue (FEED_PATIENCE)",
        counted(impatient),
    );
}

fn clients(registry: &mut Registry, app: &App, fed: &[Fed]) {
    let Some(feeding) = app.feeding() else { return };
    let boards: Vec<(Labels, &Board)> = fed
        .iter()
        .flat_map(|fed| {
            let is_fed = |board: &&Board| fed.tables.contains(&board.table().name);
            let boards = feeding.boards(&fed.name).map(|board| &**board).filter(is_fed);
            boards.map(|board| (with(&fed.labels, &[("table", &board.table().name)]), board))
        })
        .collect();
    let each =
        |of: fn(&Board) -> usize| family(boards.iter().map(|(labels, board)| (labels.clone(), of(board) as f64)));
    registry.register("feed_clients", "Clients that wait for news", each(|board| board.counts().0));
    registry.register("feed_shapes", "Different shapes that they wait for", each(|board| board.counts().1));
    let unknown = (vec![("table", String::new())], &*feeding.unknown);
    let figures = boards.iter().map(|(labels, board)| (labels.clone(), board.figures())).chain([unknown]);
    let by_outcome = |(labels, figures): (Labels, &Figures)| {
        Outcome::ALL.map(|outcome| (with(&labels, &[("outcome", outcome.name())]), figures.of(outcome)))
    };
    registry.register(
        "feed_answers",
        "Answers to clients by table and outcome; an empty name where no table is known",
        counted(figures.flat_map(by_outcome)),
    );
    let sum = |of: fn((usize, usize)) -> usize| feeding.memory.iter().map(|memory| of(memory.in_use())).sum::<usize>();
    let (taken, most) = (sum(|(taken, _)| taken), sum(|(_, most)| most));
    let memory = [
        (
            "feed_memory_bytes",
            "What answers on their way take, changes that are kept for the late, and the values by which those who wait are found",
            taken,
        ),
        ("feed_memory_limit_bytes", "What they may take: beyond it clients are answered 503", most),
    ];
    for (name, help, bytes) in memory {
        registry.register(name, help, family([(Labels::new(), bytes as f64)].into_iter()));
    }
}

fn pushes(registry: &mut Registry, app: &App) {
    let Some(pushes) = app.pushes() else { return };
    let figures = pushes.figures();
    let requests = Taken::ALL.map(|taken| (vec![("outcome", taken.name().to_owned())], figures.requests(taken)));
    let changes = Status::ALL.map(|status| (vec![("outcome", status.name().to_owned())], figures.changes(status)));
    registry.register("pushes", "Requests of clients to write, by outcome", counted(requests.into_iter()));
    registry.register(
        "push_changes",
        "Changes in them that Postgres was asked for, by outcome",
        counted(changes.into_iter()),
    );
}
