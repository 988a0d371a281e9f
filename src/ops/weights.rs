//! What the headers of a model's weights say, wherever their bytes are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek};

use super::Ctx;
use super::fetch::listing;
use crate::codec::{self, Header};
use crate::error::{Context, Error, Result};
use crate::fsio::Kind;
use crate::human;
use crate::id::Digest;
use crate::lineage::{FileEntry, Weights, weights_digest};
use crate::model_yaml::Model;
use crate::pointer::{Content, Pointer};
use crate::repo_path::RepoPath;

/// Indexes of sharded weights end like this.
const INDEX_SUFFIX: &str = ".safetensors.index.json";
/// Larger indexes are refused.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// One file of weights and where its bytes can be read.
#[derive(Clone, Debug)]
pub(super) struct WeightsFile {
    /// Its repository path.
    pub path: RepoPath,
    /// Its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Anything that headers can be read from.
pub(super) trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// All files of the weights; directory artifacts by what they hold.
pub(super) fn files(ctx: &Ctx, entries: &[FileEntry]) -> Result<Vec<WeightsFile>> {
    let mut files = Vec::new();
    for entry in entries {
        let Some(count) = entry.files else {
            files.push(WeightsFile { path: entry.path.clone(), digest: entry.sha256, size: entry.size });
            continue;
        };
        let pointer =
            Pointer { content: Content::Tree { files: count }, digest: entry.sha256, size: entry.size };
        let shown = human::escape(entry.path.as_str());
        for inside in listing(ctx, &pointer, &mut Vec::new()).map_err(|error| error.about(shown))? {
            if matches!(inside.kind, Kind::File | Kind::Executable) {
                let path = entry.path.join(&inside.path)?;
                files.push(WeightsFile { path, digest: inside.digest, size: inside.size });
            }
        }
    }
    Ok(files)
}

/// Opens the bytes of a weights file: from the cache, else from git itself. `None` when they are not here.
pub(super) fn open(ctx: &Ctx, file: &WeightsFile) -> Result<Option<Box<dyn Source>>> {
    if ctx.cache.holds(&file.digest, file.size)
        && let Some(object) = ctx.cache.open(&file.digest)?
    {
        return Ok(Some(Box::new(object)));
    }
    in_git(ctx, file).map(|bytes| bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Source>))
}

/// The bytes of a file that git itself holds, if they are the right ones.
fn in_git(ctx: &Ctx, file: &WeightsFile) -> Result<Option<Vec<u8>>> {
    let Ok(root) = ctx.root() else { return Ok(None) };
    let bytes = match root.open_file(&file.path) {
        Ok(Some(on_disk)) => read_whole(on_disk, file)?,
        _ => return Ok(None),
    };
    Ok((Digest::of(&bytes) == file.digest).then_some(bytes))
}

fn read_whole(on_disk: File, file: &WeightsFile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    on_disk.take(file.size + 1).read_to_end(&mut bytes).context(file.path.as_path(), "read")?;
    Ok(bytes)
}

/// The headers of all files whose format is known, by path.
pub(super) fn headers(ctx: &Ctx, files: &[WeightsFile]) -> Result<BTreeMap<RepoPath, Header>> {
    let mut headers = BTreeMap::new();
    for file in files.iter().filter(|file| !file.path.as_str().ends_with(INDEX_SUFFIX)) {
        let shown = human::escape(file.path.as_str());
        let Some(mut bytes) = open(ctx, file)? else {
            return Err(Error::new(format!("{shown}: its content is not here"))
                .hint(format!("git model pull {}", quoted(&file.path))));
        };
        let header = codec::read(&mut bytes, file.size, file.path.name()).map_err(|error| {
            let again =
                format!("if it is damaged: write it again, then git model add {}", quoted(&file.path));
            error.about(shown).hint(again)
        })?;
        headers.extend(header.map(|header| (file.path.clone(), header)));
    }
    Ok(headers)
}

fn quoted(path: &RepoPath) -> String {
    human::shell_quote(path.as_str())
}

/// Describes the weights; reads headers only.
pub(super) fn describe(ctx: &Ctx, model: &Model, entries: &[FileEntry]) -> Result<Option<Weights>> {
    let Some(sha256) = digest(model, entries) else { return Ok(None) };
    let files = files(ctx, entries)?;
    let headers = headers(ctx, &files)?;
    for index in files.iter().filter(|file| file.path.as_str().ends_with(INDEX_SUFFIX)) {
        check_index(ctx, index, &headers).map_err(|error| error.about(human::escape(index.path.as_str())))?;
    }
    let size = entries.iter().map(|entry| entry.size).fold(0, u64::saturating_add);
    let mut weights = Weights {
        sha256,
        size,
        format: None,
        tensors: None,
        parameters: None,
        dtypes: BTreeMap::new(),
        shapes: None,
        metadata: BTreeMap::new(),
    };
    if let Some(summary) = codec::summarize(&headers.values().collect::<Vec<_>>()) {
        weights.format = Some(summary.format);
        weights.metadata = summary.metadata;
        // A file whose tensors cannot be told without running code would make every sum a false one.
        if summary.tensors > 0 && summary.unknown == 0 {
            weights.tensors = Some(summary.tensors);
            weights.parameters = Some(summary.parameters);
            weights.dtypes = summary.dtypes;
            weights.shapes = Some(summary.shapes);
        }
    }
    Ok(Some(weights))
}

/// The name of the weights as a whole.
pub(super) fn digest(model: &Model, entries: &[FileEntry]) -> Option<Digest> {
    weights_digest(entries, |path| model.relative(path).to_owned())
}

fn check_index(ctx: &Ctx, index: &WeightsFile, headers: &BTreeMap<RepoPath, Header>) -> Result<()> {
    if index.size > MAX_INDEX {
        return Err(Error::new(format!("larger than the allowed {MAX_INDEX} bytes")));
    }
    let mut bytes = Vec::new();
    let source =
        open(ctx, index)?.ok_or_else(|| Error::new("its content is not here").hint("git model pull"))?;
    source.take(MAX_INDEX).read_to_end(&mut bytes).context(index.path.as_path(), "read")?;
    let parsed = codec::parse_index(&bytes, index.path.as_str())?;
    let shards = headers
        .iter()
        .filter(|(path, _)| path.parent() == index.path.parent())
        .map(|(path, header)| (path.name().to_owned(), header.clone()))
        .collect();
    parsed.check(&shards)
}
