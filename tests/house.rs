//! Holds the house to its plan: which wing may use which, and no two files in a circle. The list below is the
//! architecture; `docs/architecture.md` shows the same as a picture.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A wing, and the wings that its files may use. Nobody uses what stands above.
const WINGS: [(&str, &[&str]); 14] = [
    (
        "cli",
        &[
            "config", "core", "demo", "http", "mysql", "operate", "postgres", "provider", "pull", "push", "replica",
            "sync",
        ],
    ),
    ("demo", &["config", "core", "http", "mysql", "postgres", "provider", "pull", "replica", "sync"]),
    ("http", &["config", "core", "feed", "operate", "postgres", "pull", "push", "sync"]),
    ("feed", &["core", "replica"]),
    ("push", &["core", "postgres"]),
    ("operate", &["core", "postgres", "pull", "replica", "sync"]),
    ("sync", &["config", "core", "postgres", "replica"]),
    ("pull", &["core", "provider", "replica"]),
    ("provider", &["core", "mysql", "postgres"]),
    ("config", &["core", "mysql", "postgres", "replica"]),
    ("postgres", &["core", "replica"]),
    ("mysql", &["core"]),
    ("replica", &["core"]),
    ("core", &[]),
];

type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_arrow_is_one_that_the_plan_allows() {
    let wing = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    for (from, to) in uses().iter().flat_map(|(from, uses)| uses.iter().map(move |to| (from, to))) {
        let (above, below) = (wing(from), wing(to));
        if above != below {
            let allowed = WINGS.iter().find(|(name, _)| *name == above).map(|(_, uses)| *uses);
            let allowed = allowed.unwrap_or_else(|| panic!("{above} is no wing of the plan"));
            assert!(allowed.contains(&below.as_str()), "{from} uses {to}: {above} may use {allowed:?} only");
            seen.insert((above, below));
        }
    }
    let planned =
        WINGS.iter().flat_map(|(above, uses)| uses.iter().map(|below| (above.to_string(), below.to_string())));
    let unused: Vec<_> = planned.filter(|arrow| !seen.contains(arrow)).collect();
    assert!(unused.is_empty(), "no file needs these arrows any more: {unused:?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut left = uses();
    // Whoever uses nobody that is left is in no circle.
    while let Some(free) = left.iter().find(|(_, uses)| uses.is_empty()).map(|(module, _)| module.clone()) {
        left.remove(&free);
        for uses in left.values_mut() {
            uses.remove(&free);
        }
    }
    assert!(left.is_empty(), "in a circle, or above one: {left:#?}");
}

#[test]
fn a_circle_and_a_wrong_arrow_would_be_seen() {
    let known: BTreeSet<String> = ["a", "a::b", "c"].map(str::to_owned).into();
    let text = "use super::{d, b::{E, F as G}};\n/// [`crate::c`]\npub(in crate::c) fn f() { crate::c::g() }\n#[cfg(test)]\nmod tests { use crate::c; }\n";
    assert_eq!(used("a::x", text, &known), ["a", "a::b", "c"].map(str::to_owned).into());
    assert_eq!(
        used("a", "pub(super) use crate::c;\nfn f() -> crate::c::T {\n use std::fmt;", &known),
        ["c".to_owned()].into()
    );
    assert_eq!(used("a", "fn f() { b::g() }", &known), ["a::b".to_owned()].into());
    assert_eq!(used("a", "mod b;\npub use b::C;\nuse std::c;\n", &known), ["a::b".to_owned()].into());
}

/// Which module uses which; those of `main.rs` and `lib.rs` left out.
fn uses() -> Uses {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules: BTreeMap<String, PathBuf> = files(&source).into_iter().map(|f| (module(&source, &f), f)).collect();
    let known: BTreeSet<String> = modules.keys().filter(|m| !["lib", "main"].contains(&m.as_str())).cloned().collect();
    known.iter().map(|m| (m.clone(), used(m, &std::fs::read_to_string(&modules[m]).unwrap(), &known))).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(of).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

fn module(source: &Path, file: &Path) -> String {
    let path = file.strip_prefix(source).unwrap().with_extension("");
    let path = if path.ends_with("mod") { path.parent().unwrap() } else { &path };
    path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::")
}

/// The modules that a file names, its own unit tests and comments left out.
fn used(module: &str, text: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n").replace("pub(in ", "pub(in-");
    let mut paths: Vec<String> = Vec::new();
    for statement in text.split(';') {
        let imports = statement.split('\n').skip_while(|l| !l.contains("use ")).collect::<Vec<_>>().join(" ");
        let (before, tree) = imports.split_once("use ").unwrap_or((statement, ""));
        if !tree.is_empty() {
            paths.extend(expanded(tree));
            paths.extend(named(&statement[..statement.len() - imports.len()], module, known));
        }
        paths.extend(named(before, module, known));
    }
    let absolute = paths.iter().filter_map(|path| resolved(module, path, known));
    absolute.filter(|found| found != module).collect()
}

/// `crate::…`, `super::…` and `child::…` within code.
fn named(code: &str, module: &str, known: &BTreeSet<String>) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let is_child = |first: &str| known.contains(&format!("{module}::{first}"));
    let leads = |word: &&str| {
        word.split_once("::").is_some_and(|(first, _)| ["crate", "super"].contains(&first) || is_child(first))
    };
    let words = code.split(|c| !is_path(c)).filter(leads);
    words.filter(|word| !code.contains(&format!("pub(in-{word}"))).map(str::to_owned).collect()
}

/// `a::{b, c::d}` → `a::b`, `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().to_owned()];
    };
    let (mut depth, mut branches) = (0, vec![String::new()]);
    for c in rest.trim_end().strip_suffix('}').unwrap_or(rest).chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match (c, depth) {
            (',', 0) => branches.push(String::new()),
            _ => branches.last_mut().unwrap().push(c),
        }
    }
    branches.iter().filter(|b| !b.trim().is_empty()).flat_map(|b| expanded(&format!("{prefix}{}", b.trim()))).collect()
}

/// The module that a path leads to; `None` outside of this crate.
fn resolved(module: &str, path: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut at: Vec<&str> = module.split("::").collect();
    let mut parts = path.split("::").peekable();
    match *parts.peek()? {
        "crate" => at.clear(),
        "super" => {}
        first if known.contains(&format!("{module}::{first}")) => {}
        _ => return None,
    }
    for part in parts.filter(|part| !["crate", "self"].contains(part)) {
        match part {
            "super" => at.truncate(at.len().saturating_sub(1)),
            part => at.push(part),
        }
    }
    (1..=at.len()).rev().map(|length| at[..length].join("::")).find(|found| known.contains(found))
}
