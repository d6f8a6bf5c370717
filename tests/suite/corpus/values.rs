//! The corpus as data: each Postgres type, what it may be declared as, and its extreme values.

/// What a type needs besides PostgreSQL 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Version(i32),
    Extension(&'static str),
    /// A server built with libxml.
    Xml,
}

/// One Postgres type.
#[derive(Debug, Clone)]
pub struct Kind {
    /// As in `create table`.
    pub postgres: &'static str,
    /// The column types of `schema.json` that it is tried as.
    pub declared: &'static str,
    /// Those that it is tried as in a primary key; empty where the type has no order.
    pub key: &'static str,
    /// SQL expressions.
    pub values: Vec<&'static str>,
    /// SQL expressions that only TEXT can hold.
    pub text_only: Vec<&'static str>,
    pub needs: Needs,
}

impl Kind {
    fn text_only(mut self, values: &[&'static str]) -> Self {
        self.text_only = values.to_vec();
        self
    }

    fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}

fn kind(postgres: &'static str, declared: &'static str, key: &'static str, values: &[&'static str]) -> Kind {
    Kind { postgres, declared, key, values: values.to_vec(), text_only: Vec::new(), needs: Needs::Nothing }
}

/// Types that the corpus uses.
pub const TYPES: &str = r#"
create schema "My Types";
create type mood as enum ('sad', 'it''s ok', 'very "happy"', ' spaced out ', 'a,b', '{}', 'NULL', '😀');
create type "My Types"."Mood ""2""" as enum ('x', 'Y y');
create type pair as (a int, "B b" text);
create type nest as (p pair, list int[], words text[], at timestamptz, f float8, j jsonb, m mood);
create domain short as text check (length(value) < 1000);
create domain shorter as short check (length(value) < 500);
create domain counted as int8 check (value is distinct from 13);
create domain price as numeric(12, 4);
create domain moment as timestamptz;
create domain day_of as date;
create domain many as int[] check (array_length(value, 1) is null or array_length(value, 1) < 100);
create domain checked_pair as pair;
create domain document as jsonb;
create domain raw as bytea;
create type text_range as range (subtype = text, collation = "C");
create type float_range as range (subtype = float8);"#;

/// Every type of the corpus.
pub fn kinds() -> Vec<Kind> {
    [
        numbers(),
        texts(),
        times(),
        bytes_and_bits(),
        documents(),
        networks(),
        geometry(),
        search(),
        system(),
        ranges(),
        made(),
        arrays(),
        extensions(),
    ]
    .concat()
}

fn numbers() -> Vec<Kind> {
    vec![
        kind("bool", "BOOLEAN INTEGER TEXT JSON", "BOOLEAN INTEGER TEXT", &["true", "false"]),
        kind("int2", "INTEGER REAL TEXT DECIMAL JSON", "INTEGER TEXT", &["32767", "-32768", "0", "1", "-1"]),
        kind(
            "int4",
            "INTEGER REAL TEXT DECIMAL JSON",
            "INTEGER TEXT REAL",
            &["2147483647", "-2147483648", "0", "1", "-1"],
        ),
        kind(
            "int8",
            "INTEGER TEXT DECIMAL JSON",
            "INTEGER TEXT DECIMAL",
            &["9223372036854775807", "-9223372036854775808", "9007199254740993", "-9007199254740993", "0", "1", "-1"],
        ),
        kind(
            "numeric",
            "DECIMAL TEXT JSON",
            "DECIMAL TEXT",
            &[
                "'1.1'",
                "'1.10'",
                "'1.100'",
                "'1'",
                "'1.0'",
                "'0'",
                "'0.00'",
                "'-0.00'",
                "'-1.5'",
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "repeat('1234567890', 100)",
                "'-0.' || repeat('0123456789', 100)",
                "'1e100'",
                "'1e-100'",
                "'9007199254740993'",
                "'9223372036854775808'",
                "'0.1'",
                "'1e3'",
            ],
        ),
        kind(
            "numeric(20,3)",
            "DECIMAL TEXT JSON",
            "DECIMAL TEXT",
            &["'1.1'", "'12345678901234567.125'", "'-0.001'", "'0'", "'NaN'"],
        ),
        kind(
            "numeric(15,2)",
            "REAL DECIMAL TEXT JSON",
            "DECIMAL TEXT",
            &["'1.10'", "'9999999999999.99'", "'-9999999999999.99'", "'0.01'", "'0'", "'NaN'", "'1234567890123.45'"],
        ),
        kind(
            "numeric(15,15)",
            "REAL DECIMAL TEXT",
            "DECIMAL TEXT",
            &["'0.999999999999999'", "'0.000000000000001'", "'-0.123456789012345'", "'0'"],
        ),
        kind(
            "numeric(18,0)",
            "INTEGER DECIMAL TEXT JSON",
            "INTEGER DECIMAL",
            &["'999999999999999999'", "'-999999999999999999'", "'0'", "'5'"],
        ),
        kind(
            "float8",
            "REAL TEXT DECIMAL JSON",
            "REAL TEXT",
            &[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "'1.7976931348623157e308'",
                "'-1.7976931348623157e308'",
                "'2.2250738585072014e-308'",
                "'2.225073858507201e-308'",
                "'5e-324'",
                "'-5e-324'",
                "'0.1'",
                "'0.30000000000000004'",
                "'0.3'",
                "'1e23'",
                "'9007199254740993'",
                "'9007199254740992'",
                "'-9007199254740994'",
                "'1e22'",
                "'123456789012345680'",
                "'3.141592653589793'",
                "'1'",
                "'100'",
                "'8.41e21'",
                "'2e-5'",
                "'1.5e300'",
                "'7.2057594037927933e16'",
                "'9.5367431640625e-7'",
                "'4.9406564584124654e-322'",
                "0",
            ],
        )
        // JSON has no negative zero, and REAL neither: said in docs/types.md.
        .text_only(&["'-0'"]),
        kind(
            "float4",
            "REAL TEXT DECIMAL JSON",
            "REAL TEXT",
            &[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "'3.4028235e38'",
                "'-3.4028235e38'",
                "'1.1754944e-38'",
                "'1e-45'",
                "'0.1'",
                "'16777217'",
                "'1.17549421e-38'",
                "'0'",
                "'-2.5'",
                "'7.038531e-26'",
            ],
        )
        .text_only(&["'-0'"]),
        kind(
            "money",
            "TEXT DECIMAL JSON",
            "TEXT",
            &["'$1,234.56'", "'-92233720368547758.08'", "'92233720368547758.07'", "0", "-0.01::numeric"],
        ),
    ]
}

fn texts() -> Vec<Kind> {
    const CONTROLS: &str = "(select string_agg(chr(i), '') from generate_series(1, 31) i) || chr(127) || (select string_agg(chr(i), '') from generate_series(128, 160) i)";
    const EVIL: [&str; 34] = [
        "'plain'",
        "''",
        "' '",
        "'   trailing   '",
        "E'a\\nb\\r\\nc\\td'",
        "E'\\'\"`'",
        r"E'\\'",
        r"E'\\x6162'",
        r"E'\\u0000'",
        "'null'",
        "'NULL'",
        "'true'",
        "'007'",
        "'1.10'",
        "'-0'",
        "'1e5'",
        "'NaN'",
        "'Infinity'",
        "'[1, 2.0]'",
        "'{\"a\":  1.0}'",
        "'{1,NULL}'",
        "'!bounds'",
        "U&'\\+01F600\\+01F468\\200D\\+01F469\\200D\\+01F467'",
        "U&'\\+10FFFF'",
        "U&'\\FFFF\\FFFE\\FEFFbom'",
        "U&'e\\0301 \\00E9'",
        "U&'\\202Ertl\\202C \\2028\\2029'",
        CONTROLS,
        "repeat('é', 300)",
        "'''; drop table x; --'",
        "'?1 $1 :a @b'",
        "'%s %n \\0'",
        "repeat('\"', 200)",
        "repeat(E'\\\\', 200)",
    ];
    vec![
        kind("text", "TEXT JSON DECIMAL", "TEXT", &EVIL),
        kind("varchar(300)", "TEXT JSON", "TEXT", &EVIL),
        kind("bpchar", "TEXT", "TEXT", &["'ab'", "'ab  '", "''", "'  lead'"]),
        kind("char(5)", "TEXT JSON", "TEXT", &["'ab'", "'abcde'", "''", "'  x'", "'é😀'"]),
        kind("\"char\"", "TEXT JSON", "TEXT", &["'a'", "''", "'\\'", "' '", "(-56)::\"char\"", "1::\"char\""]),
        kind("name", "TEXT JSON", "TEXT", &["'a_name'", "''", "repeat('n', 63)", "'with \"quote'"]),
        kind("shorter", "TEXT JSON", "TEXT", &["'a domain over a domain'", "''", "E'\\n'", "'{\"j\": 1}'"]),
    ]
}

fn times() -> Vec<Kind> {
    const STAMPS: [&str; 11] = [
        "'2024-02-29 12:00:00.123456'",
        "'2024-02-29 12:00:00.1'",
        "'2024-02-29 12:00:00'",
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 00:00:00 BC'",
        "'0001-01-01 BC'",
        "'0001-01-01'",
        "'294276-12-31 23:59:59.999999'",
        "'1970-01-01'",
        "'12345-06-07 01:02:03'",
    ];
    const STAMPS_TZ: [&str; 12] = [
        "'2024-02-29 12:00:00.123456+05:45'",
        "'2024-02-29 12:00:00.000001-12'",
        "'2024-03-31 02:30:00 Europe/Berlin'",
        "'2024-10-27 02:30:00+01'",
        "'2024-10-27 02:30:00+02'",
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 00:00:00+00 BC'",
        "'0044-03-15 12:00:00+00 BC'",
        "'294276-12-31 23:59:59.999999+00'",
        "'1900-01-01 00:00:00+00'",
        "'12345-06-07 01:02:03+00'",
    ];
    const DATES: [&str; 9] = [
        "'2024-02-29'",
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 BC'",
        "'0001-12-31 BC'",
        "'0001-01-01'",
        "'5874897-12-31'",
        "'1970-01-01'",
        "'10000-01-01'",
    ];
    const INTERVALS: [&str; 16] = [
        "'1 day'",
        "'24 hours'",
        "'-1 day'",
        "'1 mon'",
        "'30 days'",
        "'1 year 2 mons 3 days 04:05:06.789012'",
        "'-1 year -2 mons +3 days -04:05:06.000001'",
        "'0'",
        "'00:00:00.000001'",
        "'-00:00:01'",
        "'178000000 years'",
        "'-178000000 years'",
        "make_interval(days => 2147483647)",
        "'2562047788:00:54.775807'",
        "'1 mon -1 day'",
        "'-1 mon +00:00:00.5'",
    ];
    vec![
        kind("timestamp", "TEXT JSON", "TEXT", &STAMPS),
        kind("timestamp(3)", "TEXT", "TEXT", &["'2024-02-29 12:00:00.123456'", "'2024-02-29 12:00:00.12'"]),
        kind("timestamptz", "TEXT JSON", "TEXT", &STAMPS_TZ),
        kind("date", "TEXT JSON", "TEXT", &DATES),
        kind("moment", "TEXT JSON", "TEXT", &STAMPS_TZ),
        kind("day_of", "TEXT JSON", "TEXT", &DATES),
        kind("time", "TEXT JSON", "TEXT", &["'24:00:00'", "'00:00:00'", "'23:59:59.999999'", "'12:00:00.1'"]),
        kind(
            "timetz",
            "TEXT JSON",
            "TEXT",
            &[
                "'24:00:00+00'",
                "'00:00:00-15:59:59'",
                "'00:00:00+15:59'",
                "'12:00:00.000001+05:45'",
                "'12:00:00+00'",
                "'13:00:00+01'",
            ],
        ),
        kind("interval", "TEXT JSON", "TEXT", &INTERVALS),
        kind("interval", "TEXT JSON", "TEXT", &["'infinity'", "'-infinity'", "'1 day'"]).needs(Needs::Version(17)),
    ]
}

fn bytes_and_bits() -> Vec<Kind> {
    const BYTES: [&str; 6] = [
        "decode((select string_agg(lpad(to_hex(i), 2, '0'), '') from generate_series(0, 255) i), 'hex')",
        "''::bytea",
        "decode('00', 'hex')",
        "decode('ff00ff', 'hex')",
        "convert_to('\\x41', 'UTF8')",
        "decode('5c', 'hex')",
    ];
    vec![
        kind("bytea", "BLOB TEXT JSON", "BLOB TEXT", &BYTES),
        kind("raw", "BLOB TEXT", "BLOB", &BYTES),
        kind("bit(3)", "TEXT JSON", "TEXT", &["B'000'", "B'101'", "B'111'"]),
        kind(
            "varbit",
            "TEXT JSON",
            "TEXT",
            &["B''", "B'0'", "B'00'", "B'0000000000000000000000000000000000000000000000000000000000000000000001'"],
        ),
    ]
}

fn documents() -> Vec<Kind> {
    const DEEP: &str = "repeat('[', 900) || repeat(']', 900)";
    const DEEPER: &str = "repeat('[', 5000) || repeat(']', 5000)";
    vec![
        kind(
            "json",
            "JSON TEXT",
            "",
            &[
                "'null'",
                "'{\"a\":1,  \"a\":2}'",
                "'{\"b\":1,\"a\":2}'",
                r#"'"\u0000"'"#,
                r#"'"\ud83d\ude00 \u00e9"'"#,
                "'1.10'",
                "'1e400'",
                "'123456789012345678901234567890.10'",
                "'-0'",
                "'-0.0'",
                "' [ 1 , 2 ] '",
                "'{}'",
                "'[]'",
                "'\"\"'",
                "'true'",
                DEEP,
                DEEPER,
                r#"'"a\\\"b\n\t\/"'"#,
                "E'{\\n\"a\"\\t: 1}'",
                "'\"{1,2}\"'",
            ],
        ),
        kind(
            "jsonb",
            "JSON TEXT",
            "JSON TEXT",
            &[
                "'null'",
                "'{\"b\":1,\"a\":2}'",
                r#"'"\ud83d\ude00 \u00e9"'"#,
                "'1.10'",
                "'1.1'",
                "'1e400'",
                "'1e-400'",
                "'123456789012345678901234567890.10'",
                "'[1, 2]'",
                "'{}'",
                "'[]'",
                "'\"\"'",
                "'true'",
                DEEP,
                DEEPER,
                r#"'"a\\\"b\n\t\/"'"#,
                r#"'"\u0001\u001f\u007f"'"#,
                "'\"null\"'",
                "'{\"\": {\"a b\": [null, {}]}}'",
            ],
        ),
        kind("document", "JSON TEXT", "JSON", &["'null'", "'{\"a\": 1.0}'", "'\"x\"'"]),
        kind("jsonpath", "TEXT JSON", "", &["'$.a[*] ? (@.b == \"x\" && @.c > 1.10)'", "'strict $.\"quoted key\"'"]),
        kind(
            "xml",
            "TEXT JSON",
            "",
            &[
                "'<a b=\"c\">d&amp;e<!-- f --></a>'",
                "'just text'",
                "''",
                "'<?xml version=\"1.0\"?><a/>'",
                "'<a><![CDATA[<x>]]></a><b/>'",
            ],
        )
        .needs(Needs::Xml),
    ]
}

fn networks() -> Vec<Kind> {
    vec![
        kind(
            "uuid",
            "TEXT JSON",
            "TEXT",
            &[
                "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            ],
        ),
        kind(
            "inet",
            "TEXT JSON",
            "TEXT",
            &[
                "'10.0.0.1'",
                "'10.0.0.1/8'",
                "'::1'",
                "'2001:db8::ff00:42:8329/64'",
                "'::ffff:1.2.3.4'",
                "'0.0.0.0/0'",
                "'255.255.255.255'",
            ],
        ),
        kind("cidr", "TEXT JSON", "TEXT", &["'10.0.0.0/8'", "'10.0.0.1'", "'2001:db8::/32'", "'0.0.0.0/0'"]),
        kind("macaddr", "TEXT JSON", "TEXT", &["'08:00:2b:01:02:03'", "'FFFFFFFFFFFF'", "'00:00:00:00:00:00'"]),
        kind("macaddr8", "TEXT JSON", "TEXT", &["'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03'"]),
    ]
}

fn geometry() -> Vec<Kind> {
    vec![
        kind(
            "point",
            "TEXT JSON",
            "",
            &["'(0.1,-0.30000000000000004)'", "'(NaN,Infinity)'", "'(-0,5e-324)'", "'(1e308,-1e-308)'"],
        ),
        kind("line", "TEXT JSON", "", &["'{1,-1,0.1}'", "'{0,1,-3}'"]),
        kind("lseg", "TEXT JSON", "", &["'[(0,0),(0.1,1e300)]'"]),
        kind("box", "TEXT JSON", "", &["'(1,1),(0,-0.1)'", "'(Infinity,1),(-Infinity,0)'"]),
        kind("path", "TEXT JSON", "", &["'((0,0),(1,1),(2,0.1))'", "'[(0,0),(1,1)]'"]),
        kind("polygon", "TEXT JSON", "", &["'((0,0),(1,1),(2,0.1))'"]),
        kind("circle", "TEXT JSON", "", &["'<(0.1,0.2),3>'", "'<(0,0),Infinity>'"]),
    ]
}

fn search() -> Vec<Kind> {
    vec![
        kind(
            "tsvector",
            "TEXT JSON",
            "TEXT",
            &["'a:1A fat:2B,4C cat:5'", "''", r#"$$'quote''d' 'back\\slash' 'sp ace':3$$"#],
        ),
        kind("tsquery", "TEXT JSON", "TEXT", &["'fat & (rat | !cat)'", "''", "'a <-> b:*AB'", "'''it''''s'''"]),
    ]
}

fn system() -> Vec<Kind> {
    vec![
        kind("oid", "INTEGER TEXT JSON", "INTEGER TEXT", &["4294967295", "0", "26"]),
        kind("xid", "INTEGER TEXT", "", &["'4294967295'", "'0'", "'3'"]),
        kind("cid", "INTEGER TEXT", "", &["'4294967295'", "'0'"]),
        kind("tid", "TEXT JSON", "TEXT", &["'(4294967295,65535)'", "'(0,1)'"]),
        kind("xid8", "TEXT DECIMAL JSON", "TEXT", &["'18446744073709551615'", "'0'", "'9223372036854775808'"]),
        kind("pg_lsn", "TEXT JSON", "TEXT", &["'FFFFFFFF/FFFFFFFF'", "'0/0'", "'16/B374D848'"]),
        kind("pg_snapshot", "TEXT JSON", "", &["'10:20:10,14,15'", "'1:1:'"]),
        kind("txid_snapshot", "TEXT JSON", "", &["'10:20:10,14,15'"]),
        // No key: a table that is gone prints as its number, which Postgres does not take back from text.
        kind("regclass", "TEXT JSON", "", &["'pg_class'", "'pgmq.meta'", "4294967295"]),
        kind(
            "regtype",
            "TEXT JSON",
            "TEXT",
            &["'int4'", "'mood'", "'\"My Types\".\"Mood \"\"2\"\"\"'", "'timestamptz'", "'text[]'"],
        ),
        kind("regproc", "TEXT", "", &["'pg_catalog.now'", "'pgmq.metrics'"]),
        kind("regprocedure", "TEXT JSON", "TEXT", &["'sum(int4)'", "'pg_catalog.now()'"]),
        kind("regoperator", "TEXT", "", &["'+(int4,int4)'", "'pg_catalog.=(text,text)'"]),
        kind("regnamespace", "TEXT JSON", "TEXT", &["'pg_catalog'", "'\"My Types\"'"]),
        kind("regrole", "TEXT", "TEXT", &["current_user::regrole"]),
        kind("regconfig", "TEXT", "TEXT", &["'english'"]),
        kind("regdictionary", "TEXT", "TEXT", &["'simple'"]),
        kind("regcollation", "TEXT", "TEXT", &["'\"C\"'"]),
        kind("aclitem", "TEXT", "", &["makeaclitem(current_user::regrole, current_user::regrole, 'SELECT', true)"]),
        kind("refcursor", "TEXT", "", &["'a cursor'"]),
        kind("int2vector", "TEXT JSON", "", &["'1 2 -3'", "''"]),
        kind("oidvector", "TEXT JSON", "TEXT", &["'1 2 4294967295'", "''"]),
    ]
}

fn ranges() -> Vec<Kind> {
    vec![
        kind("int4range", "TEXT JSON", "TEXT", &["'[1,5)'", "'empty'", "'(,)'", "'[1,]'", "'(,-1)'"]),
        kind("int8range", "TEXT JSON", "TEXT", &["'[-9223372036854775808,9223372036854775807)'", "'empty'", "'(,)'"]),
        kind(
            "numrange",
            "TEXT JSON",
            "TEXT",
            &["'[1.10,2.0]'", "'[1.1,2]'", "'(NaN,)'", "'empty'", "'(-Infinity,Infinity)'"],
        ),
        kind(
            "tsrange",
            "TEXT JSON",
            "TEXT",
            &[
                "'[\"2024-01-01 00:00:00.000001\",infinity)'",
                "'(,\"0044-03-15 12:00:00 BC\"]'",
                "'empty'",
                "'[-infinity,infinity]'",
            ],
        ),
        kind(
            "tstzrange",
            "TEXT JSON",
            "TEXT",
            &[
                "'[\"2024-01-01 00:00:00.5+05:45\",infinity)'",
                "'[-infinity,\"2024-01-01 00:00:00+00\"]'",
                "'empty'",
                "'(,)'",
            ],
        ),
        kind("daterange", "TEXT JSON", "TEXT", &["'[2024-01-01,2024-02-29]'", "'[0044-03-15 BC,infinity]'", "'empty'"]),
        kind("text_range", "TEXT JSON", "TEXT", &[r#"'["a""b","c,d\\"]'"#, "'empty'", "'(\"\",\" \")'", "'[a,)'"]),
        kind("float_range", "TEXT JSON", "TEXT", &["'[0.1,0.30000000000000004]'", "'[-0,1]'", "'(-Infinity,NaN)'"]),
        kind("int4multirange", "TEXT JSON", "TEXT", &["'{[1,3),[5,7)}'", "'{}'", "'{(,)}'"]),
        kind("int8multirange", "TEXT JSON", "TEXT", &["'{[1,9223372036854775807)}'", "'{}'"]),
        kind("nummultirange", "TEXT JSON", "TEXT", &["'{[1.10,2.0],(3,)}'", "'{}'"]),
        kind(
            "tsmultirange",
            "TEXT JSON",
            "TEXT",
            &["'{[\"2024-01-01 00:00:00\",\"2024-01-02 00:00:00.000001\"],[infinity,infinity]}'", "'{}'"],
        ),
        kind(
            "tstzmultirange",
            "TEXT JSON",
            "TEXT",
            &["'{[\"2024-01-01 00:00:00+05:45\",\"2024-01-02 00:00:00+00\"]}'", "'{}'"],
        ),
        kind("datemultirange", "TEXT JSON", "TEXT", &["'{[2024-01-01,2024-02-29],[2025-01-01,)}'", "'{}'"]),
    ]
}

fn made() -> Vec<Kind> {
    vec![
        kind("mood", "TEXT JSON", "TEXT", &["'sad'", "'it''s ok'", "'very \"happy\"'", "' spaced out '", "'a,b'", "'{}'", "'NULL'", "'😀'"]),
        kind("\"My Types\".\"Mood \"\"2\"\"\"", "TEXT JSON", "TEXT", &["'x'", "'Y y'"]),
        kind("pair", "TEXT JSON", "TEXT", &["row(1, 'x')", "row(null, null)", "row(0, '')", "row(-1, E'q\"u\\\\o,t(e)\\n')", "row(2, ' ')", "row(3, '[2:3]={1,2}')"]),
        kind("checked_pair", "TEXT JSON", "TEXT", &["row(1, 'x')", "row(null, '\"')"]),
        kind(
            "nest",
            "TEXT JSON",
            "TEXT",
            &[
                "row(row(1, 'a \"b\"')::pair, '{1,NULL}', array['x', null, '', '\"', '[2:3]', 'a,b'], '2024-01-01 00:00:00.5+05:45', 'NaN', '{\"a\": [1.10, null]}', 'it''s ok')",
                "row(null, null, null, null, null, null, null)", "row(row(null, null)::pair, '{}', '{}', 'infinity', 5e-324, 'null', 'NULL')",
            ],
        )
        .text_only(&["row(null, '[0:1]={1,2}', null, null, '-0', null, null)", "row(null, null, '[2:2]={\"a b\"}', null, 1, null, null)"]),
        kind("counted", "INTEGER TEXT JSON", "INTEGER", &["9223372036854775807", "-1"]),
        kind("price", "DECIMAL TEXT JSON", "DECIMAL", &["1.1", "12345678.1234", "'NaN'"]),
        kind("many", "JSON TEXT", "TEXT", &["'{1,2}'", "'{}'", "'{NULL}'", "'{{1,2},{3,4}}'"]).text_only(&["'[2:3]={1,2}'", "'[1:1][0:1]={{1,2}}'"]),
    ]
}

fn arrays() -> Vec<Kind> {
    vec![
        kind(
            "int4[]",
            "JSON TEXT",
            "TEXT",
            &["'{}'", "'{1,2,3}'", "'{NULL}'", "'{1,NULL,3}'", "'{{1,2},{3,NULL}}'", "'{{{{{{1}}}}}}'"],
        )
        .text_only(&[
            "'[2:3]={1,2}'",
            "'[0:0]={7}'",
            "'[-5:-4]={1,2}'",
            "'[1:2][0:1]={{1,2},{3,4}}'",
            "'[10:10]={1}'",
        ]),
        kind("int8[]", "JSON TEXT", "TEXT", &["'{9223372036854775807,-9223372036854775808,9007199254740993}'"]),
        kind("bool[]", "JSON TEXT", "TEXT", &["'{t,f,NULL}'"]),
        kind("numeric[]", "JSON TEXT", "TEXT", &["'{1.10,1.1,NaN,Infinity,1e-30}'"]),
        kind("float8[]", "JSON TEXT", "TEXT", &["'{0.1,5e-324,1.7976931348623157e308,NaN,-Infinity,NULL}'"])
            .text_only(&["'{-0}'"]),
        kind("float4[]", "JSON TEXT", "", &["'{0.1,3.4028235e38}'"]),
        kind(
            "text[]",
            "JSON TEXT",
            "TEXT",
            &[
                "'{}'",
                "array['']",
                "array['NULL', null, 'null']",
                r#"array['a"b', E'c\\d', E'e\nf', '{g,h}', ' i ', '😀', '[2:3]={1,2}']"#,
                "'{{a,b},{c,d}}'",
            ],
        )
        .text_only(&["'[0:1]={a,b}'"]),
        kind("varchar(5)[]", "JSON TEXT", "TEXT", &["'{a,\"b \"}'"]),
        kind("char(3)[]", "JSON TEXT", "", &["'{a,abc}'"]),
        kind(
            "timestamptz[]",
            "JSON TEXT",
            "TEXT",
            &["'{\"2024-01-01 00:00:00.5+05:45\",infinity,\"0044-03-15 12:00:00+00 BC\"}'"],
        ),
        kind("date[]", "JSON TEXT", "", &["'{2024-02-29,-infinity}'"]),
        kind("interval[]", "JSON TEXT", "", &["'{\"1 day\",\"-24:00:00\"}'"]),
        kind("bytea[]", "JSON TEXT", "TEXT", &["array[decode('00ff5c', 'hex'), null, '']"]),
        kind("uuid[]", "JSON TEXT", "", &["'{00000000-0000-0000-0000-000000000000}'"]),
        kind("jsonb[]", "JSON TEXT", "", &[r#"array['{"a": 1.10}', '"x"', '[]']::jsonb[]"#]),
        kind("inet[]", "JSON TEXT", "", &["'{10.0.0.1,::1/64}'"]),
        kind("money[]", "JSON TEXT", "", &["'{$1.00,\"-$1,000.00\"}'"]),
        kind("point[]", "JSON TEXT", "", &["array[point(0.1, 2)]"]),
        kind("box[]", "JSON TEXT", "", &["'{(1,1),(0,0);(2,2),(1,1)}'"]).text_only(&["'[0:0]={(1,1),(0,0)}'"]),
        kind("int4range[]", "JSON TEXT", "", &["array['[1,5)', 'empty']::int4range[]"]),
        kind("mood[]", "JSON TEXT", "TEXT", &["array['sad', 'a,b', 'NULL', null]::mood[]"])
            .text_only(&["'[3:3]={sad}'"]),
        kind("pair[]", "JSON TEXT", "", &["array[row(1, 'a\"b')::pair, null, row(null, '')::pair]"])
            .text_only(&["'[0:0]={\"(1,x)\"}'"]),
        kind("nest[]", "JSON TEXT", "", &["array[row(null, '{1}', '{a,b}', null, 1, '1.10', 'sad')::nest]"])
            .text_only(&["array[row(null, '[5:5]={1}', null, null, 1, null, null)::nest]"]),
        kind("many[]", "JSON TEXT", "", &["array['{1,2}'::many, '{3}'::many]"])
            .text_only(&["array['[2:2]={1}'::many]"]),
    ]
}

fn extensions() -> Vec<Kind> {
    vec![
        kind(
            "hstore",
            "JSON TEXT",
            "TEXT",
            &[r#"'a=>1, "b c"=>NULL, "q\"uote"=>"NULL", ""=>""'"#, "''", r#"'"back\\slash"=>"a,b=>c"'"#],
        )
        .needs(Needs::Extension("hstore")),
        kind("hstore[]", "JSON TEXT", "", &["array['a=>1'::hstore, null]"])
            .text_only(&["'[0:0]={\"a=>1\"}'"])
            .needs(Needs::Extension("hstore")),
        kind("ltree", "TEXT JSON", "TEXT", &["'Top.Science.Astronomy'", "''"]).needs(Needs::Extension("ltree")),
        kind("lquery", "TEXT", "", &["'*.a|b@*.!c{1,2}'"]).needs(Needs::Extension("ltree")),
        kind("citext", "TEXT JSON", "TEXT", &["'Mixed Case'", "'MIXED CASE'", "''", "'Straße 😀'"])
            .needs(Needs::Extension("citext")),
        kind("citext[]", "JSON TEXT", "", &["array['A', 'a']::citext[]"])
            .text_only(&["'[0:0]={A}'"])
            .needs(Needs::Extension("citext")),
        kind("cube", "TEXT JSON", "TEXT", &["'(0.1,2),(3,4)'"]).needs(Needs::Extension("cube")),
        kind("seg", "TEXT", "TEXT", &["'1.10 .. 2'", "'~5.0'"]).needs(Needs::Extension("seg")),
        kind("isbn13", "TEXT", "TEXT", &["'978-0-393-04002-9'"]).needs(Needs::Extension("isn")),
        kind("vector(3)", "TEXT JSON", "TEXT", &["'[0.1,-2,3.4028235e38]'", "'[0,0,1e-45]'"])
            .needs(Needs::Extension("vector")),
        kind("vector(1)[]", "JSON TEXT", "", &["array['[1]'::vector]"]).needs(Needs::Extension("vector")),
        kind("halfvec(2)", "TEXT", "TEXT", &["'[0.1,65504]'"]).needs(Needs::Extension("vector")),
        kind("sparsevec(5)", "TEXT", "TEXT", &["'{1:0.1,5:2}/5'"]).needs(Needs::Extension("vector")),
    ]
}
