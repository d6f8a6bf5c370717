//! Values as applications have them, as SQL literals.

use crate::plan::pick;
use rand::RngExt;
use rand::rngs::StdRng;

const TEXTS: [&str; 9] =
    ["", "plain", "O''Brien", "zwölf Boxkämpfer", "日本語 👍", "a\tb\nc", "\"quoted\"", "%_|;--", "null"];
const NUMERICS: [&str; 8] = ["0", "1.10", "1.1", "-0.000", "'NaN'", "12345678901234567890.123456789", "1e-30", "null"];
const FLOATS: [&str; 8] = ["0.1", "1e308", "5e-324", "'NaN'", "'Infinity'", "'-Infinity'", "1.0 / 3", "null"];
const TIMES: [&str; 5] = ["now()", "clock_timestamp()", "'infinity'", "'2024-02-29 12:00:00.123456+05:45'", "null"];
const JSONS: [&str; 6] =
    ["{}", "null", "[1, 1.0, 1.00]", "{\"a\": {\"b\": [true, null]}}", "\"text\"", "12345678901234567890"];

/// A text.
pub fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..4) {
        0 => format!("repeat('x', {})", rng.random_range(0..400)),
        1 => format!("md5('{}')", rng.random::<u32>()),
        _ => format!("'{}'", pick(rng, &TEXTS)),
    }
}

/// A numeric.
pub fn numeric(rng: &mut StdRng) -> String {
    match rng.random_bool(0.5) {
        true => (*pick(rng, &NUMERICS)).to_owned(),
        false => format!("{}.{:02}", rng.random_range(-999..999), rng.random_range(0..100)),
    }
}

/// A double precision.
pub fn float(rng: &mut StdRng) -> String {
    match rng.random_bool(0.5) {
        true => (*pick(rng, &FLOATS)).to_owned(),
        false => format!("{:?}", rng.random::<f64>()),
    }
}

/// A timestamptz.
pub fn time(rng: &mut StdRng) -> &'static str {
    TIMES[rng.random_range(0..TIMES.len())]
}

/// A jsonb.
pub fn json(rng: &mut StdRng) -> String {
    match rng.random_bool(0.5) {
        true => format!("'{}'", pick(rng, &JSONS)),
        false => format!("jsonb_build_object('n', {}, 't', {})", rng.random::<i64>(), text(rng)),
    }
}

/// A bytea.
pub fn bytes(rng: &mut StdRng) -> String {
    format!("decode(repeat(md5('{}'), {}), 'hex')", rng.random::<u32>(), rng.random_range(0..5))
}
