//! What stands in `deploy/` and beside it: the unit, the manifests, the image, completions and man pages.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary without any variable.
fn pgflume(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env_clear().current_dir(directory).output().unwrap()
}

fn printed(directory: &Path, arguments: &[&str]) -> String {
    let done = pgflume(directory, arguments);
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_unit_of_the_repository_is_the_one_that_is_printed() {
    let unit = std::fs::read_to_string(repository().join("deploy/systemd/pgflume.service")).unwrap();
    assert_eq!(printed(repository(), &["service", "unit", "--packaged"]), unit);
    let user = std::fs::read_to_string(repository().join("deploy/systemd/sysusers.conf")).unwrap();
    assert!(unit.contains("\nUser=pgflume\n") && user.contains("\nu pgflume "), "{user}");
}

#[test]
fn a_unit_for_a_folder_names_it_and_nothing_of_etc() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().canonicalize().unwrap();
    let unit = printed(&folder, &["service", "unit"]);
    let named = format!("\nWorkingDirectory={0}\nReadWritePaths={0}\n", folder.display());
    assert!(unit.contains(&named) && unit.contains("ProtectSystem=strict"), "{unit}");
    assert!(!unit.contains("{{") && !unit.contains("/etc/pgflume"), "{unit}");

    let odd = folder.join("100%");
    std::fs::create_dir(&odd).unwrap();
    assert!(printed(&odd, &["service", "unit"]).contains("/100%%\n"));
    let blank = folder.join("my folder");
    std::fs::create_dir(&blank).unwrap();
    let refused = pgflume(&blank, &["service", "unit"]);
    assert!(refused.status.code() == Some(2) && errors(&refused).contains("cannot stand in a unit"), "{refused:?}");
}

fn check_kubernetes(files: &[&Path]) -> Output {
    Command::new(repository().join("scripts/check-kubernetes.sh")).args(files).output().unwrap()
}

#[test]
fn the_manifests_are_valid_and_each_container_is_kept_small() {
    let done = check_kubernetes(&[]);
    assert!(done.status.success(), "{}", errors(&done));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("10 resources, 4 containers, 0 problems"), "{said}");

    // What each rule is there for is seen.
    let directory = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(repository().join("deploy/kubernetes/deployment.yaml")).unwrap();
    let broken = |name: &str, from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let file = directory.path().join(name);
        std::fs::write(&file, good.replacen(from, to, 1)).unwrap();
        file
    };
    let unknown = broken("unknown.yaml", "replicas: 1", "replica: 1");
    let done = check_kubernetes(&[&unknown]);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), errors(&done));
    assert!(!done.status.success() && said.contains("'replica' was unexpected"), "{said}");
    let rules = [
        ("runAsNonRoot: true", "runAsNonRoot: false", "runs as root"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write to its root file system"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "may gain rights"),
        ("drop: [ALL]", "drop: [NET_RAW]", "keeps capabilities"),
        ("drop: [ALL]", "drop: [ALL], add: [SYS_ADMIN]", "keeps capabilities"),
        ("seccompProfile: { type: RuntimeDefault }", "seccompProfile: { type: Unconfined }", "every system call"),
        ("name: pgflume-schema", "name: elsewhere", "names the ConfigMap elsewhere"),
        (
            "readinessProbe:\n            httpGet: { path: /live",
            "readinessProbe:\n            httpGet: { path: /ready",
            "its readinessProbe asks something else than /live",
        ),
    ];
    let files = rules.iter().enumerate().map(|(i, (from, to, _))| broken(&format!("rule{i}.yaml"), from, to));
    let files: Vec<_> = files.collect();
    let done = check_kubernetes(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let said = errors(&done);
    assert!(
        !done.status.success() && said.lines().filter(|line| line.starts_with("rule")).count() == rules.len(),
        "{said}"
    );
    for (i, (_, to, problem)) in rules.iter().enumerate() {
        let is_named = |line: &str| line.starts_with(&format!("rule{i}.yaml: ")) && line.contains(problem);
        assert!(said.lines().any(is_named), "{to}: {said}");
    }
}

#[test]
fn an_image_without_a_mounted_schema_names_the_mount() {
    let variables = [
        ("PGMQ_URL", "postgres://u@127.0.0.1:1/x"),
        ("LIBSQL_URL", "file:/nonexistent/replica.db"),
        ("WEBHOOK_SIGNATURE", "0123456789abcdef"),
        ("SCHEMA_FILE", "/pgflume/schema.json"),
    ];
    for arguments in [["serve"], ["sync"], ["setup"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        let done = command.args(arguments).env_clear().envs(variables).output().unwrap();
        let said = errors(&done);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("-v ./schema.json:/pgflume/schema.json:ro") && said.lines().count() == 1, "{said}");
    }
    // The image names that path, and nothing puts a file there.
    let dockerfile = std::fs::read_to_string(repository().join("Dockerfile")).unwrap();
    let (_, image) = dockerfile.rsplit_once("\nFROM ").unwrap();
    for line in
        ["USER 10001:10001", "SCHEMA_FILE=/pgflume/schema.json", "HOST=0.0.0.0", "org.opencontainers.image.version"]
    {
        assert!(image.contains(line), "{line}: {image}");
    }
    let comes_along = std::fs::read_to_string(repository().join(".dockerignore")).unwrap();
    assert!(!comes_along.contains("schema.json"), "{comes_along}");
}

#[test]
fn completions_are_accepted_by_their_shell() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(directory.path(), &["completions", shell]);
        for word in ["connection", "doctor", "take-over"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let file = directory.path().join(shell);
        std::fs::write(&file, script).unwrap();
        // Of the others not each machine has one.
        if shell == "bash" {
            let done = Command::new("bash").arg("-n").arg(&file).output().unwrap();
            assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
            let asked = r#". "$1"; COMP_WORDS=(pgflume service unit --pack); COMP_CWORD=3; _pgflume pgflume --pack unit; echo "${COMPREPLY[@]}""#;
            let done = Command::new("bash").args(["-c", asked, "bash"]).arg(&file).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "--packaged", "{done:?}");
        }
    }
    assert_eq!(pgflume(directory.path(), &["completions", "csh"]).status.code(), Some(2));
}

/// The commands that `--help` names.
fn commands() -> Vec<String> {
    let help = printed(repository(), &["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    assert!(names.len() > 15, "{names:?}");
    names.into_iter().filter(|name| name != "help").collect()
}

#[test]
fn each_command_has_a_man_page() {
    let page = printed(repository(), &["man"]);
    assert!(page.contains(".TH pgflume 1") && page.contains("PGMQ_URL"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("man/man1");
    printed(repository(), &["man", "--dir", place.to_str().unwrap()]);
    for command in commands() {
        // In roff a hyphen that is one is written with a backslash.
        assert!(page.contains(&format!("pgflume\\-{command}(1)")), "{command}: {page}");
        let own = std::fs::read_to_string(place.join(format!("pgflume-{command}.1"))).unwrap();
        assert!(own.contains(".SH SYNOPSIS") && own.contains(".SH OPTIONS"), "{command}: {own}");
    }
    for below in ["pgflume", "pgflume-service-unit", "pgflume-connection-add", "pgflume-dead-retry"] {
        assert!(place.join(format!("{below}.1")).exists(), "{below}");
    }
    // Where variables are set, their values are nobody's business.
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    let secret = [("PGMQ_URL", "postgres://u:hunter2hunter2@h/x"), ("QUEUE_NAME", "hunter2hunter2")];
    let done = command.arg("man").env_clear().envs(secret).output().unwrap();
    assert!(done.status.success() && !String::from_utf8_lossy(&done.stdout).contains("hunter2"), "{done:?}");
    let refused = pgflume(repository(), &["man", "--dir", "/dev/null/man"]);
    assert!(refused.status.code() == Some(2) && errors(&refused).contains("cannot be written"), "{refused:?}");
}

/// What `compose.yaml` mounts is there.
#[test]
fn what_compose_mounts_is_there() {
    let compose = std::fs::read_to_string(repository().join("compose.yaml")).unwrap();
    let mounted = compose.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.strip_prefix("- ./").or_else(|| line.strip_prefix("source: ./"))?;
        path.split(':').next().map(PathBuf::from)
    });
    let mounted: Vec<_> = mounted.collect();
    assert!(mounted.len() >= 3, "{mounted:?}");
    for path in mounted {
        assert!(repository().join(&path).exists(), "{}", path.display());
    }
}
