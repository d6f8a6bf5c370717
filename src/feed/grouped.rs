//! Changes, by the values that their rows had, and have: who asks for some rows looks at the changes of those alone. No IO.

use super::changes::Change;
use super::shape::Shape;
use crate::core::schema::Table;
use crate::core::value::Cell;

/// Changes of a table, in their order.
#[derive(Debug)]
pub(super) struct Grouped {
    changes: Vec<Change>,
    columns: Vec<Column>,
}

/// A column that rows are told apart by.
#[derive(Debug)]
struct Column {
    /// Where a row has it.
    at: usize,
    /// Where what a row was has it.
    was_at: usize,
    /// All values there, from the least to the greatest; those that are equal in the order of their changes. They stay in the
    /// changes: a value may be large.
    values: Vec<Place>,
}

/// A value of a change.
#[derive(Debug, Clone, Copy)]
struct Place {
    change: u32,
    /// It is the one that the row had.
    is_past: bool,
}

impl Grouped {
    /// These, of a table.
    pub fn new(table: &Table, changes: Vec<Change>) -> Self {
        let filters = table.fed_filters().into_iter().enumerate();
        let columns = filters.filter_map(|(was_at, at)| Some(Column::new(at?, was_at, &changes))).collect();
        Self { changes, columns }
    }

    /// About how much memory it takes beside its changes.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.values.capacity() * size_of::<Place>()).sum()
    }

    /// The columns that rows are told apart by.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|column| column.at)
    }

    /// All values that rows had or have in such a column, once each.
    pub fn values(&self, at: usize) -> impl Iterator<Item = &Cell> {
        let column = self.columns.iter().find(|column| column.at == at);
        let places = column.into_iter().flat_map(|column| column.values.iter().map(move |place| (column, place)));
        let mut last = None;
        places
            .filter_map(|(column, place)| column.value(&self.changes, *place))
            .filter(move |value| last.replace(*value) != Some(*value))
    }

    /// Those that may be of a shape's rows, all that are among them, in their order.
    pub fn near(&self, shape: &Shape) -> impl Iterator<Item = &Change> {
        let some = self.places(shape);
        let all = some.is_none().then_some(&self.changes);
        all.into_iter().flatten().chain(some.into_iter().flatten().filter_map(|at| self.changes.get(at)))
    }

    /// Whether any is of a shape's rows.
    pub fn touches(&self, shape: &Shape) -> bool {
        self.near(shape).any(|change| shape.is_touched(change))
    }

    /// The places of those, by the column that leaves the fewest; `None` where there is none that leaves out any.
    fn places(&self, shape: &Shape) -> Option<Vec<usize>> {
        // To look for more values than there are changes takes longer than to look at all of these.
        let few = shape.allowed.iter().filter(|(_, values)| values.len() < self.changes.len());
        let found = few.filter_map(|(at, values)| {
            let column = self.columns.iter().find(|column| column.at == *at)?;
            Some(values.iter().map(|value| column.having(&self.changes, value)).collect::<Vec<_>>())
        });
        let fewest = found.min_by_key(|parts| parts.iter().map(|part| part.len()).sum::<usize>())?;
        let mut places: Vec<usize> = fewest.concat().iter().map(|place| place.change as usize).collect();
        places.sort_unstable();
        places.dedup();
        Some(places)
    }
}

impl Column {
    fn new(at: usize, was_at: usize, changes: &[Change]) -> Self {
        let mut column = Self { at, was_at, values: Vec::with_capacity(changes.len()) };
        for (change, number) in changes.iter().zip(0..) {
            let (past, now) = (column.past(change), column.now(change));
            let is_new = past != now;
            let values = [(past.filter(|_| is_new), true), (now, false)];
            let values = values.into_iter().filter(|(value, _)| value.is_some());
            column.values.extend(values.map(|(_, is_past)| Place { change: number, is_past }));
        }
        let mut values = std::mem::take(&mut column.values);
        // Equal ones stay in their order.
        values.sort_by(|a, b| column.value(changes, *a).cmp(&column.value(changes, *b)));
        values.shrink_to_fit();
        Self { values, ..column }
    }

    fn past<'a>(&self, change: &'a Change) -> Option<&'a Cell> {
        change.was.as_ref()?.get(self.was_at)
    }

    fn now<'a>(&self, change: &'a Change) -> Option<&'a Cell> {
        change.now.as_ref()?.get(self.at)
    }

    fn value<'a>(&self, changes: &'a [Change], place: Place) -> Option<&'a Cell> {
        let change = changes.get(place.change as usize)?;
        if place.is_past { self.past(change) } else { self.now(change) }
    }

    /// The places of a value.
    fn having(&self, changes: &[Change], value: &Cell) -> &[Place] {
        let of = |place: &Place| self.value(changes, *place);
        let from = self.values.partition_point(|place| of(place) < Some(value));
        let rest = &self.values[from..];
        &rest[..rest.partition_point(|place| of(place) == Some(value))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use crate::core::token::Seen;
    use crate::feed::board::{Board, Heard};
    use crate::feed::body::{Body, Piece};
    use crate::feed::changes::{Changes, Found};
    use crate::feed::encode::{Messages, Types};
    use crate::feed::memory::Memory;
    use crate::feed::offset::{Offset, Walked};
    use crate::replica::feed_reads::{Allowed, Fed};
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn table() -> Arc<Table> {
        let schema = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","level":"INTEGER","note":"TEXT"},
            "feed":{"public":true,"filter":["level","org"]}}}"#;
        Schema::parse(schema).unwrap().get("t").unwrap().clone()
    }

    /// What a row had and has: an organisation and a level.
    type Row = Option<(Cell, Cell)>;

    fn changes(rows: &[(Row, Row)]) -> Vec<Change> {
        let change = |((was, now), id): (&(Row, Row), i64)| Change {
            key: vec![Cell::Integer(id)],
            was: was.clone().map(|(org, level)| vec![level, org]),
            now: now.clone().map(|(org, level)| vec![Cell::Integer(id), org, level, Cell::Text("a".into())]),
        };
        rows.iter().zip(0..).map(change).collect()
    }

    fn shape(table: &Arc<Table>, allowed: Allowed) -> Arc<Shape> {
        let mut shape = Shape::of(table).unwrap();
        shape.allowed = allowed;
        Arc::new(shape)
    }

    fn org() -> impl Strategy<Value = Cell> {
        prop_oneof![Just(Cell::Null), "[a-f]?".prop_map(Cell::Text)]
    }

    fn level() -> impl Strategy<Value = Cell> {
        prop_oneof![Just(Cell::Null), (0..4i64).prop_map(Cell::Integer)]
    }

    fn rows() -> impl Strategy<Value = Vec<(Row, Row)>> {
        let row = || proptest::option::weighted(0.8, (org(), level()));
        proptest::collection::vec((row(), row()), 0..40)
    }

    /// Also by a column that rows are not told apart by.
    fn allowed() -> impl Strategy<Value = Allowed> {
        let orgs = proptest::option::of(proptest::collection::vec(org(), 0..6));
        let levels = proptest::option::of(proptest::collection::vec(level(), 0..3));
        (orgs, levels, proptest::option::weighted(0.1, Just(vec![Cell::Text("a".into())]))).prop_map(
            |(orgs, levels, notes)| {
                [(1, orgs), (2, levels), (3, notes)]
                    .into_iter()
                    .filter_map(|(at, values)| Some((at, values?)))
                    .collect()
            },
        )
    }

    fn fed(cut: i64) -> Fed {
        let (generation, seen) = ("g".to_owned(), None::<Seen>);
        let (cut, last) = (Some(cut), None);
        Fed { generation, is_whole: true, is_held: false, pos: 9, cut, floor: 0, last, types: None, seen }
    }

    proptest! {
        /// As if each change were compared with each shape.
        #[test]
        fn whoever_waits_is_told_of_the_changes_of_its_rows_in_their_order(
            rows in rows(),
            shapes in proptest::collection::vec(allowed(), 1..20),
        ) {
            let (table, memory) = (table(), Memory::new(1 << 20));
            let (plain, board) = (changes(&rows), Arc::new(Board::new(table.clone(), false)));
            board.begin(Some(&fed(1)));
            let shapes: Vec<_> = shapes.into_iter().map(|allowed| shape(&table, allowed)).collect();
            let mut waiting: Vec<_> = shapes.iter().map(|shape| board.wait(shape, None, &memory).unwrap()).collect();
            let changes = Changes { first: Some(2), all: changes(&rows), bytes: 1 };
            board.go_on(Found::Changes(fed(2), 2, changes), &memory, None);
            for (shape, waiting) in shapes.iter().zip(&mut waiting) {
                let is_concerned = plain.iter().any(|change| shape.is_touched(change));
                prop_assert_eq!(waiting.news().now_or_never().is_some(), is_concerned);
                let said = Piece::of(Messages::of(shape, &Types::default(), 2, &plain, false), &memory).unwrap();
                let said = Body { pieces: vec![Arc::new(said)], up_to_date: Some(2), snapshot: None };
                let from = Offset::At(1, Walked::Done);
                match board.hear((shape, waiting.name()), from, |_| true, None, &memory) {
                    Heard::Changes(body, 2) if is_concerned => prop_assert_eq!(body.json().concat(), said.json().concat()),
                    Heard::Nothing(_, 2) if !is_concerned => {}
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }

    #[test]
    fn whoever_is_restricted_looks_at_the_changes_of_its_values_alone() {
        let table = table();
        let row = |org: i64, level| Some((Cell::Text(org.to_string()), Cell::Integer(level)));
        let rows: Vec<(Row, Row)> = (0..1_000).map(|i| (row(i, 1), row((i + 1) % 1_000, i % 2))).collect();
        let grouped = Grouped::new(&table, changes(&rows));
        let ids = |allowed: &[(usize, &[Cell])]| -> Vec<i64> {
            let allowed = allowed.iter().map(|(at, values)| (*at, values.to_vec())).collect();
            let shape = shape(&table, allowed);
            let near = grouped.near(&shape).map(|change| change.key[0].clone());
            near.map(|id| if let Cell::Integer(id) = id { id } else { panic!("{id:?}") }).collect()
        };
        let orgs = [8, 500].map(|org: i64| Cell::Text(org.to_string()));
        assert_eq!(ids(&[(1, &orgs)]), [7, 8, 499, 500]);
        assert_eq!(ids(&[(1, &orgs), (2, &[Cell::Integer(1)])]), [7, 8, 499, 500]);
        assert_eq!(ids(&[(1, &[])]), [0; 0]);
        assert_eq!(ids(&[(2, &[Cell::Integer(0)])]).len(), 500);
        assert_eq!(ids(&[]).len(), 1_000);
        assert_eq!((grouped.values(1).count(), grouped.values(2).count()), (1_000, 2));
    }
}
