//! The rules of a store (`src/replica/store.rs`) under a replica, written once and run on each: by `tests/suite` on a file
//! and on sqld, by both programs on the one in memory.

use crate::stores::{Keep, every_store};
use pgflume::core::batch::{ColumnSet, Item, RowState};
use pgflume::core::chance::Chance;
use pgflume::core::error::ErrorKind;
use pgflume::core::position::{Entry, Head, Provenance};
use pgflume::core::schema::{Schema, Table};
use pgflume::core::value::Cell;
use pgflume::replica::compare::KeyRange;
use pgflume::replica::freshness::{Feeds, Freshness};
use pgflume::replica::{Replica, Work};
use std::sync::Arc;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","r":"REAL","b":"BLOB","n":"BOOLEAN"}},
    "c":{"primaryKey":["x","y"],"columns":{"x":"TEXT","y":"BLOB","v":"TEXT"}},
    "k":{"primaryKey":"r","columns":{"r":"REAL"}}}"#;

/// A replica with the tables, at the start of an epoch.
pub struct Bench {
    pub replica: Replica,
    head: Head,
    schema: Arc<Schema>,
    /// What has to live as long as the replica.
    _keep: Keep,
}

fn token() -> String {
    Chance::default().token()
}

impl Bench {
    pub async fn on(replica: Replica, keep: Keep) -> Self {
        let schema = Arc::new(Schema::parse(TABLES).unwrap());
        replica.prepare(&schema).await.unwrap();
        let head = Head::start("e".into(), token());
        replica.reset(None, &head, (Feeds::Queue("q"), "us"), None).await.unwrap();
        Self { replica, head, schema, _keep: keep }
    }

    fn table(&self, name: &str) -> Arc<Table> {
        self.schema.get(name).unwrap().clone()
    }

    pub fn row(&self, table: &str, cells: Vec<Cell>) -> Item {
        let table = self.table(table);
        let columns: ColumnSet = (0..cells.len()).collect();
        let key = table.key.iter().map(|&i| cells[i].clone()).collect();
        Item { table, key, state: RowState::Row { columns, cells, replace: false }, images: vec![] }
    }

    fn gone(&self, table: &str, key: Vec<Cell>) -> Item {
        Item { table: self.table(table), key, state: RowState::Gone, images: vec![] }
    }

    pub async fn apply(&mut self, items: Vec<Item>) -> pgflume::core::error::Result<()> {
        let to = self.head.next(token());
        self.apply_from(&self.head.clone(), &to, items).await?;
        self.head = to;
        Ok(())
    }

    async fn apply_from(&self, from: &Head, to: &Head, items: Vec<Item>) -> pgflume::core::error::Result<()> {
        let entry = Entry {
            head: to.clone(),
            parent: from.token.clone(),
            xid: "7".into(),
            lsn: "0/1".into(),
            images: vec![3, 1, 2],
            provenance: Arc::new(Provenance::of([(1, Some("{}")), (3, None)].into_iter())),
        };
        let work = Work { range: 0..items.len(), items: Arc::new(items), ..Work::default() };
        let fresh = Freshness { checked_at: Some("now".into()), is_caught_up: true, queued: 5, ..Freshness::default() };
        self.replica.apply(from, &entry, 0, Feeds::Queue("q"), &fresh, work).await
    }

    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.replica.query(sql, vec![]).await.unwrap();
        rows.iter().map(|r| r.iter().map(show).collect::<Vec<_>>().join("|")).collect()
    }
}

async fn benches() -> Vec<(String, Bench)> {
    let mut benches = Vec::new();
    for (name, replica, keep) in every_store().await {
        benches.push((name, Bench::on(replica, keep).await));
    }
    benches
}

/// A value as text.
pub fn show(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".into(),
        Cell::Integer(i) => i.to_string(),
        Cell::Real(r) => format!("{r:?}"),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => format!("x'{}'", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        Cell::Lent(lent) => panic!("a store lends nothing: {lent:?}"),
    }
}

pub fn text(t: &str) -> Cell {
    Cell::Text(t.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_inserted_updated_and_deleted() {
    for (name, mut bench) in benches().await {
        let full =
            |id, a: &str| vec![Cell::Integer(id), text(a), Cell::Real(0.1), Cell::Blob(vec![0, 255]), Cell::Integer(1)];
        let items = vec![bench.row("t", full(1, "one")), bench.row("t", full(2, "two"))];
        bench.apply(items).await.unwrap();
        let items = vec![bench.row("t", vec![Cell::Integer(1), text("new")]), bench.gone("t", vec![Cell::Integer(2)])];
        bench.apply(items).await.unwrap();
        assert_eq!(bench.rows("SELECT * FROM t").await, ["1|new|0.1|x'00ff'|1"], "{name}: unlisted columns stay");
        let key = vec![text("a"), Cell::Blob(vec![1])];
        let items = vec![
            bench.row("c", vec![key[0].clone(), key[1].clone(), Cell::Null]),
            bench.row("c", vec![text("b"), Cell::Blob(vec![]), text("")]),
        ];
        bench.apply(items).await.unwrap();
        let items = vec![bench.gone("c", key)];
        bench.apply(items).await.unwrap();
        assert_eq!(bench.rows("SELECT x, y, v, typeof(y) FROM c").await, ["b|x''||blob"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_starts_anew_keeps_nothing() {
    for (name, mut bench) in benches().await {
        let items = vec![bench.row("t", vec![Cell::Integer(1), text("old"), Cell::Real(1.5)])];
        bench.apply(items).await.unwrap();
        let mut item = bench.row("t", vec![Cell::Integer(1), text("new")]);
        let RowState::Row { replace, .. } = &mut item.state else { unreachable!() };
        *replace = true;
        bench.apply(vec![item]).await.unwrap();
        assert_eq!(bench.rows("SELECT a, r FROM t").await, ["new|NULL"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_to_the_last_bit() {
    let mut reals = vec![
        0.1,
        -0.1,
        1e300,
        -1e-300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        9007199254740993.0,
        1e22,
        123456.789,
        2f64.powi(-62),
        3.0 * 2f64.powi(-63),
    ];
    let mut seed = 88172645463325252_u64;
    while reals.len() < 5000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let real = f64::from_bits(seed);
        reals.push(if reals.len() % 2 == 0 && real.is_finite() { real } else { (seed as f64) / 1e15 });
    }
    let characters: String = (1..=0x10FFFF_u32)
        .step_by(61)
        .filter_map(char::from_u32)
        .chain("\u{1}\t\n\r\"\\\u{1f}\u{7f}\u{feff}\u{fffe}'--/*".chars())
        .collect();
    for (name, mut bench) in benches().await {
        let rows: Vec<Vec<Cell>> = reals
            .iter()
            .enumerate()
            .map(|(i, r)| {
                vec![
                    Cell::Integer(i as i64),
                    text(&characters),
                    Cell::Real(*r),
                    Cell::Blob((0..=255).collect()),
                    Cell::Null,
                ]
            })
            .take(5000)
            .collect();
        let rows: Vec<Vec<Cell>> = rows
            .into_iter()
            .enumerate()
            .map(|(i, mut row)| {
                if i > 3 {
                    row[1] = text("")
                }
                row
            })
            .collect();
        let items = rows.iter().map(|r| bench.row("t", r.clone())).collect();
        bench.apply(items).await.unwrap();
        let extremes = vec![
            bench.row("t", vec![Cell::Integer(i64::MAX), Cell::Null, text("NaN")]),
            bench.row("t", vec![Cell::Integer(i64::MIN), Cell::Null, text("-Infinity")]),
        ];
        bench.apply(extremes).await.unwrap();
        // In pages: sqld answers at most 10 MB.
        for page in rows.chunks(500) {
            let Cell::Integer(first) = page[0][0] else { unreachable!() };
            let back = bench
                .replica
                .query(
                    "SELECT id, a, r, b, n FROM t WHERE id >= ?1 ORDER BY id LIMIT ?2",
                    vec![Cell::Integer(first), Cell::Integer(page.len() as i64)],
                )
                .await
                .unwrap();
            // JSON floats come back rounded by the server itself: `stores` looks at what is stored.
            let compare_reals = !name.contains("Json");
            for (row, expected) in back.iter().zip(page) {
                assert_eq!(
                    (&row[0], &row[1], &row[3], &row[4]),
                    (&expected[0], &expected[1], &expected[3], &expected[4]),
                    "{name}"
                );
                if compare_reals {
                    assert_eq!(row[2], expected[2], "{name}");
                }
            }
            assert_eq!(back.len(), page.len());
        }
        assert_eq!(
            bench.rows("SELECT id, r, typeof(r) FROM t WHERE id < 0 OR id > 10000 ORDER BY id").await,
            [format!("{}|-Infinity|text", i64::MIN), format!("{}|NaN|text", i64::MAX)],
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_keys_are_found_again() {
    for (name, mut bench) in benches().await {
        let keys = [0.1, 1e-300, 1e300, 3.0];
        let items = keys.iter().map(|k| bench.row("k", vec![Cell::Real(*k)])).collect();
        bench.apply(items).await.unwrap();
        let items = keys.iter().map(|k| bench.gone("k", vec![Cell::Real(*k)])).collect();
        bench.apply(items).await.unwrap();
        assert_eq!(bench.rows("SELECT count(*) FROM k").await, ["0"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_go_through() {
    for (name, mut bench) in benches().await {
        let big = "é\"\\".repeat(600_000); // 2.4 MB; sqld takes 5 MB a row
        let controls = "\u{1}".repeat(500_000); // six times as long as JSON
        let items = vec![
            bench.row("t", vec![Cell::Integer(1), text(&big), Cell::Real(1e-200), Cell::Blob(vec![7; 1_000_000])]),
            bench.row("t", vec![Cell::Integer(2), text(&controls)]),
        ];
        bench.apply(items).await.unwrap();
        assert_eq!(
            bench.rows("SELECT id, length(a), length(b), r = 1e-200 FROM t").await,
            ["1|1800000|1000000|1", "2|500000|NULL|NULL"],
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_from_any_other_head_changes_nothing() {
    for (name, mut bench) in benches().await {
        let start = bench.head.clone();
        let items = vec![bench.row("t", vec![Cell::Integer(1), text("right")])];
        bench.apply(items).await.unwrap();
        let now = bench.head.clone();
        let others = [
            start.clone(),                                 // late
            Head { token: "other".into(), ..now.clone() }, // lost its tail
            Head { epoch: "other".into(), ..now.clone() }, // another epoch
            Head { seq: now.seq + 1, ..now.clone() },      // ahead
        ];
        for from in others {
            let items = vec![bench.row("t", vec![Cell::Integer(1), text("wrong")])];
            let error = bench.apply_from(&from, &from.next(token()), items).await.unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Unknown, "{name}: {error}");
        }
        assert_eq!(bench.replica.head().await.unwrap(), Some(now.clone()), "{name}");
        assert_eq!(bench.rows("SELECT a FROM t").await, ["right"], "{name}");
        let ledger = bench.replica.ledger_between(&start, &now).await.unwrap();
        assert_eq!(
            (ledger.len(), &ledger[0].head, &ledger[0].parent, &ledger[0].images[..]),
            (1, &now, &start.token, &[1, 2, 3][..]),
            "{name}"
        );
        assert_eq!(bench.rows("SELECT caught_up_at, queued FROM _pgflume_freshness").await, ["now|5"], "{name}");
        let wrong = bench
            .replica
            .reset(Some(&start), &Head::start("n".into(), token()), (Feeds::Queue("q"), "us"), Some(&bench.schema))
            .await
            .unwrap_err();
        assert_eq!(wrong.kind(), &ErrorKind::Unknown, "{name}: {wrong}");
        assert_eq!(
            bench
                .replica
                .reset(None, &Head::start("n".into(), token()), (Feeds::Queue("q"), "us"), None)
                .await
                .unwrap_err()
                .kind(),
            &ErrorKind::Unknown,
            "{name}"
        );
        bench
            .replica
            .reset(Some(&now), &Head::start("n".into(), token()), (Feeds::Queue("q"), "us"), Some(&bench.schema))
            .await
            .unwrap();
        assert_eq!(bench.rows("SELECT count(*) FROM t").await, ["0"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_row_writes_nothing_and_is_rejected() {
    for (name, mut bench) in benches().await {
        let items = vec![
            bench.row("t", vec![Cell::Integer(1), text("good")]),
            bench.row("c", vec![text("k"), Cell::Null, text("NULL in a key")]),
        ];
        let error = bench.apply(items).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Row, "{name}: {error}");
        assert_eq!(bench.rows("SELECT count(*) FROM t").await, ["0"], "{name}");
        assert_eq!(bench.replica.head().await.unwrap().as_ref(), Some(&bench.head), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_paged_in_order() {
    for (name, mut bench) in benches().await {
        let key = |i: u8| vec![text(if i.is_multiple_of(2) { "a" } else { "b" }), Cell::Blob(vec![i])];
        let items = (0..10).map(|i| bench.row("c", key(i))).collect();
        bench.apply(items).await.unwrap();
        let table = bench.table("c");
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = bench.replica.keys_after(&table, after.as_ref(), 3).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page);
        }
        let expected: Vec<_> = (0..10).step_by(2).chain((1..10).step_by(2)).map(key).collect();
        assert_eq!(seen, expected, "{name}");
    }
}

/// Rows as they are compared with the replica's: those that differ, are not there, and are too many in a range.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_at_one_position() {
    for (name, mut bench) in benches().await {
        let row =
            |id: i64, a: &str, r: f64| vec![Cell::Integer(id), text(a), Cell::Real(r), Cell::Blob(vec![1]), Cell::Null];
        let there: Vec<Item> = (1..=6).map(|id| bench.row("t", row(id, "a", 0.5))).collect();
        bench.apply(there).await.unwrap();
        let wanted = vec![
            bench.row("t", row(1, "a", 0.5)),
            bench.row("t", row(2, "b", 0.5)),
            bench.row("t", row(3, "a", 0.25)),
            bench.row("t", row(9, "a", 0.5)),
            bench.row("t", row(6, &"large".repeat(400_000), 0.5)),
        ];
        let (table, one, five) = (bench.table("t"), vec![Cell::Integer(1)], vec![Cell::Integer(5)]);
        let range = KeyRange { after: Some(&one), up_to: Some(&five) };
        let found = bench.replica.compare(&table, &wanted, Some(range), &bench.head).await.unwrap().unwrap();
        let sorted = |mut positions: Vec<usize>| {
            positions.sort_unstable();
            positions
        };
        assert_eq!((sorted(found.different), found.missing), (vec![1, 2, 4], vec![3]), "{name}");
        assert_eq!((found.refused, found.in_range), (vec![], 4), "{name}");
        assert_eq!(bench.replica.differing(&table, &wanted[1]).await.unwrap(), [1], "{name}: the column");
        assert_eq!(bench.replica.differing(&table, &wanted[2]).await.unwrap(), [2], "{name}: the column");
        assert_eq!(bench.replica.differing(&table, &wanted[0]).await.unwrap(), [0_usize; 0], "{name}");
        let keys = bench.replica.keys_in(&table, range, 10).await.unwrap();
        assert_eq!(keys, (2..=5).map(|id| vec![Cell::Integer(id)]).collect::<Vec<_>>(), "{name}");
        assert_eq!(bench.replica.keys_in(&table, KeyRange { after: None, up_to: None }, 1).await.unwrap().len(), 6);
        let elsewhere = bench.head.next(token());
        assert!(bench.replica.compare(&table, &wanted, None, &elsewhere).await.unwrap().is_none(), "{name}: elsewhere");
    }
}

/// A key of several columns, in the order of its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_key_of_several_columns_is_compared() {
    for (name, mut bench) in benches().await {
        let key = |x: &str, y: u8| vec![text(x), Cell::Blob(vec![y])];
        let row = |x: &str, y: u8| [key(x, y), vec![text("v")]].concat();
        let all = [("A", 1), ("a", 1), ("a", 2), ("ab", 1), ("b", 1)];
        let items = all.iter().map(|&(x, y)| bench.row("c", row(x, y))).collect();
        bench.apply(items).await.unwrap();
        let (table, after, up_to) = (bench.table("c"), key("a", 1), key("ab", 1));
        let range = KeyRange { after: Some(&after), up_to: Some(&up_to) };
        let wanted = vec![bench.row("c", row("a", 2)), bench.row("c", row("a", 3))];
        let found = bench.replica.compare(&table, &wanted, Some(range), &bench.head).await.unwrap().unwrap();
        assert_eq!((found.missing, found.different, found.in_range), (vec![1], vec![], 2), "{name}");
        assert_eq!(bench.replica.keys_in(&table, range, 10).await.unwrap(), [key("a", 2), key("ab", 1)], "{name}");
    }
}
