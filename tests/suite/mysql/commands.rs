//! From the command line, by `pgflume.json`.

use super::{Rig, is_mysql, server};
use crate::parts::Program;
use crate::support::Path;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_tested_and_its_tables_are_brought_by_a_command() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (id int primary key, updated_at datetime not null); insert into t values (1, '2026-01-02 03:04:05');
         create table u (id int primary key); create procedure p() select 1",
    )
    .await;
    let variables = [("LIBSQL_URL", "file:r.db"), ("PW", "p@:/ß")];
    let program = Program::new("{}", &variables);
    let url = format!("mysql://{}@127.0.0.1:{}/{}", rig.name, server().port(), rig.name);
    let file = format!(
        r#"{{"connections":{{"shop":{{"url":"{url}","password":"${{PW}}"}}}},"syncs":{{"shop":{{"from":"shop","exclude":["u"]}}}}}}"#
    );
    program.write("pgflume.json", &file);
    let tested = program.run(&["connection", "test", "shop"]).await;
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.status.success(), "{said} {}", String::from_utf8_lossy(&tested.stderr));
    assert!(
        said.contains(server().kind().name()) && said.contains("t: as far as timestamps tell (updated_at)"),
        "{said}"
    );
    assert!(said.contains("binlog is not read: the login lacks BINLOG MONITOR"), "{said}");
    // Keys that the log does not tell byte by byte.
    let kind = if is_mysql() { "varchar(9) character set utf16" } else { "inet6" };
    rig.sql(&format!(
        "grant replication slave, binlog monitor on *.* to {}@'%'; create table i (id {kind} primary key)",
        rig.name
    ))
    .await;
    let tested = program.run(&["connection", "test", "shop"]).await;
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    for expected in [
        "found by the server's binlog",
        "t: exact: equal to one moment",
        "i: equal whenever",
        if is_mysql() {
            "a key of type varchar(9) in utf16 is not read"
        } else {
            "a key of type inet6 is not read from it"
        },
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let synced = program.run(&["sync", "shop"]).await;
    assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));
    let status = program.run(&["status", "shop"]).await;
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("changes are found by the server's binlog"), "{said}");
    let wrong = program.command(&["sync", "shop"]).env("PW", "hunter2").output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("1045") && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_syncs_are_kept_by_commands() {
    let rig =
        Rig::undefined(Path::File, "create table t (id int primary key); create table u (id int primary key)").await;
    let program = Program::new("{}", &[("LIBSQL_URL", "file:r.db"), ("PW", "p@:/ß")]);
    let url = format!("mysql://{}@127.0.0.1:{}/{}", rig.name, server().port(), rig.name);
    let commands: [(&[&str], &str); 9] = [
        (&["connection", "add", "shop", "--url", &url, "--password-env", "PW"], ""),
        (&["connection", "list"], "shop"),
        (&["sync", "add", "shop", "--from", "shop", "--every", "5s", "--exclude", "u"], ""),
        (&["sync", "disable", "shop"], ""),
        (&["sync", "enable", "shop"], ""),
        (&["sync", "list"], "shop"),
        (&["sync", "shop"], "\"rows\":0"),
        (&["verify", "--sync", "shop"], "t: equal"),
        (&["status", "shop"], "t: following"),
    ];
    for (command, expected) in commands {
        let done = program.run(command).await;
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains(expected), "{command:?}: {said} {errors}");
        assert!(!said.contains("p@:/ß") && !errors.contains("p@:/ß"), "{command:?}: {said} {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_written_into_the_file_of_a_sync() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (id int primary key, v decimal(9,2), w varchar(20), index (w)); insert into t values (1, 2.50, 'x');
         create table keyless (v int); create table u (id int primary key)",
    )
    .await;
    let program = Program::new("{}", &[("LIBSQL_URL", "file:r.db"), ("PW", "p@:/ß")]);
    let url = format!("mysql://{}@127.0.0.1:{}/{}", rig.name, server().port(), rig.name);
    let file = format!(
        r#"{{"connections":{{"shop":{{"url":"{url}","password":"${{PW}}"}}}},"syncs":{{"shop":{{"from":"shop","schema":"shop.json"}}}}}}"#
    );
    program.write("pgflume.json", &file);
    let run = async |command: &[&str]| {
        let done = program.run(command).await;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{command:?}: {said} {}", String::from_utf8_lossy(&done.stderr));
        said
    };
    let said = run(&["init", "--sync", "shop", "--exclude", "u"]).await;
    for words in
        [".t: 3 columns, key id, 1 indexes", "neither a primary key", "Next: look through it, then pgflume sync shop"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let written = program.read("shop.json");
    let defined = pgflume::core::schema::Schema::parse(&written).unwrap();
    assert_eq!(defined.tables().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["t"]);
    assert!(written.contains(r#""v": "DECIMAL""#), "{written}");
    assert!(run(&["sync", "shop"]).await.contains("\"rows\":1"));
    rig.sql("alter table t add x int").await;
    assert!(run(&["init", "--sync", "shop", "--exclude", "u"]).await.contains("t: x INTEGER"));
    assert_eq!(program.read("shop.json"), written);
    run(&["init", "--sync", "shop", "--exclude", "u", "--add-columns"]).await;
    assert!(program.read("shop.json").contains(r#""x": "INTEGER""#));
}
