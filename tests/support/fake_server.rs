//! An HTTP server that misbehaves in a chosen way, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Repo;

/// A server on a free port. Its threads end with the test program.
pub struct FakeServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What it does with a request, given its first line and headers.
pub type Answer = fn(&str, &mut TcpStream);

impl FakeServer {
    /// Starts one.
    pub fn start(answer: Answer) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, &seen, answer));
            }
        });
        FakeServer { address, requests }
    }

    /// Its address as an S3 endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines and headers of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The same folder, with an environment that leads here.
    pub fn env(&self, repo: &Repo) -> Repo {
        repo.env("AWS_ENDPOINT_URL", self.endpoint())
            .env("AWS_REGION", "nowhere")
            .env("AWS_ACCESS_KEY_ID", "canary-key-id")
            .env("AWS_SECRET_ACCESS_KEY", "canary-secret")
            .env("AWS_SESSION_TOKEN", "canary-token")
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: Answer) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(head.clone());
    answer(&head, &mut stream);
}

/// Sends a whole answer and closes. The client may have gone meanwhile.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(text.as_bytes()));
}
