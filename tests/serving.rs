//! The example service of `docs/serving.md`: its own tests, and the whole way from a release to a prediction.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::models::{WEIGHTS, churn, record, safetensors};
use crate::support::{Repo, Sandbox, prepared, run};

fn python() -> PathBuf {
    prepared("serving-0.165.0").join("bin/python3")
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/serving")
}

#[test]
fn the_example_service_passes_its_own_tests() {
    let mut command = Command::new(python());
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "."]).current_dir(example());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run(command).says(" passed").ok();
}

/// A linear model, released, and written into the directory `served`.
fn served(sandbox: &Sandbox) -> Repo {
    let repo = churn(sandbox.repo("repo"));
    repo.write(WEIGHTS, safetensors(&[("weight", &[1.0, -2.0]), ("bias", &[0.5])]));
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    repo.model(["add", WEIGHTS]).ok();
    record(&repo, "linear");
    repo.model(["release", "churn", "1.4.0"]).ok();
    repo.model(["get", "churn@v1.4.0", "-o", "../served"]).ok();
    repo
}

fn uvicorn(repo: &Repo, port: u16) -> Command {
    let port = port.to_string();
    let mut command = repo.command(python());
    command.args([
        "-m",
        "uvicorn",
        "app:app",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--log-level",
        "warning",
    ]);
    command.current_dir(example());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("MODEL_DIR", repo.join("../served"));
    command
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The whole answer to a request; `None` while nobody listens.
fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let rest = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all((head + &rest).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn from_a_release_to_a_prediction() {
    let sandbox = Sandbox::new();
    let repo = served(&sandbox);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = uvicorn(&repo, port).stdout(Stdio::piped()).spawn().unwrap();
    let mut server = Server(child);
    let until = Instant::now() + Duration::from_secs(60);
    while ask(port, "GET", "/healthz", "").is_none() {
        assert!(server.0.try_wait().unwrap().is_none() && Instant::now() < until, "it does not start");
        std::thread::sleep(Duration::from_millis(100));
    }

    let answer = ask(port, "POST", "/predict", r#"{"features": [2.0, 1.0]}"#).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nx-model-version: 1.4.0\r\n"), "{answer}");
    assert!(answer.contains(r#""model":"churn","version":"1.4.0","prediction":0.62"#), "{answer}");

    // The service's info metric is the one that `git model info` prints.
    let metrics = ask(port, "GET", "/metrics", "").unwrap();
    let expected = repo.model(["info", "../served", "--format", "prometheus"]).ok();
    assert!(expected.ends_with("} 1\n") && metrics.contains(&expected), "{expected}\n{metrics}");

    server.0.kill().unwrap();
    let mut logged = String::new();
    server.0.stdout.take().unwrap().read_to_string(&mut logged).unwrap();
    let lines: Vec<serde_json::Value> =
        logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{logged}");
    assert_eq!((&lines[0]["model"], &lines[0]["version"]), (&"churn".into(), &"1.4.0".into()));
}

#[test]
fn one_changed_byte_keeps_it_from_starting() {
    let sandbox = Sandbox::new();
    let repo = served(&sandbox);
    let weights = repo.join("../served").join(WEIGHTS);
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let output = run(uvicorn(&repo, 1));
    assert_ne!(output.code, 0, "{output}");
    let said = format!("{output}");
    assert!(said.contains("refused to start: ") && said.contains("its SHA-256 is"), "{said}");
}
