//! How Postgres is asked for stamps. No IO.

use crate::core::schema::{literal, quote};
use crate::provider::stamps::{Dialect, Stamp};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Postgres' own.
pub(super) struct Postgres;

impl Dialect for Postgres {
    const TYPES: &'static str = "timestamptz, timestamp or date";

    fn is_type(declared: &str) -> bool {
        matches!(declared, "timestamp with time zone" | "timestamp without time zone" | "date")
    }

    fn column(stamp: &Stamp) -> String {
        format!("t.{}", quote(&stamp.column))
    }

    fn newest(stamp: &Stamp) -> String {
        let now = match Self::has_zone(stamp) {
            true => "pg_catalog.now()".to_owned(),
            false => "(select greatest(pg_catalog.timezone('UTC', pg_catalog.now()), pg_catalog.timezone(s.reset_val, pg_catalog.now())) from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) 'TimeZone')".to_owned(),
        };
        let column = Self::column(stamp);
        format!("pg_catalog.max({column}) filter (where {column} operator(pg_catalog.<=) {now})::pg_catalog.text")
    }

    fn has_zone(stamp: &Stamp) -> bool {
        stamp.declared == "timestamp with time zone"
    }

    fn since(stamp: &Stamp, newest: &str, look_back: Duration) -> String {
        let (kind, least) = match stamp.declared.as_str() {
            "timestamp with time zone" => ("timestamptz", Duration::ZERO),
            // The day before may still be written to.
            "date" if look_back > Duration::ZERO => ("date", DAY),
            "date" => ("date", Duration::ZERO),
            _ => ("timestamp", Duration::ZERO),
        };
        let (column, seconds) = (Self::column(stamp), look_back.max(least).as_secs());
        let newest = format!("{}::pg_catalog.{kind}", literal(newest));
        // Before the year 1 there may be nothing to look back to.
        format!(
            "{column} operator(pg_catalog.>=) (case when {newest} operator(pg_catalog.>) '0001-01-02' then ({newest} - '{seconds} s'::pg_catalog.interval)::pg_catalog.{kind} else '-infinity' end)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stamps::{Ladder, StampMark};

    fn stamp(column: &str, declared: &str) -> Stamp {
        Stamp { column: column.into(), declared: declared.into() }
    }

    #[test]
    fn rows_without_any_stamp_are_always_among_them() {
        let stamps = [stamp("u", "timestamp with time zone"), stamp("it's", "date")];
        let mark = StampMark::begin(
            &stamps,
            vec![Some("2024-01-01 00:00:00+00".into()), None],
            1_700_000_000_000,
            String::new(),
        );
        let condition = Ladder::of(Duration::ZERO).condition::<Postgres>(&stamps, &mark, 1);
        assert_eq!(
            condition,
            "t.\"u\" operator(pg_catalog.>=) (case when '2024-01-01 00:00:00+00'::pg_catalog.timestamptz operator(pg_catalog.>) '0001-01-02' then ('2024-01-01 00:00:00+00'::pg_catalog.timestamptz - '80 s'::pg_catalog.interval)::pg_catalog.timestamptz else '-infinity' end) or t.\"it's\" is not null or t.\"u\" is null and t.\"it's\" is null"
        );
    }
}
