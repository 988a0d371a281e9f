//! Signatures over the files of a version as `git model get` writes them, and over directories that were written so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::attestations::Version;
use crate::attest::oms::{self, Bundle, Manifest};
use crate::attest::{PrivateKey, PublicKey, key};
use crate::error::{Context, Error, Result};
use crate::fsio;
use crate::human;
use crate::id::Digest;
use crate::model_info;
use crate::progress::{Interrupt, Progress};

/// A new signature.
#[derive(Debug)]
pub struct Signed {
    /// The bytes of the bundle.
    pub bundle: Vec<u8>,
    /// What was signed.
    pub manifest: Manifest,
    /// Name of the key that checks it.
    pub key: Digest,
    /// Whether files are among what was signed that the reference tool leaves out by default.
    pub git_paths: bool,
}

/// A signature that holds.
#[derive(Debug)]
pub struct Verified {
    /// What was signed.
    pub manifest: Manifest,
    /// Name of the key.
    pub key: Digest,
    /// Its key in the store, or its file.
    pub place: String,
    /// The bytes of the bundle.
    pub bundle: Vec<u8>,
}

/// Reads a private key in PEM.
pub fn private_key(path: &Path) -> Result<PrivateKey> {
    PrivateKey::from_pem(&key_file(path)?, &path.to_string_lossy())
}

/// Reads a public key in PEM.
pub fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&key_file(path)?, &path.to_string_lossy())
}

fn key_file(path: &Path) -> Result<Vec<u8>> {
    fsio::read_bounded(path, key::MAX_KEY)?.ok_or_else(|| {
        Error::usage(format!("{}: no such file", path.display())).hint("name an ECDSA key in PEM")
    })
}

/// Signs a version; no file is read, since their digests are known.
pub fn sign_version(version: &Version<'_>, key: &PrivateKey) -> Result<Signed> {
    let signature = [oms::FILE_NAME.to_owned()].into();
    sign(version.resolved.model.clone(), files_of(version), signature, key)
}

/// Signs a directory, every file of which is read. The signature is going to be at `output`.
pub fn sign_directory(
    dir: &Path,
    key: &PrivateKey,
    output: &Path,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Signed> {
    let mut ignored: BTreeSet<String> = oms::GIT_PATHS.map(str::to_owned).into();
    ignored.insert(oms::FILE_NAME.to_owned());
    ignored.insert(model_info::FILE_NAME.to_owned());
    ignored.extend(below(dir, output)?);
    if let Some(info) = super::info::of_directory(dir)? {
        // What belongs to the model is signed, whatever it is called.
        ignored.retain(|ignored| !info.files.iter().any(|file| covers(ignored, file.path.as_str())));
    }
    let skip = |path: &str| ignored.iter().any(|ignored| covers(ignored, path));
    let files = hash_directory(dir, &skip, progress, interrupt)?;
    let full = dir.canonicalize().context(dir, "find")?;
    let name = full.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    sign(name, files, ignored, key)
}

fn sign(
    name: String,
    files: BTreeMap<String, Digest>,
    mut ignored: BTreeSet<String>,
    key: &PrivateKey,
) -> Result<Signed> {
    ignored.extend(oms::GIT_PATHS.map(str::to_owned));
    ignored.insert(model_info::FILE_NAME.to_owned());
    ignored.retain(|ignored| !files.keys().any(|path| covers(ignored, path)));
    let git_paths = oms::GIT_PATHS.iter().any(|path| !ignored.contains(*path));
    let manifest = Manifest { name, files, ignored: ignored.into_iter().collect() };
    Ok(Signed { bundle: manifest.sign(key)?, key: key.public().hint(), manifest, git_paths })
}

/// Whether a path is this one, or lies below it.
fn covers(above: &str, path: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The digests of a version's files, as its record has them.
fn files_of(version: &Version<'_>) -> BTreeMap<String, Digest> {
    version.resolved.files.iter().map(|file| (file.path.as_str().to_owned(), file.sha256)).collect()
}

/// Looks in the store of a version for a signature by this key that is about exactly its files. None of them is read.
pub fn verify_version(version: &Version<'_>, key: &PublicKey) -> Result<Verified> {
    let files = files_of(version);
    let mut best: Option<(u8, Error)> = None;
    for (place, bytes) in version.attested(oms::MAX_BYTES)? {
        // Other things are attested, too.
        let Ok(bundle) = Bundle::parse(&bytes, &place) else { continue };
        let shown = version.shown();
        let (rank, error) = match bundle.verify(key, &shown) {
            Ok(manifest) => match manifest.differences(&files).as_slice() {
                [] => {
                    let (manifest, key) = (manifest.clone(), key.hint());
                    return Ok(Verified { manifest, key, place, bundle: bytes });
                }
                lines => (3, differs(&shown, lines)),
            },
            Err(error) if bundle.claimed_root() == version.candidate.oms_root() => (2, error),
            Err(error) => (1, error),
        };
        if best.as_ref().is_none_or(|(before, _)| *before < rank) {
            best = Some((rank, error));
        }
    }
    Err(best.map(|(_, error)| error).unwrap_or_else(|| {
        Error::refused(format!("{}: its store has no signature", version.shown()))
            .hint(format!("git model sign {} --key KEY makes one", human::shell_quote(&version.shown())))
    }))
}

/// Checks a version against a signature in a file.
pub fn verify_version_with(version: &Version<'_>, key: &PublicKey, signature: &Path) -> Result<Verified> {
    let verified = read(signature, key)?;
    match verified.manifest.differences(&files_of(version)).as_slice() {
        [] => Ok(verified),
        lines => Err(differs(&version.shown(), lines)),
    }
}

/// Checks a directory against a signature, every file of which is read.
pub fn verify_directory(
    dir: &Path,
    key: &PublicKey,
    signature: Option<&Path>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Verified> {
    let signature = signature.map_or_else(|| dir.join(oms::FILE_NAME), Path::to_path_buf);
    let verified = read(&signature, key)?;
    let itself = below(dir, &signature)?;
    let skip = |path: &str| {
        let unsigned = !verified.manifest.files.keys().any(|signed| covers(path, signed));
        unsigned && (verified.manifest.ignores(path) || itself.as_deref() == Some(path))
    };
    let found = hash_directory(dir, &skip, progress, interrupt)?;
    match verified.manifest.differences(&found).as_slice() {
        [] => Ok(verified),
        lines => Err(differs(&dir.to_string_lossy(), lines)),
    }
}

fn read(path: &Path, key: &PublicKey) -> Result<Verified> {
    let shown = path.to_string_lossy().into_owned();
    let bytes = fsio::read_bounded(path, oms::MAX_BYTES)?.ok_or_else(|| {
        Error::refused(format!("{}: no such signature", path.display())).hint(
            "--bundle FILE says where it is; git model verify --signature REF -o FILE gets it from the store",
        )
    })?;
    let manifest = Bundle::parse(&bytes, &shown)?.verify(key, &shown)?.clone();
    Ok(Verified { manifest, key: key.hint(), place: shown, bundle: bytes })
}

fn differs(shown: &str, lines: &[String]) -> Error {
    let more = match lines.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let error = Error::refused(format!("{}: not as it was signed: {}{more}", human::escape(shown), lines[0]));
    lines.iter().skip(1).take(20).fold(error, Error::hint)
}

/// The path of a file below a directory, if it lies there.
fn below(dir: &Path, file: &Path) -> Result<Option<String>> {
    let (Ok(parent), Some(name)) = (fsio::parent_of(file).canonicalize(), file.file_name()) else {
        return Ok(None);
    };
    let full = dir.canonicalize().context(dir, "find")?;
    Ok(parent.join(name).strip_prefix(full).ok().map(|path| path.to_string_lossy().into_owned()))
}

/// The digests of all files below a directory, by their paths; several are read at once.
fn hash_directory(
    dir: &Path,
    skip: &dyn Fn(&str) -> bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<BTreeMap<String, Digest>> {
    let mut files = Vec::new();
    list(dir, "", skip, &mut files)?;
    let bytes = files.iter().map(|(_, _, size)| *size).fold(0, u64::saturating_add);
    let step = progress.step("reading", files.len() as u64, bytes);
    let digest = |(name, path, _): &(String, PathBuf, u64)| -> Result<(String, Digest)> {
        interrupt.check()?;
        let on_bytes = |bytes| {
            step.advance(bytes);
            interrupt.check_io()
        };
        let file = File::open(path).context(path, "open")?;
        let (digest, _) = fsio::hash_file(&file, &on_bytes).context(path, "read")?;
        step.finish_one();
        Ok((name.clone(), digest))
    };
    files.par_iter().map(digest).collect()
}

/// Lists the files below a directory with their sizes. What is neither a file nor a directory is refused: no signature can
/// say what it stands for.
fn list(
    dir: &Path,
    prefix: &str,
    skip: &dyn Fn(&str) -> bool,
    files: &mut Vec<(String, PathBuf, u64)>,
) -> Result<()> {
    for entry in fs::read_dir(dir).context(dir, "list")? {
        let path = entry.context(dir, "list")?.path();
        let refuse = |what: &str| Err(Error::refused(format!("{}: {what}", path.display())));
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return refuse("its name is not UTF-8, so it cannot be signed");
        };
        let name = format!("{prefix}{name}");
        if skip(&name) {
            continue;
        }
        let found = fs::symlink_metadata(&path).context(&path, "read")?;
        if found.is_dir() {
            list(&path, &format!("{name}/"), skip, files)?;
        } else if found.is_file() {
            files.push((name, path, found.len()));
        } else {
            return refuse("neither a file nor a directory, so it cannot be signed");
        }
    }
    Ok(())
}
