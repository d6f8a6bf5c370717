//! What messages and pages become: batches, made by the product's own `Batch`.

use super::postgres::{Data, IMAGED, KEYS, Kind, MARKED, Message, NAMES, Phase, Queued, Resync, Row, Rows, Version};
use pgflume::core::batch::{Batch, Change, ColumnSet, Item, State};
use pgflume::core::position::Provenance;
use pgflume::core::schema::{Schema, Table};
use pgflume::core::value::{Cell, Key};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

/// Rows at which a batch is sent before its group ends; few, so that groups are cut.
const BATCH_ROWS: usize = 2;

const DEFINITIONS: &str = r#"{"marked": {"primaryKey": "id", "columns": {"id": "INTEGER", "version": "INTEGER"}},
    "imaged": {"primaryKey": "id", "columns": {"id": "INTEGER", "version": "INTEGER"}}}"#;

static DEFINED: LazyLock<([Arc<Table>; 2], ColumnSet)> = LazyLock::new(|| {
    let schema = Schema::parse(DEFINITIONS).unwrap();
    let table = |name| schema.get(name).unwrap().clone();
    (NAMES.map(table), [0, 1].into())
});

/// A batch of a step.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub items: Vec<(usize, usize, Row)>,
    pub images: Vec<i64>,
    /// The messages that name its keys; for a page the name of the step.
    pub provenance: Provenance,
}

/// As `queue::provenance` makes it, of messages in the order of their ids.
pub fn provenance(group: &[Queued]) -> Provenance {
    let texts: Vec<String> = group.iter().map(|m| format!("{:?}", m.message)).collect();
    Provenance::of(group.iter().zip(&texts).map(|(m, text)| (m.id, Some(text.as_str()))))
}

/// Of those messages of a group that name the keys of a batch.
fn witness_of(group: &[Queued], ids: &[i64]) -> Provenance {
    let mut named: Vec<Queued> = group.iter().filter(|m| ids.contains(&m.id)).copied().collect();
    named.sort_unstable_by_key(|m| m.id);
    provenance(&named)
}

type Dead = Vec<(usize, usize, Version)>;

fn key(id: usize) -> Key {
    vec![Cell::Integer(id as i64)]
}

fn cells(id: usize, row: Row) -> Vec<Cell> {
    vec![Cell::Integer(id as i64), Cell::Integer(i64::from(row.version))]
}

/// A group of messages, as `Reader::intake` sorts it.
#[derive(Default)]
struct Intake {
    batch: Batch,
    marks: BTreeSet<usize>,
    images: Vec<i64>,
    marking: Vec<i64>,
}

fn sort(group: &[Queued], dead: &mut Dead) -> Intake {
    let (tables, columns) = &*DEFINED;
    let mut intake = Intake::default();
    for queued in group {
        match queued.message {
            Message::Mark { key } => {
                intake.marks.insert(key);
                intake.marking.push(queued.id);
            }
            Message::Image { key, row } if row.kind == Kind::Unfit => dead.push((IMAGED, key, row.version)),
            Message::Image { key: id, row } => {
                let change = match row.kind {
                    Kind::Gone => Change { gone: Some(key(id)), row: None },
                    _ => Change { gone: None, row: Some((key(id), columns.clone(), cells(id, row))) },
                };
                intake.batch.merge(&tables[IMAGED], change, queued.id);
                intake.images.push(queued.id);
            }
            Message::Foreign => {}
        }
    }
    intake
}

/// The batches of a group, as `Reader::group` and `read_chunk` have it: images on their own, because the ledger
/// must list all that a batch has. There is one without rows where nothing is left after it (`ends`), and where
/// the step has sent none yet (`is_first`): it fences what is on its way.
pub fn chunks(snapshot: &Data, group: &[Queued], ends: bool, is_first: bool, dead: &mut Dead) -> Vec<Chunk> {
    let (tables, columns) = &*DEFINED;
    let Intake { mut batch, marks, images, marking } = sort(group, dead);
    let mut chunks = Vec::new();
    let all: Vec<i64> = group.iter().map(|m| m.id).collect();
    let mut named = witness_of(group, if images.is_empty() { &all } else { &images });
    if !images.is_empty() {
        chunks.push(Chunk { items: items(&mut batch, snapshot, group), images, provenance: named.clone() });
    }
    if !marking.is_empty() {
        named = witness_of(group, &marking);
    }
    let chunk = |batch: &mut Batch| Chunk {
        items: items(batch, snapshot, group),
        images: Vec::new(),
        provenance: named.clone(),
    };
    for id in marks {
        let row = snapshot.rows[MARKED][id];
        match row.kind {
            Kind::Live => batch.set_row(&tables[MARKED], key(id), columns, cells(id, row)),
            Kind::Gone => batch.set_gone(&tables[MARKED], key(id)),
            Kind::Unfit => dead.push((MARKED, id, row.version)),
        }
        if batch.rows() >= BATCH_ROWS {
            chunks.push(chunk(&mut batch));
        }
    }
    let is_told = chunks.last().is_some_and(|last| marking.is_empty() && !last.images.is_empty());
    if !batch.is_empty() || (ends && !is_told) || (is_first && chunks.is_empty()) {
        chunks.push(chunk(&mut batch));
    }
    chunks
}

fn items(batch: &mut Batch, snapshot: &Data, group: &[Queued]) -> Vec<(usize, usize, Row)> {
    batch.take().1.iter().map(|item| stamped(item, snapshot, group)).collect()
}

/// What an item writes, and of which version it is: for a deleted row the batch does not say.
fn stamped(item: &Item, snapshot: &Data, group: &[Queued]) -> (usize, usize, Row) {
    let table = if item.table.name == NAMES[MARKED] { MARKED } else { IMAGED };
    let Cell::Integer(id) = item.key[0] else { panic!("keys are numbers") };
    let id = id as usize;
    let row = match &item.state {
        State::Row { cells, .. } => match cells[1] {
            Cell::Integer(version) => Row { version: version as Version, kind: Kind::Live },
            _ => panic!("versions are numbers"),
        },
        State::Gone => Row { kind: Kind::Gone, ..deleted_by(item, group).unwrap_or(snapshot.rows[table][id]) },
    };
    (table, id, row)
}

fn deleted_by(item: &Item, group: &[Queued]) -> Option<Row> {
    let last = item.images.last()?;
    match group.iter().find(|m| m.id == *last)?.message {
        Message::Image { row, .. } => Some(row),
        Message::Mark { .. } | Message::Foreign => None,
    }
}

/// The next page of a table that is rebuilt: of the source's rows, then of the replica's keys.
pub fn page(
    snapshot: &Data,
    there: &[Row; KEYS],
    table: usize,
    resync: &mut Resync,
    rows: usize,
    name: &str,
    dead: &mut Dead,
) -> Chunk {
    let source = &snapshot.rows[table];
    let listed = if resync.phase == Phase::Copy { source } else { there };
    let keys: Vec<usize> = (resync.cursor..KEYS).filter(|&k| listed[k].kind != Kind::Gone).take(rows).collect();
    let mut items = Vec::new();
    for &id in &keys {
        match (resync.phase, source[id].kind) {
            (Phase::Copy, Kind::Unfit) => dead.push((table, id, source[id].version)),
            (Phase::Copy, _) | (_, Kind::Gone) => items.push((table, id, source[id])),
            _ => {}
        }
    }
    match keys.last() {
        Some(last) if keys.len() == rows => resync.cursor = last + 1,
        _ => {
            resync.cursor = 0;
            let is_last = resync.phase == Phase::Sweep || resync.fresh;
            resync.phase = if is_last { Phase::Done } else { Phase::Sweep };
        }
    }
    Chunk { items, ..told(name) }
}

/// A batch without rows, after the last page: nothing is left.
pub fn told(name: &str) -> Chunk {
    Chunk { items: Vec::new(), images: Vec::new(), provenance: Provenance::named(name.into()) }
}

/// Whether the replica's row is what the source's row asks for.
pub fn is_equal(source: Row, replica: Row, is_buried: bool) -> bool {
    match source.kind {
        Kind::Live => replica == source,
        Kind::Gone => replica.kind == Kind::Gone,
        Kind::Unfit => is_buried,
    }
}

/// All keys of all tables.
pub fn keys() -> impl Iterator<Item = (usize, usize)> {
    [MARKED, IMAGED].into_iter().flat_map(|table| (0..KEYS).map(move |key| (table, key)))
}

/// What of `rows` differs from the source, but for images that nobody has any more.
pub fn differing(data: &Data, rows: &Rows) -> Vec<(usize, usize)> {
    let is_dead = |t, k, row: Row| data.dead.contains(&(t, k, row.version));
    let differs = |&(t, k): &(usize, usize)| {
        let source = data.rows[t][k];
        !is_equal(source, rows[t][k], is_dead(t, k, source)) && !data.purged.contains(&source.version)
    };
    keys().filter(differs).collect()
}
