//! The stores that git-model can push to, behind one face, read and changed by tools that know nothing of git-model.

use std::path::{Path, PathBuf};

use super::garage::{Garage, garage};
use super::{Repo, Sandbox, run, sha256};

/// A fresh, empty store and a sandbox for repositories that use it.
pub struct Place {
    /// Where the repositories go.
    pub sandbox: Sandbox,
    /// The store's URL.
    pub url: String,
    store: Store,
}

enum Store {
    Folder(PathBuf),
    S3(&'static Garage),
}

impl Place {
    /// A folder.
    pub fn folder() -> Place {
        let sandbox = Sandbox::new();
        let folder = sandbox.join("the store");
        Place { url: folder.display().to_string(), store: Store::Folder(folder), sandbox }
    }

    /// A prefix in a bucket of a real server.
    pub fn garage() -> Place {
        let url = format!("s3://{}/team/churn", garage().bucket());
        Place { sandbox: Sandbox::new(), url, store: Store::S3(garage()) }
    }

    /// A repository that uses the store, with a first commit.
    pub fn repo(&self, name: &str) -> Repo {
        let repo = self.reach(&self.sandbox.git_repo(name));
        repo.model(["init", &self.url]).ok();
        repo.git(["commit", "-q", "-m", "init"]).ok();
        repo
    }

    /// A clone in which nothing is approved.
    pub fn untrusting_clone(&self, source: &Repo, name: &str) -> Repo {
        self.reach(&self.sandbox.clone_of(source, name))
    }

    /// A clone in which the store is approved.
    pub fn clone_of(&self, source: &Repo, name: &str) -> Repo {
        let clone = self.untrusting_clone(source, name);
        clone.model(["remote", "trust"]).ok();
        clone
    }

    fn reach(&self, repo: &Repo) -> Repo {
        match &self.store {
            Store::Folder(_) => repo.clone(),
            Store::S3(garage) => garage.env(repo),
        }
    }

    /// Runs something while every contact with the store fails.
    pub fn cut_off(&self, repo: &Repo, what: impl FnOnce(&Repo)) {
        match &self.store {
            Store::Folder(folder) => {
                let aside = folder.with_extension("aside");
                std::fs::rename(folder, &aside).unwrap();
                // A file in its place: git-model cannot make the folder again.
                std::fs::write(folder, "").unwrap();
                what(repo);
                std::fs::remove_file(folder).unwrap();
                std::fs::rename(aside, folder).unwrap();
            }
            // Without credentials, opening the store is an error.
            Store::S3(_) => what(&repo.env("AWS_ACCESS_KEY_ID", "").env("AWS_SECRET_ACCESS_KEY", "")),
        }
    }

    /// All keys in the store, below the URL's prefix, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = match &self.store {
            Store::Folder(folder) => files_below(folder),
            Store::S3(garage) => {
                let listing = garage.s5cmd(&["ls", &format!("{}/*", self.url)]).unwrap_or_default();
                let listing = String::from_utf8(listing).unwrap();
                listing.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
            }
        };
        keys.sort();
        keys
    }

    /// The keys of objects only.
    pub fn objects(&self) -> Vec<String> {
        self.keys().into_iter().filter(|key| key.starts_with("objects/")).collect()
    }

    /// Copies what is under a key to a file, with another client.
    pub fn download(&self, key: &str, to: &Path) {
        match &self.store {
            Store::Folder(folder) => drop(std::fs::copy(folder.join(key), to).unwrap()),
            Store::S3(garage) => {
                garage.s5cmd(&["cp", &format!("{}/{key}", self.url), to.to_str().unwrap()]).unwrap();
            }
        }
    }

    /// Puts these bytes under a key.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let file = self.sandbox.join("to put");
        std::fs::write(&file, bytes).unwrap();
        match &self.store {
            Store::Folder(folder) => std::fs::rename(&file, folder.join(key)).unwrap(),
            Store::S3(garage) => {
                garage
                    .s5cmd(&["cp", file.to_str().unwrap(), &format!("{}/{key}", self.url)])
                    .map(drop)
                    .unwrap();
            }
        }
    }

    /// Removes a key, or with a final `*` all that begin with it.
    pub fn delete(&self, key: &str) {
        match (&self.store, key) {
            (Store::Folder(folder), "*") => std::fs::remove_dir_all(folder).unwrap(),
            (Store::Folder(folder), key) => std::fs::remove_file(folder.join(key)).unwrap(),
            (Store::S3(garage), key) => drop(garage.s5cmd(&["rm", &format!("{}/{key}", self.url)]).unwrap()),
        }
    }

    /// Every object that can be read from the store has the bytes that its key promises. Returns how many there are.
    pub fn verify(&self) -> usize {
        let objects = self.objects();
        if objects.is_empty() {
            return 0;
        }
        let dir = self.sandbox.join("verify");
        std::fs::create_dir_all(&dir).unwrap();
        match &self.store {
            Store::Folder(folder) => run_cp(folder, &dir),
            Store::S3(garage) => drop(
                garage
                    .s5cmd(&["cp", &format!("{}/objects/*", self.url), &format!("{}/", dir.display())])
                    .unwrap(),
            ),
        }
        let files: Vec<String> =
            files_below(&dir).into_iter().filter(|file| file.contains("sha256/")).collect();
        for file in &files {
            let name = file.rsplit('/').next().unwrap();
            // A folder store may hold the unfinished files of a killed push: never under a final name.
            if name.len() == 64 {
                assert_eq!(sha256(&dir.join(file)), name, "{file}");
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
        objects.len()
    }
}

fn run_cp(folder: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    command.arg("-r").arg(folder.join("objects/.")).arg(to);
    run(command).ok();
}

fn files_below(dir: &Path) -> Vec<String> {
    let mut command = std::process::Command::new("find");
    command.args([".", "-type", "f", "-printf", "%P\n"]).current_dir(dir);
    if !dir.exists() {
        return Vec::new();
    }
    run(command).ok().lines().map(str::to_owned).collect()
}

/// The key of an object.
pub fn key_of(hex: &str) -> String {
    format!("objects/sha256/{}/{hex}", &hex[..2])
}
