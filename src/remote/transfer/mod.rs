//! Moving objects: many at once, in constant memory, every byte checked on its way.
//!
//! An object of some size moves in parts, several at once; one that was interrupted goes on where it was.

mod download;
mod pace;
mod record;
mod upload;
mod wire;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::{Remote, until};
use crate::error::{Error, Result};
use crate::fsio::Partial;
use crate::human;
use crate::id::Digest;
use crate::progress::Step;
use pace::{Ahead, Gate};

pub use wire::Traffic;
pub(super) use wire::{Client, REQUESTS};

const MIB: u64 = 1024 * 1024;
/// The smallest part; larger ones only where a store's limit of 10,000 parts asks for them.
const PART: u64 = 16 * MIB;
/// Parts on their way to a store at once to begin with.
const SENT_TO_BEGIN: usize = 2;
/// Parts on their way from it. More, for a kill costs only those of their blocks that were not full.
const FETCHED_TO_BEGIN: usize = 4;
/// What is on its way to a store when the link breaks is sent again, so this many times as much must be there before more goes
/// at once: then at most two parts, or a quarter of what a run sent, are lost.
const SENT_BEFORE_MORE: usize = 8;
/// Parts on their way at once at most.
const PARTS_AT_ONCE: usize = 16;
/// Parts that are read before their turn, at most: as many as half of the cores can hash.
const READ_AHEAD: usize = 4;
/// Bytes of all parts and small objects in memory at once.
const BUDGET: u64 = 128 * MIB;
/// The unit in which the memory for what is sent is counted.
const GRAIN: u64 = 64 * 1024;
/// Objects at once with a folder.
const FOLDER_JOBS: usize = 16;
/// Large objects at once with a bucket.
const LARGE_AT_ONCE: usize = PARTS_AT_ONCE;
/// Larger objects count as parts: what is on its way of them is worth something.
const SMALL: u64 = MIB;
/// Threads that read and hash small objects.
const SENDING_THREADS: usize = 8;
/// Threads that write small objects. More: a file system takes syncs of many together.
const FETCHING_THREADS: usize = 32;

/// An object to send.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The path that it belongs to, for messages.
    pub path: String,
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The local file that holds it; its bytes are checked while they are read.
    pub file: PathBuf,
    /// Whether the store has an object of this name with other bytes. That one does not count as sent, whatever its size.
    pub replaces: bool,
}

/// An object to fetch.
#[derive(Clone, Debug)]
pub struct Download {
    /// The path that needs it, for messages.
    pub path: String,
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether it must have exactly that many; else it has at most that many.
    pub exact: bool,
}

impl Upload {
    /// Whether it counts as a part, or is several.
    fn is_large(&self) -> bool {
        self.size > SMALL
    }
}

impl Download {
    /// Whether it counts as a part, or is several. What may be smaller than it says does not.
    fn is_large(&self) -> bool {
        self.exact && self.size > SMALL
    }
}

/// Takes in the bytes of one fetched object.
pub trait Receive {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// The place for its pieces in any order, which an interrupted run leaves behind. `None` where bytes must come in order.
    fn in_pieces(&mut self) -> Result<Option<Arc<Partial>>> {
        Ok(None)
    }
    /// Checks that all bytes came and are right, and keeps the object. An error that no I/O caused says that they are wrong.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What all transfers with one store share.
pub(super) struct Engine {
    traffic: Traffic,
    /// Objects at once.
    jobs: usize,
    /// Parts, and objects that count as one, at once on their way to the store.
    sending: Arc<Gate>,
    /// Parts that are read before their turn.
    ahead: Semaphore,
    /// And on their way from it.
    fetching: Arc<Gate>,
    /// Small objects on their way to the store.
    small: Ahead,
    /// Memory for what is sent, in grains.
    memory: Arc<Semaphore>,
    is_folder: bool,
}

impl Engine {
    pub(super) fn new(traffic: &Traffic, is_folder: bool) -> Engine {
        let jobs = if is_folder { traffic.jobs().unwrap_or(FOLDER_JOBS) } else { traffic.most_requests() };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        // At a rate that is limited, a second's worth is enough.
        let enough = traffic.limit_rate().map_or(PARTS_AT_ONCE, |rate| (rate / PART) as usize);
        let most = enough.clamp(SENT_TO_BEGIN, PARTS_AT_ONCE).min(jobs);
        Engine {
            traffic: traffic.clone(),
            jobs,
            sending: Gate::new(SENT_TO_BEGIN, most, SENT_BEFORE_MORE),
            ahead: Semaphore::new((cores / 2).clamp(1, READ_AHEAD)),
            fetching: Gate::new(FETCHED_TO_BEGIN, most, 0),
            small: Ahead::new(),
            memory: Arc::new(Semaphore::new((BUDGET / GRAIN) as usize)),
            is_folder,
        }
    }

    /// Whether the store is a folder.
    pub(super) fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// What so many bytes take of the memory for transfers.
    fn weight(bytes: u64) -> u32 {
        bytes.div_ceil(GRAIN).clamp(1, BUDGET / GRAIN) as u32
    }
}

/// The size of each part but the last: equal, at least 16 MiB, and few enough for every store.
pub(super) fn part_size(size: u64) -> u64 {
    size.div_ceil(9_000).div_ceil(MIB).saturating_mul(MIB).max(PART)
}

/// Why one object did not move.
enum Failure {
    /// Something is wrong with this object alone; others can go on.
    Object(Error),
    /// Nothing more can be done.
    All(Error),
}

impl Failure {
    /// Why the bytes of an object were not taken: a device that fails does so for all of them, and says nothing of the store.
    fn of_sink(download: &Download, error: Error) -> Failure {
        let is_of_io = error.is_of_io();
        let error = error.about(human::escape(&download.path));
        if is_of_io { Failure::All(error) } else { Failure::Object(error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::All(error)
    }
}

impl Remote {
    /// Sends objects and returns once the store itself confirmed every one. Returns those whose local file is damaged, and
    /// that were not sent. The directory `records` keeps what a later run needs to go on with parts.
    pub fn upload(
        &self,
        uploads: &[Upload],
        records: &Path,
        step: &dyn Step,
    ) -> Result<Vec<(Digest, Error)>> {
        self.end_old_uploads(records)?;
        let failed = self.in_parallel(uploads, Upload::is_large, SENDING_THREADS, async |upload| {
            self.send(upload, records, step).await?;
            step.finish_one();
            Ok(())
        })?;
        let not_sent: Vec<&Digest> = failed.iter().map(|(at, _)| &uploads[*at].digest).collect();
        let sent: Vec<&Upload> =
            uploads.iter().filter(|upload| !not_sent.contains(&&upload.digest)).collect();
        self.confirm(&sent)?;
        Ok(failed.into_iter().map(|(at, error)| (uploads[at].digest, error)).collect())
    }

    /// Fetches objects; `receive` makes the place where one arrives. Returns those that the store does not have, or has with
    /// wrong bytes.
    pub fn download<'r>(
        &self,
        downloads: &[Download],
        receive: &(dyn Fn(&Download) -> Result<Box<dyn Receive + 'r>> + Sync),
        step: &dyn Step,
    ) -> Result<Vec<(Digest, Error)>> {
        let failed = self.in_parallel(downloads, Download::is_large, FETCHING_THREADS, async |download| {
            let mut sink = receive(download)?;
            self.get(download, sink.as_mut(), step).await?;
            sink.finish().map_err(|error| match Failure::of_sink(download, error) {
                Failure::Object(error) => Failure::Object(error.hint(
                    "the store holds other bytes under this name; a clone that has it can mend that: git model push --repair",
                )),
                all => all,
            })?;
            step.finish_one();
            Ok(())
        })?;
        Ok(failed.into_iter().map(|(at, error)| (downloads[at].digest, error)).collect())
    }

    /// Runs `work` on every item: large ones on a thread each, small ones many to each of a few threads. Returns the items that
    /// failed by themselves; any other error stops all.
    fn in_parallel<'i, T: Sync, W: Future<Output = Result<(), Failure>>>(
        &self,
        items: &'i [T],
        is_large: impl Fn(&T) -> bool,
        threads_for_small: usize,
        work: impl Fn(&'i T) -> W + Sync,
    ) -> Result<Vec<(usize, Error)>> {
        let stop = AtomicBool::new(false);
        let fatal: Mutex<Option<Error>> = Mutex::new(None);
        let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
        let stop_for = |error| {
            stop.store(true, Ordering::Relaxed);
            fatal.lock().expect("no thread panicked").get_or_insert(error);
        };
        let run = |lane: &Lane| {
            let (failed, stop_for) = (&failed, &stop_for);
            let left = std::iter::from_fn(|| if stop.load(Ordering::Relaxed) { None } else { lane.next() });
            let work = |at: usize| work(&items[at]).map(move |done| (at, done));
            let mut outcomes = futures::stream::iter(left).map(work).buffer_unordered(lane.at_once);
            let stopped = until(|| stop.load(Ordering::Relaxed));
            let all = self.wait(async move {
                let mut stopped = pin!(stopped);
                // Once nothing more can be done, what is on its way is given up: at a store that does not answer it would last.
                while let Either::Left((Some((at, outcome)), _)) =
                    select(outcomes.next(), stopped.as_mut()).await
                {
                    match outcome {
                        Ok(()) => {}
                        Err(Failure::Object(error)) => {
                            failed.lock().expect("no thread panicked").push((at, error));
                        }
                        Err(Failure::All(error)) => stop_for(error),
                    }
                }
                Ok(())
            });
            all.unwrap_or_else(stop_for);
        };
        let Engine { jobs, is_folder, .. } = self.engine;
        let (large, small) = (0..items.len()).partition(|at| is_folder || is_large(&items[*at]));
        let large_at_once = if is_folder { jobs } else { jobs.min(LARGE_AT_ONCE) };
        let lanes = [
            Lane::one_to_a_thread(large, large_at_once),
            Lane::many_to_a_thread(small, jobs, threads_for_small),
        ];
        std::thread::scope(|scope| {
            for lane in &lanes {
                for _ in 0..lane.threads {
                    scope.spawn(|| run(lane));
                }
            }
        });
        match fatal.into_inner().expect("no thread panicked") {
            Some(error) => Err(error),
            None => {
                let mut failed = failed.into_inner().expect("no thread panicked");
                failed.sort_by_key(|(at, _)| *at);
                Ok(failed)
            }
        }
    }
}

/// Items that are worked on in the same way, in order.
struct Lane {
    items: Vec<usize>,
    taken: AtomicUsize,
    threads: usize,
    /// Items at once on each thread.
    at_once: usize,
}

impl Lane {
    /// For what keeps a thread busy with hashing, or with the file system.
    fn one_to_a_thread(items: Vec<usize>, at_once: usize) -> Lane {
        let threads = at_once.min(items.len());
        Lane { items, taken: AtomicUsize::new(0), threads, at_once: 1 }
    }

    /// For what waits for the store most of its time.
    fn many_to_a_thread(items: Vec<usize>, at_once: usize, threads: usize) -> Lane {
        let at_once = at_once.min(items.len());
        let threads = threads.min(at_once);
        Lane { items, taken: AtomicUsize::new(0), threads, at_once: at_once.div_ceil(threads.max(1)) }
    }

    fn next(&self) -> Option<usize> {
        self.items.get(self.taken.fetch_add(1, Ordering::Relaxed)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_objects_are_begun_than_may_be_asked_for() {
        let jobs = |jobs, rate| Engine::new(&Traffic::new(jobs, rate), false).jobs;
        // 64 KiB a second each.
        assert_eq!(jobs(None, Some(200 * 1024)), 3);
        assert_eq!(jobs(None, None), REQUESTS);
        assert_eq!(jobs(Some(5), Some(100 * MIB)), 5);
    }

    #[test]
    fn parts_are_equal_and_few_enough() {
        for size in [1, 16 * MIB, 17 * MIB, 1 << 30, 100 << 30, 5 << 40, 40 << 40] {
            let part = part_size(size);
            assert!(part >= 5 * MIB && part.is_multiple_of(MIB) && part <= 5 << 30, "{size}");
            assert!(size.div_ceil(part) <= 9_000, "{size}");
        }
    }
}
