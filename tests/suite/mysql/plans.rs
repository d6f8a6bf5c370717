//! What the server looks at for a statement: never a whole table where an index leads to the rows.

use super::{Rig, server};
use crate::support::Path;
use mysql_async::prelude::Queryable;

/// Rows of a table, and what a statement may look at for a page of at most 10,000.
const ROWS: u32 = 1_000_000;
const MOST_EXAMINED: u32 = 25_000;

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_scans_a_table_of_a_million_rows() {
    let tables = format!(
        "create table t (a varchar(20) collate utf8mb4_unicode_ci, b decimal(12,2), v int,
            updated_at timestamp(6) not null default '2026-01-01', primary key (a, b), index (updated_at));
         insert into t (a, b, v) select concat('k', seq % 1000), seq, seq from seq_1_to_{ROWS};
         create table m (e enum('x', 'y') not null, s set('p', 'q') not null, id int, v int,
            updated_at timestamp(6) not null default '2026-01-01', primary key (e, s, id), index (updated_at));
         insert into m select 1 + seq % 2, seq % 4, seq, seq, timestampadd(minute, seq, '2020-01-01') from seq_1_to_100000"
    );
    let rig = Rig::undefined(Path::File, &tables).await;
    rig.sql("analyze table t, m").await;
    let mut root = server().connect(None).await;
    for sql in ["set global log_output = 'TABLE'", "set global long_query_time = 0", "set global slow_query_log = 1"] {
        root.query_drop(sql).await.unwrap();
    }
    for sql in [
        "select 1",
        "update t set v = -v, updated_at = now(6) where b % 1000 = 7; update m set v = -v, updated_at = now(6) where id % 100 = 7",
        "delete from t where b = 77; insert into t values ('K7', 1007.5, 1, now(6))",
    ] {
        rig.sql(sql).await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        assert_eq!(
            rig.rows("SELECT count(*), sum(v), count(DISTINCT s) FROM m").await,
            rig.source("select concat_ws('|', count(*), sum(v), count(distinct s)) from m").await
        );
        let here = rig.rows("SELECT count(*), sum(v), count(DISTINCT a) FROM t").await;
        assert_eq!(
            here,
            rig.source("select concat_ws('|', count(*), sum(v), count(distinct binary a)) from t").await,
            "{sql} {passed:?}"
        );
    }
    root.query_drop("set global slow_query_log = 0").await.unwrap();
    let here = rig.rows("SELECT count(*), sum(v), count(DISTINCT a) FROM t").await;
    assert_eq!(here, rig.source("select concat_ws('|', count(*), sum(v), count(distinct binary a)) from t").await);
    let asked = format!(
        "select concat(rows_examined, ': ', left(sql_text, 300)) from mysql.slow_log
         where user_host like '{}[%' and sql_text not like 'select count(*) from%' order by rows_examined desc",
        rig.name
    );
    let asked: Vec<String> = root.query(asked).await.unwrap();
    assert!(asked.len() > 100, "the log has what was asked: {asked:?}");
    let most: u32 = asked[0].split(':').next().unwrap().parse().unwrap();
    assert!(most <= MOST_EXAMINED, "{:?}", &asked[..3]);
}
