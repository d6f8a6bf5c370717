//! Holds the pages together: every link between them leads somewhere, on GitHub and on the site that
//! `scripts/build-site.sh` makes of them, and no page is left out of the two lists.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

const LISTS: [&str; 2] = ["docs/README.md", "docs/SUMMARY.md"];

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages: BTreeMap<PathBuf, String> = pages().into_iter().map(|page| (page.clone(), read(&page))).collect();
    let anchors: BTreeMap<_, _> = pages.iter().map(|(page, text)| (page, anchors(text))).collect();
    let mut broken = Vec::new();
    for (page, text) in &pages {
        for link in links(text) {
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(p, a)| (p, Some(a)));
            let target = if path.is_empty() { page.clone() } else { resolved(page, path) };
            let found = root().join(&target).is_file()
                && anchor.is_none_or(|anchor| anchors.get(&target).is_some_and(|all| all.contains(anchor)));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn both_lists_name_every_page_once() {
    let all: Vec<_> = pages().into_iter().filter(|page| page.starts_with("docs")).collect();
    for list in LISTS.map(PathBuf::from) {
        let mut listed: Vec<_> = links(&read(&list)).iter().map(|link| resolved(&list, link)).collect();
        listed.retain(|page| page.starts_with("docs") && page.extension().is_some_and(|e| e == "md"));
        listed.sort();
        let expected = all.iter().filter(|page| **page != list && **page != Path::new("docs/SUMMARY.md"));
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", list.display());
    }
}

#[test]
fn the_site_has_whatever_pages_link_to_beside_them() {
    let script = read(Path::new("scripts/build-site.sh"));
    let copied = script.split_once("beside=(").unwrap().1.split_once(')').unwrap().0;
    let copied: BTreeSet<_> = copied.split_whitespace().map(PathBuf::from).collect();
    let linked =
        pages().into_iter().flat_map(|page| links(&read(&page)).into_iter().map(move |link| (page.clone(), link)));
    let linked = linked.filter(|(_, link)| !link.starts_with('#'));
    let linked: BTreeSet<_> = linked.map(|(page, link)| resolved(&page, link.split('#').next().unwrap())).collect();
    let beside: BTreeSet<_> = linked.into_iter().filter(|target| !target.starts_with("docs")).collect();
    assert_eq!(copied, beside);
}

/// GitHub and mdBook make the same anchor of ASCII, and not of everything else.
#[test]
fn headings_are_ascii() {
    let all = pages().into_iter().flat_map(|page| headings(&read(&page)));
    assert_eq!(all.filter(|heading| !heading.is_ascii()).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn links_and_headings_are_told_from_what_only_looks_so() {
    let text = "# Why `--follow` [polls](x.md)\n[`a`](b.md#c) and `[d](e.md)`, ![f](g.svg \"h\") <https://i>\n\
        ```sh\n# j\n[k](l.md)\n```\n   ````\n   ```\n   # m\n   ````\n# Twice\n## Twice\n#hash\n[n](https://o) [p](#q)\n[r]: s.md\n";
    assert_eq!(links(text), ["x.md", "b.md#c", "g.svg", "#q", "s.md"]);
    assert_eq!(anchors(text), ["why---follow-polls", "twice", "twice-1"].map(str::to_owned).into());
    assert_eq!(resolved(Path::new("docs/a.md"), "../b/./c.md"), Path::new("b/c.md"));
}

/// A family is registered by its name and its help, one literal after the other.
#[test]
fn every_metric_is_on_the_page_of_endpoints_and_no_other() {
    let mut made = BTreeSet::new();
    for file in std::fs::read_dir(root().join("src/http/metrics")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let literals: Vec<&str> = text.split('"').collect();
        for pair in literals.windows(3).skip(1).step_by(2) {
            let is_name = pair[0].len() > 1 && pair[0].chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_name && pair[1].trim() == "," && pair[2].contains(' ') {
                made.insert(pair[0].to_owned());
            }
        }
    }
    let page = read(Path::new("docs/endpoints.md"));
    let section = page.split_once("## Metrics").unwrap().1;
    let codes = section.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("pgflume_"));
    let named =
        codes.map(|code| code.split('{').next().unwrap()).map(|name| name.strip_suffix("_total").unwrap_or(name));
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), made);
}

#[test]
fn every_path_of_the_worker_is_on_the_page_of_endpoints() {
    let (source, page) = (read(Path::new("src/http/mod.rs")), read(Path::new("docs/endpoints.md")));
    let paths: Vec<&str> = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(paths.len() > 20, "{paths:?}");
    // `/syncs/NAME/nuke`, `…/resync` and `/dashboard/…` stand for more than one.
    let forms = |path: &str| {
        let shown = path.replace("{name}", "NAME").replace("{id}", "ID").replace("{provider}", "supabase");
        let (folder, last) = shown.rsplit_once('/').map(|(folder, last)| (folder.to_owned(), last.to_owned())).unwrap();
        let short = [format!("…/{last}`"), format!("`{folder}/…`")].into_iter().filter(move |_| !folder.is_empty());
        short.chain([format!(" {shown}`"), format!(" {shown}?"), format!("`{shown}`")]).collect::<Vec<_>>()
    };
    let missing = paths.iter().filter(|path| !forms(path).iter().any(|form| page.contains(form)));
    assert_eq!(missing.collect::<Vec<_>>(), [&""; 0]);
}

/// What `make bench` writes into one page and another repeats.
#[test]
fn figures_that_are_repeated_are_those_that_were_measured() {
    let (measured, repeated) = (read(Path::new("docs/performance.md")), read(Path::new("docs/sizing.md")));
    let row = |page: &str, words: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("| {words}"))).unwrap();
        line.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned()).collect::<Vec<_>>()
    };
    for (there, here) in [
        ("5,000,000 queued |", "a drain of 5,000,000 queued messages"),
        ("resident memory, MB", "100 syncs that pull, at rest"),
        ("the same at its peak, first copies included", "the same at its peak, first copies included"),
    ] {
        assert_eq!(row(&repeated, here)[1], format!("{} MB", row(&measured, there).last().unwrap()), "{here}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// The pages beside `docs` and in it, by their path from the root.
fn pages() -> BTreeSet<PathBuf> {
    let of = |directory: &str| {
        let entries = std::fs::read_dir(root().join(directory)).unwrap();
        entries.map(|entry| Path::new(directory).join(entry.unwrap().file_name())).collect::<Vec<_>>()
    };
    let all = of("").into_iter().chain(of("docs"));
    all.filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

/// Where a link on a page leads, from the root.
fn resolved(page: &Path, link: &str) -> PathBuf {
    let mut at = PathBuf::new();
    for part in page.parent().unwrap().join(link).components() {
        match part {
            Component::ParentDir if at.pop() => {}
            Component::CurDir => {}
            part => at.push(part),
        }
    }
    at
}

/// The lines outside of fenced code.
fn lines(text: &str) -> Vec<&str> {
    let mut fence = None;
    let outside = |line: &&str| {
        let marks = line.trim_start().chars().take_while(|c| *c == '`').count();
        match fence {
            None if marks >= 3 => fence = Some(marks),
            Some(open) if marks >= open => fence = None,
            _ => return fence.is_none(),
        }
        false
    };
    text.lines().filter(outside).collect()
}

/// What the links, pictures and references of a page lead to within the repository.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines(text) {
        // Code shows no links; as text of a link it may go as well.
        let prose: String = line.split('`').step_by(2).collect();
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let reference = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        found.extend(inline.chain(reference).filter(|target| !target.contains(':')).map(str::to_owned));
    }
    found
}

fn headings(text: &str) -> Vec<String> {
    let heading = |line: &str| line.starts_with('#').then(|| line.trim_start_matches('#').to_owned());
    let all = lines(text).into_iter().filter_map(heading).filter(|heading| heading.starts_with(' '));
    all.map(|heading| heading.trim().to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in headings(text) {
        // Of a link its text alone counts.
        let (first, rest) = heading.split_once("](").unwrap_or((&heading, ")"));
        let shown = format!("{first}{}", rest.split_once(')').unwrap().1);
        let kept = shown.chars().filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let repeated = (1..).map(|n| format!("{anchor}-{n}"));
        let new = std::iter::once(anchor.clone()).chain(repeated).find(|anchor| !anchors.contains(anchor));
        anchors.extend(new);
    }
    anchors
}
