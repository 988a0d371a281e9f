//! How operations tell what they are doing, without knowing about terminals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Receives the progress of one long-running step. Shared by all its threads.
pub trait Step: Send + Sync {
    /// `bytes` more bytes are done.
    fn advance(&self, bytes: u64);
    /// One more object or file is done.
    fn finish_one(&self);
}

/// Where operations report progress. `cli` has the only implementations that print.
pub trait Progress: Send + Sync {
    /// Starts a step over `count` things with `bytes` bytes in total. It ends when the value is dropped.
    fn step(&self, title: &'static str, count: u64, bytes: u64) -> Box<dyn Step>;
}

/// Reports nothing.
#[derive(Debug)]
pub struct Silent;

impl Step for Silent {
    fn advance(&self, _bytes: u64) {}
    fn finish_one(&self) {}
}

impl Progress for Silent {
    fn step(&self, _title: &'static str, _count: u64, _bytes: u64) -> Box<dyn Step> {
        Box::new(Silent)
    }
}

/// Set once by the signal handler; polled wherever work comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks all work to stop at the next safe point.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether work should stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// As [`Interrupt::check`], in the middle of reading or writing.
    pub fn check_io(&self) -> std::io::Result<()> {
        match self.is_raised() {
            true => Err(std::io::Error::other("interrupted")),
            false => Ok(()),
        }
    }

    /// An error when work should stop.
    pub fn check(&self) -> Result<()> {
        if self.is_raised() {
            return Err(
                Error::new("interrupted").hint("run the same command again to go on where it stopped")
            );
        }
        Ok(())
    }
}
