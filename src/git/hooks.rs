//! Installing git hooks that stay out of everybody's way: a shell line decides first whether there is anything to do, and
//! a hook that was there before runs before ours and keeps its say.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{ACTIVE_ENV, Git};
use crate::error::{Context, Result};
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
    /// written there.
    pub fn install_hooks(&self, program: &Path) -> Result<Installed> {
        let (dir, _) = self.hooks_dir()?;
        let real = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let in_worktree =
            self.top.as_ref().is_some_and(|top| real.starts_with(top)) && !real.starts_with(&self.common_dir);
        let mut installed = Installed { dir: dir.clone(), in_worktree, ..Installed::default() };
        if !in_worktree && !real.starts_with(&self.common_dir) && !real.starts_with(&self.git_dir) {
            installed.foreign = true;
            return Ok(installed);
        }
        fsio::create_dir_all(&dir, Durability::Off)?;
        for name in NAMES {
            self.install(&dir, name, program, &mut installed)?;
        }
        Ok(installed)
    }

    /// Whether all hooks are in place.
    pub fn hooks_installed(&self) -> Result<bool> {
        let dir = self.hooks_dir()?.0;
        Ok(NAMES.iter().all(|name| is_ours(&fs::read(dir.join(name)).unwrap_or_default())))
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
            Some(bytes) if bytes == text.as_bytes() => return Ok(()),
            Some(bytes) if !is_ours(&bytes) => {
                let previous = dir.join(format!("{name}{PREVIOUS}"));
                fs::rename(&path, &previous).context(&path, "move aside")?;
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

fn is_ours(bytes: &[u8]) -> bool {
    bytes.split(|&b| b == b'\n').nth(1).is_some_and(|line| line.starts_with(b"# git-model hook, version "))
}

/// The text of a hook. Everything that can be decided without a process is decided by the shell.
fn script(name: &str, program: &Path) -> String {
    let quoted = human::shell_quote(&program.to_string_lossy());
    // These two get data on standard input, which both the earlier hook and ours want.
    let reads_input = matches!(name, "pre-push" | "post-rewrite");
    let previous = match reads_input {
        true => {
            r#"input=$(cat)
if [ -x "$0.before-git-model" ]; then
	printf '%s\n' "$input" | "$0.before-git-model" "$@" || exit $?
fi
"#
        }
        false => {
            r#"if [ -x "$0.before-git-model" ]; then
	"$0.before-git-model" "$@" || exit $?
fi
"#
        }
    };
    let filter = match name {
        // A refresh of the index concerns us only when a sync was postponed. In a linked worktree the git dir is
        // known from GIT_DIR, or else from the program.
        "post-index-change" => {
            r#"case "$1 $2" in
"1 0") ;;
*)
	dir=${GIT_DIR:-.git}
	[ -d "$dir" ] && [ ! -e "$dir/model/pending" ] && exit 0
	;;
esac
"#
        }
        _ => "",
    };
    let missing = match name {
        "pre-commit" | "pre-push" => {
            r#"	echo "git-model: not found; this hook protects artifacts, so git stops here" >&2
	echo "hint: install git-model, or remove $0" >&2
	exit 1
"#
        }
        _ => {
            r#"	echo "git-model: not found; artifacts were not brought in step" >&2
	exit 0
"#
        }
    };
    let run = match reads_input {
        true => format!("printf '%s\\n' \"$input\" | \"$program\" hook {name} \"$@\"\n"),
        false => format!("exec \"$program\" hook {name} \"$@\"\n"),
    };
    format!(
        "#!/bin/sh\n{MARK}\n# Installed by `git model init`. A hook that was here before is {name}{PREVIOUS} and runs first.\n{previous}[ -n \"${ACTIVE_ENV}\" ] && exit 0\n{filter}program={quoted}\n[ -x \"$program\" ] || program=$(command -v git-model) || {{\n{missing}}}\n{run}"
    )
}

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
