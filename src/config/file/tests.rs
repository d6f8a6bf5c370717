use super::*;
use crate::core::config_error::ConfigError;
use std::io::Write as _;
use std::path::Path;

fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::parse(Path::new("pgflume.json"), text)
}

const GOOD: &str = r#"{ "$schema": "docs/pgflume-v1.json",
  "connections": { "shop": { "url": "postgres://reader@db/shop", "password": "${PGFLUME_TEST_PASSWORD}", "limit": "5/s" },
                   "edge": { "url": "libsql://edge.example", "token": "a-token" } },
  "syncs": { "shop": { "from": "shop", "tables": ["*"], "exclude": ["*_log"], "every": "5s", "compare": "1d" },
             "erp": { "from": "postgres", "to": "edge", "enabled": false, "schema": "erp.json", "retries": 0 },
             "events": { "queue": "events_libsql", "from": "postgres", "schema": "events.json", "compare": "never" } } }"#;

#[test]
fn a_file_says_what_is_synced_and_how_often() {
    let file = parse(GOOD).unwrap();
    let shop = &file.syncs["shop"];
    assert_eq!((shop.to.as_str(), shop.every.time.as_secs(), shop.enabled), ("replica", 5, true));
    assert_eq!((&shop.tables[..], &shop.exclude[..]), (&["*".to_owned()][..], &["*_log".to_owned()][..]));
    assert_eq!(shop.compare.as_ref().unwrap().time.as_secs(), 86400);
    let erp = &file.syncs["erp"];
    assert_eq!((erp.every.time.as_secs(), erp.retries, erp.enabled), (300, 0, false));
    assert!(file.syncs["events"].queue.is_some() && file.syncs["events"].compare.is_none());
    assert_eq!(file.connections["shop"].limit, Some(Limit { requests: 5, per: std::time::Duration::from_secs(1) }));
    assert_eq!(file.users_of("edge"), ["erp"]);
}

#[test]
fn whatever_is_wrong_is_named_by_its_path_with_the_remedy() {
    let cases = [
        ("[]", "$ must be an object"),
        ("{", "$ is not valid JSON"),
        (r#"{"sync": {}}"#, "$.sync is unknown; known are $schema, connections, syncs"),
        (r#"{"connections": []}"#, "$.connections must be an object"),
        (r#"{"connections": {"a": {}}}"#, "$.connections.a lacks url"),
        (r#"{"connections": {"a": {"url": 5}}}"#, "$.connections.a.url must be a string"),
        (r#"{"connections": {"a": {"url": {"file": ""}}}}"#, "$.connections.a.url must name a file"),
        (r#"{"connections": {"a": {"url": "postgres://x", "port": 1}}}"#, "$.connections.a.port is unknown"),
        (r#"{"connections": {"a": {"url": "x$y"}}}"#, "$.connections.a.url has a single $"),
        (r#"{"connections": {"a": {"url": "x${y"}}}"#, "$.connections.a.url has a single $"),
        (r#"{"connections": {"a": {"url": "${a b}"}}}"#, "which is no variable's name"),
        (r#"{"connections": {"a": {"url": "x", "limit": "5"}}}"#, "$.connections.a.limit is no limit"),
        (r#"{"connections": {"a": {"url": "x", "limit": "0/s"}}}"#, "$.connections.a.limit is no limit"),
        (r#"{"connections": {"a b": {"url": "x"}}}"#, "$.connections.a b is no name"),
        (r#"{"connections": {"a": {"url": "x"}, "a": {"url": "y"}}}"#, "$.connections.a is there twice"),
        (r#"{"syncs": {"list": {"from": "postgres"}}}"#, "$.syncs.list is a command"),
        (r#"{"syncs": {"s": {}}}"#, "$.syncs.s lacks from"),
        (r#"{"syncs": {"s": {"from": "nowhere"}}}"#, "$.syncs.s.from names the connection \"nowhere\""),
        (r#"{"syncs": {"s": {"from": "postgres", "to": "nowhere"}}}"#, "$.syncs.s.to names"),
        (r#"{"syncs": {"s": {"from": "postgres", "every": "often"}}}"#, "$.syncs.s.every \"often\" is no time"),
        (r#"{"syncs": {"s": {"from": "postgres", "every": "1ms"}}}"#, "$.syncs.s.every is too short"),
        (r#"{"syncs": {"s": {"from": "postgres", "every": "1000years"}}}"#, "$.syncs.s.every is too long"),
        (r#"{"syncs": {"s": {"from": "postgres", "every": 5}}}"#, "$.syncs.s.every must be a string"),
        (r#"{"syncs": {"s": {"from": "postgres", "retries": "3"}}}"#, "$.syncs.s.retries must be a whole number"),
        (
            r#"{"syncs": {"s": {"from": "postgres", "retries": 101}}}"#,
            "$.syncs.s.retries must be a number from 0 to 100",
        ),
        (r#"{"syncs": {"s": {"from": "postgres", "enabled": "yes"}}}"#, "$.syncs.s.enabled must be true or false"),
        (r#"{"syncs": {"s": {"from": "postgres", "tables": [1]}}}"#, "$.syncs.s.tables[0] must be a string"),
        (r#"{"syncs": {"s": {"from": "postgres", "tables": ["t"], "schema": "x.json"}}}"#, "$.syncs.s.schema defines"),
        (r#"{"syncs": {"s": {"from": "postgres", "queue": "Q"}}}"#, "$.syncs.s.queue"),
        (r#"{"syncs": {"s": {"from": "postgres", "queue": "q"}}}"#, "$.syncs.s has a queue and lacks schema"),
        (
            r#"{"syncs": {"s": {"from": "postgres", "queue": "q", "schema": "a"}, "t": {"from": "postgres", "queue": "r", "schema": "b"}}}"#,
            "$.syncs.t.to names the replica that the sync \"s\" feeds",
        ),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err().0;
        assert!(error.starts_with("pgflume.json: ") && error.contains(expected), "{text}: {error}");
    }
}

fn resolved(connection: &str, json: &str) -> Result<String, String> {
    let file = parse(&format!(r#"{{"connections": {{{connection:?}: {json}}}}}"#)).map_err(|e| e.0)?;
    match file.connections[connection].resolve(&file.directory(), false) {
        Ok(Resolved::Postgres(url)) => Ok(url.place()),
        Ok(Resolved::MySql(url)) => Ok(format!("{url:?}")),
        Ok(Resolved::Target(target)) => Ok(format!("{target:?}")),
        Err(e) => Err(e.0),
    }
}

#[test]
fn variables_and_files_stand_for_values_and_secrets_are_never_shown() {
    // PATH is set everywhere, and holds what a URL cannot.
    let path = std::env::var("PATH").unwrap();
    let url = r#"{"url": "postgres://reader:${PATH}@db.example/shop"}"#;
    assert_eq!(resolved("a", url).unwrap(), "reader@db.example/shop");
    let error = resolved("a", r#"{"url": "postgres://db", "password": "${PGFLUME_TEST_UNSET}"}"#).unwrap_err();
    assert!(
        error.contains("$.connections.a.password needs the variable PGFLUME_TEST_UNSET, which is not set"),
        "{error}"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "postgres://reader:s3cret@db.example/shop").unwrap();
    let json = format!(r#"{{"url": {{"file": {:?}}}}}"#, file.path());
    assert_eq!(resolved("a", &json).unwrap(), "reader@db.example/shop");
    let error = resolved("a", r#"{"url": {"file": "not-there"}}"#).unwrap_err();
    assert!(error.contains("names the file not-there, which cannot be read"), "{error}");
    let target = resolved("a", r#"{"url": "https://x.example", "token": "$$ecret"}"#).unwrap();
    assert!(target.contains("https://x.example") && !target.contains("ecret\""), "{target}");
    let error = resolved("a", r#"{"url": "ws://x"}"#).unwrap_err();
    assert!(error.starts_with("$.connections.a.url begins with ws://"), "{error}");
    let error = resolved("a", r#"{"url": "mysql://x/y"}"#).unwrap_err();
    assert!(error.contains("$.connections.a.url names no user"), "{error}");
    let url = resolved("a", r#"{"url": "mariadb://x/y", "user": "u", "password": "s3:/cret"}"#).unwrap();
    assert_eq!(url, "mysql://u@x:3306/y");
    let error = resolved("a", r#"{"url": "http://db.example", "token": "t"}"#).unwrap_err();
    assert!(error.contains("unencrypted"), "{error}");
    assert!(!path.is_empty());
    let shown = parse(r#"{"connections": {"a": {"url": "postgres://reader:hunter2@db/shop"}}}"#).unwrap();
    assert_eq!(shown.connections["a"].shown(), "postgres://reader@db/shop");
    let text = r#"{"connections": {"a": {"url": "postgres://db/shop?password=hunter2", "token": "hunter2"}}}"#;
    let hidden = parse(text).unwrap();
    assert_eq!(hidden.connections["a"].shown(), "postgres://db/shop");
    assert!(!format!("{hidden:?}").contains("hunter2"));
}
