//! What loading a file could run: the functions and classes that its pickles name, read without loading anything.
//!
//! Pickles are looked for in files and archive members that start or are called like one, in NumPy arrays of objects, and in
//! archives inside archives. Everything is bounded; what a bound keeps from being looked into is a finding, never passed over.

use std::io::{self, Cursor, Read, Seek};

use super::Format;
use super::input::{Input, cannot_read};
use super::npy::{self, Array};
use super::npz;
use super::pickle::{is_harmless, names};
use super::torch;
use super::zip::{self, Archive, Member};
use crate::error::Result;

/// Names that promise a pickle, or what torch.load and its like take for one.
const PICKLES: [&str; 10] = ["pkl", "pickle", "p", "pt", "pth", "ckpt", "bin", "joblib", "dill", "data"];
/// Names of archives that are looked into when they lie in another one.
const ARCHIVES: [&str; 4] = ["zip", "npz", "keras", "mar"];
/// How the file of torch.save before 1.6 begins: a number as a pickle of its own.
const TORCH_LEGACY: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";
/// Pickles at the start of such a file; the bytes of the tensors follow.
const LEGACY_PICKLES: usize = 5;
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
/// What starts the files of programs that compress, which pickles are often kept in.
const COMPRESSED: [(&[u8], &str); 10] = [
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"]\0\0", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\"M\x18", "lz4"),
    (b"x\x01", "zlib"),
    (b"x\x5e", "zlib"),
    (b"x\x9c", "zlib"),
    (b"x\xda", "zlib"),
];
/// Where a tar archive has its mark.
const TAR_MARK: usize = 257;

/// Most bytes of pickles that are looked into, of one file or member.
const MAX_PICKLE: u64 = 64 << 20;
/// Most bytes that members of one file are unpacked to.
const MAX_UNPACKED: u64 = 256 << 20;
/// Bytes of a member that tell whether it is looked into.
const HEAD: u64 = 16;
/// Archives in each other.
const MAX_DEPTH: usize = 3;
/// Pickles that follow each other in one file.
const MAX_PICKLES: usize = 4096;
/// Most findings of one file.
const MAX_FINDINGS: usize = 1000;

/// What was found about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The format, where loading it can run code: `pickle`, `torch`, `npy`, `npz`, `zip`, `hdf5`. `None` of all others, such
    /// as arrays of numbers.
    pub format: Option<&'static str>,
    /// What is not known to be harmless.
    pub findings: Vec<Finding>,
}

/// Something that is not known to be harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The member of the archive; of nested ones, joined with `!`. Untrusted text.
    pub member: Option<String>,
    /// The function or class, as `module name`. Untrusted text.
    pub global: Option<String>,
    /// Where it is named first, in bytes from the start of the file or member.
    pub position: Option<u64>,
    /// What it is.
    pub what: String,
}

/// Looks into a file of `size` bytes. `name` is its path or file name.
pub fn scan(file: &mut (impl Read + Seek), size: u64, name: &str) -> Result<Scanned> {
    let mut scan = Scan { found: Scanned::default(), room: MAX_UNPACKED, met: false, in_script: false };
    scan.found.format = scan.look(&mut Input::new(file, size)?, name, &[])?;
    Ok(scan.found)
}

struct Scan {
    found: Scanned,
    /// Bytes that may still be unpacked.
    room: u64,
    /// Whether anything was looked into that can hold code.
    met: bool,
    /// Whether the archive is one of TorchScript, which PyTorch reads without Python.
    in_script: bool,
}

impl Scan {
    /// Looks into a file, or a member that lies in these ones.
    fn look(&mut self, input: &mut Input<'_>, name: &str, within: &[String]) -> Result<Option<&'static str>> {
        let start = input.peek()?;
        if zip::starts_like(&start) {
            return self.look_into_archive(input, within);
        }
        if start.starts_with(npy::MAGIC) {
            return self.look_into_array(input, within);
        }
        if start.starts_with(HDF5) {
            self.look_for_lambda(input, within)?;
            return Ok(Some("hdf5"));
        }
        let promised = PICKLES.contains(&extension(name).as_str());
        if !promised && !starts_like_pickle(&start) {
            return Ok(None);
        }
        // By its name nobody takes this for a pickle. Of one called so, only the walk can tell: some are both.
        if !promised && Format::of_content(&start, input.size()).is_some() {
            return Ok(None);
        }
        let bytes = read_at_most(input, MAX_PICKLE)?;
        let cut = input.size() > MAX_PICKLE;
        self.look_into_pickles(&bytes, 0, cut, within);
        Ok(Some("pickle"))
    }

    /// Walks one pickle after the other. They begin at `start` of the file, and are `cut` where they are not all there.
    fn look_into_pickles(&mut self, bytes: &[u8], start: u64, cut: bool, within: &[String]) {
        self.met = true;
        if let Some((_, program)) = COMPRESSED.iter().find(|(mark, _)| bytes.starts_with(mark)) {
            return self.find(
                within,
                None,
                None,
                format!("compressed with {program}, so it was not looked into"),
            );
        }
        if bytes.get(TAR_MARK..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            return self.find(within, None, None, "a tar archive, which is not looked into".to_owned());
        }
        let pickles = if bytes.starts_with(TORCH_LEGACY) { LEGACY_PICKLES } else { MAX_PICKLES };
        let mut at = 0;
        for _ in 0..pickles {
            let named = names(&bytes[at..]);
            let in_script = self.in_script;
            let is_known = |name: &str| is_harmless(name) || in_script && torch::is_of_script(name);
            for global in named.globals.into_iter().filter(|global| !is_known(&global.name)) {
                let position = start + (at + global.at) as u64;
                let what = "not known to be harmless".to_owned();
                self.find(within, Some(global.name), Some(position), what);
            }
            match named.end {
                Some(end) if at + end < bytes.len() => at += end,
                Some(_) if !cut => return,
                // Python does not get any further either.
                None if !(named.lost || cut && named.ran_out) => return,
                _ => {
                    let position = Some(start + (at + named.stopped) as u64);
                    let what = "a pickle that could not be followed to its end".to_owned();
                    return self.find(within, None, position, what);
                }
            }
        }
        if pickles == MAX_PICKLES {
            self.find(
                within,
                None,
                Some(start + at as u64),
                format!("more than {MAX_PICKLES} pickles in a row"),
            );
        }
    }

    /// An array of objects, or of structures that may hold some, is a pickle behind its description.
    fn look_into_array(&mut self, input: &mut Input<'_>, within: &[String]) -> Result<Option<&'static str>> {
        match Array::read(input) {
            Ok(array) if array.may_hold_objects() => {
                let start = input.at();
                let bytes = read_at_most(input, MAX_PICKLE)?;
                let cut = input.left() > 0;
                self.look_into_pickles(&bytes, start, cut, within);
            }
            Ok(_) => return Ok(None),
            Err(error) => self.find(within, None, None, format!("cannot be read: {}", error.one_line())),
        }
        Ok(Some("npy"))
    }

    /// `None` of an archive in which there is nothing that can hold code.
    fn look_into_archive(
        &mut self,
        input: &mut Input<'_>,
        within: &[String],
    ) -> Result<Option<&'static str>> {
        let archive = match Archive::read(input) {
            Ok(archive) => archive,
            Err(error) => {
                self.find(within, None, None, format!("cannot be read: {}", error.one_line()));
                return Ok(Some("zip"));
            }
        };
        let is_checkpoint = torch::is_checkpoint(&archive);
        let outer = std::mem::replace(&mut self.in_script, torch::is_script(&archive));
        if self.in_script {
            self.find(
                within,
                None,
                None,
                "a TorchScript program, whose code runs when the model is used".to_owned(),
            );
        }
        for member in &archive.members {
            // The bytes of tensors, of which some may start as anything.
            let is_storage =
                is_checkpoint && member.name.contains("/data/") && extension(&member.name).is_empty();
            if !is_storage && !member.name.ends_with('/') {
                self.look_into_member(input, member, within)?;
            }
        }
        self.in_script = outer;
        Ok(match is_checkpoint {
            true => Some("torch"),
            false if !self.met && self.found.findings.is_empty() => None,
            false if npz::has_arrays(&archive) => Some("npz"),
            false => Some("zip"),
        })
    }

    fn look_into_member(&mut self, input: &mut Input<'_>, member: &Member, within: &[String]) -> Result<()> {
        let mut path = within.to_vec();
        path.push(member.name.clone());
        let extension = extension(&member.name);
        let is_config = member.name == "config.json";
        let promised = PICKLES.contains(&extension.as_str())
            || ARCHIVES.contains(&extension.as_str())
            || member.name.ends_with(npy::EXTENSION)
            || is_config;
        let start = match member.start(input) {
            Ok(start) => start,
            Err(error) => {
                self.find(&path, None, None, format!("cannot be read: {}", error.one_line()));
                return Ok(());
            }
        };
        input.seek(start)?;
        let Some(mut unpacked) = zip::unpack(input, member) else {
            if promised {
                self.find(&path, None, None, "encrypted, or compressed in a rare way".to_owned());
            }
            return Ok(());
        };
        let mut head = Vec::new();
        if let Err(error) = unpacked.by_ref().take(HEAD).read_to_end(&mut head) {
            self.find(&path, None, None, format!("cannot be unpacked: {error}"));
            return Ok(());
        }
        let is_array = head.starts_with(npy::MAGIC);
        if !(promised || is_array || starts_like_pickle(&head) || zip::starts_like(&head)) {
            return Ok(());
        }
        let mut unpacked = Cursor::new(head).chain(unpacked);
        // Most arrays are large numbers; their description tells so, and nothing else of them is read.
        let mut behind = 0;
        match is_array.then(|| Array::read(&mut unpacked)) {
            Some(Ok(array)) if !array.may_hold_objects() => return Ok(()),
            Some(Ok(array)) => behind = array.header(),
            Some(Err(error)) => {
                self.find(&path, None, None, format!("cannot be read: {}", error.one_line()));
                return Ok(());
            }
            None => {}
        }
        let limit = MAX_PICKLE.min(self.room);
        let mut bytes = Vec::new();
        let read = unpacked.take(limit + 1).read_to_end(&mut bytes);
        self.room = self.room.saturating_sub(bytes.len() as u64);
        if let Err(error) = read {
            self.find(&path, None, None, format!("cannot be unpacked: {error}"));
            return Ok(());
        }
        let whole = bytes.len() as u64 <= limit;
        if is_array {
            self.look_into_pickles(&bytes, behind, !whole, &path);
            return Ok(());
        }
        if !whole && !starts_like_pickle(&bytes) {
            self.find(&path, None, None, "larger than what is looked into".to_owned());
            return Ok(());
        }
        if is_config {
            self.look_into_config(&bytes, &path);
            return Ok(());
        }
        if path.len() > MAX_DEPTH {
            self.find(&path, None, None, "an archive in an archive, deeper than is looked into".to_owned());
            return Ok(());
        }
        if !whole {
            self.look_into_pickles(&bytes, 0, true, &path);
            return Ok(());
        }
        let size = bytes.len() as u64;
        self.look(&mut Input::new(&mut Cursor::new(bytes), size)?, &member.name, &path)?;
        Ok(())
    }

    /// The configuration of a Keras model, whose Lambda layers hold code.
    fn look_into_config(&mut self, bytes: &[u8], within: &[String]) {
        self.met = true;
        match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(config) if has_lambda(&config) => self.find_lambda(within),
            Ok(_) => {}
            Err(error) => self.find(within, None, None, format!("cannot be read: {error}")),
        }
    }

    /// The same in an HDF5 file, where it is one long text among the arrays.
    fn look_for_lambda(&mut self, input: &mut Input<'_>, within: &[String]) -> Result<()> {
        const MARKS: [&[u8]; 2] = [b"\"class_name\": \"Lambda\"", b"\"class_name\":\"Lambda\""];
        const CHUNK: usize = 1 << 20;
        let mut window = Vec::with_capacity(CHUNK + 64);
        loop {
            let kept = window.len().min(64);
            window.drain(..window.len() - kept);
            let read = input.take(CHUNK as u64).read_to_end(&mut window).map_err(cannot_read)?;
            if MARKS.iter().any(|mark| window.windows(mark.len()).any(|there| there == *mark)) {
                self.find_lambda(within);
                return Ok(());
            }
            if read == 0 {
                return Ok(());
            }
        }
    }

    fn find_lambda(&mut self, within: &[String]) {
        self.find(within, None, None, "a Keras Lambda layer, which is code".to_owned());
    }

    fn find(&mut self, within: &[String], global: Option<String>, position: Option<u64>, what: String) {
        if self.found.findings.len() < MAX_FINDINGS {
            let member = (!within.is_empty()).then(|| within.join("!"));
            self.found.findings.push(Finding { member, global, position, what });
        }
    }
}

fn has_lambda(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(map) => {
            map.get("class_name").is_some_and(|name| name == "Lambda") || map.values().any(has_lambda)
        }
        serde_json::Value::Array(items) => items.iter().any(has_lambda),
        _ => false,
    }
}

/// Whether bytes start with the protocol of a pickle, as all since protocol 2 do.
fn starts_like_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

fn extension(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(String::new(), |(_, extension)| extension.to_ascii_lowercase())
}

fn read_at_most(input: &mut Input<'_>, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read: io::Result<usize> = input.take(most).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(cannot_read)
}

#[cfg(test)]
mod tests;
