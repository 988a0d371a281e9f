//! One pass over a file's bytes: hashing them while they are copied.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::writeback::{Writing, forget, start_writeback, write_all};
use crate::id::{Digest, Hasher};

/// Bytes per read and write.
const CHUNK: usize = 1024 * 1024;
/// Smaller files are not worth a second thread.
const PIPELINE_FROM: u64 = 4 * CHUNK as u64;
/// Chunks between the reading and the writing side of one file; bounds its memory.
const IN_FLIGHT: usize = 8;
/// With more chunks waiting for it, the writing side is the slow one.
const KEEPING_UP: usize = IN_FLIGHT / 2;
/// Chunks that are written in one way before another one is tried.
const BEFORE_CHANGE: u32 = 16;
/// How much is written before the device is told to start.
const WRITEBACK_STEP: u64 = 32 * CHUNK as u64;

/// Told of every few bytes; an error stops the copy.
pub type OnBytes<'a> = &'a dyn Fn(u64) -> io::Result<()>;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Hashes everything that can be read from `file`.
pub fn hash_file(file: &File, on_bytes: OnBytes<'_>) -> io::Result<(Digest, u64)> {
    each_chunk(file, &mut |_| Ok(()), on_bytes)
}

/// Copies `source` to `target` and returns the digest and number of the bytes that were written.
///
/// The bytes are hashed on their way, so the digest is of the copy whatever happens to the source meanwhile. Files of some
/// size go through a pipeline: one thread reads, this one hashes, one writes, and unless it is for later one keeps the device
/// busy from the start, so that a later sync finds little left to do.
pub fn copy_hashing(
    source: &File,
    target: &File,
    size: u64,
    writing: Writing,
    on_bytes: OnBytes<'_>,
) -> io::Result<(Digest, u64)> {
    let writeback = matches!(writing, Writing::Soon | Writing::Through);
    if size < PIPELINE_FROM {
        // The device may keep up with this one file, and not with thousands.
        let writing = if writing == Writing::Fastest { Writing::Later } else { writing };
        let mut write = |chunk: &[u8]| write_all(target, chunk, writing);
        let done = each_chunk(source, &mut write, on_bytes)?;
        if writeback {
            start_writeback(target);
        }
        return Ok(done);
    }
    let waiting = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (read_tx, read_rx) = mpsc::sync_channel::<io::Result<(Vec<u8>, usize)>>(IN_FLIGHT);
        let (write_tx, write_rx) = mpsc::sync_channel::<(Vec<u8>, usize)>(IN_FLIGHT);
        let (empty_tx, empty_rx) = mpsc::channel::<Vec<u8>>();
        let (flush_tx, flush_rx) = mpsc::sync_channel::<()>(1);
        let waiting = &waiting;
        for _ in 0..IN_FLIGHT {
            empty_tx.send(vec![0; CHUNK]).expect("the receiver is alive");
        }
        // Each thread ends when the one it takes from, or the one it gives to, does.
        scope.spawn(move || {
            let mut input = source;
            while let Ok(mut buffer) = empty_rx.recv() {
                let read = read_full(&mut input, &mut buffer).map(|length| (buffer, length));
                let more = matches!(&read, Ok((_, length)) if *length > 0);
                if read_tx.send(read).is_err() || !more {
                    break;
                }
            }
        });
        scope.spawn(move || flush_rx.iter().for_each(|()| start_writeback(target)));
        let writer = scope.spawn(move || -> io::Result<()> {
            let (mut since, mut choice) = (0, Choice::default());
            for (buffer, length) in write_rx {
                let is_behind = waiting.fetch_sub(1, Ordering::Relaxed) > KEEPING_UP;
                let started = Instant::now();
                let writing = if writing == Writing::Fastest { choice.writing() } else { writing };
                write_all(target, &buffer[..length], writing)?;
                choice.wrote(started.elapsed(), is_behind);
                since += length as u64;
                if writeback && since >= WRITEBACK_STEP {
                    // A flush that is still waiting covers these bytes, too.
                    let _covered = flush_tx.try_send(());
                    since = 0;
                }
                // The reading side may be done already.
                drop(empty_tx.send(buffer));
            }
            Ok(())
        });
        let mut hasher = Hasher::default();
        let mut total = 0;
        let hashed = (|| {
            for read in read_rx {
                let (buffer, length) = read?;
                hasher.update(&buffer[..length]);
                total += length as u64;
                on_bytes(length as u64)?;
                waiting.fetch_add(1, Ordering::Relaxed);
                if length == 0 || write_tx.send((buffer, length)).is_err() {
                    break;
                }
            }
            Ok(())
        })();
        drop(write_tx);
        writer.join().expect("the writer does not panic")?;
        hashed.map(|()| (hasher.finish(), total))
    })
}

/// Which way of writing is the faster one here: through to the device, or into memory. The other one is tried only when the
/// writing side falls behind.
#[derive(Default)]
struct Choice {
    into_memory: bool,
    /// Chunks that were written in this way since it was chosen.
    chunks: u32,
    /// What a chunk took lately: through, and into memory.
    costs: [Option<Duration>; 2],
}

impl Choice {
    fn writing(&self) -> Writing {
        if self.into_memory { Writing::Later } else { Writing::Through }
    }

    fn wrote(&mut self, took: Duration, is_behind: bool) {
        self.chunks += 1;
        let other = self.costs[usize::from(!self.into_memory)];
        let cost = &mut self.costs[usize::from(self.into_memory)];
        let now = cost.map_or(took, |cost| (cost * 7 + took) / 8);
        *cost = Some(now);
        if is_behind && self.chunks >= BEFORE_CHANGE && other.is_none_or(|other| other < now) {
            (self.into_memory, self.chunks) = (!self.into_memory, 0);
        }
    }
}

/// Copies a file in the kernel, unread, from its start; returns how many bytes. `None`, and nothing is done, where the system
/// cannot do that between these two.
///
/// Memory keeps the copy and, as far as the device has it, lets go of the source: one of them is enough.
pub fn copy_unread(
    source: &File,
    target: &File,
    writing: Writing,
    on_bytes: OnBytes<'_>,
) -> io::Result<Option<u64>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        let (mut from, mut to, mut since) = (0, 0, 0);
        loop {
            let step = 8 * CHUNK;
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), step) {
                Ok(0) => return Ok(Some(to)),
                Ok(count) => {
                    on_bytes(count as u64)?;
                    since += count as u64;
                    forget(source, from - count as u64, count as u64);
                }
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                    if to == 0 =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
            if writing != Writing::Later && since >= WRITEBACK_STEP {
                start_writeback(target);
                since = 0;
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = (source, target, writing, on_bytes);
        Ok(None)
    }
}

fn each_chunk(
    file: &File,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    on_bytes: OnBytes<'_>,
) -> io::Result<(Digest, u64)> {
    BUFFER.with_borrow_mut(|buffer| {
        let (mut hasher, mut total, mut input) = (Hasher::default(), 0, file);
        loop {
            let length = read_full(&mut input, buffer)?;
            if length == 0 {
                return Ok((hasher.finish(), total));
            }
            hasher.update(&buffer[..length]);
            each(&buffer[..length])?;
            total += length as u64;
            on_bytes(length as u64)?;
            if length < buffer.len() {
                return Ok((hasher.finish(), total));
            }
        }
    })
}

/// Fills the buffer as far as the file goes.
fn read_full(input: &mut &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn copies_and_hashes_every_size() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7, 20 * CHUNK] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut source = tempfile::tempfile().unwrap();
            source.write_all(&bytes).unwrap();
            std::io::Seek::rewind(&mut source).unwrap();
            for writing in [Writing::Later, Writing::Soon, Writing::Through, Writing::Fastest] {
                std::io::Seek::rewind(&mut source).unwrap();
                let mut target = tempfile::tempfile().unwrap();
                let done = copy_hashing(&source, &target, size as u64, writing, &|_| Ok(())).unwrap();
                assert_eq!(done, (Digest::of(&bytes), size as u64));
                std::io::Seek::rewind(&mut target).unwrap();
                assert_eq!(hash_file(&target, &|_| Ok(())).unwrap(), done);
            }
            let mut target = tempfile::tempfile().unwrap();
            if let Some(copied) = copy_unread(&source, &target, Writing::Soon, &|_| Ok(())).unwrap() {
                std::io::Seek::rewind(&mut target).unwrap();
                let found = hash_file(&target, &|_| Ok(())).unwrap();
                assert_eq!((found, copied), ((Digest::of(&bytes), size as u64), size as u64));
            }
        }
    }

    #[test]
    fn the_faster_way_of_writing_is_found_and_kept() {
        for (through, memory, expected) in [(1, 2, Writing::Through), (5, 1, Writing::Later)] {
            let mut choice = Choice::default();
            for _ in 0..200 {
                let took = if choice.writing() == Writing::Through { through } else { memory };
                choice.wrote(Duration::from_millis(took), true);
            }
            assert_eq!(choice.writing(), expected);
        }
        let mut choice = Choice::default();
        (0..200).for_each(|_| choice.wrote(Duration::from_millis(5), false));
        assert_eq!(choice.writing(), Writing::Through, "what keeps up is not changed");
    }

    #[test]
    fn a_failing_target_ends_the_copy() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&vec![7; 20 * CHUNK]).unwrap();
        std::io::Seek::rewind(&mut source).unwrap();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = copy_hashing(&source, &full, 20 * CHUNK as u64, Writing::Later, &|_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
