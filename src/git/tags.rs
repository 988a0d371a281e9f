//! Annotated tags: reading those of one model quickly, making them, and pushing each by its object id.
//!
//! With 10,000 tags even listing them all through git takes longer than everything else, so where git keeps refs as files,
//! names are read from there and only the tags that matter are opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{Git, Oid, child};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::human;

/// Larger tags are not ours; they are never read.
const MAX_TAG: u64 = 256 * 1024;

/// A tag as git has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTag {
    /// Its name, without `refs/tags/`.
    pub name: String,
    /// The tag object; of a lightweight tag, the commit.
    pub id: Oid,
    /// The commit that it leads to.
    pub target: Oid,
    /// Whether there is a tag object.
    pub annotated: bool,
    /// Name and address of whoever made it.
    pub tagger: String,
    /// When, in Unix seconds.
    pub time: i64,
    /// The message, with a signature if there is one.
    pub message: String,
}

/// What became of pushing a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is there now, or was there already with this object.
    Done,
    /// Another object has this name.
    Taken,
}

/// Whether a tag's signature is good, as the user's git sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Signature {
    /// There is none.
    None,
    /// By this key or principal.
    Good {
        /// Who, as git says.
        signer: String,
    },
    /// It is there, and wrong or by nobody who is known here.
    Bad {
        /// Why, as git says.
        reason: String,
    },
}

impl Git {
    /// Names and ids of the tags whose name starts with one of these prefixes, in name order.
    pub fn tag_refs(&self, prefixes: &[String]) -> Result<Vec<(String, Oid)>> {
        if self.refs_are_files()? {
            return tag_refs_in_files(&self.common_dir, prefixes);
        }
        let patterns = prefixes.iter().map(|prefix| format!("refs/tags/{}*", glob_escape(prefix)));
        let args = ["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)"].map(str::to_owned);
        let listed = self.git(args.into_iter().chain(patterns)).output()?;
        let text = String::from_utf8_lossy(&listed);
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| Ok((name.to_owned(), Oid::new(id)?)))
            .collect()
    }

    /// Reads a tag by name and id. One that is damaged or too large, or that leads to no commit, is an error.
    pub fn read_tag(&self, name: &str, id: &Oid) -> Result<RawTag> {
        let shown = || format!("tag {}", human::escape(name));
        if id.is_null() {
            return Err(Error::refused(format!(
                "{}: its file in refs/tags names no object; without that file, git fetch --tags brings the tag again",
                shown()
            )));
        }
        let (kind, bytes) = self.object(id).map_err(|error| error.about(shown()))?;
        if kind == "commit" {
            let (id, target) = (id.clone(), id.clone());
            let empty = String::new;
            return Ok(RawTag {
                name: name.to_owned(),
                id,
                target,
                annotated: false,
                tagger: empty(),
                time: 0,
                message: empty(),
            });
        }
        if kind != "tag" {
            return Err(Error::new(format!("{}: it leads to a {kind}, not to a commit", shown())));
        }
        parse_tag(name, id, &bytes)
            .ok_or_else(|| Error::refused(format!("{}: it is damaged, or leads to no commit", shown())))
    }

    fn object(&self, id: &Oid) -> Result<(String, Vec<u8>)> {
        if let Some(lib) = &self.lib
            && let Ok(oid) = git2::Oid::from_str(id.as_str())
            && let Ok(odb) = lib.odb()
            && let Ok((size, kind)) = odb.read_header(oid)
        {
            if kind != git2::ObjectType::Commit && size as u64 > MAX_TAG {
                return Err(Error::new("larger than any tag of ours"));
            }
            if let Ok(object) = odb.read(oid) {
                return Ok((kind.str().to_owned(), object.data().to_vec()));
            }
        }
        let kind = self.git(["cat-file", "-t", id.as_str()]).output()?;
        let kind = String::from_utf8_lossy(&kind).trim().to_owned();
        let size = self.git(["cat-file", "-s", id.as_str()]).output()?;
        if String::from_utf8_lossy(&size).trim().parse::<u64>().unwrap_or(u64::MAX) > MAX_TAG
            && kind != "commit"
        {
            return Err(Error::new("larger than any tag of ours"));
        }
        let bytes = self.git(["cat-file", &kind, id.as_str()]).output()?;
        Ok((kind, bytes))
    }

    /// Whether refs are files below `refs` and in `packed-refs`.
    fn refs_are_files(&self) -> Result<bool> {
        // A reftable repository keeps a stub in place of `refs/heads`.
        Ok(self.common_dir.join("refs/tags").is_dir() && !self.common_dir.join("reftable").exists())
    }

    /// Makes an annotated tag object without any ref, signed or not as asked; else when the user's `tag.gpgSign` says so.
    ///
    /// `git tag` alone signs as the user configured it, and it makes a ref. So it runs in an empty repository of its own that
    /// has this one's objects and configuration.
    pub fn make_tag(&self, name: &str, target: &Oid, message: &str, sign: Option<bool>) -> Result<Oid> {
        let dir = self.common_dir.join("model");
        fsio::create_dir_all(&dir, Durability::Off)?;
        let scratch = tempfile::Builder::new()
            .prefix("tag-")
            .tempdir_in(&dir)
            .context(&dir, "create a directory in")?;
        let at = scratch.path();
        for sub in ["objects", "refs/tags"] {
            fs::create_dir_all(at.join(sub)).context(at, "create a directory in")?;
        }
        fs::write(at.join("HEAD"), "ref: refs/heads/none\n").context(at, "write in")?;
        fs::write(at.join("config"), self.borrowed_config(target)).context(at, "write in")?;
        let here = |child: child::Child| {
            child.alone().env("GIT_DIR", at).env("GIT_OBJECT_DIRECTORY", &self.common_dir.join("objects"))
        };
        let sign_option = sign.map(|sign| if sign { "--sign" } else { "--no-sign" });
        let tag = child::git(["tag", "--annotate", "--cleanup=verbatim", "--file=-"]).args(sign_option);
        let tag = tag.args(["--end-of-options", name, target.as_str()]);
        here(tag).input(message.as_bytes().to_vec()).output().map_err(|error| {
            let text = error.one_line();
            match ["empty ident", "auto-detect", "no email was given"].iter().any(|said| text.contains(said))
            {
                true => error.hint("git config user.name and user.email say who you are"),
                false if sign == Some(true) || text.contains("sign the tag") => {
                    let error = error.hint("git config user.signingKey and gpg.format say how you sign");
                    match sign {
                        None => error.hint("git config tag.gpgSign asks for the signature"),
                        Some(_) => error,
                    }
                }
                false => error,
            }
        })?;
        let made = here(child::git(["rev-parse", "--verify", &format!("refs/tags/{name}")])).output()?;
        Oid::new(String::from_utf8_lossy(&made).trim())
    }

    /// A configuration that takes over this repository's, where git takes commands and keys from.
    fn borrowed_config(&self, target: &Oid) -> String {
        let mut text = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n".to_owned();
        if target.as_str().len() == 64 {
            text.push_str("[extensions]\n\tobjectFormat = sha256\n");
        }
        for file in [self.common_dir.join("config"), self.git_dir.join("config.worktree")] {
            let path = serde_json::Value::from(file.to_string_lossy()).to_string();
            text.push_str(&format!("[include]\n\tpath = {path}\n"));
        }
        text + "[core]\n\tbare = true\n"
    }

    /// Pushes a tag object under its name, and nothing else. Whatever the remote says, in the end its own list counts.
    pub fn push_tag(&self, remote: &str, name: &str, id: &Oid) -> Result<Pushed> {
        let refspec = format!("{}:refs/tags/{name}", id.as_str());
        // A clone that mirrors everything would refuse to push one ref.
        let no_mirror = format!("remote.{remote}.mirror=false");
        let push = ["-c", &no_mirror, "push", "--porcelain", "--no-follow-tags", "--end-of-options"];
        let output = self.git(push).args([remote, refspec.as_str()]).run()?;
        if output.status.success() {
            return Ok(Pushed::Done);
        }
        match self.remote_ref(remote, &format!("refs/tags/{name}"))? {
            Some(there) if there == *id => Ok(Pushed::Done),
            Some(_) => Ok(Pushed::Taken),
            None => Err(child::failure("git push", &output)),
        }
    }

    /// The object that a remote has under this name.
    pub fn remote_ref(&self, remote: &str, name: &str) -> Result<Option<Oid>> {
        let listed = self.git(["ls-remote", "--end-of-options", remote, name]).output()?;
        let text = String::from_utf8_lossy(&listed);
        let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(_, found)| *found == name).map(|(id, _)| Oid::new(id)).transpose()
    }

    /// Makes the local ref of a tag that a remote has. One that is there already with another object is an error.
    pub fn keep_tag(&self, name: &str, id: &Oid) -> Result<()> {
        let refname = format!("refs/tags/{name}");
        if self.resolve(&refname)?.as_ref() == Some(id) {
            return Ok(());
        }
        let none = "0".repeat(id.as_str().len());
        self.git(["update-ref", &refname, id.as_str(), &none]).output().map(drop)
    }

    /// What the user's git says about a tag's signature.
    pub fn signature(&self, tag: &RawTag) -> Result<Signature> {
        if !tag.message.contains("-----BEGIN ") {
            return Ok(Signature::None);
        }
        let output = self.git(["verify-tag", "--raw", tag.id.as_str()]).run()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(Signature::Good { signer: signer(&said).unwrap_or_else(|| "a known key".to_owned()) });
        }
        let reason = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("git cannot verify it");
        Ok(Signature::Bad { reason: human::escape(reason.trim_start_matches("error: ")) })
    }
}

/// Who signed, from what `git verify-tag --raw` printed.
fn signer(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        if let Some(rest) = line.strip_prefix("[GNUPG:] VALIDSIG ") {
            // The tenth word is the primary key: whoever signs with two subkeys is one signer. X.509 has none.
            let words: Vec<&str> = rest.split(' ').collect();
            return words.get(9).or(words.first()).map(|word| (*word).to_owned());
        }
        // `Good "git" signature for <principal> with <kind> key <fingerprint>`
        let rest = line.strip_prefix("Good \"git\" signature for ")?;
        rest.split_once(" with ").map(|(principal, _)| principal.to_owned())
    })
}

/// Tags of a repository that keeps refs as files: loose ones win over packed ones.
fn tag_refs_in_files(common_dir: &Path, prefixes: &[String]) -> Result<Vec<(String, Oid)>> {
    let mut found = BTreeMap::new();
    let packed = common_dir.join("packed-refs");
    let bytes = match fs::read(&packed) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context(&packed, "read"),
    };
    for line in bytes.split(|&b| b == b'\n') {
        let Some(at) = line.iter().position(|&b| b == b' ') else { continue };
        let Some(name) = line[at + 1..].strip_prefix(b"refs/tags/") else { continue };
        if prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes())) {
            let (id, name) = (String::from_utf8_lossy(&line[..at]), String::from_utf8_lossy(name));
            found.insert(name.into_owned(), Oid::new(&id)?);
        }
    }
    for prefix in prefixes {
        loose_tags(common_dir, prefix, &mut found)?;
    }
    Ok(found.into_iter().collect())
}

/// Loose refs whose name starts with a prefix. What may follow it holds no slash, so one directory has them all.
fn loose_tags(common_dir: &Path, prefix: &str, found: &mut BTreeMap<String, Oid>) -> Result<()> {
    let (parent, start) = prefix.rsplit_once('/').map_or(("", prefix), |(parent, start)| (parent, start));
    let dir = common_dir.join("refs/tags").join(parent);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error).context(&dir, "list"),
    };
    for entry in entries {
        let entry = entry.context(&dir, "list")?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(start) && !name.ends_with(".lock"))
        else {
            continue;
        };
        let text = match fs::read_to_string(entry.path()) {
            Ok(text) => text,
            // It was removed or packed just now, or is a directory.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
                continue;
            }
            Err(error) => return Err(error).context(entry.path(), "read"),
        };
        let full = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
        // A power cut can leave it empty: then it is a damaged tag like any other, and none of the others is.
        found.insert(full, Oid::new(text.trim()).unwrap_or_else(|_| Oid::null()));
    }
    Ok(())
}

fn parse_tag(name: &str, id: &Oid, bytes: &[u8]) -> Option<RawTag> {
    let text = String::from_utf8_lossy(bytes);
    let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
    let field = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    // A tag of a tag, a tree or a blob is none of ours. The name inside must be the name outside.
    if field("type")? != "commit" || field("tag")? != name {
        return None;
    }
    let (tagger, rest) = field("tagger")?.rsplit_once("> ")?;
    let time = rest.split(' ').next()?.parse().ok()?;
    Some(RawTag {
        name: name.to_owned(),
        id: id.clone(),
        target: Oid::new(field("object")?).ok()?,
        annotated: true,
        tagger: format!("{tagger}>"),
        time,
        message: message.to_owned(),
    })
}

pub(super) fn glob_escape(text: &str) -> String {
    text.chars().flat_map(|c| if "*?[\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_told_apart_by_key_or_principal() {
        let openpgp = "[GNUPG:] NEWSIG\n[GNUPG:] VALIDSIG SUB 2026-11-25 1764085000 0 4 0 22 8 00 PRIMARY\n";
        let x509 = "[GNUPG:] VALIDSIG CERT 2026-11-25 20261125T163536 20391231T000000 0 0 1 8 00\n";
        let ssh = "Good \"git\" signature for ada@example.com with ED25519 key SHA256:abc\n";
        assert_eq!(signer(openpgp).as_deref(), Some("PRIMARY"));
        assert_eq!(signer(x509).as_deref(), Some("CERT"));
        assert_eq!(signer(ssh).as_deref(), Some("ada@example.com"));
        assert_eq!(signer("error: no signature found\n"), None);
    }
}
