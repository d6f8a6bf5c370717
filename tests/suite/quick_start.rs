//! The README's quick start, command by command, with the built binary: what a user sees in the first minutes.

use crate::limits::run;
use crate::support::{Db, Home, PATHS, Rig, schema};

const SHOP: &str = "
    create type mood as enum ('new', 'known');
    create table customers (id bigint generated always as identity primary key, name text not null, mood mood, since timestamptz default now());
    create table orders (number uuid primary key default gen_random_uuid(), customer bigint references customers, total numeric(12,2), paid boolean, lines jsonb[]);
    create index on orders (customer);
    create table journal (at timestamptz, line text);
    insert into customers (name, mood) select 'customer ' || i, 'new' from generate_series(1, 500) i;
    insert into orders (customer, total, lines) select i % 500 + 1, i * 1.10, array[jsonb_build_object('n', i)] from generate_series(1, 2000) i";

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_starts_commands_follow_each_other() {
    for path in PATHS {
        let db = Db::new().await;
        db.sql(SHOP).await;
        let rig = Rig::with(db, Home::new(path), schema(r#"{"x": {"primaryKey": "x", "columns": {"x": "TEXT"}}}"#));
        let directory = tempfile::tempdir().unwrap();
        let done = async |arguments: &[&str]| {
            let run = run(&rig, directory.path(), arguments).await.succeeded();
            format!("{}{}", run.printed(), run.log())
        };

        let said = done(&["init"]).await;
        assert!(said.contains("public.journal") && said.contains("primary key"), "{said}");
        let plan = done(&["setup", "--plan"]).await;
        assert!(plan.contains("capture of \"public\".\"orders\"") && plan.contains("Run pgflume setup"), "{plan}");
        let said = done(&["setup"]).await;
        assert!(said.contains("start the worker: pgflume serve"), "{said}");
        let said = done(&["sync"]).await;
        assert!(said.contains("2500") || said.contains("500"), "{path:?}: {said}");
        let said = done(&["verify"]).await;
        assert!(said.contains("customers") && said.contains("orders"), "{said}");

        rig.db.sql("update orders set paid = true where total > 1000; delete from orders where total < 2; insert into customers (name) values ('late')").await;
        done(&["sync"]).await;
        done(&["verify"]).await;
        let status = done(&["status"]).await;
        assert!(status.contains("replicate_data_libsql") && !status.contains("cannot"), "{status}");
        let json: serde_json::Value =
            serde_json::from_str(&run(&rig, directory.path(), &["status", "--json"]).await.printed()).unwrap();
        assert_eq!((&json["queued"], &json["dead"]), (&0.into(), &0.into()), "{json}");
        assert_eq!(json["drift"].as_array().map(Vec::len), Some(0), "{json}");
        assert_eq!(rig.rows("SELECT count(*) FROM customers").await, ["501"]);

        // A second time changes nothing.
        let before = std::fs::read_to_string(directory.path().join("schema.json")).unwrap();
        done(&["init"]).await;
        assert_eq!(std::fs::read_to_string(directory.path().join("schema.json")).unwrap(), before);
        let plan = done(&["setup", "--plan"]).await;
        assert!(plan.contains("In the replica: nothing"), "{plan}");
    }
}
