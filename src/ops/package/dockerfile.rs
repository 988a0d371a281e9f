//! A Dockerfile for the service of a release: the model from an image that is pinned by digest, or fetched at the start by a lock file.

use std::fmt::Write as _;

use super::super::resolve::Resolved;
use crate::error::{Error, Result};
use crate::human;
use crate::model_yaml::Role;
use crate::oci::{self, Pinned, Reference, image};

/// Where the weights come from.
#[derive(Clone, Debug)]
pub enum Model {
    /// From this image, pinned by digest.
    Embed(Reference),
    /// From the store, when the container starts.
    Fetch,
}

/// The Dockerfile. `base` is the image that the service runs on; without one, whoever builds names it.
pub fn dockerfile(resolved: &Resolved, model: &Model, base: Option<&str>) -> Result<String> {
    let mut text = String::new();
    let name = resolved.tag.clone().unwrap_or_else(|| format!("{} at {}", resolved.model, resolved.commit));
    let _ =
        writeln!(text, "# The service of {}. The build context is the repository at", human::escape(&name));
    let _ = writeln!(
        text,
        "# commit {}; what this service adds to it (CMD, ports, user) goes below.",
        resolved.commit
    );
    if matches!(model, Model::Fetch) {
        let lock = "git model resolve REF --lock model.lock.json";
        let _ = writeln!(
            text,
            "# The context needs model.lock.json ({}) and the git-model program.",
            lock.replace("REF", &human::shell_quote(&name))
        );
    }
    match base {
        Some(base) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
            if base.is_empty() || !base.chars().all(plain) {
                return Err(Error::usage(format!("{}: not the name of an image", human::escape(base))));
            }
            let _ = writeln!(text, "ARG BASE={base}");
        }
        None => {
            let _ = writeln!(
                text,
                "# Name a base image, pinned by digest: docker build --build-arg BASE=IMAGE@sha256:…"
            );
            let _ = writeln!(text, "ARG BASE");
        }
    }
    if let Model::Embed(image) = model {
        if !matches!(image.pinned, Some(Pinned::Digest(_))) {
            return Err(Error::usage(format!("{image}: it must be pinned by digest")));
        }
        let _ = writeln!(text, "FROM {} AS model", image.image());
    }
    let _ = writeln!(text, "FROM ${{BASE}}");
    labels(&mut text, resolved);
    let _ = writeln!(text, "WORKDIR /app");
    environment(&mut text, resolved);
    match model {
        Model::Embed(_) => {
            let _ = writeln!(text, "# Below the code: a change of code leaves this layer as it is.");
            let _ = writeln!(text, "COPY --from=model /{0} /{0}", image::ROOT);
        }
        Model::Fetch => {
            let _ = writeln!(text, "COPY [\"git-model\", \"/usr/local/bin/git-model\"]");
            let _ = writeln!(text, "COPY [\"model.lock.json\", \"/etc/git-model/model.lock.json\"]");
        }
    }
    for file in resolved.files.iter().filter(|file| file.role == Role::Code.key()) {
        let path = json(file.path.as_str());
        let _ = writeln!(text, "COPY [{path}, {path}]");
    }
    if matches!(model, Model::Fetch) {
        let _ = writeln!(
            text,
            "# Complete and checked, or the container ends here; on a volume that is kept, nothing is fetched twice."
        );
        let _ = writeln!(
            text,
            "ENTRYPOINT [\"/bin/sh\", \"-c\", \"git-model get --locked /etc/git-model/model.lock.json -o /{} && exec \\\"$@\\\"\", \"sh\"]",
            image::ROOT
        );
    }
    Ok(text)
}

/// What the service is, for registries and for itself.
fn labels(text: &mut String, resolved: &Resolved) {
    let info = resolved.info();
    for (name, value) in oci::names_of(&info) {
        let _ = writeln!(text, "LABEL {name}={}", quote(&value));
    }
    for (name, value) in info.pairs() {
        let _ = writeln!(text, "ENV MODEL_{}={}", name.to_ascii_uppercase(), quote(&value));
    }
    let _ = writeln!(text, "ENV MODEL_DIR=/{}", image::ROOT);
}

/// The lock first: as long as it stays the same, so does the layer of what it installs.
fn environment(text: &mut String, resolved: &Resolved) {
    for file in resolved.files.iter().filter(|file| file.role == Role::Environment.key()) {
        let path = file.path.as_str();
        let _ = writeln!(text, "COPY [{0}, {0}]", json(path));
        let quoted = human::shell_quote(path);
        match file.path.name() {
            "uv.lock" => {
                let project = file.path.sibling("pyproject.toml");
                let project = project.map_or_else(|_| "pyproject.toml".to_owned(), |path| path.to_string());
                let dir = file.path.parent().map_or_else(|| ".".to_owned(), |dir| dir.to_string());
                let _ = writeln!(text, "COPY [{0}, {0}]", json(&project));
                let _ = writeln!(
                    text,
                    "RUN uv sync --frozen --no-dev --no-install-project --directory {}",
                    human::shell_quote(&dir)
                );
            }
            name if name.ends_with(".txt") => {
                let _ = writeln!(text, "RUN pip install --no-cache-dir -r {quoted}");
            }
            _ => {
                let _ = writeln!(text, "# RUN: install what {} locks", human::escape(path));
            }
        }
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value in double quotes, in which Docker expands nothing.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(if character.is_control() { ' ' } else { character });
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote("a \"b\" $c \\ \n"), "\"a \\\"b\\\" \\$c \\\\  \"");
    }
}
