//! What file systems can and cannot do: shared blocks, several mounts in one worktree.

use std::path::{Path, PathBuf};

use crate::support::{Repo, Sandbox, noise, run, skip};

/// A file system of its own, mounted for one test.
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    dir: tempfile::TempDir,
}

impl Mount {
    /// An image of 512 MiB made by `mkfs`, or `None`, with a note, where this is not possible.
    fn image(test: &str, mkfs: &[&str]) -> Option<Mount> {
        let mount = Mount::dir();
        let image = mount.dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let image = image.to_str().unwrap();
        let made = run(command(mkfs[0], &[&mkfs[1..], &["-q", image]].concat()));
        mount.attach(test, made.code == 0, &["-o", "loop", image])
    }

    /// A tmpfs of this many MiB.
    pub(crate) fn tmpfs(test: &str, mib: u32) -> Option<Mount> {
        Mount::dir().attach(test, true, &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
    }

    /// The folder `source`, once more.
    fn bind(test: &str, source: &Path, target: &Path) -> Option<Mount> {
        let mut mount = Mount::dir();
        mount.path = target.to_path_buf();
        mount.attach(test, true, &["--bind", source.to_str().unwrap()])
    }

    fn dir() -> Mount {
        let dir = tempfile::Builder::new().prefix("git-model-mount-").tempdir().unwrap();
        let path = dir.path().join("mnt");
        std::fs::create_dir(&path).unwrap();
        Mount { path, dir }
    }

    fn attach(self, test: &str, possible: bool, args: &[&str]) -> Option<Mount> {
        let target = self.path.to_str().unwrap().to_owned();
        if possible && run(command("mount", &[args, &[&target]].concat())).code == 0 {
            return Some(self);
        }
        skip(test, "it needs root and may mount nothing here, or a mkfs is missing");
        None
    }

    /// Gives a tmpfs another size.
    pub(crate) fn resize(&self, mib: u32) {
        let target = self.path.to_str().unwrap();
        run(command("mount", &["-o", &format!("remount,size={mib}m"), target])).ok();
    }

    /// Bytes that are in use, after everything was written.
    fn used(&self) -> u64 {
        let target = self.path.to_str().unwrap();
        run(command("sync", &["-f", target])).ok();
        let df = run(command("df", &["-B1", "--output=used", target])).ok();
        df.lines().last().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily if need be: a mount must never outlive its test.
        let target = self.path.to_str().unwrap();
        if run(command("umount", &[target])).code != 0 {
            drop(run(command("umount", &["-l", target])));
        }
    }
}

fn command(program: &str, args: &[&str]) -> std::process::Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = std::process::Command::new("env");
    command.arg(format!("PATH={path}:/usr/sbin:/sbin")).arg(program).args(args);
    command
}

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;

fn object_of(repo: &Repo, name: &str) -> PathBuf {
    let digest = crate::support::sha256(&repo.join(name));
    repo.join(&format!(".git/model/objects/{}/{digest}", &digest[..2]))
}

/// Adding and syncing share blocks, and writing to the worktree's file does not reach the cache.
fn shares_blocks(test: &str, mkfs: &[&str]) {
    let Some(mount) = Mount::image(test, mkfs) else { return };
    let sandbox = Sandbox::below(&mount.path);
    let repo = sandbox.repo("repo");
    let bytes = noise(1, SIZE as usize);
    repo.write("w.bin", &bytes);
    let before = mount.used();
    repo.model(["add", "w.bin"]).ok();
    let object = object_of(&repo, "w.bin");
    let added = mount.used() - before;
    assert!(added < SIZE / 10, "add took {added} bytes");
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    repo.model(["sync"]).ok();
    let synced = mount.used().saturating_sub(before);
    assert!(synced < SIZE / 10, "sync took {synced} bytes");
    repo.sh("printf changed | dd of=w.bin bs=1 seek=5000000 conv=notrunc status=none").ok();
    assert_eq!(repo.state("w.bin"), "modified");
    assert!(std::fs::read(object).unwrap() == bytes, "the cached object is as it was");
}

#[test]
fn btrfs_shares_blocks() {
    shares_blocks("btrfs_shares_blocks", &["mkfs.btrfs"]);
}

#[test]
fn xfs_shares_blocks() {
    shares_blocks("xfs_shares_blocks", &["mkfs.xfs", "-m", "reflink=1"]);
}

#[test]
fn a_directory_update_on_btrfs_shares_blocks_too() {
    let Some(mount) = Mount::image("a_directory_update_on_btrfs", &["mkfs.btrfs"]) else { return };
    let sandbox = Sandbox::below(&mount.path);
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.write("d/a", noise(1, 24 << 20));
    repo.write("d/b", "b");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "1"]).ok();
    repo.write("d/a", noise(2, 24 << 20));
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "2"]).ok();
    repo.git(["checkout", "-q", "HEAD~1"]).ok();
    let before = mount.used();
    repo.model(["sync"]).ok();
    assert!(repo.read("d/a") == noise(1, 24 << 20));
    assert!(mount.used().saturating_sub(before) < 5 * MIB);
}

/// A layout takes its blobs from the cache without a copy, and without reading them.
#[test]
fn packing_on_btrfs_shares_blocks() {
    let Some(mount) = Mount::image("packing_on_btrfs_shares_blocks", &["mkfs.btrfs"]) else { return };
    let sandbox = Sandbox::below(&mount.path);
    let repo = sandbox.repo("repo");
    let bytes = noise(1, SIZE as usize);
    repo.write("w.bin", &bytes);
    repo.write("model.yaml", "version: 1\nname: churn\nweights: [w.bin]\n");
    repo.model(["add", "w.bin"]).ok();
    repo.git(["add", "."]).ok();
    repo.model(["record"]).ok();
    repo.git(["commit", "-q", "-m", "model"]).ok();
    let before = mount.used();
    repo.model(["package", "HEAD", "-o", "../layout"]).ok();
    let packed = mount.used().saturating_sub(before);
    assert!(packed < SIZE / 10, "package took {packed} bytes");
    let digest = crate::support::sha256(&repo.join("w.bin"));
    assert!(sandbox.at("layout/blobs/sha256").read(&digest) == bytes);
    let Some(read) = repo.bytes_read(&["package", "HEAD", "-o", "../again"]) else {
        skip("packing_on_btrfs_shares_blocks", "no strace to count what is read with");
        return;
    };
    assert!(read < SIZE / 2, "package read {read} bytes");
}

#[test]
fn link_copy_shares_nothing() {
    let Some(mount) = Mount::image("link_copy_shares_nothing", &["mkfs.btrfs"]) else { return };
    let sandbox = Sandbox::below(&mount.path);
    let repo = sandbox.repo("repo");
    repo.git(["config", "model.link", "copy"]).ok();
    repo.commit_artifact("w.bin", noise(1, SIZE as usize), "w");
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    let before = mount.used();
    repo.model(["sync"]).ok();
    assert!(mount.used() - before > SIZE * 9 / 10);
}

/// Everything works on an artifact that lies on another file system than the git dir.
fn works_across_mounts(repo: &Repo, dir: &str) {
    let (file, tree) = (format!("{dir}/w.bin"), format!("{dir}/t"));
    repo.write(&file, noise(1, 100_000));
    repo.write(&format!("{tree}/a"), "1");
    repo.write(&format!("{tree}/gone/b"), "b");
    repo.model(["add", &file, &tree]).ok();
    repo.git(["commit", "-q", "-m", "1"]).ok();
    repo.write(&file, noise(2, 120_000));
    repo.write(&format!("{tree}/a"), "22");
    std::fs::remove_dir_all(repo.join(&format!("{tree}/gone"))).unwrap();
    repo.model(["add", "-u"]).ok();
    repo.git(["commit", "-q", "-m", "2"]).ok();
    repo.git(["checkout", "-q", "HEAD~1"]).ok();
    repo.model(["sync"]).ok();
    assert!(repo.read(&file) == noise(1, 100_000));
    assert_eq!(
        (repo.text(&format!("{tree}/a")), repo.text(&format!("{tree}/gone/b"))),
        ("1".into(), "b".into())
    );
    std::fs::remove_dir_all(repo.join(&tree)).unwrap();
    std::fs::remove_file(repo.join(&file)).unwrap();
    repo.git(["checkout", "-q", "main"]).ok();
    repo.model(["sync"]).ok();
    assert!(repo.read(&file) == noise(2, 120_000));
    assert_eq!(repo.text(&format!("{tree}/a")), "22");
    assert_eq!((repo.state(&file), repo.state(&tree)), ("clean".into(), "clean".into()));
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "");
    assert!(!repo.exists(&format!("{dir}/.git-model-tmp")), "nothing is left beside the artifacts");
}

#[test]
fn an_artifact_on_another_file_system_works() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    std::fs::create_dir(repo.join("data")).unwrap();
    let Some(mount) = Mount::tmpfs("an_artifact_on_another_file_system_works", 64) else { return };
    let Some(_bound) =
        Mount::bind("an_artifact_on_another_file_system_works", &mount.path, &repo.join("data"))
    else {
        return;
    };
    works_across_mounts(&repo, "data");
}

#[test]
fn a_bind_mount_of_the_same_file_system_works() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    std::fs::create_dir(repo.join("data")).unwrap();
    std::fs::create_dir(sandbox.join("elsewhere")).unwrap();
    let Some(_bound) = Mount::bind(
        "a_bind_mount_of_the_same_file_system_works",
        &sandbox.join("elsewhere"),
        &repo.join("data"),
    ) else {
        return;
    };
    works_across_mounts(&repo, "data");
}

#[test]
fn a_git_dir_on_another_file_system_works() {
    let Some(mount) = Mount::tmpfs("a_git_dir_on_another_file_system_works", 64) else { return };
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.join("repo")).unwrap();
    let repo = sandbox.at("repo").env("GIT_MODEL_HOOKS", "off");
    let git_dir = mount.path.join("git");
    repo.git(["init", "-q", "--separate-git-dir", git_dir.to_str().unwrap()]).ok();
    repo.model(["init", "../store"]).ok();
    repo.git(["commit", "-q", "-m", "init"]).ok();
    works_across_mounts(&repo, "models");
    assert!(!repo.exists(".git-model-tmp"));
}

#[test]
fn a_committed_temporary_folder_that_is_a_link_is_not_written_through() {
    let Some(mount) = Mount::tmpfs("a_committed_temporary_folder_that_is_a_link", 32) else { return };
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.join("outside")).unwrap();
    std::fs::create_dir(sandbox.join("repo")).unwrap();
    let repo = sandbox.at("repo");
    repo.git(["init", "-q", "--separate-git-dir", mount.path.join("git").to_str().unwrap()]).ok();
    repo.model(["init", "../store"]).ok();
    repo.commit_artifact("w.bin", "content", "w");
    std::fs::write(sandbox.join("outside/.gitignore"), "canary").unwrap();
    for script in [
        "ln -s ../outside .git-model-tmp",
        "mkdir .git-model-tmp && ln -s ../../outside/.gitignore .git-model-tmp/.gitignore",
    ] {
        repo.sh("rm -rf .git-model-tmp w.bin").ok();
        repo.sh(script).ok();
        drop(repo.model(["sync"]));
        let names: Vec<_> = std::fs::read_dir(sandbox.join("outside")).unwrap().collect();
        assert_eq!(names.len(), 1, "{script}: {names:?}");
        let canary = std::fs::read_to_string(sandbox.join("outside/.gitignore")).unwrap();
        assert_eq!(canary, "canary", "{script}");
    }
}
