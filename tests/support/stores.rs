//! The stores that git-model can push to, behind one face, read and changed by tools that know nothing of git-model.

use std::path::{Path, PathBuf};

use super::garage::{S3, garage};
use super::servers;
use super::{Repo, Sandbox, prepared, run, sha256};

/// A fresh, empty store and a sandbox for repositories that use it.
pub struct Place {
    /// Where the repositories go.
    pub sandbox: Sandbox,
    /// The store's URL.
    pub url: String,
    /// The same place as another client knows it.
    view: String,
    store: Store,
}

enum Store {
    Folder(PathBuf),
    S3(S3),
    /// Google Cloud Storage, by its XML API; looked at as S3.
    Gcs(S3),
    Azure,
}

impl Place {
    /// A folder.
    pub fn folder() -> Place {
        let sandbox = Sandbox::new();
        let folder = sandbox.join("the store");
        let url = folder.display().to_string();
        Place { view: url.clone(), url, store: Store::Folder(folder), sandbox }
    }

    /// A prefix in a bucket of a real server, which ignores conditions on writes.
    pub fn garage() -> Place {
        let url = format!("s3://{}/team/churn", garage().bucket());
        Place { sandbox: Sandbox::new(), view: url.clone(), url, store: Store::S3(garage().s3()) }
    }

    /// A prefix in a bucket of moto, which honours conditions on writes.
    pub fn moto() -> Place {
        let url = format!("s3://{}/team/churn", servers::moto_bucket());
        Place { sandbox: Sandbox::new(), view: url.clone(), url, store: Store::S3(servers::moto_s3()) }
    }

    /// A prefix in a bucket that is reached by the XML API of Google Cloud Storage.
    pub fn gcs() -> Place {
        let (sandbox, bucket) = (Sandbox::new(), servers::moto_bucket());
        let setting = format!("[model \"remote.origin\"]\n\tendpoint = {}\n", servers::moto().url());
        let config = sandbox.join("gitconfig");
        let text = std::fs::read_to_string(&config).unwrap() + &setting;
        std::fs::write(config, text).unwrap();
        let place = format!("{bucket}/team/churn");
        Place {
            sandbox,
            view: format!("s3://{place}"),
            url: format!("gs://{place}"),
            store: Store::Gcs(servers::moto_s3()),
        }
    }

    /// A prefix in a container of Azurite.
    pub fn azure() -> Place {
        let view = format!("{}/team/churn", servers::azurite_container());
        let url = format!("az://{}/{view}", servers::AZURITE_ACCOUNT);
        Place { sandbox: Sandbox::new(), view, url, store: Store::Azure }
    }

    /// Container and blob of a key in Azurite.
    fn blob(&self, key: &str) -> (String, String) {
        let (container, prefix) = self.view.split_once('/').unwrap();
        (container.to_owned(), format!("{prefix}/{key}"))
    }

    /// Whether the store refuses to overwrite when asked.
    pub fn honours_conditions(&self) -> bool {
        match &self.store {
            Store::Folder(_) | Store::Azure => true,
            Store::S3(server) => server.endpoint == servers::moto().url(),
            // Its conditions are its own, and moto does not know them.
            Store::Gcs(_) => false,
        }
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
            Store::S3(server) => server.env(repo),
            Store::Gcs(_) => repo.env("GOOGLE_OAUTH_ACCESS_TOKEN", "canary-token"),
            Store::Azure => repo.env("AZURE_STORAGE_CONNECTION_STRING", servers::azurite_connection()),
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
            Store::S3(_) => what(
                &repo
                    .env("AWS_ACCESS_KEY_ID", "")
                    .env("AWS_SECRET_ACCESS_KEY", "")
                    .env("AWS_EC2_METADATA_DISABLED", "true"),
            ),
            Store::Gcs(_) => {
                what(&repo.env("GOOGLE_OAUTH_ACCESS_TOKEN", "").env("GCE_METADATA_HOST", "127.0.0.1:9"));
            }
            Store::Azure => {
                let dead = "BlobEndpoint=http://127.0.0.1:9";
                let live = format!("BlobEndpoint={}", servers::azurite().url());
                let connection = servers::azurite_connection();
                what(&repo.env("AZURE_STORAGE_CONNECTION_STRING", connection.replace(&live, dead)));
            }
        }
    }

    /// All keys in the store, below the URL's prefix, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = match &self.store {
            Store::Folder(folder) => files_below(folder),
            Store::S3(server) | Store::Gcs(server) => {
                let listing = server.s5cmd(&["ls", &format!("{}/*", self.view)]).unwrap_or_default();
                let listing = String::from_utf8(listing).unwrap();
                listing.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
            }
            Store::Azure => {
                let (container, prefix) = self.blob("");
                let code =
                    "for b in c.list_blobs(name_starts_with=sys.argv[2]): print(b.name[len(sys.argv[2]):])";
                let listing = servers::azure_client(&container, code, &[&prefix]).ok();
                listing.lines().map(str::to_owned).collect()
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
            Store::S3(server) | Store::Gcs(server) => {
                server.s5cmd(&["cp", &format!("{}/{key}", self.view), to.to_str().unwrap()]).unwrap();
            }
            Store::Azure => {
                let (container, blob) = self.blob(key);
                let code = "c.download_blob(sys.argv[2]).readinto(open(sys.argv[3], 'wb'))";
                servers::azure_client(&container, code, &[&blob, to.to_str().unwrap()]).ok();
            }
        }
    }

    /// Puts these bytes under a key.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let file = self.sandbox.join("to put");
        std::fs::write(&file, bytes).unwrap();
        match &self.store {
            Store::Folder(folder) => std::fs::rename(&file, folder.join(key)).unwrap(),
            Store::S3(server) | Store::Gcs(server) => {
                server
                    .s5cmd(&["cp", file.to_str().unwrap(), &format!("{}/{key}", self.view)])
                    .map(drop)
                    .unwrap();
            }
            Store::Azure => {
                let (container, blob) = self.blob(key);
                let code = "c.upload_blob(sys.argv[2], open(sys.argv[3], 'rb'), overwrite=True)";
                servers::azure_client(&container, code, &[&blob, file.to_str().unwrap()]).ok();
            }
        }
    }

    /// Copies an object of S3 inside of the store, with the checksum that it keeps where the store does that.
    pub fn copy(&self, from: &str, to: &str) {
        let Store::S3(server) = &self.store else { panic!("only of S3") };
        let place = |key: &str| format!("{}/{key}", self.view);
        server.s5cmd(&["cp", &place(from), &place(to)]).unwrap();
    }

    /// Puts bytes into a bucket of S3 together with their SHA-256, which the store keeps.
    pub fn put_with_checksum(&self, key: &str, bytes: &[u8]) {
        let Store::S3(server) = &self.store else { panic!("only S3 keeps checksums") };
        let file = self.sandbox.join("to put");
        std::fs::write(&file, bytes).unwrap();
        let (bucket, prefix) = self.view.trim_start_matches("s3://").split_once('/').unwrap();
        let code = "import boto3, sys\n\
                    s3 = boto3.client('s3', endpoint_url=sys.argv[1])\n\
                    s3.put_object(Bucket=sys.argv[2], Key=sys.argv[3], Body=open(sys.argv[4], 'rb'), ChecksumAlgorithm='SHA256')";
        let mut client = server.env(&self.sandbox.at("")).command(prepared("moto-5.2.5/bin/python3"));
        client.args([
            "-c",
            code,
            &server.endpoint,
            bucket,
            &format!("{prefix}/{key}"),
            file.to_str().unwrap(),
        ]);
        run(client).ok();
    }

    /// Removes a key, or with a final `*` all that begin with it.
    pub fn delete(&self, key: &str) {
        match (&self.store, key) {
            (Store::Folder(folder), "*") => std::fs::remove_dir_all(folder).unwrap(),
            (Store::Folder(folder), key) => std::fs::remove_file(folder.join(key)).unwrap(),
            (Store::S3(server) | Store::Gcs(server), key) => {
                drop(server.s5cmd(&["rm", &format!("{}/{key}", self.view)]).unwrap());
            }
            (Store::Azure, key) => {
                let (container, blob) = self.blob(key.trim_end_matches('*'));
                let code = "for b in list(c.list_blobs(name_starts_with=sys.argv[2])): c.delete_blob(b.name)";
                servers::azure_client(&container, code, &[&blob]).ok();
            }
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
            Store::S3(server) | Store::Gcs(server) => drop(
                server
                    .s5cmd(&["cp", &format!("{}/objects/*", self.view), &format!("{}/", dir.display())])
                    .unwrap(),
            ),
            Store::Azure => {
                for key in &objects {
                    let to = dir.join(key);
                    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                    self.download(key, &to);
                }
            }
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
