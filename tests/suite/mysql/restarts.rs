//! A server that was started anew.

use crate::parts::MySqlServer;
use crate::support::{Home, Path, schema};
use mysql_async::prelude::Queryable;
use pgflume::mysql::MySqlUrl;
use pgflume::provider::StampOptions;
use pgflume::provider::mysql::{MySqlProvider, Quiet, Wanted};
use pgflume::pull::Pull;
use pgflume::replica::Replica;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_may_have_undone_is_compared() {
    let (server, home) = (MySqlServer::start(&[]), Home::new(Path::File));
    let mut root = server.connect(None).await;
    for sql in [
        "create database d; create user u@'%' identified by 'p'; grant select on d.* to u@'%'",
        "create table d.t (id int primary key, v text, updated_at datetime not null)",
        "insert into d.t values (1, 'as it was', '2026-01-01'), (2, 'same', '2026-02-01')",
    ] {
        root.query_drop(sql).await.unwrap();
    }
    let provider = MySqlProvider {
        url: MySqlUrl::parse(&format!("mysql://u:p@127.0.0.1:{}/d", server.port())).unwrap(),
        wanted: Wanted::Defined(schema(
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT","updated_at":"TEXT"}}}"#,
        )),
        row_bytes: 1 << 20,
        stamps: StampOptions::default(),
        quiet: Quiet::default(),
    };
    let pull = Pull::new("p".into(), Arc::new(provider), home.target(), false);
    let passed = pull.pass().await.unwrap();
    assert_eq!(passed.rows, 2);
    // As the replica would be after a commit that the server lost: nothing tells of it but the start.
    let replica = Replica::open(&home.target()).await.unwrap();
    replica
        .query("UPDATE t SET v = 'as it would have been', updated_at = '2026-03-01' WHERE id = 1", vec![])
        .await
        .unwrap();
    let look = async || {
        let rows = replica.query("SELECT v FROM t ORDER BY id", vec![]).await.unwrap();
        rows.iter().map(|row| crate::store::show(&row[0])).collect::<Vec<_>>()
    };
    pull.pass().await.unwrap();
    assert_eq!(look().await, ["as it would have been", "same"], "no stamp tells of it");
    // Its start is told in whole seconds.
    let uptime = "show global status where variable_name = 'uptime' and value > 4";
    crate::support::until("it has run for some seconds", async || {
        root.query_first::<(String, String), _>(uptime).await.unwrap().is_some()
    })
    .await;
    server.start_again(None);
    pull.pass().await.unwrap();
    assert_eq!(look().await, ["as it was", "same"]);
}
