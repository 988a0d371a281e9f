//! Tree objects: the identity of a directory. Format and test vectors: `docs/formats/tree.md`.

use std::collections::HashMap;
use std::fmt::Write as _;

use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};
use crate::fsio::Kind;
use crate::human;
use crate::id::Digest;
use crate::repo_path::check_name;

/// No tree object is larger; larger ones are never read.
pub const MAX_OBJECT: u64 = 2 * 1024 * 1024;
/// A level with more entries is split into shards.
pub const MAX_ENTRIES: usize = 4096;
/// Deeper nesting is refused.
pub const MAX_DEPTH: usize = 128;
/// Longer link targets are refused.
pub const MAX_LINK: u64 = 4095;

const ENTRIES_HEADER: &str = "git-model tree 1\n";
const SHARDS_HEADER: &str = "git-model shards 1\n";

/// One entry of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File, executable, link or tree; never special.
    pub kind: Kind,
    /// Digest of the content; of a tree, of its tree object.
    pub digest: Digest,
    /// Bytes; of a tree, of everything below it.
    pub size: u64,
    /// The name; see [`check_name`].
    pub name: String,
}

/// One shard of a large level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The byte of SHA-256(name) that its entries share.
    pub byte: u8,
    /// Digest of the tree object with its entries.
    pub digest: Digest,
    /// Sum of their sizes.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// A parsed tree object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A level, or a shard of one, with its entries.
    Entries(Vec<Entry>),
    /// A level, or a shard of one, that is split.
    Shards(Vec<Shard>),
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Executable => "executable",
        Kind::Link => "link",
        Kind::Tree => "tree",
        Kind::Special => unreachable!("special files never become entries"),
    }
}

/// Encodes one level. Returns its tree objects, the level's own last.
///
/// `entries` must be sorted by name bytes and pass [`check_level`].
pub fn encode_level(entries: &[Entry]) -> Vec<(Digest, Vec<u8>)> {
    let mut objects = Vec::new();
    let refs: Vec<&Entry> = entries.iter().collect();
    encode_shard(&refs, 0, &mut objects);
    objects
}

fn encode_shard(entries: &[&Entry], depth: usize, objects: &mut Vec<(Digest, Vec<u8>)>) {
    let mut text = String::new();
    if entries.len() <= MAX_ENTRIES {
        text.push_str(ENTRIES_HEADER);
        for entry in entries {
            let _ =
                writeln!(text, "{} {} {} {}", kind_word(entry.kind), entry.digest, entry.size, entry.name);
        }
    } else {
        text.push_str(SHARDS_HEADER);
        let mut shards: Vec<Vec<&Entry>> = vec![Vec::new(); 256];
        for &entry in entries {
            shards[usize::from(shard_byte(&entry.name, depth))].push(entry);
        }
        for (byte, shard) in shards.iter().enumerate().filter(|(_, shard)| !shard.is_empty()) {
            encode_shard(shard, depth + 1, objects);
            let (digest, _) = objects.last().expect("encoding a shard adds an object");
            let size: u64 = shard.iter().map(|entry| entry.size).sum();
            let _ = writeln!(text, "{byte:02x} {digest} {size} {}", shard.len());
        }
    }
    let bytes = text.into_bytes();
    objects.push((Digest::of(&bytes), bytes));
}

fn shard_byte(name: &str, depth: usize) -> u8 {
    Digest::of(name.as_bytes()).as_bytes()[depth]
}

impl Node {
    /// Parses an object, accepting nothing but canonical bytes. `depth` is how many shard levels lie above it.
    pub fn parse(bytes: &[u8], depth: usize) -> Result<Node> {
        let invalid =
            |line: usize, what: &str| Error::new(format!("damaged tree object: line {line}: {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| invalid(1, "not UTF-8"))?;
        if let Some(body) = text.strip_prefix(ENTRIES_HEADER) {
            let entries = lines(body)
                .map(|(at, line)| parse_entry(line).ok_or_else(|| invalid(at, "not an entry")))
                .collect::<Result<Vec<_>>>()?;
            if entries.len() > MAX_ENTRIES || entries.windows(2).any(|pair| pair[0].name >= pair[1].name) {
                return Err(invalid(2, "entries out of order, repeated or too many"));
            }
            check_level(&entries)?;
            return Ok(Node::Entries(entries));
        }
        let body = text.strip_prefix(SHARDS_HEADER).ok_or_else(|| invalid(1, "unknown header"))?;
        if depth >= 31 {
            return Err(invalid(1, "split too often"));
        }
        let shards = lines(body)
            .map(|(at, line)| parse_shard(line).ok_or_else(|| invalid(at, "not a shard")))
            .collect::<Result<Vec<_>>>()?;
        let entries = shards.iter().try_fold(0u64, |sum, shard| sum.checked_add(shard.entries));
        if shards.windows(2).any(|pair| pair[0].byte >= pair[1].byte)
            || entries.is_none_or(|count| count <= MAX_ENTRIES as u64)
        {
            return Err(invalid(2, "shards out of order or not needed"));
        }
        Ok(Node::Shards(shards))
    }
}

fn lines(body: &str) -> impl Iterator<Item = (usize, &str)> {
    // A body that does not end with a line feed leaves a last piece without one, which no parser below accepts.
    body.split_inclusive('\n').enumerate().map(|(at, line)| (at + 2, line))
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut parts = line.strip_suffix('\n')?.splitn(4, ' ');
    let kind = match parts.next()? {
        "file" => Kind::File,
        "executable" => Kind::Executable,
        "link" => Kind::Link,
        "tree" => Kind::Tree,
        _ => return None,
    };
    let digest = Digest::from_hex(parts.next()?)?;
    let size = parse_number(parts.next()?)?;
    let name = parts.next()?.to_owned();
    check_name(&name).ok()?;
    (kind != Kind::Link || size <= MAX_LINK).then_some(Entry { kind, digest, size, name })
}

fn parse_shard(line: &str) -> Option<Shard> {
    let mut parts = line.strip_suffix('\n')?.splitn(4, ' ');
    let byte = parts
        .next()
        .filter(|hex| hex.len() == 2 && !hex.contains(|c: char| c.is_ascii_uppercase() || c == '+'))?;
    Some(Shard {
        byte: u8::from_str_radix(byte, 16).ok()?,
        digest: Digest::from_hex(parts.next()?)?,
        size: parse_number(parts.next()?)?,
        entries: parse_number(parts.next()?)?,
    })
}

fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= i64::MAX as u64 && number.to_string() == text).then_some(number)
}

/// Checks the names of one level: each usable, no two equal on a case-insensitive or normalising file system.
pub fn check_level(entries: &[Entry]) -> Result<()> {
    let mut folded: HashMap<String, &str> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let shown = || human::escape(&entry.name);
        check_name(&entry.name).map_err(|reason| {
            Error::new(format!("{}: {reason}", shown())).hint("rename it, then add again")
        })?;
        if let Some(other) = folded.insert(fold(&entry.name), &entry.name) {
            return Err(Error::new(format!(
                "{}: same name as `{}` where letter case or Unicode form does not count",
                shown(),
                human::escape(other)
            ))
            .hint("rename one of them; otherwise they overwrite each other on macOS and Windows"));
        }
    }
    Ok(())
}

/// The form in which a case-insensitive, normalising file system compares names.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfc().collect::<String>().to_uppercase().to_lowercase().nfc().collect()
}

/// Whether a link's target stays inside the artifact. `link` is the link's path relative to the artifact.
pub fn link_stays_inside(link: &str, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.len() as u64 > MAX_LINK || target.contains('\0')
    {
        return false;
    }
    let mut depth = link.matches('/').count() as i64;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

/// One file, link or directory of an artifact, by its path relative to the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatEntry {
    /// Path below the artifact, `/`-separated.
    pub path: String,
    /// What it is; directories are listed too, before what is in them.
    pub kind: Kind,
    /// Digest of the content; of a directory, of its tree object (any value when building).
    pub digest: Digest,
    /// Bytes; of a directory, of everything below it.
    pub size: u64,
}

/// What [`build`] makes of a listing.
#[derive(Debug)]
pub struct Built {
    /// Digest of the root tree object.
    pub root: Digest,
    /// Sum of all sizes.
    pub size: u64,
    /// Number of files and links.
    pub files: u64,
    /// All tree objects, each after those it names.
    pub objects: Vec<(Digest, Vec<u8>)>,
}

/// Builds the tree objects of a directory from the flat listing of its content, in any order.
pub fn build(listing: &[FlatEntry]) -> Result<Built> {
    let mut levels: HashMap<&str, Vec<&FlatEntry>> = HashMap::from([("", Vec::new())]);
    for entry in listing.iter().filter(|entry| entry.kind == Kind::Tree) {
        levels.entry(&entry.path).or_default();
    }
    for entry in listing {
        let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        levels
            .get_mut(parent)
            .ok_or_else(|| {
                Error::new(format!("{}: its directory is not listed", human::escape(&entry.path)))
            })?
            .push(entry);
    }
    let mut built = Built {
        root: Digest::of(b""),
        size: 0,
        files: listing.iter().filter(|entry| entry.kind != Kind::Tree).count() as u64,
        objects: Vec::new(),
    };
    (built.root, built.size, built.objects) = build_level("", &levels, 0)?;
    Ok(built)
}

type Level = (Digest, u64, Vec<(Digest, Vec<u8>)>);

/// A level's root object, its bytes, and all objects of it and below, on all cores.
fn build_level(path: &str, levels: &HashMap<&str, Vec<&FlatEntry>>, depth: usize) -> Result<Level> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!(
            "{}: nested deeper than {MAX_DEPTH} directories",
            human::escape(path)
        )));
    }
    let trees: Vec<_> = levels[path].iter().filter(|flat| flat.kind == Kind::Tree).collect();
    let below = trees.par_iter().map(|flat| build_level(&flat.path, levels, depth + 1));
    let mut below = below.collect::<Result<Vec<_>>>()?.into_iter();
    let mut entries = Vec::with_capacity(levels[path].len());
    let mut objects = Vec::new();
    let mut total: u64 = 0;
    for flat in &levels[path] {
        let name = flat.path.rsplit('/').next().unwrap_or(&flat.path).to_owned();
        let (digest, size) = match flat.kind {
            Kind::Tree => {
                let (digest, size, found) = below.next().expect("one for each tree");
                objects.extend(found);
                (digest, size)
            }
            _ => (flat.digest, flat.size),
        };
        total = total
            .checked_add(size)
            .filter(|&sum| sum <= i64::MAX as u64)
            .ok_or_else(|| Error::new(format!("{}: too large", human::escape(path))))?;
        entries.push(Entry { kind: flat.kind, digest, size, name });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    check_level(&entries).map_err(
        |error| {
            if path.is_empty() { error } else { error.about(human::escape(path)) }
        },
    )?;
    let level = encode_level(&entries);
    let root = level.last().expect("a level has an object").0;
    objects.extend(level);
    Ok((root, total, objects))
}

/// Returns the verified bytes of a tree object that lies at some depth.
pub type ReadObject<'a> = &'a mut dyn FnMut(&Digest, usize) -> Result<Vec<u8>>;

/// Depths of one directory level: its object, and the shards below it.
const DEPTHS_PER_LEVEL: usize = 32;
/// How many directories an artifact may have for every file, and besides.
const DIRECTORIES_PER_FILE: u64 = 4;
const DIRECTORIES_BESIDES: u64 = 100_000;

/// Reads a whole directory from its tree objects.
///
/// `read` returns the verified bytes of a tree object. The listing is in pre-order: a directory comes before its
/// content, and siblings are sorted by name. Sums and counts that the objects state are checked, and so is the number of
/// `files` that the pointer states: a few small objects can name each other so often that they describe billions of files.
///
/// `read` is told how deep an object lies; what an object names always lies deeper.
pub fn flatten(root: Digest, files: u64, read: ReadObject<'_>) -> Result<Vec<FlatEntry>> {
    let mut out = Vec::new();
    flatten_level(root, "", 0, files, read, &mut out)?;
    if out.iter().filter(|entry| entry.kind != Kind::Tree).count() as u64 != files {
        return Err(Error::new("damaged tree object: another number of files than the pointer states"));
    }
    Ok(out)
}

/// Reads all entries of one level, through its shards.
fn read_level(digest: Digest, depth: usize, read: ReadObject<'_>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    read_shard(digest, depth * DEPTHS_PER_LEVEL, 0, read, &mut entries)?;
    if entries.len() > MAX_ENTRIES {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        check_level(&entries)?;
    }
    Ok(entries)
}

fn read_shard(
    digest: Digest,
    depth: usize,
    split: usize,
    read: ReadObject<'_>,
    entries: &mut Vec<Entry>,
) -> Result<(u64, u64)> {
    let before = entries.len();
    match Node::parse(&read(&digest, depth + split)?, split)? {
        Node::Entries(level) => entries.extend(level),
        Node::Shards(shards) => {
            for shard in shards {
                let start = entries.len();
                let found = read_shard(shard.digest, depth, split + 1, read, entries)?;
                let misplaced =
                    entries[start..].iter().any(|entry| shard_byte(&entry.name, split) != shard.byte);
                if found != (shard.size, shard.entries) || misplaced {
                    return Err(Error::new("damaged tree object: a shard does not hold what its level says"));
                }
            }
        }
    }
    let size = entries[before..]
        .iter()
        .try_fold(0u64, |sum, entry| sum.checked_add(entry.size))
        .ok_or_else(|| Error::new("damaged tree object: sizes overflow"))?;
    Ok((size, (entries.len() - before) as u64))
}

fn flatten_level(
    digest: Digest,
    prefix: &str,
    depth: usize,
    files: u64,
    read: ReadObject<'_>,
    out: &mut Vec<FlatEntry>,
) -> Result<u64> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("damaged tree object: nested deeper than {MAX_DEPTH}")));
    }
    let mut total: u64 = 0;
    for entry in read_level(digest, depth, read)? {
        if out.len() as u64
            >= files.saturating_mul(DIRECTORIES_PER_FILE + 1).saturating_add(DIRECTORIES_BESIDES)
        {
            return Err(Error::new("damaged tree object: more entries than the pointer states"));
        }
        let path = format!("{prefix}{}", entry.name);
        total =
            total.checked_add(entry.size).ok_or_else(|| Error::new("damaged tree object: sizes overflow"))?;
        let below = (entry.kind == Kind::Tree).then(|| format!("{path}/"));
        out.push(FlatEntry { path, kind: entry.kind, digest: entry.digest, size: entry.size });
        if let Some(below) = below
            && flatten_level(entry.digest, &below, depth + 1, files, read, out)? != entry.size
        {
            return Err(Error::new("damaged tree object: a directory does not hold what its parent says"));
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
