//! A real OCI registry: Debian's `docker-registry`, the CNCF distribution server, on a free port of the loopback interface.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Output, Repo, Sandbox, run};

/// A running registry of its own.
pub struct DockerRegistry {
    /// `127.0.0.1:PORT`
    pub address: String,
    dir: PathBuf,
    /// Holds the pipe whose end tells the wrapper to end the server.
    wrapper: Child,
}

impl DockerRegistry {
    /// Starts one below a sandbox; with `users`, the lines of an htpasswd file, it asks who one is. `None` when the machine has none.
    pub fn start(sandbox: &Sandbox, name: &str, users: Option<&str>) -> Option<DockerRegistry> {
        let found = |program: &str| {
            let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            paths.split(':').any(|dir| PathBuf::from(dir).join(program).is_file())
        };
        if !["docker-registry", "skopeo", "umoci", "htpasswd"].into_iter().all(found) {
            super::skip("package", "docker-registry, skopeo, umoci or htpasswd is missing");
            return None;
        }
        (0..5).find_map(|_| Self::try_start(sandbox, name, users))
    }

    fn try_start(sandbox: &Sandbox, name: &str, users: Option<&str>) -> Option<DockerRegistry> {
        let dir = sandbox.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let auth = users.map(|users| {
            std::fs::write(dir.join("users"), users).unwrap();
            format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", dir.join("users").display())
        });
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{address}\"}}\n{}",
            dir.join("data").display(),
            auth.unwrap_or_default()
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        // When this program ends in whatever way, its end of the pipe closes: `cat` ends, and the server with it.
        let script = "trap '' INT TERM HUP; docker-registry serve \"$0/config.yml\" >>\"$0/log\" 2>&1 & \
                      cat >/dev/null; kill -9 $!; wait $! 2>/dev/null";
        let wrapper =
            Command::new("sh").args(["-c", script]).arg(&dir).stdin(Stdio::piped()).spawn().unwrap();
        let registry = DockerRegistry { address: address.clone(), dir, wrapper };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if TcpStream::connect(&address).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// A place in it.
    pub fn place(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// Requests so far whose line holds `text`.
    pub fn requests(&self, text: &str) -> usize {
        // The log of a request may be written after its answer.
        std::thread::sleep(Duration::from_millis(100));
        let log = std::fs::read(self.dir.join("log")).unwrap();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count()
    }

    /// Copies with skopeo between an OCI layout and this registry; `{}` in an argument stands for its address.
    pub fn skopeo(&self, at: &Repo, args: &[&str]) -> Output {
        let filled: Vec<String> = args.iter().map(|arg| arg.replace("{}", &self.address)).collect();
        let args: Vec<&str> = filled.iter().map(String::as_str).collect();
        skopeo(at, &args)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.wrapper.stdin.take());
        drop(self.wrapper.wait());
    }
}

/// Runs `skopeo copy`, without asking who signed what.
pub fn skopeo(at: &Repo, args: &[&str]) -> Output {
    let mut command = at.command("skopeo");
    command.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    command.args(args);
    run(command)
}
