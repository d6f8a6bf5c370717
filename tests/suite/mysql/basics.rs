//! Rows that came, changed and went.

use super::Rig;
use crate::support::{PATHS, Path};

const STAMPED: &str = "create table orders (id int primary key, customer text, updated_at datetime(6) not null default now(6) on update now(6));
    insert into orders (id, customer) select seq, concat('c', seq) from seq_1_to_30000";
const ORDERS: &str =
    r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","customer":"TEXT","updated_at":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_came_changed_and_went_are_brought_by_their_stamps() {
    for path in PATHS {
        let rig = Rig::new(path, STAMPED, ORDERS).await;
        let first = rig.pass().await;
        assert_eq!((first.rows, first.removed, first.problems.len()), (30_000, 0, 0), "{first:?}");
        assert!(first.caught_up_at.is_some());
        rig.sql(
            "insert into orders (id, customer) values (40000, 'new'); update orders set customer = 'x' where id = 5;
             delete from orders where id between 10 and 12; update orders set id = 50000 where id = 20",
        )
        .await;
        let changed = rig.pass().await;
        assert_eq!((changed.rows, changed.removed), (3, 4), "{changed:?}");
        let here = rig.rows("SELECT id, customer, updated_at FROM orders ORDER BY id").await;
        let there = "select concat_ws('|', id, customer, updated_at) from orders order by id";
        assert_eq!(here, rig.source(there).await);
        rig.sql("truncate table orders").await;
        let passed = rig.pass().await;
        assert_eq!(rig.rows("SELECT count(*) FROM orders").await, ["0"], "{passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_rows_that_went_as_came_with_old_stamps_are_brought_by_one_pass() {
    for path in PATHS {
        let rig = Rig::new(path, STAMPED, ORDERS).await;
        rig.pass().await;
        // By their number one has gone.
        rig.sql("delete from orders where id in (10, 11); insert into orders values (40000, 'late', '2020-01-01')")
            .await;
        let passed = rig.pass().await;
        assert!(passed.caught_up_at.is_some() && passed.problems.is_empty(), "{passed:?}");
        assert_eq!(rig.rows("SELECT count(*), max(id), sum(id IN (10, 11)) FROM orders").await, ["29999|40000|0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_table_without_stamps_is_compared_and_read_only_where_something_has_changed() {
    let tables = "create table t (id int primary key, v varchar(20), f float); insert into t select seq, seq, seq / 3e0 from seq_1_to_5000";
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT","f":"REAL"}}}"#;
    for path in PATHS {
        let rig = Rig::new(path, tables, json).await;
        assert_eq!(rig.pass().await.rows, 5000);
        assert_eq!(rig.pass().await.rows, 0);
        rig.sql(
            "update t set v = 'y' where id = 7; delete from t where id = 9; update t set f = f + 0.25 where id = 11",
        )
        .await;
        let changed = rig.pass().await;
        assert_eq!((changed.rows, changed.removed), (2, 1), "{changed:?}");
        assert_eq!(
            rig.rows("SELECT v, f FROM t WHERE id IN (7, 9, 11) ORDER BY id").await,
            ["y|2.3333333", "11|3.9166667"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_without_stamps_is_refused_until_somebody_says_how_often_it_is_compared() {
    let tables =
        "create table t (id int primary key, v varchar(20)); insert into t select seq, seq from seq_1_to_10001";
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let mut rig = Rig::new(Path::File, tables, json).await;
    let refused = rig.pass().await;
    assert!(refused.problems["t"].contains("10001 rows") && refused.problems["t"].contains("`changed`"), "{refused:?}");
    rig.stamps.is_compared = true;
    assert_eq!(rig.pass().await.rows, 10_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tables_of_a_database_are_defined_by_the_catalog_and_those_without_a_key_are_left_out() {
    let tables = "create table `a``b` (`k 1` int, `K2` varchar(9) character set latin1, v decimal(9,2), primary key (`k 1`, `K2`), key (v));
        insert into `a``b` values (1, 'ß', 1.50), (1, 'x', null);
        create table keyless (a int); create view v as select * from keyless";
    let rig = Rig::undefined(Path::File, tables).await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty() && passed.rows == 2, "{passed:?}");
    assert_eq!(rig.rows("SELECT * FROM \"a`b\" ORDER BY 2").await, ["1|x|NULL", "1|ß|1.50"]);
    let indexes = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'a`b' AND sql IS NOT NULL";
    assert_eq!(rig.rows(indexes).await, ["1"]);
    assert_eq!(rig.rows("SELECT count(*) FROM sqlite_master WHERE name IN ('keyless', 'v', 's')").await, ["0"]);
}
