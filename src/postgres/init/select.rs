//! Which relations are meant: patterns, and what is left out because it is somebody's machinery. Takes
//! relations and patterns, gives a choice or a complaint. No IO.

use super::catalog::Relation;
use super::outcome::InitOptions;
use crate::core::config_error::ConfigError;
use crate::core::pattern::Pattern;
use crate::core::schema::{SourceName, is_machinery};

/// Schemas that belong to Supabase, where it is Supabase. Elsewhere `auth` may be anybody's.
const SUPABASE: [&str; 13] = [
    "auth",
    "storage",
    "realtime",
    "_realtime",
    "_analytics",
    "_supavisor",
    "supabase_functions",
    "supabase_migrations",
    "extensions",
    "graphql",
    "graphql_public",
    "pgsodium",
    "pgbouncer",
];

/// The patterns of a run.
#[derive(Debug)]
pub struct Choice {
    wanted: Vec<Pattern>,
    unwanted: Vec<Pattern>,
}

impl Choice {
    /// Reads the patterns.
    pub fn parse(options: &InitOptions) -> Result<Self, ConfigError> {
        let list = |option: &str, texts: &[String]| -> Result<Vec<Pattern>, ConfigError> {
            let pattern = |text: &String| {
                Pattern::parse(text).ok_or_else(|| {
                    ConfigError(format!(
                        "{option} {text:?} is no pattern: write apps, public.apps, crm.* or \"my.schema\".apps"
                    ))
                })
            };
            texts.iter().map(pattern).collect()
        };
        Ok(Self { wanted: list("--table", &options.tables)?, unwanted: list("--exclude", &options.exclude)? })
    }

    /// Whether single tables were asked for.
    pub(crate) fn is_narrowed(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Complains about the first pattern that means nothing.
    pub fn check(&self, relations: &[Relation]) -> Result<(), ConfigError> {
        for (option, patterns) in [("--table", &self.wanted), ("--exclude", &self.unwanted)] {
            for pattern in patterns.iter() {
                if !relations.iter().any(|r| reaches(pattern, r)) {
                    return Err(nothing_matches(option, pattern, relations));
                }
            }
        }
        Ok(())
    }

    /// Whether this relation is meant.
    pub fn takes(&self, relation: &Relation) -> bool {
        let is_wanted = if self.is_narrowed() {
            self.wanted.iter().any(|p| reaches(p, relation))
        } else {
            machinery(relation).is_none()
        };
        is_wanted && !self.excludes(relation)
    }

    /// Whether it was excluded by name.
    pub(crate) fn excludes(&self, relation: &Relation) -> bool {
        self.unwanted.iter().any(|p| p.matches(&relation.name))
    }

    /// Whether just this relation was asked for.
    pub fn names(&self, relation: &Relation) -> bool {
        self.wanted.iter().any(|p| p.names_table() && reaches(p, relation))
    }

    /// Patterns that spell a table out, each with the relations that they mean.
    pub(crate) fn spelled_out<'a>(
        &'a self,
        relations: &'a [Relation],
    ) -> impl Iterator<Item = (&'a str, Vec<&'a SourceName>)> {
        let means = |p: &'a Pattern| relations.iter().filter(move |r| reaches(p, r)).map(|r| &r.name).collect();
        self.wanted.iter().filter(|p| p.names_table()).map(move |p| (p.text(), means(p)))
    }
}

/// A pattern reaches what is somebody else's only by its name, and what no source may be not at all.
fn reaches(pattern: &Pattern, relation: &Relation) -> bool {
    pattern.matches(&relation.name)
        && !is_machinery(&relation.name.schema)
        && match machinery(relation) {
            None => true,
            Some(_) if relation.extension.is_some() => pattern.names_table(),
            Some(_) => pattern.names_schema(),
        }
}

/// Whose machinery a relation is.
pub fn machinery(relation: &Relation) -> Option<String> {
    let schema = relation.name.schema.as_str();
    if is_machinery(schema) {
        return Some(format!("the schema {schema}, which is machinery"));
    }
    if relation.on_supabase && SUPABASE.contains(&schema) {
        return Some(format!("the schema {schema}, which is Supabase's"));
    }
    relation.extension.as_ref().map(|e| format!("tables of the extension {e}"))
}

fn nothing_matches(option: &str, pattern: &Pattern, relations: &[Relation]) -> ConfigError {
    if relations.iter().any(|r| pattern.matches(&r.name) && is_machinery(&r.name.schema)) {
        return ConfigError(format!(
            "{option} {}: what that names is machinery, and may hold secrets: it is never replicated",
            pattern.text()
        ));
    }
    let near = pattern.near(relations.iter().map(|r| &r.name));
    let remedy = if near.is_empty() {
        "no name is like it; names are case-sensitive, and without a pattern init shows what there is".to_owned()
    } else {
        format!("near are {}", near.join(", "))
    };
    ConfigError(format!("{option} {}: no table of this database matches; {remedy}", pattern.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str, on_supabase: bool, extension: Option<&str>) -> Relation {
        let (schema, table) = name.split_once('.').unwrap();
        Relation {
            oid: 1,
            name: SourceName { schema: schema.into(), table: table.into() },
            kind: "r".into(),
            persistence: "p".into(),
            parent: None,
            has_children: false,
            extension: extension.map(str::to_owned),
            other_owner: None,
            on_supabase,
        }
    }

    #[test]
    fn what_is_somebodys_is_taken_by_its_name_only_and_machinery_not_at_all() {
        let app = relation("public.users", true, None);
        let supabase = relation("auth.users", true, None);
        let elsewhere = relation("auth.users", false, None);
        let queue = relation("pgmq.users", false, None);
        let extension = relation("public.users", false, Some("postgis"));
        for (pattern, expected) in [
            ("", [true, false, true, false, false]),
            ("users", [true, false, true, false, true]),
            ("*", [true, false, true, false, false]),
            ("*.users", [true, false, true, false, true]),
            ("auth.*", [false, true, true, false, false]),
            ("pgmq.users", [false; 5]),
            ("pgmq.*", [false; 5]),
        ] {
            let tables = (!pattern.is_empty()).then(|| pattern.to_owned()).into_iter().collect();
            let choice = Choice::parse(&InitOptions { tables, ..InitOptions::default() }).unwrap();
            let taken = [&app, &supabase, &elsewhere, &queue, &extension].map(|r| choice.takes(r));
            assert_eq!(taken, expected, "{pattern}");
        }
    }
}
