//! All integration tests, as one program: they drive the real binary with real git, real file systems and real servers.

mod support;

mod attestations;
mod compare;
mod conformance;
mod credentials;
mod damage;
mod deploy;
mod docs;
mod faults;
mod filesystems;
mod floors;
mod guards;
mod hooks;
mod hostile;
mod hostile_stores;
mod interrupted;
mod lineage;
mod lineage_files;
mod lineage_run;
mod lineage_weights;
mod order;
mod package;
mod package_registry;
mod real_model;
mod release;
mod release_ci;
mod release_clones;
mod release_gates;
mod release_get;
mod release_gto;
mod release_old_servers;
mod release_presign;
mod release_protect;
mod release_race;
mod release_signing;
mod release_story;
mod release_tampering;
mod remote_commands;
mod remote_failures;
mod remotes;
mod repositories;
mod scan;
mod schemas;
mod serving;
mod tracking;
mod transfer;

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
