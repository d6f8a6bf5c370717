//! Large rows: what fits arrives, what does not is a dead letter, and nothing waits for it.

use super::{assert_equal, directory_with, drained, is_file, run};
use crate::support::{PATHS, Rig, schema};
use crate::volume::set_up;

const BIG: &str = r#"{"big":{"primaryKey":"id","columns":{"id":"TEXT","t":"TEXT","b":"BLOB","j":"JSON"}}}"#;

const TABLE: &str = "create table big (id text primary key, t text, b bytea, j json)";

/// Rows of 4, 6 and 60 MB of each kind among small ones, in one transaction.
const LARGE: &str = "insert into big (id, t) select 's' || i, 'small' from generate_series(1, 200) i;
    insert into big (id, t) select 't' || mb, repeat('x', mb * 1000000) from unnest(array[4, 6, 60]) mb;
    insert into big (id, b) select 'b' || mb, decode(repeat('ab', mb * 1000000), 'hex') from unnest(array[4, 6, 60]) mb;
    insert into big (id, j) select 'j' || mb, to_json(repeat('x', mb * 1000000)) from unnest(array[4, 6, 60]) mb;
    insert into big values ('sum', repeat('x', 3000000), decode(repeat('ab', 3000000), 'hex'), null)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_megabytes_arrive_or_are_dead_letters_and_their_neighbours_arrive() {
    for path in PATHS {
        let rig = Rig::new(path, schema(BIG)).await;
        rig.db.sql(TABLE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        drained(&rig).await;
        rig.db.sql(LARGE).await;
        let done = rig.drain().await;
        let large = rig.rows("SELECT id FROM big WHERE id NOT LIKE 's_%' OR id = 'sum' ORDER BY id").await;
        assert_eq!(done.queued, 0);
        if is_file(&rig) {
            assert_eq!(rig.db.dead().await, Vec::<String>::new());
            assert_equal(&rig).await;
        } else {
            assert_eq!(large, ["b4", "j4", "t4"], "a row is limited to 5 MB");
            let dead = rig.db.all("select (message->>'class') || ' ' || (message->>'table') || ' ' || (message->'key'->>0) || ': ' || (message->>'reason') from pgmq.q_replicate_data_libsql_dead order by 1").await;
            assert_eq!(dead.len(), 7, "{dead:?}");
            let says = |letter: &String| {
                letter.starts_with("target big ")
                    && letter.contains("no row or value that large")
                    && letter.contains("mark the key again")
            };
            assert!(dead.iter().all(says), "{dead:?}");
        }
        assert_eq!(rig.rows("SELECT count(*) FROM big WHERE t = 'small'").await, ["200"], "in the same drain");
        // A row that became small again arrives.
        rig.db.sql("update big set t = 'cut', b = null, j = null where id > 'b' and id not like 's_'").await;
        drained(&rig).await;
        assert_eq!(
            rig.rows("SELECT count(*) FROM big WHERE t = 'cut'").await,
            rig.db.all("select count(*) from big where t = 'cut'").await
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_four_megabytes_are_never_held_all_at_once() {
    for path in PATHS {
        let rig = Rig::new(path, schema(BIG)).await;
        rig.db.sql(TABLE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let directory = directory_with(BIG);
        run(&rig, directory.path(), &["sync"]).await.succeeded();
        let count = if std::env::var_os("LIMITS_FULL").is_some() { 200 } else { 60 };
        rig.db
            .sql(&format!("insert into big (id, t) select i, repeat('x', 4000000) from generate_series(1, {count}) i"))
            .await;
        let done = run(&rig, directory.path(), &["sync"]).await.succeeded();
        println!("{path:?}: {count} rows of 4 MB: {} MB, {:?}", done.peak_mb, done.took);
        assert_eq!(rig.rows("SELECT count(*), min(length(t)) FROM big").await, [format!("{count}|4000000")]);
        assert!(done.peak_mb < 250, "{} MB", done.peak_mb);
    }
}
