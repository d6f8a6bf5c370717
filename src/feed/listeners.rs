//! Who waits for news of a table: by the values of their rows it is found whom a change may concern. No IO.

use super::memory::{Memory, Taken};
use super::shape::Shape;
use crate::core::value::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// About what it takes to find whom one value concerns, beside the value.
const VALUE_BYTES: usize = 160;

/// A shape of more values than these finds room only while half of it is left: by the values of a claim or of an `IN` one
/// tenant could else shut out those who ask for their own rows only, as most do. To look at what had no room with each change
/// would cost all of them time.
const FEW_VALUES: usize = 16;

/// So many are a crowd: a value by which that many are found is as good as none.
const CROWD: usize = 64;

/// A column, a value that a row has there, and the number of one whom it concerns.
pub(super) type Entry = (usize, Cell, u64);

/// All who wait.
#[derive(Default)]
pub(super) struct Listeners {
    /// By the names of their shapes.
    groups: BTreeMap<String, Group>,
    /// How many groups there were.
    numbers: u64,
    /// By the values of their rows, whom these concern.
    index: BTreeMap<Entry, Arc<Listener>>,
    /// By their numbers, whom all rows may concern.
    open: BTreeMap<u64, Arc<Listener>>,
}

/// All who wait for the same.
struct Group {
    number: u64,
    listener: Arc<Listener>,
    count: usize,
    /// By which column it is found, and room for its values there.
    found: Option<(usize, Taken)>,
}

/// Who is told.
pub(super) struct Listener {
    pub shape: Arc<Shape>,
    news: watch::Sender<()>,
}

impl Listener {
    /// That there is news.
    pub fn tell(&self) {
        self.news.send_replace(());
    }
}

impl Listeners {
    /// How many wait, for how many different shapes.
    pub fn counts(&self) -> (usize, usize) {
        (self.groups.values().map(|group| group.count).sum(), self.groups.len())
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// One more who waits for a shape of this name, and hears here when there is news; `None` where there is no room for the
    /// values that it is found by.
    pub fn enter(&mut self, name: &str, shape: &Arc<Shape>, room: &Memory) -> Option<watch::Receiver<()>> {
        if let Some(group) = self.groups.get_mut(name) {
            group.count += 1;
            return Some(group.listener.news.subscribe());
        }
        let found = self.place(shape, room)?;
        let listener = Arc::new(Listener { shape: shape.clone(), news: watch::Sender::new(()) });
        let news = listener.news.subscribe();
        self.numbers += 1;
        let number = self.numbers;
        match &found {
            None => drop(self.open.insert(number, listener.clone())),
            Some((column, _)) => {
                let values = shape.allowed.get(column).into_iter().flatten();
                self.index.extend(values.map(|value| ((*column, value.clone(), number), listener.clone())));
            }
        }
        self.groups.insert(name.to_owned(), Group { number, listener, count: 1, found });
        Some(news)
    }

    /// One less.
    pub fn leave(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.count -= 1;
        if group.count > 0 {
            return;
        }
        let Some(group) = self.groups.remove(name) else { return };
        self.open.remove(&group.number);
        if let Some((column, _)) = group.found {
            let values = group.listener.shape.allowed.get(&column).into_iter().flatten();
            values.for_each(|value| drop(self.index.remove(&(column, value.clone(), group.number))));
        }
    }

    /// By which column a shape is found, with room for its values there: the one that has the fewest, and the fewest others
    /// who are found by them; `Some(None)` where any row may be its, `None` where there is no room.
    fn place(&self, shape: &Shape, room: &Memory) -> Option<Option<(usize, Taken)>> {
        let others = |column, value: &Cell| self.behind(&(column, value.clone(), 0)).take(CROWD).count();
        let compared = shape.allowed.iter().filter(|(column, _)| shape.compares(**column));
        let mut places: Vec<_> = compared
            .map(|(&column, values)| {
                let few = values.iter().take(FEW_VALUES);
                (values.len() + few.map(|value| others(column, value)).sum::<usize>(), column, values)
            })
            .collect();
        places.sort_unstable_by_key(|(cost, column, _)| (*cost, *column));
        match places.is_empty() {
            true => Some(None),
            false => places.iter().find_map(|(_, column, values)| Some(Some((*column, take(room, values)?)))),
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Listener>> {
        self.groups.values().map(|group| group.listener.clone()).collect()
    }

    /// By their numbers, those whom any row may concern.
    pub fn open(&self) -> BTreeMap<u64, Arc<Listener>> {
        self.open.clone()
    }

    /// Whether anybody is found by what rows have in a column.
    pub fn is_indexed(&self, column: usize) -> bool {
        self.index.range((column, Cell::Null, 0)..).next().is_some_and(|((at, ..), _)| *at == column)
    }

    /// By their numbers, whom these values concern.
    pub fn having(&self, values: &[Entry]) -> Vec<(u64, Arc<Listener>)> {
        values.iter().flat_map(|value| self.behind(value)).map(|(number, found)| (number, found.clone())).collect()
    }

    /// Whom a value concerns, from a number on.
    fn behind<'a>(&'a self, value: &'a Entry) -> impl Iterator<Item = (u64, &'a Arc<Listener>)> {
        let behind = self.index.range(value..);
        let same = behind.take_while(|((column, cell, _), _)| (*column, cell) == (value.0, &value.1));
        same.map(|((.., number), listener)| (*number, listener))
    }
}

/// Room for so many of a shape's values.
fn take(room: &Memory, values: &[Cell]) -> Option<Taken> {
    let bytes: usize = values.iter().map(|value| VALUE_BYTES + value.bytes()).sum();
    let (taken, most) = room.in_use();
    let is_there = values.len() <= FEW_VALUES || taken + bytes <= most / 2;
    is_there.then(|| room.take(bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::{Schema, Table};

    fn table() -> Arc<Table> {
        let schema = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","done":"INTEGER","org":"INTEGER"},
            "feed":{"public":true,"filter":["done","org"]}}}"#;
        Schema::parse(schema).unwrap().get("t").unwrap().clone()
    }

    fn shape(allowed: &[(usize, std::ops::Range<i64>)]) -> Arc<Shape> {
        let mut shape = Shape::of(&table()).unwrap();
        let allowed = allowed.iter().map(|(at, values)| (*at, values.clone().map(Cell::Integer).collect()));
        shape.allowed = allowed.collect();
        Arc::new(shape)
    }

    #[test]
    fn shapes_of_many_values_leave_room_for_those_of_few() {
        let (mut listeners, room) = (Listeners::default(), Memory::new(1_000 * (VALUE_BYTES + 8)));
        let enter = |listeners: &mut Listeners, orgs: std::ops::Range<i64>| {
            listeners.enter(&format!("{orgs:?}"), &shape(&[(2, orgs)]), &room).is_some()
        };
        let many = |i: i64| i * 1_000..i * 1_000 + 100;
        let taken = (0..9).take_while(|i| enter(&mut listeners, many(*i))).count();
        assert_eq!(taken, 5, "half of it");
        assert!(enter(&mut listeners, many(0)), "another one of a shape that is there");
        let few = (0..900).take_while(|i| enter(&mut listeners, *i..i + 1)).count();
        assert_eq!(few, 500, "all of it");
        assert!(listeners.enter("all", &shape(&[]), &room).is_some(), "who is found by no value needs none");
        assert_eq!(listeners.counts(), (507, 506));
        (0..5).for_each(|i| listeners.leave(&format!("{:?}", many(i))));
        listeners.leave(&format!("{:?}", many(0)));
        assert!(!enter(&mut listeners, many(7)) && enter(&mut listeners, 2_000..2_016), "half of it is taken");
        (0..100).for_each(|i| listeners.leave(&format!("{:?}", i..i + 1)));
        assert!(enter(&mut listeners, 5_000..5_050));
        let names: Vec<String> = listeners.groups.keys().cloned().collect();
        names.iter().for_each(|name| listeners.leave(name));
        assert!(listeners.is_empty() && listeners.index.is_empty() && listeners.open.is_empty());
        assert_eq!(room.in_use().0, 0);
    }

    #[test]
    fn who_is_in_a_crowd_by_one_column_is_found_by_another() {
        let (mut listeners, room) = (Listeners::default(), Memory::new(1 << 20));
        for org in 0..200 {
            // The first of some have two of their own.
            let shape = shape(&[(1, 0..1), (2, org..org + 1 + org % 2)]);
            assert!(listeners.enter(&org.to_string(), &shape, &room).is_some());
        }
        let alike = listeners.behind(&(1, Cell::Integer(0), 0)).count();
        assert!(alike < CROWD && listeners.index.len() > 200, "{alike} by what all share");
        (0..200).for_each(|org| listeners.leave(&org.to_string()));
        assert!(listeners.index.is_empty());
    }
}
