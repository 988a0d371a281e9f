//! Servers and emulators for the whole test program, each started when it is first needed, on a free port of the loopback
//! interface. None outlives the program.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::garage::S3;
use super::{Output, prepared, run};

/// A running server.
pub struct Server {
    /// `127.0.0.1:PORT`
    pub address: String,
    /// Its scratch folder.
    pub dir: PathBuf,
    /// Holds the pipe whose end tells the wrapper that this program is gone.
    _wrapper: Child,
}

impl Server {
    /// Starts one: the shell runs `command` with the folder as `$1` and the port as `$2`.
    pub fn start(name: &str, program: &Path, command: &str) -> Server {
        // A free port may be taken by somebody else before the server has it: then others are tried.
        (0..5)
            .find_map(|_| Server::try_start(name, program, command))
            .unwrap_or_else(|| panic!("{name} starts"))
    }

    fn try_start(name: &str, program: &Path, command: &str) -> Option<Server> {
        let dir = tempfile::Builder::new().prefix(&format!("git-model-{name}-")).tempdir().unwrap().keep();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // When this program ends in whatever way, its end of the pipe closes: `cat` ends, and the server with it.
        let script = format!(
            "trap '' INT TERM HUP; {command} >\"$1/log\" 2>&1 & cat >/dev/null; kill -9 $!; wait $! 2>/dev/null; rm -rf \"$1\""
        );
        let wrapper = Command::new("sh")
            .args(["-c", &script])
            .arg(program)
            .arg(&dir)
            .arg(address.port().to_string())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let server = Server { address: address.to_string(), dir, _wrapper: wrapper };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if TcpStream::connect(address).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

static BUCKETS: AtomicU32 = AtomicU32::new(0);

/// Of letters and digits only: object_store escapes a hyphen in the name of a Google bucket, which Google undoes and moto does not.
fn fresh_name() -> String {
    format!("bucket{}", BUCKETS.fetch_add(1, Ordering::Relaxed))
}

/// moto: S3 with conditional writes, STS; and, because it does not look at signatures and the dialects agree, the XML API of
/// Google Cloud Storage.
pub fn moto() -> &'static Server {
    static MOTO: OnceLock<Server> = OnceLock::new();
    MOTO.get_or_init(|| {
        let python = prepared("moto-5.2.5/bin/python3");
        Server::start("moto", &python, "\"$0\" -m moto.server -H 127.0.0.1 -p $2")
    })
}

/// How moto is reached as S3.
pub fn moto_s3() -> S3 {
    S3 { endpoint: moto().url(), region: "us-east-1", key: "moto-key".into(), secret: "moto-secret".into() }
}

/// A fresh bucket of moto; returns its name.
pub fn moto_bucket() -> String {
    let name = fresh_name();
    moto_s3().s5cmd(&["mb", &format!("s3://{name}")]).unwrap();
    name
}

/// Account and key of Azurite, as its documentation gives them.
pub const AZURITE_ACCOUNT: &str = "devstoreaccount1";
/// The key.
pub const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Microsoft's emulator of Azure Blob Storage.
pub fn azurite() -> &'static Server {
    static AZURITE: OnceLock<Server> = OnceLock::new();
    AZURITE.get_or_init(|| {
        let program = prepared("azurite-3.37.0/node_modules/.bin/azurite-blob");
        let options = "--silent --disableTelemetry --skipApiVersionCheck --inMemoryPersistence";
        let command = format!("\"$0\" {options} --blobHost 127.0.0.1 --blobPort $2");
        Server::start("azurite", &program, &command)
    })
}

/// Account, key and endpoint of Azurite in one.
pub fn azurite_connection() -> String {
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", azurite().url());
    format!(
        "DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint={endpoint}"
    )
}

/// Runs Python with Microsoft's client: `c` is a container's client, `sys.argv[2:]` the arguments.
pub fn azure_client(container: &str, code: &str, args: &[&str]) -> Output {
    let head = "import os, sys\nfrom azure.storage.blob import ContainerClient\n\
                c = ContainerClient.from_connection_string(os.environ['CONNECTION'], sys.argv[1])\n";
    let mut command = Command::new(prepared("azure-storage-blob-12.31.1/bin/python3"));
    command.args(["-c", &format!("{head}{code}"), container]).args(args);
    command.env("CONNECTION", azurite_connection()).stdin(Stdio::null());
    run(command)
}

/// A fresh container of Azurite; returns its name.
pub fn azurite_container() -> String {
    let name = fresh_name();
    azure_client(&name, "c.create_container()", &[]).ok();
    name
}

/// A web server with a certificate of its own that hands out the files of a folder, as a CDN does.
pub struct WebServer {
    server: Server,
    /// The certificate that clients must trust.
    pub certificate: PathBuf,
}

impl WebServer {
    /// Starts one.
    pub fn start(folder: &Path) -> WebServer {
        WebServer::start_as(folder, "ranges")
    }

    /// Starts one that answers a question for a part with the whole, as plain web servers do.
    pub fn start_without_ranges(folder: &Path) -> WebServer {
        WebServer::start_as(folder, "whole")
    }

    fn start_as(folder: &Path, answers: &str) -> WebServer {
        let dir = tempfile::Builder::new().prefix("git-model-web-").tempdir().unwrap().keep();
        let certificate = dir.join("cert.pem");
        // Of its own, because the system's would add to what is asked for here.
        let config = "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n\
                      subjectAltName = DNS:localhost\nbasicConstraints = critical,CA:FALSE\n";
        std::fs::write(dir.join("openssl.cnf"), config).unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-config"])
            .arg(dir.join("openssl.cnf"))
            .arg("-keyout")
            .arg(dir.join("key.pem"))
            .arg("-out")
            .arg(&certificate);
        run(openssl).ok();
        std::fs::write(dir.join("serve.py"), SERVE).unwrap();
        let quoted = |path: &Path| format!("'{}'", path.display());
        let command = format!(
            "\"$0\" {} $2 {} {} {answers}",
            quoted(&dir.join("serve.py")),
            quoted(&dir),
            quoted(folder)
        );
        let server = Server::start("web", Path::new("python3"), &command);
        WebServer { server, certificate }
    }

    /// `https://localhost:PORT`
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.server.address.rsplit(':').next().unwrap())
    }

    /// Requests so far, one line each.
    pub fn requests(&self) -> String {
        std::fs::read_to_string(self.server.dir.join("log")).unwrap()
    }
}

/// Hands out files over TLS, whole or in ranges.
const SERVE: &str = r#"
import http.server, os, re, ssl, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.translate_path(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if answers == "whole" or not wanted or not os.path.isfile(path):
            return super().do_GET()
        size = os.path.getsize(path)
        first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        with open(path, "rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.date_time_string(os.path.getmtime(path)))
        self.end_headers()
        self.wfile.write(body)

port, secrets, folder, answers = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), lambda *a: Handler(*a, directory=folder))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{secrets}/cert.pem", f"{secrets}/key.pem")
server.handle_error = lambda *_: None
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;
