//! Progress for people: a bar with rate and time left on a terminal, a line now and then elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::human;
use crate::progress::{Progress, Step};

/// Work that is done sooner is not worth a bar.
const DELAY: Duration = Duration::from_millis(300);
/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Draws bars.
pub(super) struct Bars;

struct Bar {
    bar: ProgressBar,
    counts_bytes: bool,
    started: Instant,
}

impl Progress for Bars {
    fn step(&self, title: &'static str, count: u64, bytes: u64) -> Box<dyn Step> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let counts_bytes = bytes > 0 || count == 0;
        let template = match (counts_bytes, bytes) {
            (true, 0) => "{msg} {binary_bytes} {binary_bytes_per_sec}",
            (true, _) => {
                "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
            }
            (false, _) => "{msg} [{wide_bar}] {pos}/{len} {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if counts_bytes && bytes > 0 {
            bar.set_length(bytes);
        } else if !counts_bytes {
            bar.set_length(count);
        }
        bar.set_message(title);
        Box::new(Bar { bar, counts_bytes, started: Instant::now() })
    }
}

impl Bar {
    fn add(&self, amount: u64) {
        if self.bar.is_hidden() && self.started.elapsed() > DELAY {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(amount);
    }
}

impl Step for Bar {
    fn advance(&self, bytes: u64) {
        if self.counts_bytes {
            self.add(bytes);
        }
    }

    fn finish_one(&self) {
        if !self.counts_bytes {
            self.add(1);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a line every ten seconds.
pub(super) struct Lines;

struct Line {
    title: &'static str,
    total: u64,
    done: AtomicU64,
    started: Instant,
    last: Mutex<Instant>,
}

impl Progress for Lines {
    fn step(&self, title: &'static str, _count: u64, bytes: u64) -> Box<dyn Step> {
        let now = Instant::now();
        Box::new(Line { title, total: bytes, done: AtomicU64::new(0), started: now, last: Mutex::new(now) })
    }
}

impl Step for Line {
    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Another thread that is just looking will do.
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.elapsed() < LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let rate = done as f64 / self.started.elapsed().as_secs_f64();
        let of_total = match self.total {
            0 => String::new(),
            total => format!(" of {}", human::bytes(total)),
        };
        super::Ui::new(false).say(format!(
            "{}: {}{of_total}, {}/s",
            self.title,
            human::bytes(done),
            human::bytes(rate as u64)
        ));
    }

    fn finish_one(&self) {}
}
