//! Whether anything moves on a request: what ends one that hangs, however long a whole one may take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When something last moved on a request, in milliseconds since it began.
#[derive(Debug)]
pub(super) struct Moved {
    began: Instant,
    last: AtomicU64,
}

impl Moved {
    pub(super) fn new() -> Moved {
        Moved { began: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(super) fn now(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once nothing moved for so long.
    pub(super) async fn stalled(&self, patience: Duration) {
        loop {
            let until = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + patience;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}
