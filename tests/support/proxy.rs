//! A proxy before a real server: counts what passes, and refuses or cuts what a test wants refused or cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What becomes of a request.
pub enum Fate {
    /// It is answered by the server.
    Pass,
    /// It is answered with 503.
    Busy,
    /// It is answered as S3 answers temporary credentials that are too old.
    Expired,
    /// It is answered with 403.
    Denied,
    /// It is answered with this status and body.
    Refused(&'static str, &'static str),
    /// The connection breaks after so many bytes of the answer.
    Cut(u64),
}

type Decide = dyn FnMut(&str) -> Fate + Send;

/// A proxy on a free port. Its threads end with the test program.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    up: AtomicU64,
    down: AtomicU64,
    requests: Mutex<Vec<String>>,
    decide: Mutex<Box<Decide>>,
    /// So many requests are served at once; more are answered with 503.
    room: usize,
    serving: AtomicUsize,
    refused: AtomicUsize,
}

impl Proxy {
    /// Starts one before a server (`http://host:port`); `decide` sees the first line of every request, with its range and condition.
    pub fn start(server: &str, decide: impl FnMut(&str) -> Fate + Send + 'static) -> Proxy {
        Proxy::start_with(server, usize::MAX, decide)
    }

    /// Starts one before a server that serves only so many requests at once.
    pub fn with_room(server: &str, room: usize) -> Proxy {
        Proxy::start_with(server, room, |_| Fate::Pass)
    }

    fn start_with(server: &str, room: usize, decide: impl FnMut(&str) -> Fate + Send + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: server.trim_start_matches("http://").to_owned(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            requests: Mutex::default(),
            decide: Mutex::new(Box::new(decide)),
            room,
            serving: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || {
                    let is_full = shared.serving.fetch_add(1, Ordering::SeqCst) >= shared.room;
                    serve(stream, &shared, is_full).ok();
                    shared.serving.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Proxy { address, shared }
    }

    /// Its address as an S3 endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes of request bodies so far.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Bytes of answers so far.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// How many requests there was no room for.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How many requests had a first line with all of these in it.
    pub fn count(&self, parts: &[&str]) -> usize {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

/// One request per connection.
fn serve(mut client: TcpStream, shared: &Shared, is_full: bool) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let header = |name: &str| text.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
    let shown = [header("range:"), header("if-none-match:")].map(Option::unwrap_or_default);
    let line = format!("{line} {}", shown.concat());
    shared.requests.lock().unwrap().push(line.clone());
    shared.refused.fetch_add(usize::from(is_full), Ordering::Relaxed);
    let fate = if is_full { Fate::Busy } else { (shared.decide.lock().unwrap())(&line) };
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:").and_then(|rest| rest.trim().parse().ok())
    });
    let length: u64 = length.unwrap_or(0);
    let refusal = match fate {
        Fate::Busy => Some(("503 Slow Down", "")),
        Fate::Expired => Some(("400 Bad Request", "<Error><Code>ExpiredToken</Code></Error>")),
        Fate::Denied => Some(("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")),
        Fate::Refused(status, body) => Some((status, body)),
        Fate::Pass | Fate::Cut(_) => None,
    };
    if let Some((status, body)) = refusal {
        copy(&mut client, &mut std::io::sink(), length, &shared.up)?;
        let head =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        return client.write_all((head + body).as_bytes());
    }
    let mut server = TcpStream::connect(&shared.server)?;
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"connection: close\r\n\r\n");
    server.write_all(&head)?;
    let most = if let Fate::Cut(most) = fate { most } else { u64::MAX };
    std::thread::scope(|scope| {
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        scope.spawn(move || {
            if copy(&mut from, &mut to, length, &shared.up).is_err() {
                // The client is gone: the server must not wait for the rest.
                to.shutdown(Shutdown::Both).ok();
            }
        });
        let copied = copy(&mut server, &mut client, most, &shared.down);
        client.shutdown(Shutdown::Both).ok();
        server.shutdown(Shutdown::Both).ok();
        copied
    })
}

/// Copies until the end or so many bytes.
fn copy(from: &mut impl Read, to: &mut impl Write, most: u64, count: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = most;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = from.read(&mut buffer[..room])?;
        if length == 0 {
            break;
        }
        to.write_all(&buffer[..length])?;
        count.fetch_add(length as u64, Ordering::Relaxed);
        left -= length as u64;
    }
    Ok(())
}
