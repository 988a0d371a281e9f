//! Sending one object: at once, or a large one in parts, of which a later run sends only what the store does not have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{Either, select};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::task::{JoinError, JoinSet};

use super::record::{self, Record, SentPart};
use super::{Engine, Failure, PART, Upload, part_size};
use crate::error::{Context, Error, Result};
use crate::fsio;
use crate::human;
use crate::id::{Digest, Hasher};
use crate::progress::Step;
use crate::remote::connect::REPEATED_FOR;
use crate::remote::{Remote, explain, layout};

/// Larger objects are sent in parts.
const PARTS_FROM: u64 = PART;
/// Parts of one object on their way into a folder: one is written while the next is read.
const STREAM_AHEAD: usize = 4;

/// Why an upload in parts was not finished.
enum Stopped {
    Failure(Failure),
    /// The store does not know the upload, or one of its parts, any more.
    Gone(Error),
    /// The store will not make an object of the parts.
    Refused(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Failure(Failure::All(error))
    }
}

/// An upload in parts on its way.
struct Sending<'a> {
    upload: &'a Upload,
    store: Arc<dyn MultipartStore>,
    key: Path,
    id: String,
    part_size: u64,
    step: &'a dyn Step,
}

impl Sending<'_> {
    /// Ends the upload, if there is one. The store may have ended it already, or a rule of the bucket will.
    async fn abort(&self) {
        // Without an id it would be the object that some servers delete.
        if !self.id.is_empty() {
            drop(self.store.abort_multipart(&self.key, &self.id).await);
        }
    }
}

impl Remote {
    pub(super) async fn send(
        &self,
        upload: &Upload,
        records: &FilePath,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let source = File::open(&upload.file).context(&upload.file, "open")?;
        let key = layout::object_key(&self.url, &upload.digest)?;
        if upload.size > PARTS_FROM {
            return match &self.multipart {
                Some(store) => self.send_parts(upload, &source, key, store, records, step).await,
                None => self.send_stream(upload, &source, &key, step).await,
            };
        }
        let counts_as_part = upload.is_large() && !self.engine.is_folder;
        // In the order of parts: those that wait for their turn have their memory.
        let ahead = match counts_as_part {
            true => Some(self.engine.ahead.acquire().await.expect("never closed")),
            false => None,
        };
        let small = match upload.is_large() || self.engine.is_folder {
            true => None,
            false => Some(self.engine.small.room_for(upload.size).await),
        };
        let memory = self.engine.memory.acquire_many(Engine::weight(upload.size));
        let _held = memory.await.expect("never closed");
        let mut bytes = Vec::with_capacity(upload.size as usize);
        source.take(PARTS_FROM + 1).read_to_end(&mut bytes).context(&upload.file, "read")?;
        if Digest::of(&bytes) != upload.digest {
            return Err(damaged(upload));
        }
        if self.engine.is_folder {
            self.engine.traffic.wait_for(bytes.len()).await;
        }
        let turn = if counts_as_part { Some(self.engine.sending.turn().await) } else { None };
        drop(ahead);
        let put = self.store.put(&key, PutPayload::from(bytes)).await;
        put.map_err(|error| self.not_written(&error))?;
        if let Some(turn) = turn {
            turn.done(upload.size);
        }
        if small.is_some() {
            self.engine.small.done(upload.size);
        }
        step.advance(upload.size);
        Ok(())
    }

    fn not_written(&self, error: &object_store::Error) -> Error {
        self.failed("cannot be written to", error)
    }

    /// Sends a large object to a store that has no parts: a folder, where they are written one after the other.
    async fn send_stream(
        &self,
        upload: &Upload,
        source: &File,
        key: &Path,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let cannot = |error: object_store::Error| self.not_written(&error);
        let mut target = self.store.put_multipart(key).await.map_err(cannot)?;
        let mut reader = Reader::new(upload, part_size(upload.size));
        let sent: Result<(), Failure> = async {
            let mut parts = JoinSet::new();
            loop {
                self.interrupt.check()?;
                let memory = Arc::clone(&self.engine.memory);
                let held = memory.acquire_many_owned(Engine::weight(reader.part_size)).await;
                let held = held.expect("never closed");
                let Some((_, bytes)) = reader.next(source)? else { break };
                let length = bytes.len();
                self.engine.traffic.wait_for(length).await;
                let part = target.put_part(PutPayload::from(bytes));
                parts.spawn(async move {
                    let sent = part.await;
                    drop(held);
                    sent.map(|()| length as u64)
                });
                while parts.len() >= STREAM_AHEAD
                    && let Some(done) = parts.join_next().await
                {
                    step.advance(done.map_err(object_store::Error::from).flatten().map_err(cannot)?);
                }
            }
            while let Some(done) = parts.join_next().await {
                step.advance(done.map_err(object_store::Error::from).flatten().map_err(cannot)?);
            }
            reader.finish(source)?;
            target.complete().await.map_err(cannot)?;
            Ok(())
        }
        .await;
        if sent.is_err() {
            // What was sent stays invisible.
            drop(target.abort().await);
        }
        sent
    }

    async fn send_parts(
        &self,
        upload: &Upload,
        source: &File,
        key: Path,
        store: &Arc<dyn MultipartStore>,
        records: &FilePath,
        step: &dyn Step,
    ) -> Result<(), Failure> {
        let part_size = part_size(upload.size);
        let mut record = Record::open(records, upload, key.as_ref(), part_size)?;
        let known = record.upload().map(str::to_owned);
        let mut sending =
            Sending { upload, store: Arc::clone(store), key, id: String::new(), part_size, step };
        let mut sent = match known {
            Some(id) => {
                sending.id = id;
                // Another version of git-model, or other settings, may have begun it.
                self.send_upload(&sending, source, &mut record).await.map_err(|stopped| match stopped {
                    Stopped::Refused(error) => Stopped::Gone(error),
                    stopped => stopped,
                })
            }
            None => self.send_new(&mut sending, source, &mut record).await,
        };
        if let Err(Stopped::Gone(_)) = sent {
            // Some servers end an upload when another one of the same key completes. Then the object is there.
            if self.came_by_itself(upload).await {
                sent = Ok(());
            } else {
                // Its record is about to be another's, and some of its parts may be there still.
                sending.abort().await;
                sent = self.send_new(&mut sending, source, &mut record).await;
            }
        }
        let failure = match sent {
            Ok(()) => {
                record.remove();
                return Ok(());
            }
            Err(Stopped::Failure(failure)) => failure,
            Err(Stopped::Gone(error) | Stopped::Refused(error)) => Failure::All(error),
        };
        // What another run can go on with stays. What stays invisible is ended; if that fails, too, the bucket's rule for
        // unfinished uploads does it.
        if record.is_spare() || matches!(failure, Failure::Object(_)) {
            sending.abort().await;
            record.remove();
        }
        if self.came_by_itself(upload).await { Ok(()) } else { Err(failure) }
    }

    /// Whether somebody else sent the object meanwhile. One that was there before, and wrong, does not tell.
    async fn came_by_itself(&self, upload: &Upload) -> bool {
        !upload.replaces && self.head(&upload.digest).await.is_ok_and(|size| size == Some(upload.size))
    }

    async fn send_new(
        &self,
        sending: &mut Sending<'_>,
        source: &File,
        record: &mut Record,
    ) -> Result<(), Stopped> {
        let created = sending.store.create_multipart(&sending.key).await;
        sending.id = created.map_err(|error| self.not_written(&error))?;
        record.begin(sending.key.as_ref(), &sending.id, sending.part_size)?;
        self.send_upload(sending, source, record).await
    }

    /// Sends the parts that the store does not have, and completes the upload once the whole content was seen to be right.
    async fn send_upload(
        &self,
        sending: &Sending<'_>,
        source: &File,
        record: &mut Record,
    ) -> Result<(), Stopped> {
        let mut reader = Reader::new(sending.upload, sending.part_size);
        let mut ids: BTreeMap<u64, String> = BTreeMap::new();
        let mut parts = JoinSet::new();
        loop {
            self.interrupt.check()?;
            // What is done while something is waited for is noted at once: a kill must not cost it.
            let mut note = |done| self.part_done(sending, done, record, &mut ids);
            // A part is read and hashed before its turn comes, or the link would rest meanwhile; but few of all objects' parts are:
            // those that wait leave the memory to small objects. A part on its way gives everything back by itself, so waiting
            // here cannot block anybody.
            let ahead = meanwhile(&mut parts, &mut note, self.engine.ahead.acquire());
            let ahead = ahead.await?.expect("never closed");
            let memory = Arc::clone(&self.engine.memory);
            let held = memory.acquire_many_owned(Engine::weight(sending.part_size));
            let held = meanwhile(&mut parts, &mut note, held).await?.expect("never closed");
            let Some((part, bytes)) = reader.next(source).map_err(Stopped::Failure)? else { break };
            let (length, until) = (bytes.len() as u64, reader.hasher.clone().finish());
            if let Some(sent) = record.sent(part, &until) {
                ids.insert(part, sent.id.clone());
                sending.step.advance(length);
                continue;
            }
            let mut note = |done| self.part_done(sending, done, record, &mut ids);
            let turn = meanwhile(&mut parts, &mut note, self.engine.sending.turn()).await?;
            drop(ahead);
            let (store, key, id) = (Arc::clone(&sending.store), sending.key.clone(), sending.id.clone());
            parts.spawn(async move {
                let (started, bytes) = (Instant::now(), PutPayload::from(bytes));
                let mut sent = store.put_part(&key, &id, part as usize, bytes.clone()).await;
                // On a slow link the part itself takes the time in which it would be sent again.
                let is_gone = sent.as_ref().is_err_and(explain::is_absent_object);
                if sent.is_err() && !is_gone && started.elapsed() > REPEATED_FOR {
                    sent = store.put_part(&key, &id, part as usize, bytes).await;
                }
                drop(held);
                if sent.is_ok() {
                    turn.done(length);
                }
                sent.map(|sent| (length, SentPart { part, id: sent.content_id, until }))
            });
        }
        while let Some(done) = parts.join_next().await {
            self.part_done(sending, done, record, &mut ids)?;
        }
        reader.finish(source).map_err(Stopped::Failure)?;
        let ids = ids.into_values().map(|content_id| PartId { content_id }).collect();
        let completed = sending.store.complete_multipart(&sending.key, &sending.id, ids).await;
        completed.map(drop).map_err(|error| {
            let is_refused = explain::says(&error, "status code: 400") && !explain::is_expired(&error);
            match is_refused {
                true => Stopped::Refused(self.not_written(&error)),
                false => self.stopped(&error),
            }
        })
    }

    fn part_done(
        &self,
        sending: &Sending<'_>,
        done: Result<object_store::Result<(u64, SentPart)>, JoinError>,
        record: &mut Record,
        ids: &mut BTreeMap<u64, String>,
    ) -> Result<(), Stopped> {
        let sent = done.map_err(object_store::Error::from).and_then(|sent| sent);
        let (length, part) = sent.map_err(|error| self.stopped(&error))?;
        record.add(&part)?;
        ids.insert(part.part, part.id);
        sending.step.advance(length);
        Ok(())
    }

    fn stopped(&self, error: &object_store::Error) -> Stopped {
        let explained = self.not_written(error);
        match explain::is_absent_object(error) || explain::says(error, "InvalidPart") {
            true => Stopped::Gone(explained),
            false => explained.into(),
        }
    }

    /// Ends uploads that nobody went on with for a week.
    pub(super) fn end_old_uploads(&self, records: &FilePath) -> Result<()> {
        let Some(store) = &self.multipart else { return Ok(()) };
        let old = record::take_old(records);
        if old.is_empty() {
            return Ok(());
        }
        self.wait(async {
            for (key, id) in old {
                if let Ok(key) = Path::parse(key) {
                    // The store may have ended it already, or a rule of the bucket will.
                    drop(store.abort_multipart(&key, &id).await);
                }
            }
            Ok(())
        })
    }
}

/// Waits for something, and hands every part that is done by then to `note`.
async fn meanwhile<T: 'static, W>(
    parts: &mut JoinSet<T>,
    note: &mut impl FnMut(Result<T, JoinError>) -> Result<(), Stopped>,
    wait: impl Future<Output = W>,
) -> Result<W, Stopped> {
    let mut wait = pin!(wait);
    loop {
        // What is done comes first, however soon the wait is over.
        match select(pin!(next_done(parts)), wait.as_mut()).await {
            Either::Left((done, _)) => note(done)?,
            Either::Right((waited, _)) => return Ok(waited),
        }
    }
}

/// The next part that is done; waits for ever when none is on its way.
async fn next_done<T: 'static>(parts: &mut JoinSet<T>) -> Result<T, JoinError> {
    match parts.join_next().await {
        Some(done) => done,
        None => std::future::pending().await,
    }
}

/// Reads an object part by part, and hashes the whole on the way.
struct Reader<'a> {
    upload: &'a Upload,
    part_size: u64,
    part: u64,
    left: u64,
    hasher: Hasher,
}

impl<'a> Reader<'a> {
    fn new(upload: &'a Upload, part_size: u64) -> Reader<'a> {
        Reader { upload, part_size, part: 0, left: upload.size, hasher: Hasher::default() }
    }

    /// The next part, with its number.
    fn next(&mut self, source: &File) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let length = self.left.min(self.part_size);
        let mut bytes = vec![0; length as usize];
        let at = self.upload.size - self.left;
        fsio::read_exact_through(source, &mut bytes, at).map_err(|_| damaged(self.upload))?;
        self.hasher.update(&bytes);
        self.left -= length;
        self.part += 1;
        Ok(Some((self.part - 1, bytes)))
    }

    /// Whether the whole was what its name says.
    fn finish(&self, source: &File) -> Result<(), Failure> {
        let at_end = source.metadata().context(&self.upload.file, "read")?.len() == self.upload.size;
        if !at_end || self.hasher.clone().finish() != self.upload.digest {
            return Err(damaged(self.upload));
        }
        Ok(())
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
