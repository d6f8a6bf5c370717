//! `pgflume doctor`: what is wrong on either side, each with its command.

use super::outcome::CommandResult;
use super::output::{print, say};
use crate::config::{Config, GlobalOptions, Origin, TokenOptions, push_url, secret_line, signature};
use crate::core::codes;
use crate::core::secret::Secret;
use crate::operate::doctor::{self, Examination, Finding, Process, Severity};
use crate::sync::Worker;
use serde_json::json;
use std::process::ExitCode;

/// Exit code where something was found.
const FINDINGS: u8 = 4;

/// Look at both sides for what goes wrong in practice, and name the command that mends it: exit 0 nothing, 4 findings
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Run those commands that harm nobody, then look again
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the page of all codes, as docs/errors.md has it
    #[arg(long)]
    codes: bool,
    /// Only this sync of pgflume.json
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
    #[command(flatten)]
    tokens: TokenOptions,
    /// Postgres as clients' writes log in, as `serve` has it (better in the environment: it may hold a password)
    #[arg(long, env = "PUSH_URL", hide_env_values = true, value_parser = secret_line, value_name = "URL")]
    push_url: Option<Secret>,
}

/// What was found in one sync; the queue of the variables has no name.
type Found = (Option<String>, Vec<Finding>);

pub(super) async fn run(args: DoctorArgs, options: &GlobalOptions) -> CommandResult {
    if args.codes {
        print(codes::page())?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = options.file()?;
    let names: Vec<String> = args.sync.iter().cloned().collect();
    let pairs = options.pairs(&file, &names)?;
    let mut workers: Vec<(Option<String>, Worker)> = Vec::new();
    let worker = |config: Config| Worker::new(config);
    if args.sync.is_none() && (file.syncs.is_empty() || options.names_a_pair(&file)?) {
        workers.push((None, worker(options.config()?)));
    }
    let (queues, pulls): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| pair.config.is_some());
    for pair in queues {
        workers.extend(pair.config.clone().map(|config| (Some(pair.definition.name.clone()), worker(config))));
    }
    let process = Process {
        signature: signature("WEBHOOK_SIGNATURE")?,
        has_tokens: !args.tokens.sources()?.is_empty(),
        push: push_url(args.push_url.as_ref())?,
        feed_retention: Some(options.feeding()?.retention),
    };
    let examination = Examination { process, ..Examination::default() };
    let look = async || {
        let mut all: Vec<Found> = Vec::new();
        for (name, worker) in &workers {
            all.push((name.clone(), doctor::examine(worker, &examination).await));
        }
        for pair in &pulls {
            let source = match &pair.source {
                Origin::Postgres(url) => Some(url.as_ref()),
                Origin::MySql(_) => None,
            };
            let found = doctor::examine_pull(&super::pulls::pull(pair), source, &examination.process).await;
            all.push((Some(pair.definition.name.clone()), found));
        }
        all
    };
    let mut found = look().await;
    if args.fix {
        for ((_, worker), (_, findings)) in workers.iter().zip(&found) {
            for (finding, done) in doctor::mend(worker, findings).await? {
                let command = finding.command.unwrap_or_default();
                match done {
                    Ok(()) => super::output::note(format_args!("mended {}: {command}\n", finding.code)),
                    Err(e) => super::output::note(format_args!("not mended {}: {command}: {e}\n", finding.code)),
                }
            }
        }
        found = look().await;
    }
    match args.json {
        true => say(serde_json::to_string_pretty(&as_json(&found))?)?,
        false => print(text(&found))?,
    };
    let is_clean = found.iter().all(|(_, findings)| findings.is_empty());
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) })
}

fn as_json(found: &[Found]) -> serde_json::Value {
    let findings = found.iter().flat_map(|(sync, findings)| {
        findings.iter().map(move |finding| {
            let mut object = json!(finding);
            object["sync"] = json!(sync);
            object
        })
    });
    json!({ "findings": findings.collect::<Vec<_>>() })
}

fn text(found: &[Found]) -> String {
    let mut text = String::new();
    for (sync, findings) in found {
        let of = sync.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        for finding in findings {
            let severity = match finding.severity() {
                Severity::Error => "error  ",
                Severity::Warning => "warning",
            };
            text += &format!("{severity} {} {}{of}\n", finding.code, finding.code.title);
            text += &format!("        {}: {}\n", finding.subject, finding.found);
            match &finding.command {
                Some(command) if finding.is_fixable() => text += &format!("        --fix runs: {command}\n"),
                Some(command) => text += &format!("        mend: {command}\n"),
                None => text += &format!("        {}\n", finding.code.remedy),
            }
        }
    }
    let count: usize = found.iter().map(|(_, findings)| findings.len()).sum();
    match count {
        0 => text + "Nothing is wrong, as far as can be seen from here.\n",
        1 => text + "1 finding. docs/errors.md has a section for its code.\n",
        count => text + &format!("{count} findings. docs/errors.md has a section for each code.\n"),
    }
}
