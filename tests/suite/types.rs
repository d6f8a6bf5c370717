//! Every Postgres type from the source to the replica, on both write paths, with no difference.

use crate::corpus::{Corpus, LARGER, TYPES};
use crate::snapshot::rebuilt;
use crate::support::{Db, Home, PATHS, Path, Rig, cluster, newest_cluster, schema};
use crate::volume::set_up;
use pgflume::operate::verify::verify;
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use pgflume::sync::compare::report::VerifyOptions;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

async fn drain(rig: &Rig) {
    let done = rig.worker.drain(Duration::from_secs(120)).await.unwrap();
    assert_eq!(done.queued, 0, "{done:?}");
    let dead = "select concat_ws(' ', message->>'table', message->>'key', message->>'reason') from pgmq.q_replicate_data_libsql_dead order by 1";
    assert_eq!(rig.db.all(dead).await, Vec::<String>::new());
}

async fn assert_equal(rig: &Rig, corpus: &Corpus, least: usize) {
    let replica = Replica::open(&rig.home.target()).await.unwrap();
    let checked = corpus.check(&rig.db, &replica).await;
    assert!(
        checked.differences.is_empty(),
        "{} of {}: {:#?}",
        checked.differences.len(),
        checked.values,
        checked.differences
    );
    assert!(checked.values > least, "only {} values", checked.values);
}

async fn round_trip(db: Db, path: Path) {
    let mut corpus = Corpus::create(&db).await;
    if path == Path::File {
        corpus.add_larger(&db).await;
    }
    let rig = Rig::with(db, Home::new(path), corpus.schema());
    set_up(&rig.db.url(), rig.worker.schema()).await;
    corpus.fill(&rig.db).await;
    drain(&rig).await;
    assert_equal(&rig, &corpus, 2_000).await;
    corpus.change(&rig.db).await;
    drain(&rig).await;
    assert_equal(&rig, &corpus, 1_500).await;
    assert_verified(&rig).await;
    pgflume::sync::pairing::nuke(&rig.worker, None, true).await.unwrap();
    assert!(rig.drain().await.rows > 1_000, "the tables are copied");
    rebuilt(&rig).await;
    drain(&rig).await;
    assert_equal(&rig, &corpus, 1_500).await;
    assert_verified(&rig).await;
    if path == Path::File {
        assert_sees_a_difference(&rig, &corpus).await;
    }
}

/// What `verify` says about the same values.
async fn assert_verified(rig: &Rig) {
    let tables = rig.worker.schema().tables().map(|t| t.name.clone()).collect();
    let options = VerifyOptions { tables, ..VerifyOptions::default() };
    let report = verify(&rig.second_worker(), options, Arc::default()).await.unwrap();
    let wrong: Vec<_> =
        report.tables.iter().filter(|(_, t)| t.differences() + t.dead > 0 || t.problem.is_some()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(report.tables.values().map(|t| t.rows).sum::<u64>() > 1_000);
}

/// The check is worth something only if it finds one value of another storage class among thousands.
async fn assert_sees_a_difference(rig: &Rig, corpus: &Corpus) {
    let table = corpus.tables.iter().find(|t| t.name.ends_with("_uuid")).unwrap();
    rig.replica(&format!("UPDATE {} SET as_text = CAST(as_text AS BLOB) WHERE id = 1", table.name)).await;
    let replica = Replica::open(&rig.home.target()).await.unwrap();
    assert_eq!(corpus.check(&rig.db, &replica).await.differences.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_in_a_file_as_the_contract_says_whoever_wrote_it() {
    round_trip(Db::new().await, Path::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_in_sqld_as_the_contract_says_whoever_wrote_it() {
    round_trip(Db::new().await, Path::Sqld).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_postgres_18_arrives_in_a_file_as_the_contract_says() {
    round_trip(Db::on(newest_cluster(), "with_pgmq").await, Path::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_by_images_as_to_jsonb_made_it() {
    for path in PATHS {
        let db = Db::new().await;
        let corpus = Corpus::create(&db).await;
        let rig = Rig::with(db, Home::new(path), corpus.schema());
        corpus.send_images(&rig.db).await;
        drain(&rig).await;
        let replica = Replica::open(&rig.home.target()).await.unwrap();
        let checked = corpus.check_images(&rig.db, &replica).await;
        assert!(checked.differences.is_empty() && checked.values > 2_000, "{path:?}: {checked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_whose_bounds_json_would_lose_is_refused_and_its_row_says_so() {
    let columns =
        r#""id":"INTEGER","plain":"JSON","dom":"JSON","moods":"JSON","nested":"JSON","pairs":"JSON","vector":"JSON""#;
    let definition = format!(r#"{{"lists":{{"primaryKey":"id","columns":{{{columns}}},"lossy":["nested","pairs"]}}}}"#);
    let rig = Rig::new(Path::File, schema(&definition)).await;
    rig.db.sql(TYPES).await;
    rig.db.sql(r#"create table lists (id int primary key, plain int[], dom many, moods "My Types"."Mood ""2"""[], nested nest, pairs nest[], vector int2vector)"#).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let bad = [
        ("plain", "'[2:3]={1,2}'"),
        ("plain", "'[1:2][0:0]={{1},{2}}'"),
        ("plain", "'[-1:0]={1,2}'"),
        ("plain", "'[12:12]={1}'"),
        ("dom", "'[0:0]={1}'"),
        ("moods", "'[5:5]={x}'"),
        ("nested", "row(null, '[2:2]={1}', null, null, null, null, null)"),
        ("nested", "row(null, null, '[0:1]={a,\"b c\"}', null, null, null, null)"),
        ("pairs", "array[row(null, '[2:3]={1,2}', null, null, null, null, null)::nest]"),
        ("pairs", "'[7:7]={\"(,,,,,,)\"}'"),
    ];
    for (id, (column, value)) in bad.iter().enumerate() {
        rig.db.sql(&format!("insert into lists (id, {column}) values ({id}, {value})")).await;
    }
    rig.db.sql("insert into lists values (100, '{1,2}', '{}', '{x,null}', row(null, '{1}', '{[2:3]}', null, null, null, null), '{}', '1 2')").await;
    rig.worker.drain(Duration::from_secs(25)).await.unwrap();
    let reason = |(column, _): &(&str, &str)| {
        format!("column {column:?} has lower bounds other than 1, which JSON cannot hold; declare the column TEXT")
    };
    let dead = "select distinct on ((message->'key'->>0)::int) split_part(message->>'reason', ' [table', 1)
        from pgmq.q_replicate_data_libsql_dead order by (message->'key'->>0)::int";
    assert_eq!(rig.db.all(dead).await, bad.iter().map(reason).collect::<Vec<_>>());
    assert_eq!(rig.rows("SELECT id, plain, moods, vector FROM lists").await, [r#"100|[1, 2]|["x", null]|[1, 2]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_stop_their_own_row_only() {
    let admin = Db::on(cluster(), "template0").await;
    admin.sql("create database no_encoding template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'").await;
    let pgmq = PgUrl::parse(&cluster().url("no_encoding")).unwrap().connect().await.unwrap();
    pgmq.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
    drop(pgmq);
    let db = Db::named("bytes".into(), cluster(), "no_encoding").await;
    db.sql("select pgmq.create('replicate_data_libsql'); create table items (id int primary key, name text)").await;
    let items = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT"}}}"#;
    let rig = Rig::with(db, Home::new(Path::File), schema(items));
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.db.sql(r"insert into items values (1, E'\xff\xfe'), (2, E'\xc3\xa9')").await;
    rig.worker.drain(Duration::from_secs(25)).await.unwrap();
    let dead = "select distinct message->>'key' from pgmq.q_replicate_data_libsql_dead";
    assert_eq!(rig.db.all(dead).await, [r#"["1"]"#]);
    assert_eq!(rig.rows("SELECT * FROM items").await, ["2|é"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_a_server_refuses_becomes_a_dead_letter_and_the_others_arrive() {
    let items = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT"}}}"#;
    let rig = Rig::new(Path::Sqld, schema(items)).await;
    rig.db.sql("create table items (id int primary key, name text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.db.sql(&format!("insert into items values (1, 'a'), (2, {LARGER}), (3, 'b')")).await;
    let done = rig.worker.drain(Duration::from_secs(60)).await.unwrap();
    assert_eq!(done.queued, 0);
    let dead = "select distinct message->>'key' from pgmq.q_replicate_data_libsql_dead";
    assert_eq!(rig.db.all(dead).await, [r#"["2"]"#]);
    assert_eq!(rig.rows("SELECT * FROM items ORDER BY id").await, ["1|a", "3|b"]);
}

/// A line of a table in docs/types.md: type, declaration, SQL of an example, what `quote()` shows of it in
/// SQLite, and SQL over `v` that reads it.
struct Line {
    cells: Vec<String>,
    back: Option<String>,
}

fn documented() -> Vec<Line> {
    let code = |cell: &str| cell.split('`').nth(1).map(|text| text.replace(r"\|", "|"));
    let lines = include_str!("../../docs/types.md").lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 6, "{line}");
            Line { cells: cells[..4].iter().map(|c| code(c).expect(line)).collect(), back: code(cells[5]) }
        })
        .collect()
}

/// Tries the lines whose type this server has; their numbers.
async fn try_documented(db: Db, lines: &[Line]) -> BTreeSet<usize> {
    db.sql(TYPES).await;
    for extension in ["hstore", "ltree", "citext", "cube", "seg", "isn", "vector"] {
        db.client.batch_execute(&format!("create extension if not exists {extension}")).await.ok();
    }
    let mut definitions = serde_json::Map::new();
    let mut tried = BTreeSet::new();
    for (i, line) in lines.iter().enumerate() {
        let [postgres, declared, example, _] = &line.cells[..] else { unreachable!() };
        let made = db
            .client
            .batch_execute(&format!(
                "create table d{i} (id int primary key, v {postgres}); select ({example})::{postgres}"
            ))
            .await;
        if made.is_ok() {
            let table =
                serde_json::json!({"primaryKey": "id", "columns": {"id": "INTEGER", "v": declared}, "lossy": ["v"]});
            definitions.insert(format!("d{i}"), table);
            tried.insert(i);
        }
    }
    let rig = Rig::with(db, Home::new(Path::File), schema(&serde_json::Value::from(definitions).to_string()));
    set_up(&rig.db.url(), rig.worker.schema()).await;
    for i in &tried {
        rig.db.sql(&format!("insert into d{i} values (1, ({})::{})", lines[*i].cells[2], lines[*i].cells[0])).await;
    }
    drain(&rig).await;
    let mut wrong = Vec::new();
    for i in &tried {
        let found = rig.rows(&format!("SELECT quote(v) FROM d{i}")).await;
        if found != [lines[*i].cells[3].as_str()] {
            wrong.push(format!("{:?}: {found:?}", lines[*i].cells));
        }
        if let Some(back) = &lines[*i].back {
            let rows = rig.rows(&format!("SELECT {back} FROM d{i}")).await;
            assert!(rows.len() == 1 && rows[0] != "NULL", "{back}: {rows:?}");
        }
    }
    assert!(wrong.is_empty(), "docs/types.md: {wrong:#?}");
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_types_shows_what_arrives() {
    let lines = documented();
    let mut tried = try_documented(Db::new().await, &lines).await;
    tried.extend(try_documented(Db::on(newest_cluster(), "with_pgmq").await, &lines).await);
    let left: Vec<_> = (0..lines.len()).filter(|i| !tried.contains(i)).map(|i| &lines[i].cells).collect();
    assert!(left.is_empty() && lines.len() > 80, "not tried: {left:?}");
}

/// What Postgres writes, cast to its own text, and what arrives of the same values in binary.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_come_in_binary_say_what_their_text_says() {
    let json = r#"{"b":{"primaryKey":"i8","columns":{"i8":"INTEGER","i2":"INTEGER","i4":"INTEGER","f8":"REAL","flag":"BOOLEAN","bytes":"BLOB",
        "number":"DECIMAL","doc":"JSON","bin":"JSON","u":"TEXT","d":"TEXT","ts":"TEXT","tz":"TEXT","vc":"TEXT","own":"DECIMAL"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db
        .sql(
            "create domain money2 as numeric(12, 2);
             create table b (i8 bigint primary key, i2 smallint, i4 int, f8 float8, flag bool, bytes bytea, number numeric, doc json, bin jsonb,
                 u uuid, d date, ts timestamp, tz timestamptz, vc varchar, own money2);
             select setseed(0.42);
             insert into b select i, ((random() - 0.5) * 65535)::int, ((random() - 0.5) * 4294967294)::bigint,
                 case when i % 3 = 0 then sqrt(i) else (random() - 0.5) * power(10::float8, (random() * 600 - 300)::int) end, i % 2 = 0, decode(md5(i::text), 'hex'),
                 (random() * power(10::numeric, (i % 60)) - power(10::numeric, (i % 50)))::numeric * power(0.1::numeric, i % 37), json_build_object('n', i), jsonb_build_object('n', i, 's', 'é'),
                 md5(i::text)::uuid, date '2000-01-01' + ((random() - 0.5) * 4e6)::int, timestamp '1900-06-15' + (random() - 0.5) * interval '13000 years',
                 to_timestamp((random() - 0.5) * 4e11 + i / 1e6), 'v' || i, random() * 1e9 from generate_series(1, 3000) i;
             insert into b (i8, f8, number, d, ts, tz) values (-1, 'NaN', 'NaN', 'infinity', 'infinity', 'infinity'), (-2, 'Infinity', 'Infinity', '-infinity', '-infinity', '-infinity'),
                 (-3, '-Infinity', '-Infinity', '4713-01-01 BC', '4713-01-01 BC', '4713-01-01 00:00:00+00 BC'), (-4, '-0', 0.000, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00'),
                 (-5, 5e-324, 1e-16000, '0001-01-01', '0001-01-01', '0001-01-01 00:00:00+00'), (-6, 1.7e308, 1e130000, '0001-12-31 BC', '0001-12-31 23:59:59.5 BC', '0001-12-31 23:59:59.5+00 BC');
             insert into b (i8) values (-9223372036854775808)",
        )
        .await;
    rig.db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('v', 1, 'table', 'b', 'keys', jsonb_agg(jsonb_build_array(i8::text))) from b").await;
    assert_eq!(rig.drain().await.dead, 0);
    let expected = rig
        .db
        .all(
            "select concat_ws('|', i8, i2, i4, case when f8 in ('NaN', 'Infinity', '-Infinity') then f8::text end, flag::int, encode(bytes, 'hex'), number, doc, bin, u,
                 to_jsonb(d) #>> '{}', to_jsonb(ts) #>> '{}', to_jsonb(tz at time zone 'UTC') #>> '{}', vc, own)
             from b order by i8",
        )
        .await;
    let found = rig
        .rows(
            "SELECT concat_ws('|', i8, i2, i4, iif(typeof(f8) = 'text', f8, NULL), flag, lower(hex(bytes)), number, doc, bin, u, d, ts, replace(tz, '+00:00', ''), vc, own)
             FROM b ORDER BY i8",
        )
        .await;
    assert_eq!(found, expected);
    // Bit for bit: SQLite's file format has no negative zero.
    let sent = rig.db.all("select encode(float8send(nullif(f8, 0)), 'hex') from b where f8 is not null and f8 not in ('NaN', 'Infinity', '-Infinity') order by i8").await;
    let reals = rig.replica("SELECT f8 FROM b WHERE typeof(f8) = 'real' ORDER BY i8").await;
    for (row, sent) in reals.iter().zip(&sent).filter(|(_, sent)| *sent != "NULL") {
        let pgflume::core::value::Cell::Real(real) = row[0] else { panic!("{row:?}") };
        assert_eq!(format!("{:016x}", real.to_bits()), *sent);
    }
    assert_eq!(reals.len(), sent.len());
}
