//! Holds the pages to the command line: each command, flag and variable that the program takes stands where a reader
//! looks for it, and no page names one that it does not take.

use super::Cli;
use clap::{Arg, Command, CommandFactory as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const COMMANDS: &str = include_str!("../../docs/commands.md");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const README: &str = include_str!("../../README.md");

/// Variables that crates read, not the program itself.
const OF_CRATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Variables that the program reads as every program does.
const NOT_FOR_USERS: [&str; 1] = ["PATH"];

#[test]
fn every_command_and_flag_is_on_the_page_of_commands() {
    let mut missing = Vec::new();
    for (path, command) in commands() {
        let name = path.join(" ");
        if rows_of(&path).is_empty() {
            missing.push(format!("{name}: no row"));
        }
        let unsaid = flags(&command).into_iter().filter(|arg| !is_said(&path, arg));
        missing.extend(unsaid.map(|arg| format!("{name}: --{}", arg.get_long().unwrap_or_default())));
    }
    assert!(missing.is_empty(), "docs/commands.md lacks {missing:#?}");
}

#[test]
fn no_page_names_a_command_or_flag_that_there_is_not() {
    let root = whole();
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for line in command_lines(&text) {
            wrong.extend(unknown(&root, &line).map(|what| format!("{}: `{line}`: {what}", page.display())));
        }
    }
    for row in COMMANDS.lines().filter(|line| line.starts_with("| `pgflume ")) {
        let named: BTreeSet<&str> = row.split('`').skip(1).step_by(2).filter_map(long).collect();
        let of_row = commands().into_iter().filter(|(path, _)| is_row_of(row, path));
        let known: BTreeSet<String> = of_row.flat_map(|(_, c)| longs(&c)).chain(longs(&root)).collect();
        wrong.extend(named.iter().filter(|name| !known.contains(**name)).map(|name| format!("commands.md: --{name}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_variable_is_in_the_table_and_no_other() {
    let table = variables(CONFIGURATION);
    let named: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    let read = read_variables();
    let expected: BTreeSet<&str> = read.iter().map(String::as_str).chain(OF_CRATES).collect();
    assert_eq!(named, expected);
}

#[test]
fn what_is_no_flag_and_what_may_come_from_a_file_is_said() {
    let of_clap: BTreeSet<String> =
        commands().iter().flat_map(|(_, c)| c.get_arguments().filter_map(variable).collect::<Vec<_>>()).collect();
    let secrets = named_in_calls(&["secret(", "signature("]);
    let files = named_in_calls(&["from_file("]);
    let table = variables(CONFIGURATION).into_keys().collect::<BTreeSet<_>>();
    let no_flags: BTreeSet<String> =
        table.into_iter().filter(|n| !of_clap.contains(n) && !secrets.contains(n)).collect();
    let said = |before: &str, after: &str| {
        let sentence = CONFIGURATION.split(before).nth(1).and_then(|rest| rest.split(after).next()).unwrap_or_default();
        sentence.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(said("Every variable but", "is also a flag"), no_flags);
    assert_eq!(said("the flag wins.", "and the secrets may also come from a file"), files);
}

#[test]
fn the_defaults_in_the_table_are_those_of_the_program() {
    let table = variables(CONFIGURATION);
    for (_, command) in commands() {
        for arg in command.get_arguments().filter(|arg| !arg.get_default_values().is_empty()) {
            let (Some(name), [default]) = (variable(arg), arg.get_default_values()) else { continue };
            let default = default.to_string_lossy();
            let shown = if default == "false" { "off".to_owned() } else { format!("`{default}`") };
            assert_eq!(table[&name], shown, "{name}");
        }
    }
}

#[test]
fn the_readmes_table_says_the_same_as_the_page() {
    assert_eq!(variables(README).keys().collect::<Vec<_>>(), variables(CONFIGURATION).keys().collect::<Vec<_>>());
    let differing = variables(README).into_iter().filter(|(name, default)| variables(CONFIGURATION)[name] != *default);
    assert_eq!(differing.collect::<Vec<_>>(), []);
}

#[test]
fn what_only_looks_like_a_command_is_told_from_one() {
    let text = "`pgflume setup --plan` and `pgflume` and `x pgflume y`\n```sh\nA=b pgflume serve --follow &  # c\n\
        for i in 1; do pgflume sync add a$i --from b; done\npsql pgflume.sql\n```\n";
    let lines = ["setup --plan", "serve --follow", "sync add a$i --from b"].map(|line| format!("pgflume {line}"));
    assert_eq!(command_lines(text), lines);
    let wrong = |line: &str| unknown(&whole(), line);
    assert_eq!(wrong("pgflume setup --plan --queue-name x"), None);
    assert_eq!(wrong("pgflume sync NAME"), None);
    assert_eq!(wrong("pgflume service start --daemon --port=1"), None);
    assert_eq!(wrong("pgflume remove"), Some("no command remove".into()));
    assert_eq!(wrong("pgflume sync add --plan"), Some("no flag --plan".into()));
}

/// The whole command line, each command with the flags that all take.
fn whole() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every command that can be run, by its words.
fn commands() -> Vec<(Vec<String>, Command)> {
    fn below(path: &[String], command: &Command, all: &mut Vec<(Vec<String>, Command)>) {
        for command in command.get_subcommands() {
            let path = [path, &[command.get_name().to_owned()]].concat();
            below(&path, command, all);
            all.push((path, command.clone()));
        }
    }
    let mut all = Vec::new();
    below(&[], &whole(), &mut all);
    all
}

/// The flags that only some commands take.
fn flags(command: &Command) -> Vec<&Arg> {
    let own = command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
    own.filter(|arg| arg.get_long().is_some() && variable(arg).is_none()).collect()
}

fn longs(command: &Command) -> BTreeSet<String> {
    command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// Whether a row of the page is about this command, or about what is below it.
fn is_row_of(row: &str, path: &[String]) -> bool {
    let cell = row.split('`').nth(1).unwrap_or_default().replace("\\|", "|");
    let mut words = cell.split_whitespace().skip(1);
    let is_its = words.next() == path.first().map(String::as_str);
    let mut alternatives = words.flat_map(|word| word.trim_matches(['[', ']']).split('|'));
    is_its && path.get(1).is_none_or(|word| alternatives.any(|alternative| alternative == word))
}

fn rows_of(path: &[String]) -> Vec<&'static str> {
    COMMANDS.lines().filter(|line| line.starts_with("| `pgflume ") && is_row_of(line, path)).collect()
}

/// On a row of the command, on a page that the row leads to, or in a paragraph that names both. One that all commands take
/// is said once.
fn is_said(path: &[String], arg: &Arg) -> bool {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let has = |text: &str| text.split(|c: char| !c.is_ascii_lowercase() && c != '-').any(|word| word == flag);
    let linked = |row: &str| {
        let links = row.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        links.filter_map(|link| std::fs::read_to_string(root().join("docs").join(link)).ok()).any(|text| has(&text))
    };
    let name = format!("`{}`", path[0]);
    let is_everybodys = whole().get_arguments().any(|other| other.get_long() == arg.get_long());
    let mut paragraphs = COMMANDS.lines().filter(|line| !line.starts_with('|'));
    rows_of(path).iter().any(|row| has(row) || linked(row))
        || paragraphs.any(|paragraph| has(paragraph) && (is_everybodys || paragraph.contains(&name)))
}

/// The variables of a page's table and the default of each.
fn variables(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| variable |")).skip(2);
    let mut all = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let names: Vec<&str> = cells[0].split('`').skip(1).step_by(2).filter(|code| is_variable(code)).collect();
        let defaults: Vec<&str> = cells[1].split(", ").collect();
        for (i, name) in names.iter().enumerate() {
            let is_each = names.len() > 1 && defaults.len() == names.len();
            let default = if is_each { defaults[i] } else { cells[1] };
            all.insert((*name).to_owned(), default.trim().to_owned());
        }
    }
    all
}

/// All that the program reads: by clap, and by name anywhere in its source.
fn read_variables() -> BTreeSet<String> {
    let of_clap = commands().into_iter().flat_map(|(_, c)| c.get_arguments().filter_map(variable).collect::<Vec<_>>());
    let mut all: BTreeSet<String> = of_clap.collect();
    all.extend(named_in_calls(&["env::var(", "env::var_os(", "secret(", "signature(", "from_file("]));
    all.retain(|name| !NOT_FOR_USERS.contains(&name.as_str()));
    all
}

/// The variables that the source names in these calls.
fn named_in_calls(calls: &[&str]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in files(&root().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for call in calls {
            let arguments = text.split(call).skip(1).filter_map(|rest| rest.split(')').next());
            let names = arguments.filter_map(|argument| argument.trim().strip_prefix('"')?.strip_suffix('"'));
            all.extend(names.filter(|name| is_variable(name)).map(str::to_owned));
        }
    }
    all
}

/// What a page has run, each without what follows it.
fn command_lines(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let codes: Vec<&str> = if is_code {
            line.split("; ").map(|part| part.trim_start_matches("do ").trim_start()).collect()
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for code in codes {
            let words =
                code.split_whitespace().skip_while(|word| is_code && word.contains('=') && !word.contains("--"));
            let line: Vec<&str> =
                words.take_while(|word| !["|", ">", "&", "#", "&&", "||", ";"].contains(word)).collect();
            if line.len() > 1 && line[0] == "pgflume" {
                all.push(line.join(" "));
            }
        }
    }
    all
}

/// What in a line the program does not take.
fn unknown(root: &Command, line: &str) -> Option<String> {
    let mut command = root;
    let mut words = line.split_whitespace().skip(1).peekable();
    while let Some(word) = words.peek().filter(|word| !word.starts_with('-')) {
        match command.find_subcommand(word) {
            Some(below) => command = below,
            // A table, a sync or a placeholder is no command.
            None if command.get_positionals().next().is_some() || !is_name(word) => break,
            None => return Some(format!("no command {word}")),
        }
        words.next();
    }
    let known = longs(command);
    let named = words.filter_map(long);
    named.filter(|name| !known.contains(*name)).map(|name| format!("no flag --{name}")).next()
}

/// The name of a flag.
fn long(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--")?.split([' ', '=', '…', ',', ')', '.', '`', '"', '\'']).next()?;
    (!name.is_empty()).then_some(name)
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())
}

fn is_variable(word: &str) -> bool {
    word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(of).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// The README and all pages of `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let all = entries.chain([root().join("README.md")]);
    let markdown = all.filter(|path| path.extension().is_some_and(|e| e == "md"));
    markdown.map(|path| (path.clone(), std::fs::read_to_string(path).expect("a page"))).collect()
}
