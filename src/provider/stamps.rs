//! How changed rows are told where nothing better tells: by columns that writers set to the time of the change. Bounds
//! look back behind the newest stamp, because a transaction commits later than it stamps its rows: at each look by
//! [`Ladder::look_back`], and ever farther ever more seldom, so that a commit that is late by t is seen within some 8 t.
//! No IO.

use crate::core::failpoint::PullRule;
use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The least look-back.
const LEAST: Duration = Duration::from_secs(10);

/// Each rung looks back so many times as far as the one below, that many times as seldom.
const RUNG: u32 = 8;

/// Rungs above the first.
const RUNGS: usize = 3;

/// From the first time zone to the last: so much older may be what somebody else has written just now. Looked at on the
/// highest rung.
const ZONES: Duration = Duration::from_secs(26 * 3600);

/// How the changed rows of one table are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// None: it is read whole, or compared.
    pub stamps: Vec<Stamp>,
    /// How far behind the newest stamp is looked.
    pub ladder: Ladder,
    /// Whether somebody said how often all rows are compared.
    pub is_compared: bool,
    /// How often that is; `None`: never.
    pub compare: Option<Duration>,
}

/// A column that says when its row was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub column: String,
    /// As the source writes it, without its digits.
    pub declared: String,
}

/// Names by which a stamp is known where none is named.
const NAMES: [&str; 9] = [
    "updated_at",
    "modified_at",
    "last_modified",
    "last_modified_at",
    "last_updated",
    "last_updated_at",
    "changed_at",
    "updatedAt",
    "modifiedAt",
];

/// What a sync says of columns by which changed rows of views and foreign tables are told.
#[derive(Debug, Clone, Default)]
pub struct StampOptions {
    /// Those of each table; of others they are found by their names.
    pub columns: BTreeMap<String, Vec<String>>,
    /// How often the source is looked at.
    pub every: Duration,
    /// Whether it is said how often all rows are compared.
    pub is_compared: bool,
    /// How often that is; `None`: never.
    pub compare: Option<Duration>,
}

/// The stamps of a table that has these columns (name, type): those that are named, else the first that is known by its
/// name; or what is wrong with them.
pub(super) fn choose<D: Dialect>(
    table: &Table,
    columns: Option<&BTreeMap<String, String>>,
    named: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Stamp>, String> {
    let stamp = |name: &str| {
        let declared = columns.and_then(|columns| columns.get(name));
        declared.map(|declared| Stamp { column: name.to_owned(), declared: declared.clone() })
    };
    let Some(names) = named.get(&table.name) else {
        let known = NAMES.iter().filter_map(|name| stamp(name));
        return Ok(known.filter(|stamp| D::is_type(&stamp.declared)).take(1).collect());
    };
    let checked = |name: &String| match stamp(name) {
        Some(stamp) if D::is_type(&stamp.declared) => Ok(stamp),
        Some(stamp) => Err(format!(
            "`changed` names {name:?}, which is {}: name a column of type {} that is set with each change",
            stamp.declared,
            D::TYPES
        )),
        None => Err(format!("`changed` names {name:?}, which {} does not have: correct it", table.source.quoted())),
    };
    names.iter().map(checked).collect()
}

/// How a source writes what is asked of a stamp.
pub(super) trait Dialect {
    /// The types whose columns say when, for people.
    const TYPES: &'static str;

    /// Whether a column of this type, as the source writes it without its digits, says when.
    fn is_type(declared: &str) -> bool;

    /// SQL of the column.
    fn column(stamp: &Stamp) -> String;

    /// SQL for the newest, as text. One of the future is left out, here or by the statement that asks; what has no time
    /// zone may be of the server's own.
    fn newest(stamp: &Stamp) -> String;

    /// Whether its times are of one zone, whoever wrote them.
    fn has_zone(stamp: &Stamp) -> bool;

    /// SQL for what is not older than `newest` by more than `look_back`.
    fn since(stamp: &Stamp, newest: &str, look_back: Duration) -> String;
}

/// All stamps up to here were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StampMark {
    /// The columns.
    pub stamps: Vec<String>,
    /// The newest of each column, as the source writes it.
    pub newest: Vec<Option<String>>,
    /// Of all keys or rows, where there are no stamps and that is asked.
    pub digest: String,
    /// When each rung above the first was looked at last, by the source's clock: milliseconds since 1970.
    pub looked: Vec<i64>,
    /// Of all rows by the ranges of their keys, in their order, where there are no stamps; and when that was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    #[serde(default)]
    pub digested_at: i64,
}

/// Rows behind the last key of the range before, up to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    /// `None`: to the end.
    pub until: Option<MarkedKey>,
    pub rows: i64,
    /// A number that any other rows make another.
    pub digest: u64,
}

impl StampMark {
    /// As it was kept; of other columns it is none.
    pub fn read(text: &str, stamps: &[Stamp]) -> Option<Self> {
        let mark: Self = serde_json::from_str(text).ok()?;
        let is_of = mark.stamps == names(stamps) && mark.newest.len() == stamps.len() && mark.looked.len() == RUNGS;
        is_of.then_some(mark)
    }

    /// Of all rows, at this time.
    pub fn begin(stamps: &[Stamp], newest: Vec<Option<String>>, now: i64, digest: String) -> Self {
        let (stamps, looked) = (names(stamps), vec![now; RUNGS]);
        Self { stamps, newest, looked, digest, ranges: Vec::new(), digested_at: now }
    }

    /// The one after a look back over this ladder's rungs up to `rung`.
    pub fn after(&self, newest: Vec<Option<String>>, now: i64, rung: usize, digest: String) -> Self {
        let newest = newest.into_iter().zip(&self.newest).map(|(new, old)| new.or_else(|| old.clone())).collect();
        let looked = self.looked.iter().enumerate().map(|(i, then)| if i < rung { now } else { *then }).collect();
        Self { newest, looked, digest, ..self.clone() }
    }
}

fn names(stamps: &[Stamp]) -> Vec<String> {
    stamps.iter().map(|stamp| format!("{} {}", stamp.column, stamp.declared)).collect()
}

/// How far back is looked, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ladder {
    look_back: Duration,
}

impl Ladder {
    /// For a source that is looked at so often.
    pub fn of(every: Duration) -> Self {
        Self { look_back: LEAST.max(every * 2) }
    }

    /// The highest rung that is due.
    pub fn rung(&self, mark: &StampMark, now: i64) -> usize {
        let is_due = |rung: &usize| {
            let rest = self.look_back_of(*rung).as_millis() / 2;
            mark.looked.get(rung - 1).is_some_and(|then| u128::from(now.abs_diff(*then)) >= rest)
        };
        (1..=RUNGS).rev().find(is_due).unwrap_or(0)
    }

    fn look_back_of(&self, rung: usize) -> Duration {
        (0..rung).fold(self.look_back, |time, _| time.saturating_mul(RUNG))
    }

    /// SQL for the rows that may have changed since a mark: those with a stamp that is not older than the newest by more
    /// than this rung, and those that have none.
    pub fn condition<D: Dialect>(&self, stamps: &[Stamp], mark: &StampMark, rung: usize) -> String {
        let look_back = |stamp: &Stamp| match PullRule::LookBack.holds() {
            false => Duration::ZERO,
            true if rung == RUNGS && !D::has_zone(stamp) => self.look_back_of(rung).max(ZONES),
            true => self.look_back_of(rung),
        };
        let of = |(stamp, newest): (&Stamp, &Option<String>)| match newest {
            Some(newest) => D::since(stamp, newest, look_back(stamp)),
            None => format!("{} is not null", D::column(stamp)),
        };
        let unstamped: Vec<String> = stamps.iter().map(|stamp| format!("{} is null", D::column(stamp))).collect();
        let stamped: Vec<String> = stamps.iter().zip(&mark.newest).map(of).collect();
        format!("{} or {}", stamped.join(" or "), unstamped.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn stamp(column: &str, declared: &str) -> Stamp {
        Stamp { column: column.into(), declared: declared.into() }
    }

    fn begin(stamps: &[Stamp], newest: Vec<Option<String>>) -> StampMark {
        StampMark::begin(stamps, newest, NOW, String::new())
    }

    #[test]
    fn ever_farther_is_looked_ever_more_seldom() {
        let ladder = Ladder::of(Duration::from_secs(10));
        let mut mark = begin(&[], vec![None]);
        let mut rungs = [0; RUNGS + 1];
        for look in 1..=1024 {
            let now = NOW + look * 10_000;
            let rung = ladder.rung(&mark, now);
            rungs[rung] += 1;
            mark = mark.after(vec![None], now, rung, String::new());
        }
        assert_eq!(rungs, [896, 112, 14, 2]);
        assert_eq!(ladder.look_back_of(0), Duration::from_secs(20));
        assert_eq!(ladder.look_back_of(3), Duration::from_secs(20 * 512));
        assert_eq!(Ladder::of(Duration::from_secs(1)).look_back, LEAST);
    }

    #[test]
    fn what_has_no_zone_is_looked_for_through_all_of_them_now_and_then() {
        struct Plain;
        impl Dialect for Plain {
            const TYPES: &'static str = "";
            fn is_type(_: &str) -> bool {
                true
            }
            fn column(stamp: &Stamp) -> String {
                stamp.column.clone()
            }
            fn newest(stamp: &Stamp) -> String {
                stamp.column.clone()
            }
            fn has_zone(stamp: &Stamp) -> bool {
                stamp.declared == "timestamp"
            }
            fn since(_: &Stamp, _: &str, look_back: Duration) -> String {
                look_back.as_secs().to_string()
            }
        }
        let stamps = [stamp("u", "timestamp"), stamp("v", "datetime")];
        let mark = begin(&stamps, vec![Some("x".into()), Some("y".into())]);
        let of = |rung| Ladder::of(Duration::from_secs(5)).condition::<Plain>(&stamps, &mark, rung);
        assert!(of(0).starts_with("10 or 10 or "), "{}", of(0));
        assert!(of(RUNGS).starts_with("5120 or 93600 or "), "{}", of(RUNGS));
    }

    #[test]
    fn a_look_that_finds_no_stamp_keeps_the_one_before() {
        let stamps = [stamp("u", "date"), stamp("v", "date")];
        let mark = begin(&stamps, vec![Some("a".into()), None]);
        let next = mark.after(vec![None, Some("b".into())], NOW + 5, 1, "7".into());
        assert_eq!(next.newest, [Some("a".into()), Some("b".into())]);
        assert_eq!(next.looked, [NOW + 5, NOW, NOW]);
        let text = serde_json::to_string(&next).unwrap();
        assert_eq!(StampMark::read(&text, &stamps), Some(next));
        let other = [stamp("u", "date"), stamp("w", "date")];
        assert_eq!((StampMark::read(&text, &other), StampMark::read("{}", &[])), (None, None));
    }
}
