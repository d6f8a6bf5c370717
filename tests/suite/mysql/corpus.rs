//! Values that are drawn: of each type as many as it takes, beside its edges. What arrives, by the first copy, by a stamp
//! and by the binlog, on both write paths, is what the server prints of it. `CORPUS_ROWS` (120), `CORPUS_SEED` (1).

use super::Rig;
use super::told_writers::number;
use super::writers::Dice;
use crate::support::PATHS;

/// How the server prints a column, and SQLite its copy: the same text.
#[derive(Clone, Copy)]
enum Shown {
    Text,
    Bytes,
    /// As a double with all its digits.
    Real,
    /// The shortest text of a single is another double than the single is.
    Single,
    Number,
}

/// A type, how it is shown, and an SQL value that it takes.
type Drawn = (&'static str, Shown, fn(&mut Dice) -> String);

fn pick(dice: &mut Dice, all: &[&str]) -> String {
    all[dice.below(all.len() as u64) as usize].to_owned()
}

fn digits(dice: &mut Dice, most: u64) -> String {
    let count = 1 + dice.below(most);
    (0..count).map(|_| char::from(b'0' + dice.below(10) as u8)).collect()
}

fn bytes(dice: &mut Dice, most: u64) -> String {
    let count = dice.below(most + 1);
    let hex: String = (0..count).map(|_| format!("{:02x}", dice.below(256))).collect();
    format!("x'{hex}'")
}

/// Text of characters that take a byte and more; `bits` of a code point at most.
fn text(dice: &mut Dice, most: u64, bits: u32) -> String {
    let count = dice.below(most + 1);
    let one = |dice: &mut Dice| match dice.below(8) {
        0 => ' ',
        1 => '\'',
        2 => '\\',
        3 if bits > 8 => char::from_u32(0x100 + dice.below(0x500) as u32).unwrap_or('ß'),
        4 if bits > 16 => char::from_u32(0x1f600 + dice.below(64) as u32).unwrap_or('😀'),
        5 if bits > 7 => char::from_u32(0xa1 + dice.below(0x5e) as u32).unwrap_or('é'),
        _ => char::from(b'a' + dice.below(26) as u8),
    };
    let drawn: String = (0..count).map(|_| one(dice)).collect();
    format!("'{}'", drawn.replace('\\', "\\\\").replace('\'', "''"))
}

fn decimal(dice: &mut Dice, whole: u64, behind: u64) -> String {
    let sign = if dice.below(2) == 0 { "-" } else { "" };
    format!("{sign}{}.{}", digits(dice, whole), digits(dice, behind))
}

fn float(dice: &mut Dice) -> String {
    let exponent = dice.below(70) as i64 - 35;
    format!("{}e{exponent}", decimal(dice, 1, 16))
}

fn day(dice: &mut Dice) -> String {
    format!("{:04}-{:02}-{:02}", 1000 + dice.below(9000), 1 + dice.below(12), 1 + dice.below(28))
}

fn clock(dice: &mut Dice) -> String {
    format!("{:02}:{:02}:{:02}.{:06}", dice.below(24), dice.below(60), dice.below(60), dice.below(1_000_000))
}

fn moment(dice: &mut Dice) -> String {
    format!("'{} {}'", day(dice), clock(dice))
}

fn stamp(dice: &mut Dice) -> String {
    format!("'{:04}-{:02}-{:02} {}'", 1971 + dice.below(67), 1 + dice.below(12), 1 + dice.below(28), clock(dice))
}

fn time(dice: &mut Dice) -> String {
    let sign = if dice.below(2) == 0 { "-" } else { "" };
    format!("'{sign}{:02}:{:02}:{:02}.{:06}'", dice.below(838), dice.below(60), dice.below(60), dice.below(1_000_000))
}

/// Now and then an edge.
fn number_of(dice: &mut Dice, bits: u32) -> i128 {
    let end = 1_i128 << bits;
    match dice.below(6) {
        0 => 0,
        1 => end - 1,
        2 => end / 2,
        _ => (0..4).fold(0, |number, _| (number << 20 | i128::from(dice.below(1 << 20))) % end),
    }
}

fn signed(dice: &mut Dice, bits: u32) -> String {
    (number_of(dice, bits) - (1_i128 << (bits - 1))).to_string()
}

fn unsigned(dice: &mut Dice, bits: u32) -> String {
    number_of(dice, bits).to_string()
}

fn json(dice: &mut Dice, depth: u32) -> String {
    match dice.below(if depth > 3 { 5 } else { 7 }) {
        0 => "null".into(),
        1 => pick(dice, &["true", "false"]),
        2 => signed(dice, 64),
        3 => pick(dice, &["0", "-1", "1.5", "-0.25", "1e10", "9223372036854775807"]),
        4 => pick(dice, &["\"\"", "\"ß😀\"", "\"a \\\\\\\"quoted\\\\\\\" one\"", "\"line\\\\nbreak\""]),
        5 => format!("[{}]", (0..dice.below(4)).map(|_| json(dice, depth + 1)).collect::<Vec<_>>().join(", ")),
        _ => {
            let members = (0..dice.below(4)).map(|at| format!("\"k{at}\": {}", json(dice, depth + 1)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

const TYPES: [Drawn; 44] = [
    ("tinyint", Shown::Number, |d| signed(d, 8)),
    ("tinyint unsigned", Shown::Number, |d| unsigned(d, 8)),
    ("smallint", Shown::Number, |d| signed(d, 16)),
    ("mediumint unsigned", Shown::Number, |d| unsigned(d, 24)),
    ("int", Shown::Number, |d| signed(d, 32)),
    ("int unsigned", Shown::Number, |d| unsigned(d, 32)),
    ("bigint", Shown::Number, |d| signed(d, 64)),
    ("bigint unsigned", Shown::Number, |d| unsigned(d, 64)),
    ("year", Shown::Number, |d| pick(d, &["0", "1901", "2000", "2155"])),
    ("decimal(1,0)", Shown::Text, |d| digits(d, 1)),
    ("decimal(18,9)", Shown::Text, |d| decimal(d, 9, 9)),
    ("decimal(65,30)", Shown::Text, |d| decimal(d, 35, 30)),
    ("decimal(65,0) unsigned", Shown::Text, |d| digits(d, 65)),
    ("float", Shown::Single, float),
    ("float", Shown::Single, |d| pick(d, &["3.4028235e38", "1.17549e-38", "16777217", "-0.0", "0.1"])),
    ("double", Shown::Real, float),
    ("double", Shown::Real, |d| pick(d, &["1.7976931348623157e308", "2.5e-308", "0.1", "-0.0", "1e100"])),
    ("bit(1)", Shown::Number, |d| unsigned(d, 1)),
    ("bit(33)", Shown::Number, |d| unsigned(d, 33)),
    ("char(9)", Shown::Text, |d| text(d, 9, 21)),
    ("char(9) character set latin1", Shown::Text, |d| text(d, 9, 8)),
    ("varchar(20) character set ascii", Shown::Text, |d| text(d, 20, 7)),
    ("varchar(20) character set latin1", Shown::Text, |d| text(d, 20, 8)),
    ("varchar(20) character set utf8mb3", Shown::Text, |d| text(d, 20, 16)),
    ("varchar(20) character set utf16", Shown::Text, |d| text(d, 20, 21)),
    ("varchar(20) collate utf8mb4_bin", Shown::Text, |d| text(d, 20, 21)),
    ("varchar(300) collate utf8mb4_general_ci", Shown::Text, |d| text(d, 300, 21)),
    ("tinytext", Shown::Text, |d| text(d, 50, 21)),
    ("longtext character set ucs2", Shown::Text, |d| text(d, 100, 16)),
    ("enum('a','B','ß','with , and ''') collate utf8mb4_bin", Shown::Text, |d| unsigned_below(d, 1, 4)),
    ("set('a','b','ß','long name')", Shown::Text, |d| unsigned_below(d, 0, 16)),
    ("binary(4)", Shown::Bytes, |d| bytes(d, 4)),
    ("varbinary(20)", Shown::Bytes, |d| bytes(d, 20)),
    ("tinyblob", Shown::Bytes, |d| bytes(d, 255)),
    ("mediumblob", Shown::Bytes, |d| bytes(d, 999)),
    ("json", Shown::Text, |d| format!("'{}'", json(d, 0))),
    ("date", Shown::Text, |d| format!("'{}'", day(d))),
    ("date", Shown::Text, |d| pick(d, &["'0000-00-00'", "'2026-00-00'", "'2026-02-00'", "'0001-01-01'"])),
    ("datetime", Shown::Text, moment),
    ("datetime(6)", Shown::Text, moment),
    ("timestamp(6)", Shown::Text, stamp),
    ("time", Shown::Text, time),
    ("time(6)", Shown::Text, time),
    ("geometry", Shown::Bytes, |d| {
        let (x, y) = (decimal(d, 2, 3), decimal(d, 2, 3));
        pick(d, &["point({x}, {y})", "linestring(point({x}, {y}), point({y}, {x}))"])
            .replace("{x}", &x)
            .replace("{y}", &y)
    }),
];

fn unsigned_below(dice: &mut Dice, least: u64, most: u64) -> String {
    (least + dice.below(most + 1 - least)).min(most - u64::from(least == 0)).to_string()
}

/// What the server prints of all rows, and what SQLite does of their copies.
async fn assert_as_printed(rig: &Rig, context: &str) {
    for (i, (declared, shown, _)) in TYPES.iter().enumerate() {
        let (there, here) = match shown {
            Shown::Text => {
                (format!("hex(convert(cast(c{i} as char) using utf8mb4))"), format!("hex(CAST(c{i} AS TEXT))"))
            }
            Shown::Bytes => (format!("hex(c{i})"), format!("hex(c{i})")),
            Shown::Number => (format!("c{i} + 0"), format!("CAST(c{i} AS TEXT)")),
            // By 17 digits, which tell each double from every other.
            Shown::Real | Shown::Single => (
                format!("concat(c{i} + 0e0, ' ', c{i} + 0e0 - (concat(c{i} + 0e0) + 0e0))"),
                format!("printf('%!.17g', c{i})"),
            ),
        };
        let there = rig.source(&format!("select concat(id, '|', ifnull({there}, 'NULL')) from t order by id")).await;
        let here = rig
            .rows(&format!("SELECT id, CASE WHEN c{i} IS NULL THEN 'NULL' ELSE {here} END FROM t ORDER BY id"))
            .await;
        assert_eq!(here.len(), there.len(), "{context}, {declared}");
        for (here, there) in here.iter().zip(&there) {
            // A text of the server's that lacks a digit, and what it lacks.
            let sum = |numbers: &str| numbers.split(' ').map(|number| number.parse::<f64>().ok()).sum::<Option<f64>>();
            let real = |text: &str| text.split_once('|').map(|(id, numbers)| (id.to_owned(), sum(numbers)));
            let single = |text: &str| real(text).map(|(id, number)| (id, number.map(|number| number as f32)));
            let is_equal = match shown {
                Shown::Single => single(here) == single(there),
                Shown::Real => real(here) == real(there),
                _ => here == there,
            };
            assert!(is_equal, "{context}, {declared}: {here} instead of {there}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_of_each_type_arrives_as_the_server_prints_it() {
    let (rows, seed) = (number("CORPUS_ROWS", 120), number("CORPUS_SEED", 1));
    let columns: Vec<String> =
        TYPES.iter().enumerate().map(|(i, (declared, ..))| format!("c{i} {declared} null")).collect();
    let table = format!(
        "create table t (id int primary key, {}, updated_at timestamp(6) not null default now(6), index (updated_at)) row_format = dynamic",
        columns.join(", ")
    );
    for path in PATHS {
        let rig = Rig::undefined(path, &table).await;
        let mut dice = Dice(seed);
        let mut next = 0;
        for promise in ["stamped", "stamped", "exact", "exact"] {
            rig.may_read_binlog(promise == "exact").await;
            let mut sql = String::from("set time_zone = '+02:30', sql_mode = ''");
            for _ in 0..rows {
                let values: Vec<String> = TYPES
                    .iter()
                    .map(|(_, _, draw)| if dice.below(12) == 0 { "null".to_owned() } else { draw(&mut dice) })
                    .collect();
                sql += &format!("; insert into t values ({next}, {}, default)", values.join(", "));
                next += 1;
            }
            rig.sql(&sql).await;
            let passed = rig.pass_of(rig.named()).await;
            assert_eq!((passed.promise, passed.dead, passed.problems.len()), (Some(promise), 0, 0), "{passed:?}");
            assert_as_printed(&rig, &format!("{path:?}, seed {seed}, {promise}")).await;
        }
        let report = rig.pull().verify(&[], false).await.unwrap();
        assert_eq!((report.tables["t"].rows, report.tables["t"].differences()), (next, 0), "{report:?}");
    }
}
