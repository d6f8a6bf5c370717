//! Whoever has a token of one tenant tries to read, and to write, what is another's: two thousand requests, drawn from
//! `ATTACKS_SEED` on. The other tenant's titles have a word in them that nobody else may ever see, and its keys, which can be
//! guessed, another that no answer to a reader may hold.

use super::writes::{Rig, new, next};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// In all the victim's titles, and in what an attacker sends never.
const SECRET: &str = "crimson";

/// In all its keys.
const KEY: &str = "velvet-";

const ATTACKS: u64 = 2_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

struct Attacker {
    rng: StdRng,
    /// Offsets and handles of the victim.
    stolen: Vec<(String, String)>,
}

impl Attacker {
    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.rng.random_range(0..all.len())]
    }

    fn condition(&mut self) -> String {
        let parts = [
            "org",
            "\"org\"",
            "title",
            "id",
            "rowid",
            "oid",
            "=",
            "IN",
            "(",
            ")",
            ",",
            "'victim'",
            "'%'",
            "1",
            "true",
            "AND",
            "OR",
            "NOT",
            "org = 'victim'",
            "title = 'velvet 1'",
            "1 = 1) OR (1 = 1",
            "$1",
            "$2",
            "--",
            ";",
            "IS NOT NULL",
            "LIKE",
            "''",
            "\u{0}",
            "UNION SELECT id, title FROM todos",
            "EXISTS (SELECT 1 FROM todos)",
            "/*",
            "*/",
            "::text",
            "title = 'x' AND",
            "é",
            "\\",
            "\"",
        ];
        (0..self.rng.random_range(1..8)).map(|_| self.pick(&parts)).collect::<Vec<_>>().join(" ")
    }

    /// A query string.
    fn query(&mut self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let tables = [
            "todos",
            "todos",
            "todos",
            "public.todos",
            "\"public\".\"todos\"",
            "TODOS",
            "sqlite_master",
            "_pgflume_feed",
            "pgflume.pushes",
            "todos; drop table todos",
            "",
        ];
        pairs.push(("table", self.pick(&tables).into()));
        let (offset, handle) = match self.rng.random_range(0..5) {
            0 | 1 => ("-1".to_owned(), None),
            2 => ("now".to_owned(), None),
            3 => (
                format!("{}_{}", self.rng.random_range(0..i64::MAX), self.rng.random_range(0..u64::MAX)),
                Some("x-1".to_owned()),
            ),
            _ => {
                let at = self.rng.random_range(0..self.stolen.len());
                let (offset, handle) = self.stolen[at].clone();
                // As they were, or a little changed.
                let offset = if self.rng.random_bool(0.5) { offset } else { offset.replace("_0", "_1") };
                (offset, Some(handle))
            }
        };
        pairs.push(("offset", offset));
        pairs.extend(handle.map(|handle| ("handle", handle)));
        if self.rng.random_bool(0.5) {
            pairs.push(("where", self.condition()));
            pairs.push(("params[1]", self.pick(&["victim", "velvet 1", "' OR 1=1", "%"]).into()));
        }
        if self.rng.random_bool(0.3) {
            pairs.push((
                "columns",
                self.pick(&[
                    "id,title",
                    "id,org",
                    "org",
                    "*",
                    "id,secret",
                    "id,title,title",
                    "id\" from todos --",
                    "rowid,id",
                ])
                .into(),
            ));
        }
        for (name, values) in [
            ("log", ["full", "changes_only"]),
            ("replica", ["full", "default"]),
            ("subset__where", ["true", "1=1"]),
            ("expired_handle", ["x", "y"]),
        ] {
            if self.rng.random_bool(0.1) {
                pairs.push((name, self.pick(&values).into()));
            }
        }
        // Each may be there twice: which one counts must not matter.
        if self.rng.random_bool(0.1) {
            let again = pairs[self.rng.random_range(0..pairs.len())].0;
            pairs.push((again, self.condition()));
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&pairs);
        query.finish()
    }

    /// Changes that it sends.
    fn changes(&mut self) -> Value {
        let table = self.pick(&["todos", "todos", "pushes", "pgflume.pushes", "todos\"; --"]);
        let op = self.pick(&["insert", "update", "delete", "upsert"]);
        let id = self.pick(&["velvet-1", "velvet-2", "mine", "' or true --"]);
        let org = self.pick(&["victim", "attacker", "x' or 'a'='a"]);
        let mut change = json!({"table": table, "op": op, "key": {"id": id}});
        if self.rng.random_bool(0.8) {
            change["set"] = json!({"org": org, "title": self.condition()});
        }
        if self.rng.random_bool(0.5) {
            change["base"] = json!({"title": self.pick(&["velvet 1", "x", "velvet 2"]), "org": "victim"});
        }
        if self.rng.random_bool(0.2) {
            change[self.pick(&["where", "role", "returning", "id"])] = json!("org = 'victim'");
        }
        json!([change])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_key_or_hint_of_another_tenant_leaves() {
    let rig = Rig::start().await;
    let (victim, attacker) = (rig.token("victim", "victim"), rig.token("attacker", "attacker"));
    rig.fed
        .db
        .sql("insert into todos select 'velvet-' || i, 'victim', 'crimson ' || i from generate_series(1, 50) i")
        .await;
    rig.push(&attacker, "own", "", new("own", "attacker", "mine")).await;
    let first = rig.arrived(&victim, "").await;
    let stolen = |at: &str| {
        let part = |name: &str| at.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap().to_owned();
        (part("offset="), part("handle="))
    };
    let walking = next(&rig.fed.get_as(Some(&victim), "table=todos&offset=-1").await);
    let rng = StdRng::seed_from_u64(setting("ATTACKS_SEED", 1));
    let mut attack = Attacker { rng, stolen: vec![stolen(&first), stolen(&walking)] };
    let mut statuses = std::collections::BTreeMap::<u16, u64>::new();
    for number in 0..setting("ATTACKS", ATTACKS) {
        if number % 100 == 0 {
            // The victim's rows come and go meanwhile.
            rig.fed.db.sql(&format!("update todos set title = 'crimson {number}' where id = 'velvet-1'; delete from todos where id = 'velvet-50'; insert into todos values ('velvet-50', 'victim', 'crimson')")).await;
        }
        let is_read = attack.rng.random_bool(0.75);
        let (sent, answer) = if is_read {
            let query = attack.query();
            let token = if attack.rng.random_bool(0.9) { Some(&*attacker) } else { None };
            (query.clone(), rig.fed.get_as(token, &query).await)
        } else {
            let changes = attack.changes();
            (changes.to_string(), rig.push(&attacker, &format!("attack {number}"), "", changes).await)
        };
        *statuses.entry(answer.status).or_default() += 1;
        assert!(
            [200, 400, 401, 403, 404, 409, 503].contains(&answer.status),
            "{sent}: {} {}",
            answer.status,
            answer.body
        );
        let said = format!("{} {:?}", answer.body, answer.headers);
        assert!(!said.contains(SECRET), "{sent}: {}", answer.body);
        assert!(!is_read || !said.contains(KEY), "{sent}: {}", answer.body);
    }
    assert!(statuses[&200] > 100 && statuses[&400] > 100 && statuses[&409] > 50, "{statuses:?}");
    // Nothing of it was written.
    let left = "select count(*) filter (where id like 'velvet-%') = 50 and bool_and(title like 'crimson%') filter (where org = 'victim') \
                and count(distinct org) filter (where id like 'velvet-%') = 1 from todos";
    assert_eq!(rig.fed.db.one(left).await, "true");
}
