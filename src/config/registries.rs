//! What the user set for OCI registries: credentials where Docker and Podman keep them, and which may be spoken to in plain http.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::env;
use crate::error::{Error, Result};
use crate::fsio;
use crate::human;
use crate::oci::{AuthFile, Credentials, Reference, parse_helper_answer};

/// Larger files of credentials are not read.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The user's credentials for a place in a registry, if there are any: of the first file that has some, from a helper program
/// before the file itself.
pub fn credentials(place: &Reference) -> Result<Option<Credentials>> {
    for path in files() {
        let Some(bytes) = fsio::read_bounded(&path, MAX_FILE)? else { continue };
        let file = AuthFile::parse(&bytes).map_err(|error| {
            Error::new(format!("{}: not a file of registry credentials", path.display())).caused_by(error)
        })?;
        if let Some((helper, server)) = file.helper(place)
            && let Some(found) = ask_helper(helper, &server)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = file.credentials(place) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where credentials may be, in the order in which Podman and skopeo look: a file that was named, then those of Podman, then Docker's.
fn files() -> Vec<PathBuf> {
    let named = |name: &str| env::first(&[name]).map(PathBuf::from);
    if let Some(file) = named(env::REGISTRY_AUTH_FILE) {
        return vec![file];
    }
    let home = named("HOME");
    let config = named("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = named(env::DOCKER_CONFIG).or_else(|| home.map(|home| home.join(".docker")));
    let podman =
        [named("XDG_RUNTIME_DIR"), config].into_iter().flatten().map(|dir| dir.join("containers/auth.json"));
    podman.chain(docker.map(|dir| dir.join("config.json"))).collect()
}

/// Asks `docker-credential-<name>`. `None` when it knows nothing about the registry.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{name}");
    let cannot = |error: std::io::Error| {
        Error::new(format!("{program}: cannot be run")).caused_by(error).hint(
            "the file of registry credentials names this helper; install it, or take its name out of the file",
        )
    };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read says by itself what is wrong.
        drop(stdin.write_all(server.as_bytes()));
    }
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        return parse_helper_answer(&output.stdout)
            .map(Some)
            .ok_or_else(|| Error::new(format!("{program}: its answer is not one of a credential helper")));
    }
    let said =
        String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout });
    let said = said.trim();
    if said.contains("credentials not found") {
        return Ok(None);
    }
    Err(Error::new(format!("{program}: {}", human::escape(said.lines().next().unwrap_or("it failed")))))
}
