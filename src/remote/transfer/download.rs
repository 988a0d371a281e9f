//! Fetching one object: as a stream, or a large one in pieces, several at once, written to their places.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{Either, select};
use object_store::path::Path;
use object_store::{DynObjectStore, GetOptions, GetRange, GetResultPayload, ObjectStoreExt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};

use super::pace::Gate;
use super::{Download, Failure, MIB, PART, PARTS_AT_ONCE, Receive};
use crate::error::{Context, Error, Result};
use crate::fsio::{BLOCK, Partial};
use crate::human;
use crate::progress::Step;
use crate::remote::explain::{is_absent_object, says};
use crate::remote::{Remote, layout};

/// Larger objects come in pieces.
const PIECES_FROM: u64 = 2 * PART;
/// The only words that object_store has for a store without ranges: of the clouds, and of web servers.
const NO_RANGES: [&str; 2] = ["non-partial response", "Range request not supported"];
/// Bytes per read from a folder store.
const CHUNK: usize = 1024 * 1024;
/// The device is told to start when so many bytes came.
const WRITEBACK_STEP: u64 = 32 * MIB;
/// What came is made to survive a power cut whenever there are so many bytes.
const CHECKPOINT_STEP: u64 = 512 * MIB;

/// Why a piece did not come whole.
enum Broken {
    /// The answer broke after at least a block of it; this is what is missing.
    Off(Range<u64>, object_store::Error),
    /// The store's object has another size.
    Size(u64),
    /// The store answered with the whole object: it has no ranges.
    NoRanges,
    Store(object_store::Error),
    Here(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken::Here(error)
    }
}

impl Remote {
    pub(super) async fn get(
        &self,
        download: &Download,
        sink: &mut dyn Receive,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let is_large = download.exact && download.size > PIECES_FROM && !self.engine.is_folder;
        if is_large && let Some(partial) = sink.in_pieces()? {
            let came = self.get_pieces(download, &partial, step).await;
            if let Err(Failure::Object(_)) = came {
                partial.discard();
            }
            return came;
        }
        self.get_stream(download, sink, step).await
    }

    async fn get_stream(
        &self,
        download: &Download,
        sink: &mut dyn Receive,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let key = layout::object_key(&self.url, &download.digest)?;
        let counts_as_part = download.is_large() && !self.engine.is_folder;
        let turn = if counts_as_part { Some(self.engine.fetching.turn().await) } else { None };
        let answer = match self.store.get(&key).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.not_read(download, &error)),
        };
        let mut take = |bytes: &[u8]| -> Result<(), Failure> {
            self.interrupt.check()?;
            sink.write(bytes).map_err(|error| Failure::of_sink(download, error))?;
            step.advance(bytes.len() as u64);
            Ok(())
        };
        match answer.payload {
            // A folder's file is read directly, in large pieces.
            GetResultPayload::File(mut file, path) => {
                let mut buffer = vec![0; CHUNK.min(download.size as usize + 1)];
                loop {
                    match file.read(&mut buffer).context(&path, "read")? {
                        0 => return Ok(()),
                        length => {
                            self.engine.traffic.wait_for(length).await;
                            take(&buffer[..length])?;
                        }
                    }
                }
            }
            GetResultPayload::Stream(mut stream) => {
                let (mut came, mut asked_from) = (0, 0);
                while let Some(bytes) = stream.next().await {
                    match bytes {
                        Ok(bytes) => {
                            came += bytes.len() as u64;
                            take(&bytes)?;
                        }
                        // As with pieces; of a store that has no ranges nothing can be gone on with.
                        Err(error) if came - asked_from >= BLOCK => {
                            let rest = GetRange::Offset(came);
                            let options = GetOptions { range: Some(rest), ..GetOptions::default() };
                            let again = self.store.get_opts(&key, options).await;
                            asked_from = came;
                            stream = again.map_err(|_| self.failed("cannot be read", &error))?.into_stream();
                        }
                        Err(error) => return Err(self.failed("cannot be read", &error).into()),
                    }
                }
                if let Some(turn) = turn {
                    turn.done(download.size);
                }
                Ok(())
            }
        }
    }

    /// Brings everything that is missing, and sees to it that all of it is hashed.
    async fn get_pieces(
        &self,
        download: &Download,
        partial: &Arc<Partial>,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        step.advance(partial.inherited());
        self.fill(download, partial, step).await?;
        self.hash_what_came(partial)?;
        if partial.inherited() > 0 && !partial.is_right()? {
            // What an earlier run left was damaged since. Whether the store is right shows only without it.
            partial.reset()?;
            self.fill(download, partial, step).await?;
            self.hash_what_came(partial)?;
        }
        Ok(())
    }

    fn hash_what_came(&self, partial: &Partial) -> Result<()> {
        while partial.hash_next()? {
            self.interrupt.check()?;
        }
        Ok(())
    }

    /// Brings what is missing: pieces on tasks of their own, while this thread hashes behind them.
    async fn fill(
        &self,
        download: &Download,
        partial: &Arc<Partial>,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let key = layout::object_key(&self.url, &download.digest)?;
        let mut missing: VecDeque<_> = partial.missing(PART).into();
        let mut ranged = true;
        let (came, mut arrivals) = unbounded_channel();
        let mut pieces = JoinSet::new();
        let mut device = Device::default();
        loop {
            while pieces.len() < PARTS_AT_ONCE
                && let Some(range) = missing.pop_front()
            {
                let piece = Piece {
                    store: Arc::clone(&self.store),
                    key: key.clone(),
                    partial: Arc::clone(partial),
                    came: came.clone(),
                    ranged,
                };
                pieces.spawn(piece.fetch(range, Arc::clone(&self.engine.fetching)));
            }
            if pieces.is_empty() {
                break;
            }
            let next = match select(pin!(arrivals.recv()), pin!(pieces.join_next())).await {
                Either::Left((bytes, _)) => Either::Left(bytes),
                Either::Right((done, _)) => Either::Right(done),
            };
            match next {
                Either::Left(bytes) => {
                    let bytes = bytes.unwrap_or(0);
                    step.advance(bytes);
                    device.wrote(partial, bytes);
                }
                Either::Right(Some(Ok(Err(Broken::NoRanges)))) if ranged => {
                    pieces.abort_all();
                    while pieces.join_next().await.is_some() {}
                    partial.reset()?;
                    // All of it is one piece then.
                    ranged = false;
                    missing = std::iter::once(0..partial.size()).collect();
                }
                // Something comes each time, so this ends. What repeats requests below gives up after some minutes of one.
                Either::Right(Some(Ok(Err(Broken::Off(rest, _))))) if ranged => missing.push_front(rest),
                Either::Right(Some(Ok(Err(broken)))) => return Err(self.broken(download, broken).await),
                Either::Right(Some(Ok(Ok(())))) | Either::Right(None) => {}
                Either::Right(Some(Err(error))) => {
                    return Err(Failure::All(self.failed("cannot be read", &error.into())));
                }
            }
            self.hash_what_came(partial)?;
        }
        while let Ok(bytes) = arrivals.try_recv() {
            step.advance(bytes);
        }
        // What it finds out about the device counts before anybody takes the file for complete.
        device.rest().await;
        partial.require_synced()?;
        Ok(())
    }

    /// Finds out whether it is the object, or everything.
    async fn broken(&self, download: &Download, broken: Broken) -> Failure {
        let found = match broken {
            Broken::Here(error) => return Failure::All(error.about(human::escape(&download.path))),
            Broken::NoRanges => return Failure::All(Error::new(format!("{}: has no ranges", self.url))),
            Broken::Size(found) => found,
            Broken::Off(_, error) | Broken::Store(error) => match self.head(&download.digest).await {
                // A range that begins behind the end of a cut object is an error like any other.
                Ok(Some(found)) if found != download.size => found,
                _ => return self.not_read(download, &error),
            },
        };
        of_object(
            download,
            Error::new(format!("the store has {found} bytes under its name, not {}", download.size))
                .hint("a clone that has the right ones can mend that: git model push --repair"),
        )
    }

    fn not_read(&self, download: &Download, error: &object_store::Error) -> Failure {
        let (path, object) = (human::escape(&download.path), download.digest.short());
        if !is_absent_object(error) {
            return Failure::All(self.failed("cannot be read", error).about(path));
        }
        Failure::Object(
            Error::new(format!("{path}: its content is not in {} (object {object})", self.url))
                .hint("push it from a clone that has it: git model push"),
        )
    }
}

fn of_object(download: &Download, error: Error) -> Failure {
    Failure::Object(error.about(human::escape(&download.path)))
}

/// One piece of an object on its way to its place.
struct Piece {
    store: Arc<DynObjectStore>,
    key: Path,
    partial: Arc<Partial>,
    came: UnboundedSender<u64>,
    /// Whether to ask for a part; else for the whole, from a store that has no parts.
    ranged: bool,
}

impl Piece {
    async fn fetch(self, range: Range<u64>, gate: Arc<Gate>) -> Result<(), Broken> {
        let turn = gate.turn().await;
        let part = self.ranged.then(|| GetRange::Bounded(range.clone()));
        let options = GetOptions { range: part, ..GetOptions::default() };
        let answer = self.store.get_opts(&self.key, options).await.map_err(|error| {
            let no_ranges = NO_RANGES.iter().any(|words| says(&error, words));
            if no_ranges { Broken::NoRanges } else { Broken::Store(error) }
        })?;
        if answer.meta.size != self.partial.size() {
            return Err(Broken::Size(answer.meta.size));
        }
        let mut stream = answer.into_stream();
        let (mut at, mut marked) = (range.start, range.start);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| match marked > range.start {
                true => Broken::Off(marked..range.end, error),
                false => Broken::Store(error),
            })?;
            if at + bytes.len() as u64 > range.end {
                return Err(Error::new("the store sent more than it was asked for").into());
            }
            self.partial.write_at(&bytes, at)?;
            at += bytes.len() as u64;
            // Only whole blocks count.
            let whole = if at == range.end { at } else { at / BLOCK * BLOCK };
            if whole > marked {
                self.partial.mark(marked..whole)?;
                // The one that waits for it may be gone already.
                self.came.send(whole - marked).ok();
                marked = whole;
            }
        }
        if at != range.end {
            return Err(Error::new("the store sent less than it was asked for").into());
        }
        turn.done(range.end - range.start);
        Ok(())
    }
}

/// Keeps the device busy from the start, so that the sync at the end finds little left to do.
#[derive(Default)]
struct Device {
    since_writeback: u64,
    since_checkpoint: u64,
    running: Option<JoinHandle<()>>,
}

impl Device {
    /// Waits for what it was told.
    async fn rest(&mut self) {
        if let Some(running) = self.running.take() {
            // Its failures are noted with the file.
            drop(running.await);
        }
    }

    fn wrote(&mut self, partial: &Arc<Partial>, bytes: u64) {
        self.since_writeback += bytes;
        self.since_checkpoint += bytes;
        if self.since_writeback < WRITEBACK_STEP
            || self.running.as_ref().is_some_and(|run| !run.is_finished())
        {
            return;
        }
        self.since_writeback = 0;
        let checkpoint = self.since_checkpoint >= CHECKPOINT_STEP;
        if checkpoint {
            self.since_checkpoint = 0;
        }
        let partial = Arc::clone(partial);
        self.running = Some(tokio::task::spawn_blocking(move || {
            partial.start_writeback();
            if checkpoint {
                // A failure is noted with the file, and ends the fetch.
                drop(partial.checkpoint());
            }
        }));
    }
}
