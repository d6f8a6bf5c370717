//! What a pull brings, step by step.

use super::Rig;
use crate::support::PATHS;

const ORDERS: &str = "create table orders (id int primary key, customer text, paid boolean);
    insert into orders select i, 'c' || i % 7, i % 2 = 0 from generate_series(1, 1000) i";
const ORDERS_JSON: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","customer":"TEXT","paid":"BOOLEAN"},"indexes":["customer"]}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_came_changed_and_went_are_brought_by_a_role_that_may_only_select() {
    for path in PATHS {
        let rig = Rig::new(path, ORDERS, ORDERS_JSON).await;
        let first = rig.pass().await;
        assert_eq!((first.rows, first.removed, first.problems.len()), (1000, 0, 0), "{first:?}");
        assert!(first.caught_up_at.is_some());
        let idle = rig.pass().await;
        assert_eq!((idle.rows, idle.removed), (0, 0), "{idle:?}");
        rig.db
            .sql(
                "insert into orders values (2000, 'new', true); update orders set customer = 'x' where id = 5;
                  delete from orders where id between 10 and 12; update orders set id = 3000 where id = 20",
            )
            .await;
        let changed = rig.pass().await;
        assert_eq!((changed.rows, changed.removed), (3, 4), "{changed:?}");
        let here = rig.rows("SELECT id, customer, paid FROM orders ORDER BY id").await;
        assert_eq!(here, rig.source("select concat_ws('|', id, customer, paid::int) from orders order by id").await);
        rig.db.sql("truncate orders").await;
        let emptied = rig.pass().await;
        assert_eq!(rig.rows("SELECT count(*) FROM orders").await, ["0"], "{emptied:?}");
        assert_eq!(emptied.removed, 998);
        // Nothing is written where nothing has changed, but a sign of life into a file, every ten seconds.
        let seq = rig.rows("SELECT seq FROM _pgflume_pulls").await;
        let idle = rig.pass().await;
        assert!(idle.caught_up_at.is_some());
        assert_eq!(rig.rows("SELECT seq FROM _pgflume_pulls").await, seq);
    }
}
