//! Moving objects: many at once, in constant memory, every byte checked on its way.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use object_store::{GetResultPayload, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::explain::is_absent_object;
use super::{Remote, layout};
use crate::error::{Context, Error, Result};
use crate::human;
use crate::id::{Digest, Hasher};
use crate::progress::Step;

const MIB: u64 = 1024 * 1024;
/// Larger objects are sent in parts.
const MULTIPART_FROM: u64 = 16 * MIB;
/// The smallest part; larger ones only where a store's limit of 10,000 parts asks for them.
const PART: u64 = 16 * MIB;
/// Parts of one object on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Bytes of all requests on their way at once.
const BUDGET_MIB: usize = 128;
/// Bytes per read from a folder store.
const CHUNK: usize = 1024 * 1024;

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

/// Takes in the bytes of one fetched object.
pub trait Receive {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Checks that all bytes came and are right, and keeps the object.
    fn finish(self: Box<Self>) -> Result<()>;
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

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::All(error)
    }
}

impl Remote {
    /// Sends objects and returns once the store itself confirmed every one. Returns those whose local file is damaged, and
    /// that were not sent.
    pub fn upload(&self, uploads: &[Upload], step: &dyn Step) -> Result<Vec<(Digest, Error)>> {
        let budget = Arc::new(Semaphore::new(BUDGET_MIB));
        let failed = self.in_parallel(uploads, |upload| {
            match self.wait(async { Ok(self.send(upload, &budget, step).await) })? {
                Ok(()) => step.finish_one(),
                Err(failure) => return Err(failure),
            }
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
        let failed = self.in_parallel(downloads, |download| {
            let mut sink = receive(download)?;
            self.wait(async { Ok(self.get(download, sink.as_mut(), step).await) })??;
            let shown = || human::escape(&download.path);
            sink.finish().map_err(|error| {
                Failure::Object(error.about(shown()).hint(
                    "the store holds other bytes under this name; a clone that has it can mend that: git model push --repair",
                ))
            })?;
            step.finish_one();
            Ok(())
        })?;
        Ok(failed.into_iter().map(|(at, error)| (downloads[at].digest, error)).collect())
    }

    /// Runs `work` on every item, on as many threads as there are jobs. Returns the items that failed by themselves; any
    /// other error stops all.
    fn in_parallel<T: Sync>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<(), Failure> + Sync,
    ) -> Result<Vec<(usize, Error)>> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let fatal: Mutex<Option<Error>> = Mutex::new(None);
        let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(items.len()) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(at) else { return };
                        match self.interrupt.check().map_err(Failure::All).and_then(|()| work(item)) {
                            Ok(()) => {}
                            Err(Failure::Object(error)) => {
                                failed.lock().expect("no thread panicked").push((at, error));
                            }
                            Err(Failure::All(error)) => {
                                stop.store(true, Ordering::Relaxed);
                                fatal.lock().expect("no thread panicked").get_or_insert(error);
                            }
                        }
                    }
                });
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

    async fn send(&self, upload: &Upload, budget: &Arc<Semaphore>, step: &dyn Step) -> Result<(), Failure> {
        let mut source = File::open(&upload.file).context(&upload.file, "open")?;
        if upload.size > MULTIPART_FROM {
            return self.send_parts(upload, &mut source, budget, step).await;
        }
        let weight = upload.size.div_ceil(MIB).max(1) as u32;
        let _held = budget.acquire_many(weight).await.expect("never closed");
        let mut bytes = Vec::with_capacity(upload.size as usize);
        source.take(MULTIPART_FROM + 1).read_to_end(&mut bytes).context(&upload.file, "read")?;
        if Digest::of(&bytes) != upload.digest {
            return Err(damaged(upload));
        }
        let key = layout::object_key(&self.url, &upload.digest)?;
        let put = self.store.put(&key, PutPayload::from(bytes)).await;
        put.map_err(|error| self.failed("cannot be written to", &error))?;
        step.advance(upload.size);
        Ok(())
    }

    async fn send_parts(
        &self,
        upload: &Upload,
        source: &mut File,
        budget: &Arc<Semaphore>,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let key = layout::object_key(&self.url, &upload.digest)?;
        let cannot = |error: object_store::Error| self.failed("cannot be written to", &error);
        let mut target = self.store.put_multipart(&key).await.map_err(cannot)?;
        let sent = match self.send_all_parts(upload, source, target.as_mut(), budget, step).await {
            Ok(()) => target.complete().await.map(drop).map_err(|error| Failure::All(cannot(error))),
            Err(failure) => {
                // What was sent stays invisible; if this fails too, the bucket's lifecycle rule removes it.
                drop(target.abort().await);
                Err(failure)
            }
        };
        match sent {
            // Some servers end an upload when another one of the same key completes. Then the object is there.
            Err(Failure::All(_))
                if self.head(&upload.digest).await.is_ok_and(|size| size == Some(upload.size)) =>
            {
                Ok(())
            }
            sent => sent,
        }
    }

    /// Sends all parts. An error means that the upload must not be completed.
    async fn send_all_parts(
        &self,
        upload: &Upload,
        source: &mut File,
        target: &mut dyn MultipartUpload,
        budget: &Arc<Semaphore>,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let part_size = part_size(upload.size);
        let weight = part_size.div_ceil(MIB).min(BUDGET_MIB as u64) as u32;
        let mut hasher = Hasher::default();
        let mut parts = JoinSet::new();
        let mut left = upload.size;
        while left > 0 {
            self.interrupt.check()?;
            if parts.len() >= PARTS_AT_ONCE {
                self.part_done(&mut parts, step).await?;
            }
            // A part gives its share of the budget back by itself, so waiting here cannot block anybody.
            let held = Arc::clone(budget).acquire_many_owned(weight).await.expect("never closed");
            let length = left.min(part_size);
            let mut bytes = vec![0; length as usize];
            source.read_exact(&mut bytes).map_err(|_| damaged(upload))?;
            hasher.update(&bytes);
            left -= length;
            let part = target.put_part(PutPayload::from(bytes));
            parts.spawn(async move {
                let sent = part.await.map(|()| length);
                drop(held);
                sent
            });
        }
        while !parts.is_empty() {
            self.part_done(&mut parts, step).await?;
        }
        let at_end = source.read(&mut [0]).context(&upload.file, "read")? == 0;
        if !at_end || hasher.finish() != upload.digest {
            return Err(damaged(upload));
        }
        Ok(())
    }

    async fn part_done(&self, parts: &mut JoinSet<object_store::Result<u64>>, step: &dyn Step) -> Result<()> {
        if let Some(done) = parts.join_next().await {
            let sent = done.map_err(object_store::Error::from).and_then(|part| part);
            step.advance(sent.map_err(|error| self.failed("cannot be written to", &error))?);
        }
        Ok(())
    }

    async fn get(&self, download: &Download, sink: &mut dyn Receive, step: &dyn Step) -> Result<(), Failure> {
        let key = layout::object_key(&self.url, &download.digest)?;
        let answer = match self.store.get(&key).await {
            Ok(answer) => answer,
            Err(error) if is_absent_object(&error) => return Err(Failure::Object(self.absent(download))),
            Err(error) => return Err(Failure::All(self.failed("cannot be read", &error))),
        };
        let mut take = |bytes: &[u8]| -> Result<(), Failure> {
            self.interrupt.check()?;
            sink.write(bytes).map_err(|error| Failure::Object(error.about(human::escape(&download.path))))?;
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
                        length => take(&buffer[..length])?,
                    }
                }
            }
            GetResultPayload::Stream(mut stream) => {
                while let Some(bytes) = stream.next().await {
                    take(&bytes.map_err(|error| self.failed("cannot be read", &error))?)?;
                }
                Ok(())
            }
        }
    }

    /// The error for an object that should be in the store and is not.
    fn absent(&self, download: &Download) -> Error {
        let (path, object) = (human::escape(&download.path), download.digest.short());
        Error::new(format!("{path}: its content is not in {} (object {object})", self.url))
            .hint("push it from a clone that has it: git model push")
    }
}

fn damaged(upload: &Upload) -> Failure {
    Failure::Object(
        Error::new(format!(
            "{}: its cached content is damaged ({}) and was not sent",
            human::escape(&upload.path),
            upload.file.display()
        ))
        .hint("git model verify moves damaged objects away; git model fetch brings them again if a store has them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_few_enough() {
        for size in [1, 16 * MIB, 17 * MIB, 1 << 30, 100 << 30, 5 << 40, 40 << 40] {
            let part = part_size(size);
            assert!(part >= 5 * MIB && part.is_multiple_of(MIB) && part <= 5 << 30, "{size}");
            assert!(size.div_ceil(part) <= 9_000, "{size}");
        }
    }
}
