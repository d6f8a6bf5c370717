//! Writes the log that clients are fed from: which keys of a table a batch is about to touch, and what they were. Into
//! a file many keys are packed into a row; a server, which is told what to do all at once, has one row a key. Who reads the log does not see the difference.

use super::arrays::{ARRAY_BYTES, Array, arrays, push_json, push_row};
use super::sqlite::{Connection, Failure, Statement as Prepared};
use super::statements;
use super::store::{Statement, Touching};
use crate::core::batch::Item;
use crate::core::schema::{ColumnType, Table, ddl, quote};
use crate::core::value::Cell;

/// Keys that are looked up by one run of a statement: each run costs as much as some lookups.
const KEYS_AT_ONCE: usize = 64;

fn keys<'a>(touching: &'a Touching, items: &'a [Item]) -> impl Iterator<Item = &'a [Cell]> {
    touching.items.iter().map(|&at| &items[at].key[..]).filter(|key| !statements::has_null(key))
}

fn kinds(table: &Table) -> Vec<ColumnType> {
    table.key_columns().map(|column| column.kind).collect()
}

/// SQL for the number and the position of table `?` that is fed, of which all rows are there.
fn place(name: usize) -> String {
    format!("_pgflume_feed_tables AS f JOIN _pgflume_cuts AS c ON c.sync = f.sync AND f.name = ?{name} AND f.is_whole")
}

/// SQL for how many keys the log of table `f` has had.
const PAST: &str =
    "coalesce((SELECT l.past FROM _pgflume_feed AS l WHERE l.tab = f.tab ORDER BY l.pos DESC, l.part DESC LIMIT 1), 0)";

/// SQL for the next part of the log of table `f` at the position of `c`.
const PART: &str =
    "coalesce((SELECT max(l.part) FROM _pgflume_feed AS l WHERE l.tab = f.tab AND l.pos = c.pos) + 1, 0)";

/// As statements, for a server.
pub(super) fn statements(touching: &Touching, items: &[Item]) -> Vec<Statement> {
    let (table, keys) = (&touching.table, keys(touching, items).collect::<Vec<_>>());
    let name = quote(&table.name);
    let join = if touching.is_gone { "JOIN" } else { "LEFT JOIN" };
    // What somebody else wrote there may be of another type, which no client can ask for.
    let filters = table.fed_filters().into_iter().map(|at| {
        let Some(at) = at else { return "NULL".to_owned() };
        let name = quote(&table.columns[at].name);
        format!("CASE WHEN typeof(t.{name}) IN ('integer', 'text') THEN t.{name} END")
    });
    let was = format!("json_array({})", filters.collect::<Vec<_>>().join(", "));
    let statement = |array: Array| {
        let sql = format!(
            "{}INSERT INTO _pgflume_feed (tab, pos, part, rows, past, touched) \
             SELECT g.tab, g.pos, g.part + row_number() OVER (ORDER BY k.key) - 1, 1, g.past + row_number() OVER (ORDER BY k.key), \
             '[[' || k.v || ',' || CASE WHEN t.rowid IS NOT NULL THEN {was} ELSE 'null' END || ']]' \
             FROM (SELECT f.tab, c.pos, {PART} AS part, {PAST} AS past FROM {} LIMIT 1) AS g \
             JOIN {} AS k {join} {name} AS t ON {}",
            statements::powers(array.far_reals),
            place(2),
            statements::json_rows(table, &table.key),
            statements::has_key(table, "k.v", array.far_reals),
        );
        Statement::new(sql, vec![Cell::Text(array.text), Cell::Text(table.name.clone())])
    };
    arrays(&kinds(table), &keys).into_iter().map(statement).collect()
}

/// The same, on an open connection.
pub(super) fn write(connection: &Connection, touching: &Touching, items: &[Item]) -> Result<(), Failure> {
    let table = &touching.table;
    let Some(mut log) = Log::of(connection, table)? else { return Ok(()) };
    let kinds = kinds(table);
    let keys: Vec<&[Cell]> = keys(touching, items).collect();
    let (many, few) = keys.split_at(keys.len() - keys.len() % KEYS_AT_ONCE);
    for (keys, at_once) in [(many, KEYS_AT_ONCE), (few, 1)].into_iter().filter(|(keys, _)| !keys.is_empty()) {
        let sql = looked_up(table, at_once);
        let mut statement = connection.kept(&sql)?;
        for keys in keys.chunks(at_once) {
            for (key, row) in keys.iter().zip(&rows(&mut statement, keys)?) {
                if touching.is_gone && row.is_none() {
                    continue;
                }
                log.add(&kinds, key, row.as_deref());
                if log.text.len() >= ARRAY_BYTES {
                    log.flush(connection)?;
                }
            }
        }
        connection.keep(&sql, statement);
    }
    log.flush(connection)
}

/// SQL for the rows that there are under so many keys: of each which key it has, and the columns that clients filter by.
fn looked_up(table: &Table, keys: usize) -> String {
    let columns = table.fed_filters().into_iter().map(|at| match at {
        Some(at) => format!(", t.{}", quote(&table.columns[at].name)),
        None => ", NULL".to_owned(),
    });
    let width = table.key.len();
    let key = |at: usize| {
        let marks: Vec<String> = (1..=width).map(|column| format!("?{}", at * width + column)).collect();
        format!("({at}, {})", marks.join(", "))
    };
    let equal = table
        .key_columns()
        .zip(2..)
        .map(|(column, at)| format!("t.{} = k.column{at}{}", quote(&column.name), ddl::collation(column.kind)));
    // CROSS: not the table's rows first.
    format!(
        "SELECT k.column1{} FROM (VALUES {}) AS k CROSS JOIN {} AS t ON {}",
        columns.collect::<String>(),
        (0..keys).map(key).collect::<Vec<_>>().join(", "),
        quote(&table.name),
        equal.collect::<Vec<_>>().join(" AND "),
    )
}

/// What [`looked_up`] finds under each of these keys; `None`: there is no row.
fn rows(looked_up: &mut Prepared<'_>, keys: &[&[Cell]]) -> Result<Vec<Option<Vec<Cell>>>, Failure> {
    let cells: Vec<Cell> = keys.iter().flat_map(|key| key.iter().cloned()).collect();
    let mut rows = vec![None; keys.len()];
    looked_up.rows(&cells, |mut found| {
        let at = if let Some(Cell::Integer(at)) = found.first() { usize::try_from(*at).ok() } else { None };
        if let Some(row) = at.and_then(|at| rows.get_mut(at)) {
            found.remove(0);
            *row = Some(found);
        }
    })?;
    Ok(rows)
}

/// Where the log of a table goes on, and what is to be written there.
struct Log {
    tab: i64,
    pos: i64,
    part: i64,
    past: i64,
    rows: i64,
    text: String,
}

impl Log {
    /// Of a table that is fed, if all of its rows are there.
    fn of(connection: &Connection, table: &Table) -> Result<Option<Self>, Failure> {
        let sql = format!("SELECT f.tab, c.pos, {PART}, {PAST} FROM {}", place(1));
        let mut found = None;
        let mut place = connection.kept(&sql)?;
        place.rows(&[Cell::Text(table.name.clone())], |row| found = Some(row))?;
        connection.keep(&sql, place);
        let (rows, text) = (0, String::new());
        Ok(match found.as_deref() {
            Some([Cell::Integer(tab), Cell::Integer(pos), Cell::Integer(part), Cell::Integer(past)]) => {
                Some(Self { tab: *tab, pos: *pos, part: *part, past: *past, rows, text })
            }
            _ => None,
        })
    }

    fn add(&mut self, kinds: &[ColumnType], key: &[Cell], was: Option<&[Cell]>) {
        let text = &mut self.text;
        text.push_str(if text.is_empty() { "[[" } else { ",[" });
        push_row(text, kinds, key);
        match was {
            None => text.push_str(",null]"),
            Some(was) => {
                text.push_str(",[");
                for (at, cell) in was.iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { "," });
                    push_json(text, cell);
                }
                text.push_str("]]");
            }
        }
        self.rows += 1;
    }

    fn flush(&mut self, connection: &Connection) -> Result<(), Failure> {
        if self.rows == 0 {
            return Ok(());
        }
        self.past += self.rows;
        let mut touched = std::mem::take(&mut self.text);
        touched.push(']');
        let numbers = [self.tab, self.pos, self.part, self.rows, self.past].map(Cell::Integer);
        let cells: Vec<Cell> = numbers.into_iter().chain([Cell::Text(touched)]).collect();
        let sql = "INSERT INTO _pgflume_feed (tab, pos, part, rows, past, touched) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = connection.kept(sql)?;
        insert.run(&cells)?;
        connection.keep(sql, insert);
        (self.part, self.rows) = (self.part + 1, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed_log;
    use super::super::memory::Memory;
    use super::super::store::{Rows, Store as _, Work};
    use super::*;
    use crate::core::batch::RowState;
    use crate::core::schema::Schema;
    use std::sync::Arc;

    const TABLES: &str = r#"{
        "n": {"primaryKey": "id", "columns": {"id": "INTEGER", "org": "TEXT", "far": "REAL", "at": "INTEGER"},
              "feed": {"public": true, "filter": ["org", "at"]}},
        "r": {"primaryKey": ["x", "y"], "columns": {"x": "REAL", "y": "TEXT"}, "feed": {"public": true}},
        "b": {"primaryKey": "id", "columns": {"id": "BLOB", "v": "TEXT"}, "feed": {"public": true, "filter": ["v"]}}}"#;

    const ROWS: &str = r#"INSERT INTO n VALUES (1, 'a "b" \ ü', 1.5, 7), (2, NULL, NULL, NULL), (3, '', 0, 2.5), (5, x'00', 0, 'seven');
        INSERT INTO r VALUES (0.1, 'one'), (1e300, 'far'), (-2.0, 'O''Brien "x"'), (5e-324, ''); INSERT INTO b VALUES (x'0aff', 'v'), (x'', 'w')"#;

    fn items(schema: &Schema) -> Vec<Item> {
        let text = |text: &str| Cell::Text(text.into());
        let keys = [
            ("b", vec![vec![Cell::Blob(vec![0x0a, 0xff])], vec![Cell::Blob(vec![])], vec![Cell::Blob(vec![1])]]),
            ("n", (0..7).map(|id| vec![Cell::Integer(id)]).chain([vec![Cell::Null]]).collect()),
            (
                "r",
                vec![
                    vec![Cell::Real(0.1), text("one")],
                    vec![Cell::Real(1e300), text("far")],
                    vec![Cell::Real(1e300), text("nobody")],
                    vec![Cell::Real(-2.0), text("O'Brien \"x\"")],
                    vec![Cell::Real(5e-324), text("")],
                ],
            ),
        ];
        let of = |(name, keys): (&str, Vec<Vec<Cell>>)| {
            let table = schema.tables().find(|table| table.name == name).unwrap().clone();
            keys.into_iter().map(move |key| Item {
                table: table.clone(),
                key,
                state: RowState::Gone,
                images: Vec::new(),
            })
        };
        keys.into_iter().flat_map(of).collect()
    }

    async fn filled(schema: &Schema) -> Memory {
        let store = Memory::new().unwrap();
        let fed: Vec<&Table> = schema.tables().map(|table| &**table).collect();
        let mut before: Vec<Statement> = schema.tables().map(|table| ddl::create_table(table).into()).collect();
        before.extend(ROWS.split(';').map(|sql| sql.to_owned().into()));
        before.extend(feed_log::register("s", &feed_log::Fed::of(&fed)));
        before.push("UPDATE _pgflume_feed_tables SET is_whole = 1".to_owned().into());
        before.push("UPDATE _pgflume_cuts SET pos = 7".to_owned().into());
        store.write(Work { before, ..Work::default() }).await.unwrap();
        store
    }

    async fn logged(store: &Memory) -> Rows {
        let counted = "SELECT tab FROM _pgflume_feed GROUP BY tab HAVING max(past) <> sum(rows) OR min(part) <> 0";
        assert!(store.query(counted.to_owned().into()).await.unwrap().is_empty(), "what is counted is there");
        let sql = "SELECT f.name, l.pos, k.value -> 0, k.value -> 1 FROM _pgflume_feed AS l JOIN _pgflume_feed_tables AS f USING (tab), \
                   json_each(l.touched) AS k ORDER BY 1, 3";
        store.query(sql.to_owned().into()).await.unwrap()
    }

    #[tokio::test]
    async fn a_server_logs_what_a_file_does() {
        let schema = Schema::parse(TABLES).unwrap();
        let items = items(&schema);
        let mut all = Vec::new();
        for is_gone in [true, false] {
            let touching: Vec<Touching> = schema
                .tables()
                .map(|table| {
                    let of_table = (0..items.len()).filter(|&at| items[at].table.name == table.name).collect();
                    Touching { table: table.clone(), items: of_table, is_gone }
                })
                .collect();
            let (file, server) = (filled(&schema).await, filled(&schema).await);
            let range = 0..0;
            let work = Work { items: Arc::new(items.clone()), range, ..Work::default() };
            for touching in &touching {
                let sql = statements(touching, &items);
                server.write(Work { before: sql, ..work.clone() }).await.unwrap();
            }
            let work = Work { touching, range: 0..items.len(), ..work };
            file.write(work).await.unwrap();
            let rows = logged(&file).await;
            assert_eq!(rows, logged(&server).await, "{is_gone}");
            all.push(rows.len());
        }
        // What is not there does not go; a key that is NULL is nobody's.
        assert_eq!(all, [2 + 4 + 4, 3 + 7 + 5]);
    }

    #[tokio::test]
    async fn a_log_has_as_many_keys_as_it_says_and_more_parts_than_one_where_they_are_many() {
        let schema = Schema::parse(TABLES).unwrap();
        let table = schema.tables().find(|table| table.name == "n").unwrap().clone();
        let item =
            |id| Item { table: table.clone(), key: vec![Cell::Integer(id)], state: RowState::Gone, images: Vec::new() };
        let items = Arc::new((0..30_000).map(item).collect::<Vec<_>>());
        let store = filled(&schema).await;
        for round in 0..2 {
            let touching = vec![Touching { table: table.clone(), items: (0..30_000).collect(), is_gone: false }];
            let before = vec![format!("UPDATE _pgflume_cuts SET pos = {}", 7 + round).into()];
            store
                .write(Work { before, touching, items: items.clone(), range: 0..30_000, ..Work::default() })
                .await
                .unwrap();
        }
        let sql = "SELECT max(past), sum(rows), sum(json_array_length(touched)), count(*) > 2, max(length(touched)) < 200000 FROM _pgflume_feed";
        let rows = store.query(sql.to_owned().into()).await.unwrap();
        assert_eq!(rows, [[60_000, 60_000, 60_000, 1, 1].map(Cell::Integer)]);
    }
}
