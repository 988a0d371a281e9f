//! A file as the body of a request: read in pieces on a thread of its own, checked against its digest before the last piece is sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::stream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::Blob;
use crate::id::{Digest, Hasher};
use crate::remote::moved::Moved;

/// Bytes per read.
const CHUNK: usize = 1024 * 1024;
/// Pieces that wait to be sent; bounds the memory of one upload.
const IN_FLIGHT: usize = 4;
/// An upload that moves nothing for so long is given up. A registry may work on the end of a large blob for a while.
const STALLED: Duration = Duration::from_secs(300);

/// What is known about a body on its way.
#[derive(Clone)]
pub(super) struct Watch {
    sent: Arc<AtomicU64>,
    moved: Arc<Moved>,
    damaged: Arc<AtomicBool>,
}

impl Watch {
    fn new() -> Watch {
        Watch { sent: Arc::default(), moved: Arc::new(Moved::new()), damaged: Arc::default() }
    }

    fn sent_more(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.moved.now();
    }

    /// Whether the file's bytes were not what its digest says; then not all of them were sent.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Bytes that were taken by the connection.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends when nothing moved for a long while.
    pub(super) async fn stalled(&self) {
        self.moved.stalled(STALLED).await;
    }
}

/// The body of an upload, and what can be known about it meanwhile. `on_sent` is told of bytes on their way.
pub(super) fn body(
    runtime: &Runtime,
    blob: &Blob,
    on_sent: Arc<dyn Fn(u64) + Send + Sync>,
) -> (reqwest::Body, Watch) {
    let watch = Watch::new();
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(IN_FLIGHT);
    let (path, digest, size, seen) = (blob.path.clone(), blob.digest, blob.size, watch.clone());
    runtime.spawn_blocking(move || {
        if let Err(error) = read(&path, &digest, size, &sender, &seen) {
            // Whoever no longer listens knows already that it failed.
            drop(sender.blocking_send(Err(error)));
        }
    });
    let taken = watch.clone();
    let pieces = stream::unfold((receiver, taken, on_sent), |(mut receiver, taken, on_sent)| async move {
        let piece = receiver.recv().await?;
        if let Ok(bytes) = &piece {
            taken.sent_more(bytes.len() as u64);
            on_sent(bytes.len() as u64);
        }
        Some((piece, (receiver, taken, on_sent)))
    });
    (reqwest::Body::wrap_stream(pieces), watch)
}

fn read(
    path: &PathBuf,
    digest: &Digest,
    size: u64,
    sender: &mpsc::Sender<io::Result<Vec<u8>>>,
    watch: &Watch,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let (mut hasher, mut seen, mut held) = (Hasher::default(), 0, Vec::new());
    loop {
        let mut piece = Vec::with_capacity(CHUNK);
        (&mut file).take(CHUNK as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        seen += piece.len() as u64;
        if !held.is_empty() && sender.blocking_send(Ok(std::mem::take(&mut held))).is_err() {
            return Ok(());
        }
        held = piece;
    }
    if seen != size || hasher.finish() != *digest {
        watch.damaged.store(true, Ordering::Relaxed);
        return Err(io::Error::other("its content is damaged"));
    }
    if !held.is_empty() {
        drop(sender.blocking_send(Ok(held)));
    }
    Ok(())
}
