//! A proxy that adds latency: `delay PORT MILLISECONDS` passes connections on to PORT of this machine, holds all bytes back for so
//! long in each direction, and prints its own port. Written so that it takes little from the tools that are measured.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes on their way in one direction of one connection: what a link with such a round trip takes from one sender.
const WINDOW: usize = 4 << 20;
const CHUNK: usize = 128 << 10;

#[derive(Default)]
struct Way {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// What is on its way, with the time of its arrival; nothing at all says that the sender is done.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Nobody takes anything any more.
    broken: bool,
}

impl Way {
    fn take_from(&self, mut source: TcpStream, one_way: Duration) {
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = source.read(&mut chunk).unwrap_or(0);
            chunk.truncate(length);
            let mut queue = self.queue.lock().unwrap();
            while queue.bytes >= WINDOW && !queue.broken {
                queue = self.changed.wait(queue).unwrap();
            }
            queue.bytes += length;
            queue.chunks.push_back((Instant::now() + one_way, chunk));
            self.changed.notify_all();
            if length == 0 || queue.broken {
                return;
            }
        }
    }

    fn give_to(&self, mut target: TcpStream) {
        loop {
            let mut queue = self.queue.lock().unwrap();
            let (due, chunk) = loop {
                match queue.chunks.pop_front() {
                    Some(next) => break next,
                    None => queue = self.changed.wait(queue).unwrap(),
                }
            };
            drop(queue);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if chunk.is_empty() {
                target.shutdown(Shutdown::Write).ok();
                return;
            }
            let broken = target.write_all(&chunk).is_err();
            let mut queue = self.queue.lock().unwrap();
            queue.bytes -= chunk.len();
            queue.broken = broken;
            self.changed.notify_all();
            if broken {
                return;
            }
        }
    }
}

fn connect(source: &TcpStream, target: &TcpStream, one_way: Duration) -> std::io::Result<()> {
    let way = Arc::new(Way::default());
    let (source, target, sender) = (source.try_clone()?, target.try_clone()?, Arc::clone(&way));
    thread::spawn(move || sender.take_from(source, one_way));
    thread::spawn(move || way.give_to(target));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(port), Some(milliseconds)) = (args.next(), args.next()) else {
        return Err("usage: delay PORT MILLISECONDS".into());
    };
    let (port, one_way) = (port.parse::<u16>()?, Duration::from_millis(milliseconds.parse()?));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    for client in listener.incoming() {
        let client = client?;
        let server = TcpStream::connect(("127.0.0.1", port))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        connect(&client, &server, one_way)?;
        connect(&server, &client, one_way)?;
    }
    Ok(())
}
