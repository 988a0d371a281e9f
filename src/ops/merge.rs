//! What git asks when pointers are merged or shown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Ctx;
use super::fetch::listing;
use crate::error::{Context, Result};
use crate::fsio::{self, Kind};
use crate::human;
use crate::pointer::{self, Pointer};

/// Directories with more files are shown by their totals alone.
const MAX_SHOWN: usize = 10_000;

/// Merges a pointer: takes the side that changed. When both did, writes both sides with git's markers into `ours` and
/// returns `false`, because only a person can choose between two sets of weights.
pub fn merge(base: &Path, ours: &Path, theirs: &Path) -> Result<bool> {
    let read = |path: &Path| {
        Ok::<_, crate::error::Error>(fsio::read_bounded(path, 4 * pointer::MAX_BYTES)?.unwrap_or_default())
    };
    let (base_bytes, our_bytes, their_bytes) = (read(base)?, read(ours)?, read(theirs)?);
    let parse = |bytes: &[u8]| Pointer::parse(bytes, "pointer").ok();
    let same = |a: &[u8], b: &[u8]| a == b || parse(a).is_some_and(|pointer| Some(pointer) == parse(b));
    if same(&our_bytes, &their_bytes) || same(&base_bytes, &their_bytes) {
        return Ok(true);
    }
    if same(&base_bytes, &our_bytes) {
        fs::write(ours, &their_bytes).context(ours, "write")?;
        return Ok(true);
    }
    let both =
        [b"<<<<<<< ours\n".as_slice(), &our_bytes, b"=======\n", &their_bytes, b">>>>>>> theirs\n"].concat();
    fs::write(ours, both).context(ours, "write")?;
    Ok(false)
}

/// A pointer as `git diff` and `git log -p` show it: readable sizes, and the files of a directory where their list is
/// in the cache. Anything that is not a pointer is returned as it is.
pub fn text(ctx: Option<&Ctx>, path: &Path) -> Result<String> {
    let bytes = fsio::read_bounded(path, 64 * pointer::MAX_BYTES)?.unwrap_or_default();
    let Ok(pointer) = Pointer::parse(&bytes, "pointer") else {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    };
    let mut out = format!("{}\nsha256 {}\n", pointer.summary(), pointer.digest);
    if let (true, Some(ctx)) = (pointer.is_tree(), ctx)
        && let Ok(entries) = listing(ctx, &pointer, &mut Vec::new())
        && entries.len() <= MAX_SHOWN
    {
        for entry in entries.iter().filter(|entry| entry.kind != Kind::Tree) {
            let size = human::bytes(entry.size);
            let _ = writeln!(out, "{} {size:>8} {}", entry.digest.short(), human::escape(&entry.path));
        }
    }
    Ok(out)
}
