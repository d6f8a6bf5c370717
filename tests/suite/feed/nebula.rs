//! `docs/from-nebuladb.md`: it answers each name of NebulaDB's sync plugin, and its code is run here.

use super::client::{Client, here};
use super::writes::Rig;
use serde_json::json;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/from-nebuladb.md");

/// What NebulaDB's users have in hand.
const NAMES: [&str; 37] = [
    "serverUrl",
    "authToken",
    "collections",
    "syncInterval",
    "autoSync",
    "useWebSockets",
    "conflictResolution",
    "retry.maxRetries",
    "retry.retryDelay",
    "retry.useExponentialBackoff",
    "logging.enabled",
    "logging.level",
    "getStatus().enabled",
    "getStatus().connected",
    "getStatus().lastSyncTime",
    "getStatus().pendingEvents",
    "getStatus().error",
    "enable()",
    "disable()",
    "syncNow()",
    "clearPendingEvents()",
    "addCollection()",
    "removeCollection()",
    "getCollections()",
    "httpServer",
    "socketOptions",
    "authenticate(socket, token)",
    "storage",
    "start()",
    "stop()",
    "getClientsCount()",
    "getStorage()",
    "getIo()",
    "last-write-wins",
    "server-wins",
    "client-wins",
    "custom",
];

/// Names that stand in no code: what it does by itself, and what a storage of one's own does.
const DEEDS: [&str; 5] = [
    "works offline, and goes on by itself",
    "save events",
    "events after a time",
    "events for a client and collections",
    "clear events before a time",
];

fn first_cells() -> impl Iterator<Item = &'static str> {
    PAGE.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split(" | ").next())
}

#[test]
fn the_page_answers_each_name_and_no_other() {
    let named: BTreeSet<_> = first_cells().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(named, NAMES.into());
    for deed in DEEDS {
        assert!(first_cells().any(|cell| cell.trim_start_matches("| ") == deed), "{deed}");
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| NebulaDB"));
    rows.for_each(|row| {
        assert!(row.trim_end_matches(" |").split(" | ").nth(1).is_some_and(|a| !a.is_empty()), "{row}")
    });
}

#[test]
fn the_code_of_the_page_is_that_which_is_run() {
    let program = std::fs::read_to_string(here().join("nebula.mjs")).unwrap();
    let run: BTreeSet<_> = program.lines().map(str::trim).collect();
    let mut blocks = PAGE.split("\n```js\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0).peekable();
    assert!(blocks.peek().is_some());
    for line in blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        assert!(run.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_of_nebuladb_do_is_done_with_the_clients_of_the_page() {
    let columns = "id text primary key, org text not null, title text, note text, at timestamptz";
    let tables = ["merged", "others", "server_wins", "client_wins", "last_write_wins", "customs"];
    let conflicts = ["merge", "merge", "server-wins", "client-wins", "last-write-wins", "custom"];
    let made = tables.map(|table| {
        format!(
            "create table {table} ({columns}); alter table {table} enable row level security;
             create policy own on {table} using (org = current_setting('request.jwt.claims')::json->>'org');"
        )
    });
    let filled = ["merged", "server_wins", "client_wins", "last_write_wins", "customs"]
        .map(|table| format!("insert into {table} values ('0', 'a', 'first', null, '2025-01-01');"));
    let function = "create function joined(base jsonb, now jsonb, wanted jsonb) returns jsonb language sql as
        $$ select jsonb_build_object('title', (now->>'title') || ' & ' || (wanted->>'title')) $$;";
    let defined = tables.iter().zip(conflicts).map(|(table, conflict)| {
        let more = match conflict {
            "last-write-wins" => r#","stamp":"at""#,
            "custom" => r#","function":"public.joined""#,
            _ => "",
        };
        format!(
            r#""{table}":{{"primaryKey":"id","columns":{{"id":"TEXT","org":"TEXT","title":"TEXT","note":"TEXT","at":"TEXT"}},
            "feed":{{"match":{{"org":"org"}}}},"writable":{{"columns":["org","title","note","at"],
            "ops":["insert","update","delete"],"conflict":"{conflict}"{more}}}}}"#
        )
    });
    let defined = format!("{{{}}}", defined.collect::<Vec<_>>().join(","));
    let rig = Rig::of(&format!("{}{}{function} select", made.concat(), filled.concat()), &defined).await;
    let of_merged = rig.token("ann", "a");
    rig.fed.get_whole_as(Some(&of_merged), "table=merged&offset=-1").await;
    rig.fed.get_whole_as(Some(&of_merged), "table=others&offset=-1").await;
    let tokens = json!([of_merged, rig.token("bob", "b"), rig.token_without_claims()]).to_string();
    let variables = [("FEED_URL", rig.fed.url.as_str()), ("TOKENS", &tokens)];
    let program = Client::of("web", &here().join("nebula.mjs"), &[], &variables).await;
    assert_eq!(program.ends().await, json!("done"));
}
