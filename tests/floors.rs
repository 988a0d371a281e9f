//! Imports point down, and each outside world has one owner. See `docs/architecture.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

const FLOORS: [&[&str]; 5] = [
    &["error", "id", "repo_path", "progress", "fsio", "human", "secrets"],
    &[
        "pointer",
        "tree",
        "repo_config",
        "remote_url",
        "yaml",
        "values",
        "lockfile",
        "json_schema",
        "listing",
        "codec",
        "release",
        "model_yaml",
        "lineage",
        "model_info",
        "gates",
        "manifests",
        "attest",
        "oci",
    ],
    &["git", "cache", "worktree", "remote", "config", "execution"],
    &["ops"],
    &["cli"],
];

/// What only one module may name.
const OWNERS: [(&str, &str); 21] = [
    ("aws_config::", "remote"),
    ("aws_sigv4::", "remote"),
    ("git2::", "git"),
    ("object_store::", "remote"),
    ("reqwest::", "remote"),
    ("tokio::", "remote"),
    ("futures::", "remote"),
    ("indicatif::", "cli"),
    ("clap", "cli"),
    ("toml::", "values"),
    ("csv::", "values"),
    ("semver::", "release"),
    ("signal_hook::", "execution"),
    ("serde_yaml::", "yaml"),
    ("sha2::", "id"),
    ("aws_lc_rs::digest", "id"),
    ("aws_lc_rs::encoding", "attest"),
    ("aws_lc_rs::rand", "attest"),
    ("aws_lc_rs::signature", "attest"),
    ("println!", "cli"),
    ("process::exit", "nobody"),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn modules() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&src).unwrap();
            let first = inside.iter().next().unwrap().to_str().unwrap();
            (first.trim_end_matches(".rs").to_owned(), path.clone(), std::fs::read_to_string(&path).unwrap())
        })
        .filter(|(module, ..)| module != "main" && module != "lib")
        .collect()
}

#[test]
fn imports_point_down() {
    let floor: HashMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor)))
        .collect();
    for (module, path, text) in modules() {
        let own = *floor.get(module.as_str()).unwrap_or_else(|| panic!("{module} is on no floor"));
        for used in text.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(&other) = floor.get(used.as_str()) else { continue };
            let sideways = own == 2 && other == 2 && used != module;
            assert!(other <= own && !sideways, "{}: {module} must not use {used}", path.display());
        }
    }
}

#[test]
fn each_outside_world_has_one_owner() {
    for (module, path, text) in modules() {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (name, owner) in OWNERS {
                let named = line.split(name).next().is_some_and(|before| {
                    before.len() < line.len() && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                });
                assert!(!named || module == owner, "{}: {name} belongs to {owner}: {line}", path.display());
            }
        }
    }
}

#[test]
fn no_file_grows_out_of_hand() {
    for (_, path, text) in modules() {
        assert!(text.lines().count() <= 700, "{}: {} lines", path.display(), text.lines().count());
    }
}
