//! All integration tests, as one program: they drive the real binary with real git, real file systems and real servers.

mod support;

mod compare;
mod damage;
mod docs;
mod faults;
mod filesystems;
mod floors;
mod guards;
mod hooks;
mod hostile;
mod hostile_stores;
mod lineage;
mod lineage_run;
mod order;
mod package;
mod package_registry;
mod real_model;
mod release;
mod remote_commands;
mod remote_failures;
mod remotes;
mod repositories;
mod schemas;
mod serving;
mod tracking;

/// A test file that is not listed above would silently never run.
#[test]
fn no_file_is_forgotten() {
    let this = include_str!("main.rs");
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            assert!(
                this.contains(&format!("\nmod {name};")),
                "tests/{name}.rs is not listed in tests/main.rs"
            );
        }
    }
}
