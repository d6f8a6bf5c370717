//! `examples/web` in a browser: two pages, one of which loses the network.

use super::client::{Client, here};
use super::writes::Rig;
use crate::support::until;
use std::path::{Path, PathBuf};
use std::process::Command;

const TABLE: &str =
    "create table todos (id text primary key, org text not null, title text, done boolean, created bigint);
    insert into todos values ('0', 'acme', 'Buy bread', false, 1), ('1', 'other', 'Secret', false, 1);
    alter table todos enable row level security;
    create policy own on todos for all using (org = current_setting('request.jwt.claims')::json->>'org')";
const DEFINED: &str = r#"{"todos":{"primaryKey":"id",
    "columns":{"id":"TEXT","org":"TEXT","title":"TEXT","done":"BOOLEAN","created":"INTEGER"},
    "feed":{"match":{"org":"org"}},
    "writable":{"columns":["org","title","done","created"],"ops":["insert","update","delete"],"conflict":"merge"}}}"#;

#[test]
fn the_page_shows_what_the_example_writes_by() {
    let page = include_str!("../../../docs/push.md");
    let (_, shown) = page.split_once("\n```js\n").unwrap();
    let (shown, _) = shown.split_once("\n```\n").unwrap();
    assert!(include_str!("../../../examples/web/app.js").contains(shown), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_for_browsers_works_without_a_network_and_tells_of_conflicts() {
    let rig = Rig::of(TABLE, DEFINED).await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/web/serve.mjs");
    let variables = [
        ("FEED_URL", rig.fed.url.as_str()),
        ("FEED_JWT_SECRET", super::writes::SECRET),
        ("ROLE", &rig.role),
        ("PORT", "0"),
    ];
    let mut served = Client::of("web", &program, &[], &variables).await;
    let address = served.says().await.as_str().unwrap().to_owned();
    let parts = crate::dashboard::browser().await;
    let out =
        std::env::var_os("EXAMPLE_PICTURES").map_or_else(|| std::env::temp_dir().join("pgflume-todos"), PathBuf::from);
    let mut node = Command::new("node");
    node.arg("--test").arg(here().join("browser.mjs")).env("ADDRESS", address).env("PARTS", parts).env("OUT", out);
    let done = tokio::task::spawn_blocking(move || node.output().unwrap()).await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}{}{}", said(&done.stdout), said(&done.stderr), rig.fed.program.log());
    until("Postgres has what both show", async || {
        let rows = rig.fed.db.all("select title || ' ' || done from todos order by id = '0' desc, title").await;
        rows == ["Buy rye bread true", "Buy milk of oats false", "Of another tab false", "Secret false"]
    })
    .await;
}
