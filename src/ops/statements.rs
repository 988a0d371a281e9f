//! Statements about a version: its bill of materials, and how its weights came about.

use super::attestations::Version;
use super::fetch::ensure_small;
use crate::attest::{bom, provenance};
use crate::error::Result;
use crate::lockfile;
use crate::model_yaml::Role;
use crate::values;

/// The bill of materials of a version: CycloneDX 1.6.
pub fn bill(version: &Version<'_>) -> Result<String> {
    let candidate = &version.candidate;
    let resolved = &version.resolved;
    let of_file = |file: &super::resolve::FileInfo| bom::File {
        path: file.path.as_str().to_owned(),
        role: file.role.clone(),
        sha256: file.sha256,
        size: file.size,
    };
    Ok(bom::text(&bom::Version {
        model: &candidate.model,
        lineage: &candidate.lineage,
        digest: candidate.digest,
        release: resolved.version.as_deref().zip(resolved.tag.as_deref()),
        commit: candidate.commit.as_str(),
        released: version.released,
        files: resolved.files.iter().map(of_file).collect(),
        packages: packages(version)?,
    }))
}

/// How the weights of a version came about: an in-toto statement with a SLSA predicate.
pub fn provenance(version: &Version<'_>) -> Result<String> {
    let candidate = &version.candidate;
    let weights = candidate.files.iter().filter(|file| file.role == Role::Weights);
    let weights: Vec<_> = weights.map(|file| (&file.path, file.sha256)).collect();
    provenance::text(&candidate.lineage, &candidate.model.path, &weights)
}

/// What the locks of a version pin.
fn packages(version: &Version<'_>) -> Result<Vec<bom::Package>> {
    let mut found = Vec::new();
    for lock in version.candidate.files.iter().filter(|file| file.role == Role::Environment) {
        let path = lock.path.as_str();
        if !lockfile::is_known(path) {
            continue;
        }
        let bytes = match version.file_of_git(&lock.path, lock.sha256, values::MAX_BYTES)? {
            Some(bytes) => bytes,
            None => ensure_small(version.store_ctx(), path, lock.sha256, values::MAX_BYTES)?,
        };
        for (name, versions) in lockfile::packages(&bytes, path)?.into_iter().flatten() {
            found.extend(versions.split(", ").map(|version| bom::Package {
                name: name.clone(),
                version: version.to_owned(),
                kind: lockfile::purl_type(path),
                lock: path.to_owned(),
            }));
        }
    }
    Ok(found)
}
