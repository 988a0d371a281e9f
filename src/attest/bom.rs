//! A bill of materials of a model: CycloneDX 1.6 with a machine-learning model, its files, data sets and packages.
//!
//! Source: <https://cyclonedx.org/docs/1.6/json/>. Equal versions give equal bytes, whoever makes them, wherever and whenever.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::human;
use crate::id::{Digest, Hasher};
use crate::lineage::{Basis, Data, Lineage};
use crate::model_yaml::Model;
use crate::remote_url::redact;
use crate::values::number;

/// Licences that a declaration may name by their SPDX identifier; another text is passed on as a name.
const SPDX: [&str; 12] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "MPL-2.0",
    "GPL-2.0-only",
    "GPL-3.0-only",
    "LGPL-3.0-only",
    "AGPL-3.0-only",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
];
/// Where the bill says itself what a model is.
const MODEL: &str = "model";

/// A version, as the bill tells it.
#[derive(Debug)]
pub struct Version<'a> {
    /// Its declaration.
    pub model: &'a Model,
    /// Its record.
    pub lineage: &'a Lineage,
    /// The model digest.
    pub digest: Digest,
    /// The version and the tag, of a release.
    pub release: Option<(&'a str, &'a str)>,
    /// The commit, in hex.
    pub commit: &'a str,
    /// When it was released, in Unix seconds.
    pub released: Option<i64>,
    /// Its files.
    pub files: Vec<File>,
    /// What its locks pin.
    pub packages: Vec<Package>,
}

/// A file of the version.
#[derive(Debug)]
pub struct File {
    /// Repository path.
    pub path: String,
    /// What it is to the model.
    pub role: String,
    /// Its content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// A package of a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, or what the lock allows. Untrusted text, as the name.
    pub version: String,
    /// The type in its package URL, where the lock tells where it comes from.
    pub kind: Option<&'static str>,
    /// Path of the lock.
    pub lock: String,
}

/// The bill's text.
pub fn text(version: &Version<'_>) -> String {
    let mut components = files(version);
    components.extend(version.lineage.data.iter().map(data));
    let packages: BTreeSet<&Package> = version.packages.iter().collect();
    components.extend(packages.into_iter().map(package));
    let references: Vec<&Value> = components.iter().map(|component| &component["bom-ref"]).collect();
    let mut metadata = json!({
        "tools": {"components": [{"type": "application", "name": "git-model", "version": env!("CARGO_PKG_VERSION")}]},
        "component": model(version),
    });
    if let Some(time) = version.released.and_then(human::rfc3339) {
        metadata["timestamp"] = json!(time);
    }
    let bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", serial(version)),
        "version": 1,
        "metadata": metadata,
        "dependencies": [{"ref": MODEL, "dependsOn": references}],
        "components": components,
    });
    let mut text = serde_json::to_string_pretty(&bill).expect("plain data");
    text.push('\n');
    text
}

/// A UUID that follows from what the bill is about.
fn serial(version: &Version<'_>) -> uuid::Uuid {
    let mut hasher = Hasher::default();
    let name = version.release.map_or(version.commit, |(_, tag)| tag);
    hasher.update(format!("git-model bom {} {name}\n", version.digest).as_bytes());
    let digest = hasher.finish();
    let bytes = digest.as_bytes()[..16].try_into().expect("a digest is longer");
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn model(version: &Version<'_>) -> Value {
    let model = version.model;
    let mut component = json!({
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": model.name.as_str(),
        "modelCard": card(version.lineage),
    });
    if let Some((number, _)) = version.release {
        component["version"] = json!(number);
        component["purl"] = json!(purl("generic", model.name.as_str(), Some(number)));
    }
    if let Some(text) = &model.description {
        component["description"] = json!(text);
    }
    if let Some(text) = model.license.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        let key = if SPDX.contains(&text) { "id" } else { "name" };
        component["licenses"] = json!([{"license": {key: text}}]);
    }
    let mut about =
        vec![("digest", format!("sha256:{}", version.digest)), ("commit", version.commit.to_owned())];
    about.extend(version.release.map(|(_, tag)| ("tag", tag.to_owned())));
    about.extend(version.lineage.data_digest().map(|digest| ("data-digest", format!("sha256:{digest}"))));
    component["properties"] = properties(about);
    component
}

/// What is known about the model itself. What nobody recorded is not there.
fn card(lineage: &Lineage) -> Value {
    let mut card = Map::new();
    let weights = lineage.weights.as_ref();
    let bound = |digest: Option<Digest>| digest.is_some() && digest == weights.map(|weights| weights.sha256);
    let training = lineage.training.as_ref().filter(|training| bound(Some(training.weights)));
    let mut parameters = Map::new();
    if let Some(architecture) = weights.and_then(|weights| weights.metadata.get("general.architecture")) {
        parameters.insert("modelArchitecture".into(), json!(architecture));
    }
    if let Some(training) = training {
        let read = |data: &&Data| training.inputs.data.get(&data.name) == Some(&data.digest);
        let datasets: Vec<Value> =
            lineage.data.iter().filter(read).map(|data| json!({"ref": data_ref(data)})).collect();
        if !datasets.is_empty() {
            parameters.insert("datasets".into(), json!(datasets));
        }
    }
    if !parameters.is_empty() {
        card.insert("modelParameters".into(), Value::Object(parameters));
    }
    if let Some(metrics) = lineage.metrics().filter(|metrics| !metrics.is_empty()) {
        let metrics: Vec<Value> =
            metrics.iter().map(|(name, value)| json!({"type": name, "value": number(*value)})).collect();
        card.insert("quantitativeAnalysis".into(), json!({ "performanceMetrics": metrics }));
    }
    let mut about = Vec::new();
    if let Some(weights) = weights {
        about.push(("weights:digest", format!("sha256:{}", weights.sha256)));
        about.push(("weights:size", weights.size.to_string()));
        about.extend(weights.format.clone().map(|format| ("weights:format", format)));
        about.extend(weights.tensors.map(|count| ("weights:tensors", count.to_string())));
        about.extend(weights.parameters.map(|count| ("weights:parameters", count.to_string())));
    }
    let basis = |basis| if basis == Basis::Observed { "observed" } else { "declared" };
    about.extend(training.map(|training| ("training:basis", basis(training.basis).to_owned())));
    let evaluation = lineage.evaluation.as_ref().filter(|evaluation| bound(evaluation.weights));
    about.extend(evaluation.map(|evaluation| ("evaluation:basis", basis(evaluation.basis).to_owned())));
    card.insert("properties".into(), properties(about));
    Value::Object(card)
}

/// Files, each once with all its roles.
fn files(version: &Version<'_>) -> Vec<Value> {
    let mut by_path: BTreeMap<&str, (BTreeSet<&str>, &File)> = BTreeMap::new();
    for file in &version.files {
        by_path.entry(&file.path).or_insert_with(|| (BTreeSet::new(), file)).0.insert(&file.role);
    }
    let component = |(path, (roles, file)): (&str, (BTreeSet<&str>, &File))| {
        let mut about: Vec<(&str, String)> =
            roles.into_iter().map(|role| ("role", role.to_owned())).collect();
        about.push(("size", file.size.to_string()));
        json!({
            "type": "file",
            "bom-ref": format!("file:{path}"),
            "name": path,
            "hashes": hashes(file.sha256),
            "properties": properties(about),
        })
    };
    by_path.into_iter().map(component).collect()
}

fn data_ref(data: &Data) -> String {
    format!("data:{}", data.name)
}

fn data(data: &Data) -> Value {
    let mut set = json!({"type": "dataset", "name": data.name});
    if let Some(url) = &data.url {
        set["contents"] = json!({"url": redact(url)});
    }
    let mut about = vec![("digest", data.digest.clone())];
    about.extend(data.path.as_ref().map(|path| ("path", path.as_str().to_owned())));
    about.extend(data.id.clone().map(|id| ("id", id)));
    about.extend(data.files.map(|count| ("files", count.to_string())));
    about.extend(data.size.map(|size| ("size", size.to_string())));
    // Its digest is of a list of files, or of what its owner says; a hash of bytes it is only of a single file.
    json!({
        "type": "data",
        "bom-ref": data_ref(data),
        "name": data.name,
        "data": [set],
        "properties": properties(about),
    })
}

fn package(package: &Package) -> Value {
    let exact = is_exact(&package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": format!("package:{}:{}@{}", package.lock, package.name, package.version),
        "name": package.name,
    });
    let mut about = vec![("lock", package.lock.clone())];
    if exact {
        component["version"] = json!(package.version);
    } else {
        about.push(("allowed", package.version.clone()));
    }
    if let Some(kind) = package.kind {
        let version = exact.then_some(package.version.as_str());
        component["purl"] = json!(purl(kind, &package.name, version));
    }
    component["properties"] = properties(about);
    component
}

/// Whether a text is one version, and not a limit, a URL or a commit.
fn is_exact(version: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_!".contains(&byte);
    version.bytes().all(plain) && version.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A package URL: <https://github.com/package-url/purl-spec>.
fn purl(kind: &str, name: &str, version: Option<&str>) -> String {
    let name: Vec<String> = name.split('/').map(|part| human::percent_encode(part, b"")).collect();
    let version = version.map(|version| format!("@{}", human::percent_encode(version, b"")));
    format!("pkg:{kind}/{}{}", name.join("/"), version.unwrap_or_default())
}

fn hashes(digest: Digest) -> Value {
    json!([{"alg": "SHA-256", "content": digest}])
}

fn properties(pairs: Vec<(&str, String)>) -> Value {
    let property = |(name, value)| json!({"name": format!("git-model:{name}"), "value": value});
    pairs.into_iter().map(property).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_follow_the_specification() {
        assert_eq!(purl("npm", "@scope/name", Some("1.0.0")), "pkg:npm/%40scope/name@1.0.0");
        assert_eq!(purl("pypi", "torch", Some("2.3.0+cu121")), "pkg:pypi/torch@2.3.0%2Bcu121");
        assert_eq!(purl("generic", "team/churn", None), "pkg:generic/team/churn");
    }

    #[test]
    fn limits_are_no_versions() {
        for version in ["1.0", "2.3.0+cu121", "1!2.0", "2024a", "1.0.0-rc.1"] {
            assert!(is_exact(version), "{version}");
        }
        for other in ["", "*", ">=1.0", "1.0,<2", "~=1.0", "!=1", "1.0 (git abc)", "https://x/y.whl", "=1.0"]
        {
            assert!(!is_exact(other), "{other}");
        }
    }
}
