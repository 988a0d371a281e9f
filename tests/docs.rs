//! Generated and documented facts stay true.

use crate::support::Sandbox;

#[test]
fn the_command_reference_is_what_the_parser_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli-reference.md");
    let generated = Sandbox::new().at("").model(["reference"]).ok();
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "stale; run: cargo run -- reference > docs/cli-reference.md");
}

#[test]
fn every_environment_variable_is_documented() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read_to_string(root.join("src/config/env.rs")).unwrap();
    let docs = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
    for name in code.split('"').filter(|word| word.starts_with("AWS_") || word.starts_with("GIT_MODEL_")) {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/configuration.md");
    }
}

/// A line without what differs from run to run: digests, days.
fn timeless(line: &str) -> String {
    let is_hex = |word: &str| word.len() >= 10 && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_day = |word: &str| word.len() == 10 && word.chars().all(|c| c.is_ascii_digit() || c == '-');
    let word = |word: &str| {
        if is_hex(word.trim_matches(['(', ')'])) || is_day(word) { "#" } else { word }.to_owned()
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_readme_shows_what_the_tour_does() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let sandbox = Sandbox::new();
    let tour = sandbox.at("").sh(&format!("{} 2>&1", root.join("docs/tour.sh").display())).ok();
    let mut tour = tour.lines().map(timeless);
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("\n## In one minute\n").unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let shown: Vec<&str> = section
        .split("```")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(shown.len() > 20, "{shown:?}");
    for line in shown {
        assert!(tour.any(|told| told == timeless(line)), "not in the tour, or not in this order: {line}");
    }
}

#[test]
fn help_completions_and_man_pages_work() {
    let sandbox = Sandbox::new();
    let here = sandbox.at("");
    let help = here.model(["--help"]).ok();
    for word in ["Usage: git model", "add", "checkout", "push"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(!help.contains("merge-driver"), "internal commands are hidden");
    for shell in ["bash", "zsh", "fish"] {
        assert!(here.model(["completions", shell]).ok().contains("git-model"));
    }
    std::fs::create_dir(sandbox.join("man")).unwrap();
    here.model(["man", "--out", "man"]).ok();
    let page = std::fs::read_to_string(sandbox.join("man/git-model.1")).unwrap();
    assert!(page.starts_with(".ie \\n(.g .ds Aq") && page.contains("git model"), "{page}");
    assert!(
        sandbox.join("man/git-model-add.1").exists() && sandbox.join("man/git-model-remote-trust.1").exists()
    );
}

#[test]
fn every_json_output_names_its_schema() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w", "x", "one");
    for (args, schema) in [
        (&["add", "w"][..], "add"),
        (&["status"], "status"),
        (&["diff"], "diff"),
        (&["ls"], "ls"),
        (&["push"], "push"),
        (&["fetch"], "fetch"),
        (&["sync"], "sync"),
        (&["pull"], "sync"),
        (&["checkout", "main"], "sync"),
        (&["verify"], "verify"),
        (&["remote", "list"], "remote-list"),
        (&["remote", "check"], "remote-check"),
    ] {
        assert_eq!(repo.json(args)["schema"], format!("git-model/{schema}/v1"), "{args:?}");
    }
}
