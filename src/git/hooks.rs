//! Installing git hooks that stay out of everybody's way: a shell line decides first whether there is anything to do, and
//! a hook that was there before runs before ours and keeps its say.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{ACTIVE_ENV, Git};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::human;

/// The hooks that git-model uses.
pub const NAMES: [&str; 6] =
    ["post-checkout", "post-merge", "post-rewrite", "post-index-change", "pre-commit", "pre-push"];

/// The first line of ours, after the interpreter; the number grows when the text changes.
const MARK: &str = "# git-model hook, version 1";
/// Where a hook that was there before goes.
const PREVIOUS: &str = ".before-git-model";

/// What installing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Where the hooks are.
    pub dir: PathBuf,
    /// Hooks that were there before and now run before ours.
    pub chained: Vec<&'static str>,
    /// Hooks of the worktree's own directory that were left as they are and do not call ours.
    pub left_alone: Vec<&'static str>,
    /// Whether anything was written.
    pub changed: bool,
    /// Set when the directory is not this repository's, so nothing was installed.
    pub foreign: bool,
    /// Set when the directory is in the worktree, where hooks are files like any others.
    pub in_worktree: bool,
}

impl Git {
    /// Installs or updates the hooks where git looks for them.
    ///
    /// A directory that `core.hooksPath` names outside of this repository serves other repositories, too; nothing is
    /// written there. One inside the worktree belongs to the user or to a hook manager; hooks that are there stay as
    /// they are.
    pub fn install_hooks(&self, program: &Path) -> Result<Installed> {
        let dir = self.hooks_dir()?;
        let in_worktree =
            self.top.as_ref().is_some_and(|top| dir.starts_with(top)) && !dir.starts_with(&self.common_dir);
        let mut installed = Installed { dir: dir.clone(), in_worktree, ..Installed::default() };
        if !in_worktree && !dir.starts_with(&self.common_dir) && !dir.starts_with(&self.git_dir) {
            installed.foreign = true;
            return Ok(installed);
        }
        fsio::create_dir_all(&dir, Durability::Off)?;
        for name in NAMES {
            self.install(&dir, name, program, &mut installed)?;
        }
        Ok(installed)
    }

    /// Whether all hooks are in place, or are called from those that are.
    pub fn hooks_installed(&self) -> Result<bool> {
        let dir = self.hooks_dir()?;
        Ok(NAMES.iter().all(|name| {
            let bytes = fs::read(dir.join(name)).unwrap_or_default();
            is_ours(&bytes) || calls_ours(&bytes, name)
        }))
    }

    fn install(
        &self,
        dir: &Path,
        name: &'static str,
        program: &Path,
        installed: &mut Installed,
    ) -> Result<()> {
        let path = dir.join(name);
        let text = script(name, program);
        let found = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(path, "read"),
        };
        match found {
            Some(bytes) if bytes == text.as_bytes() || calls_ours(&bytes, name) => return Ok(()),
            Some(bytes) if !is_ours(&bytes) && installed.in_worktree => {
                installed.left_alone.push(name);
                return Ok(());
            }
            Some(bytes) if !is_ours(&bytes) => {
                set_aside(&path)?;
                installed.chained.push(name);
            }
            _ => {}
        }
        fsio::write_atomic(&path, text.as_bytes(), Durability::Off)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context(&path, "make executable")?;
        installed.changed = true;
        Ok(())
    }
}

/// Moves a hook to the name under which ours runs it. One that is there already is never overwritten.
fn set_aside(path: &Path) -> Result<()> {
    let mut previous = path.as_os_str().to_owned();
    previous.push(PREVIOUS);
    let previous = PathBuf::from(previous);
    if previous.symlink_metadata().is_ok() {
        let (hook, earlier) = (path.display(), previous.display());
        return Err(Error::new(format!(
            "{hook}: another tool wrote this hook, and {earlier} holds an earlier one"
        ))
        .hint(format!("combine both in {earlier}, remove {hook}, and run git model init again")));
    }
    fs::rename(path, &previous).context(path, "move aside")
}

fn is_ours(bytes: &[u8]) -> bool {
    bytes.split(|&b| b == b'\n').nth(1).is_some_and(|line| line.starts_with(b"# git-model hook, version "))
}

/// Whether somebody's own hook runs ours.
fn calls_ours(bytes: &[u8], name: &str) -> bool {
    !is_ours(bytes) && String::from_utf8_lossy(bytes).contains(&format!("model hook {name}"))
}

/// The text of a hook. Everything that can be decided without a process is decided by the shell.
fn script(name: &str, program: &Path) -> String {
    let program = human::shell_quote(&program.to_string_lossy());
    let stops_git = matches!(name, "pre-commit" | "pre-push");
    let missing = if stops_git { MISSING_STOPS } else { MISSING_TELLS };
    // These two get data on standard input, which both the earlier hook and ours want.
    let (input, pipe) = match name {
        "pre-push" | "post-rewrite" => (INPUT, "give | "),
        _ => ("", ""),
    };
    // An earlier hook may stop git where a hook can. Where it only tells, ours runs whatever it says.
    let (veto, end) = match stops_git {
        true => ("|| exit $?", ""),
        false => ("|| status=$?", "exit $status\n"),
    };
    let filter = if name == "post-index-change" { FILTER } else { "" };
    format!(
        r#"#!/bin/sh
{MARK}
# Installed by `git model init`. A hook that was here before is {name}{PREVIOUS} and runs first.
status=0
{input}if [ -x "$0{PREVIOUS}" ]; then
	{pipe}"$0{PREVIOUS}" "$@" {veto}
fi
[ -n "${ACTIVE_ENV}" ] && exit $status
{filter}program={program}
[ -x "$program" ] || program=$(command -v git-model) || {{
{missing}}}
{pipe}"$program" hook {name} "$@"
{end}"#
    )
}

const INPUT: &str = r#"input=$(cat)
give() { [ -z "$input" ] || printf '%s\n' "$input"; }
"#;

/// A refresh of the index concerns us only when a sync was postponed, or has to be: an am runs no other hook. In a linked
/// worktree `.git` is a file, and the program finds out.
const FILTER: &str = r#"case "$1 $2" in
"1 0") ;;
*)
	dir=${GIT_DIR:-.git}
	[ -d "$dir" ] && [ ! -e "$dir/model/pending" ] && [ ! -d "$dir/rebase-apply" ] && exit $status
	;;
esac
"#;

const MISSING_STOPS: &str = r#"	echo "git-model: not found; this hook protects artifacts, so git stops here" >&2
	echo "hint: install git-model, or remove $0" >&2
	exit 1
"#;

const MISSING_TELLS: &str = r#"	echo "git-model: not found; artifacts were not brought in step" >&2
	exit $status
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_valid_shell_and_ours() {
        for name in NAMES {
            let text = script(name, Path::new("/opt/it's here/git-model"));
            assert!(is_ours(text.as_bytes()));
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &text).unwrap();
            let checked = std::process::Command::new("sh").arg("-n").arg(file.path()).status().unwrap();
            assert!(checked.success(), "{text}");
        }
    }
}
