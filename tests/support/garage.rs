//! One real S3 server (Garage) for the whole test program, on free ports of the loopback interface.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Output, Repo, prepared, run};

/// Region that the server insists on.
pub const REGION: &str = "garage";

/// The running server, with one key that may use all buckets.
pub struct Garage {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// Access key.
    pub key: String,
    /// Its secret.
    pub secret: String,
    config: PathBuf,
    buckets: AtomicU32,
    /// Holds the pipe whose end tells the wrapper that this program is gone.
    _wrapper: Child,
}

/// The server; the first call starts it.
pub fn garage() -> &'static Garage {
    static GARAGE: OnceLock<Garage> = OnceLock::new();
    // A free port may be taken by somebody else before the server has it: then others are tried.
    GARAGE.get_or_init(|| (0..5).find_map(|_| Garage::start()).expect("Garage starts"))
}

impl Garage {
    fn start() -> Option<Garage> {
        let dir = tempfile::Builder::new().prefix("git-model-garage-").tempdir().unwrap().keep();
        let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [rpc, s3, admin] = [0, 1, 2].map(|at: usize| ports[at].local_addr().unwrap());
        drop(ports);
        let config = dir.join("garage.toml");
        let text = format!(
            "metadata_dir = \"{0}/meta\"\ndata_dir = \"{0}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{1}\"\n\
             [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"{s3}\"\nroot_domain = \".s3.localhost\"\n\
             [admin]\napi_bind_addr = \"{admin}\"\n",
            dir.display(),
            "ab".repeat(32),
        );
        std::fs::write(&config, text).unwrap();
        // When this program ends in whatever way, its end of the pipe closes: `cat` ends, and the server with it.
        let script = "trap '' INT TERM HUP; \"$0\" -c \"$1/garage.toml\" server >\"$1/log\" 2>&1 & \
                      cat >/dev/null; kill -9 $!; wait $! 2>/dev/null; rm -rf \"$1\"";
        let wrapper = Command::new("sh")
            .args(["-c", script])
            .arg(binary())
            .arg(&dir)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut garage = Garage {
            endpoint: format!("http://{s3}"),
            key: String::new(),
            secret: String::new(),
            config,
            buckets: AtomicU32::new(0),
            _wrapper: wrapper,
        };
        garage.wait_until_ready(&s3.to_string())?;
        let node = garage.admin(["node", "id", "-q"]).ok();
        let node = node.trim().split('@').next().unwrap();
        garage.admin(["layout", "assign", "-z", "a", "-c", "20G", node]).ok();
        garage.admin(["layout", "apply", "--version", "1"]).ok();
        let key = garage.admin(["key", "create", "tests"]).ok();
        garage.key = field(&key, "Key ID:");
        garage.secret = field(&key, "Secret key:");
        Some(garage)
    }

    fn wait_until_ready(&self, s3: &str) -> Option<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if TcpStream::connect(s3).is_ok() && self.admin(["status"]).code == 0 {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    fn admin<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = Command::new(binary());
        command.arg("-c").arg(&self.config).args(args).env("RUST_LOG", "error").stdin(Stdio::null());
        run(command)
    }

    /// A fresh bucket; returns its name.
    pub fn bucket(&self) -> String {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        self.admin(["bucket", "create", &name]).ok();
        self.admin(["bucket", "allow", "--read", "--write", "--owner", &name, "--key", &self.key]).ok();
        name
    }

    /// Ends all unfinished uploads in a bucket.
    pub fn end_uploads(&self, bucket: &str) {
        self.admin(["bucket", "cleanup-incomplete-uploads", "--older-than", "0s", bucket]).ok();
    }

    /// Limits what a bucket may hold.
    pub fn limit(&self, bucket: &str, bytes: &str) {
        self.admin(["bucket", "set-quotas", bucket, "--max-size", bytes]).ok();
    }

    /// How it is reached.
    pub fn s3(&self) -> S3 {
        S3 {
            endpoint: self.endpoint.clone(),
            region: REGION,
            key: self.key.clone(),
            secret: self.secret.clone(),
        }
    }

    /// The same folder, with everything in the environment that reaches this server.
    pub fn env(&self, repo: &Repo) -> Repo {
        self.s3().env(repo)
    }

    /// Runs s5cmd, a client that knows nothing of git-model.
    pub fn s5cmd(&self, args: &[&str]) -> Result<Vec<u8>, io::Error> {
        self.s3().s5cmd(args)
    }
}

/// How a server that speaks S3 is reached.
#[derive(Clone)]
pub struct S3 {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// Its region.
    pub region: &'static str,
    /// Access key.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

impl S3 {
    /// The same folder, with everything in the environment that reaches this server.
    pub fn env(&self, repo: &Repo) -> Repo {
        repo.env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", self.region)
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
    }

    /// Runs s5cmd, a client that knows nothing of git-model.
    pub fn s5cmd(&self, args: &[&str]) -> Result<Vec<u8>, io::Error> {
        let output = Command::new(prepared("s5cmd/bin/s5cmd"))
            .args(["--endpoint-url", &self.endpoint])
            .args(args)
            .env_clear()
            .env("AWS_REGION", self.region)
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
            .stdin(Stdio::null())
            .output()?;
        let told = || io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned());
        if output.status.success() { Ok(output.stdout) } else { Err(told()) }
    }
}

fn binary() -> PathBuf {
    prepared("garage-2.5.0/bin/garage")
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line[name.len()..].trim().to_owned()
}
