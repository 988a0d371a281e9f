//! Weights in every format that is understood, from the file to the comparison; and data on a web server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::support::models::{WEIGHTS, churn, declare, is_fixed, lineage, record, train};
use crate::support::{Repo, Sandbox, sha256};

/// A script of the tests.
fn script(name: &str) -> String {
    format!("{}/tests/support/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Writes weights whose layer `head` holds this number.
fn write(repo: &Repo, format: &str, file: &str, head: f32) {
    repo.sh(&format!("python3 {} {format} m/{file} {head}", script("weights.py"))).ok();
}

#[test]
fn every_format_is_recorded_and_compared() {
    for (format, file, data) in [
        ("gguf", "model.gguf", &["GGUF".as_bytes()][..]),
        ("onnx", "model.onnx", &[]),
        ("npz", "model.npz", &[b"PK"]),
        ("torch", "model.pt", &[b"PK"]),
    ] {
        let sandbox = Sandbox::new();
        let repo = churn(sandbox.repo("repo"));
        let path = format!("m/{file}");
        declare(&repo, "weights.safetensors", file);
        for head in [1.0, 3.0] {
            write(&repo, format, file, head);
            repo.model(["add", &path]).ok();
            record(&repo, "version");
            is_fixed(&repo);
        }
        let bytes = repo.read(&path);
        assert!(data.iter().all(|start| bytes.starts_with(start)), "{format}");
        let recorded = &lineage(&repo)["weights"];
        assert_eq!(
            (&recorded["format"], &recorded["sha256"]),
            (&format.into(), &sha256(&repo.join(&path)).into())
        );
        assert_eq!((&recorded["tensors"], &recorded["parameters"]), (&2.into(), &10.into()), "{format}");
        assert_eq!(recorded["dtypes"].as_object().unwrap().values().collect::<Vec<_>>(), [10], "{recorded}");
        let compared = repo.json(["compare", "HEAD~1", "HEAD"]);
        let tensors = compared["weights"]["tensors"].as_array().unwrap();
        assert_eq!(
            (tensors.len(), &compared["weights"]["unchanged"]),
            (1, &1.into()),
            "{format}: {compared}"
        );
        assert_eq!(tensors[0]["name"], "head");
        assert_eq!(
            (&tensors[0]["moved"]["max_abs"], &tensors[0]["moved"]["relative_l2"]),
            (&2.0.into(), &2.0.into())
        );
        // Whatever is cut off, it is refused by name, and what was recorded stays.
        let before = lineage(&repo);
        for keep in [bytes.len() - 20, bytes.len() / 2, 30] {
            repo.write(&path, &bytes[..keep]);
            repo.model(["add", &path]).ok();
            repo.model(["record"]).fails(1, &path);
            assert_eq!(lineage(&repo), before);
        }
    }
}

/// A web server with a certificate of its own; it ends with the value.
struct Web {
    server: Child,
    port: u16,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

impl Web {
    fn start(sandbox: &Sandbox) -> Web {
        let here = sandbox.at("");
        here.sh(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem",
        )
        .ok();
        std::fs::create_dir_all(sandbox.join("web")).unwrap();
        let mut command = sandbox.at("web").command("python3");
        command.args([script("https.py"), "../cert.pem".to_owned(), "../key.pem".to_owned()]);
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Web { server, port: line.trim().parse().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }
}

/// The model with data at this address, and the address approved.
fn with_data(repo: &Repo, url: &str) {
    declare(repo, "[{name: train, path: ../data}]", &format!("[{{name: lake, url: \"{url}\"}}]"));
    repo.git(["config", "--add", "model.trust", url]).ok();
}

#[test]
fn data_on_a_web_server_is_fingerprinted() {
    let sandbox = Sandbox::new();
    let web = Web::start(&sandbox);
    let cert = sandbox.join("cert.pem").display().to_string();
    let repo = churn(sandbox.repo("repo")).env("SSL_CERT_FILE", &cert);
    sandbox.at("web").write("rows.csv", "1,2\n");
    let url = web.url("rows.csv");
    declare(&repo, "[{name: train, path: ../data}]", &format!("[{{name: lake, url: \"{url}\"}}]"));
    train(&repo, 2.0);
    repo.model(["record"]).says("git config --add model.trust").fails(1, "was not approved here");
    assert!(!sandbox.join("requests").exists(), "nothing is asked for before it is approved");
    repo.git(["config", "--add", "model.trust", &url]).ok();
    record(&repo, "lake");
    let data = lineage(&repo)["data"][0].clone();
    assert_eq!((&data["url"], &data["files"], &data["size"]), (&url.into(), &1.into(), &4.into()));
    is_fixed(&repo);
    // Looked at again, it is the same.
    repo.model(["verify", "--data", "lake"]).says("as it was recorded (1 file)").ok();
    repo.model(["record", "--refresh-data"]).says("nothing changed").ok();
    sandbox.at("web").write("rows.csv", "1,2\n3,4\n");
    repo.model(["verify", "--data", "lake"]).says("changed  rows.csv").fails(3, "lake: 1 change since");
    is_fixed(&repo);
    repo.model(["record", "--refresh-data"]).says("recorded").ok();
    assert_ne!(lineage(&repo)["data"][0]["digest"], data["digest"]);
    let requests = sandbox.at("").text("requests");
    assert!(requests.lines().all(|line| line == "HEAD /rows.csv -"), "{requests}");
}

#[test]
fn a_web_server_is_not_believed_blindly() {
    let sandbox = Sandbox::new();
    let web = Web::start(&sandbox);
    sandbox.at("web").write("rows.csv", "1,2\n");
    let stranger = churn(sandbox.repo("repo"));
    let repo = stranger.env("SSL_CERT_FILE", sandbox.join("cert.pem").display().to_string());
    train(&repo, 2.0);
    for (url, reason) in [
        (web.url("moved/rows.csv"), "302"),
        (web.url("gone.csv"), "404"),
        (web.url("bare/rows.csv"), "neither ETag nor modification time"),
        ("https://localhost:1/rows.csv".to_owned(), "cannot be read"),
        ("https://no-such-host.invalid/rows.csv".to_owned(), "cannot be read"),
    ] {
        with_data(&repo, &url);
        let said = repo.model(["record"]).says(&url).fails(1, "data `lake`");
        assert!(said.contains(reason), "{said}");
        repo.model(["run", "churn", "--", "touch", "ran"]).fails(1, "data `lake`");
    }
    // A certificate that nobody vouches for.
    with_data(&stranger, &web.url("rows.csv"));
    stranger.model(["record"]).fails(1, "cannot be read");
    repo.model(["record", "--offline"]).fails(1, "not contacted because of --offline");
    repo.model(["record"]).ok();
    with_data(&repo, "http://localhost/rows.csv");
    repo.model(["record"]).fails(1, "not a usable location");
    assert!(!repo.exists("ran"));
    assert_eq!(sha256(&repo.join(WEIGHTS)), lineage(&repo)["weights"]["sha256"]);
}
