//! The files of a model version one by one, and the digest that names them all.

use super::Ctx;
use super::fetch::{Limit, ensure, listing};
use crate::error::Result;
use crate::fsio::Kind;
use crate::git::Oid;
use crate::human;
use crate::id::{Digest, Hasher};
use crate::lineage::{FileEntry, Lineage};
use crate::model_yaml::Role;
use crate::pointer::{Content, Pointer};
use crate::repo_path::RepoPath;

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BundleFile {
    /// What it is to the model.
    pub role: Role,
    /// Repository path.
    pub path: RepoPath,
    /// Its content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// All files of a version, directory artifacts by what they hold; lists of files that are not here are fetched.
pub(super) fn files(ctx: &Ctx, lineage: &Lineage, commit: Option<&Oid>) -> Result<Vec<BundleFile>> {
    let mut files = Vec::new();
    for (&role, entries) in &lineage.files {
        for entry in entries {
            let file = |path, sha256, size, executable| BundleFile { role, path, sha256, size, executable };
            let Some(pointer) = tree_of(entry) else {
                files.push(file(entry.path.clone(), entry.sha256, entry.size, entry.executable));
                continue;
            };
            for inside in tree_listing(ctx, &entry.path, &pointer, commit)? {
                if matches!(inside.kind, Kind::File | Kind::Executable) {
                    let path = entry.path.join(&inside.path)?;
                    files.push(file(path, inside.digest, inside.size, inside.kind == Kind::Executable));
                }
            }
        }
    }
    files.sort_by(|a, b| (&a.path, a.role).cmp(&(&b.path, b.role)));
    Ok(files)
}

/// The pointer of a directory artifact.
pub(super) fn tree_of(entry: &FileEntry) -> Option<Pointer> {
    let files = entry.files?;
    Some(Pointer { content: Content::Tree { files }, digest: entry.sha256, size: entry.size })
}

pub(super) fn tree_listing(
    ctx: &Ctx,
    path: &RepoPath,
    pointer: &Pointer,
    commit: Option<&Oid>,
) -> Result<Vec<crate::tree::FlatEntry>> {
    if let Ok(entries) = listing(ctx, pointer, &mut Vec::new()) {
        return Ok(entries);
    }
    // A limit of nothing brings the lists and none of the files.
    let fetched = ensure(ctx, &[(path.clone(), *pointer)], None, commit, Limit::Bytes(0));
    listing(ctx, pointer, &mut Vec::new()).map_err(|error| match fetched {
        Err(cause) => cause.about(human::escape(path.as_str())),
        Ok(_) => error.about(human::escape(path.as_str())),
    })
}

/// The model digest: SHA-256 of one line `<mode> <sha256> <size> <path>` per file of weights, code, config, environment and
/// schema, sorted by path bytes; a file of two roles is one line. An evaluation only judges a model and is no part of it.
pub(super) fn model_digest(files: &[BundleFile]) -> Digest {
    let mut of_the_model: Vec<&BundleFile> =
        files.iter().filter(|file| file.role.is_of_the_model()).collect();
    of_the_model.sort_by(|a, b| a.path.cmp(&b.path));
    of_the_model.dedup_by(|a, b| a.path == b.path);
    let mut hasher = Hasher::default();
    for file in of_the_model {
        let mode = if file.executable { "100755" } else { "100644" };
        hasher.update(format!("{mode} {} {} {}\n", file.sha256, file.size, file.path).as_bytes());
    }
    hasher.finish()
}
