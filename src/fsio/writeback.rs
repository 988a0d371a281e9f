//! When what is written reaches the device, and how long it stays in memory.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering};

/// When bytes go to the device, and whether memory keeps a copy of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// When the kernel likes.
    Later,
    /// At once, so that a sync finds little left to do.
    Soon,
    /// At once, and then they leave memory: for copies that nobody reads soon, beside a file that somebody does. Where the
    /// system cannot do that, as [`Writing::Soon`].
    Through,
    /// As [`Writing::Through`] as long as the device keeps up, and else as [`Writing::Later`] as long as memory does.
    Fastest,
}

/// Writes all bytes at the file's position.
///
/// Memory that a copy does not need would else be taken from what the system caches for others; and on a virtual machine
/// every fresh page is paid for.
pub(super) fn write_all(mut file: &File, bytes: &[u8], writing: Writing) -> io::Result<()> {
    match writing {
        Writing::Through | Writing::Fastest => file.write_all(write_through(file, bytes)?),
        Writing::Later | Writing::Soon => file.write_all(bytes),
    }
}

/// Returns what is left, for a system that cannot write through.
#[cfg(target_os = "linux")]
fn write_through<'b>(file: &File, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
    use rustix::io::{Errno, pwritev2};

    const AT_POSITION: u64 = u64::MAX;
    let mut left = bytes;
    while !left.is_empty() && can_go_through() {
        match pwritev2(file, &[io::IoSlice::new(left)], AT_POSITION, flags()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => cannot_go_through(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(left)
}

#[cfg(not(target_os = "linux"))]
fn write_through<'b>(_file: &File, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
    Ok(bytes)
}

/// Reads exactly so many bytes at a position, once: memory keeps nothing of them that it did not have.
pub fn read_exact_through(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    #[cfg(target_os = "linux")]
    while filled < buffer.len() && can_go_through() {
        use rustix::io::{Errno, preadv2};
        let rest = &mut [io::IoSliceMut::new(&mut buffer[filled..])];
        match preadv2(file, rest, offset + filled as u64, flags()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => cannot_go_through(),
            Err(error) => return Err(error.into()),
        }
    }
    file.read_exact_at(&mut buffer[filled..], offset + filled as u64)
}

#[cfg(target_os = "linux")]
static POSSIBLE: AtomicBool = AtomicBool::new(true);

#[cfg(target_os = "linux")]
fn can_go_through() -> bool {
    POSSIBLE.load(Ordering::Relaxed) && is_recent()
}

/// This kernel, or this file system.
#[cfg(target_os = "linux")]
fn cannot_go_through() {
    POSSIBLE.store(false, Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
fn flags() -> rustix::io::ReadWriteFlags {
    rustix::io::ReadWriteFlags::from_bits_retain(libc::RWF_DONTCACHE as u32)
}

/// Whether the kernel is of a release in which uncached writes have settled: they came with Linux 6.14, and their first
/// releases could drop a page that was dirty again.
#[cfg(target_os = "linux")]
fn is_recent() -> bool {
    static RECENT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *RECENT.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map_while(|word| word.trim().parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 17)
    })
}

/// Lets go of what memory keeps of these bytes of a file, as far as the device has them.
pub(super) fn forget(file: &File, start: u64, length: u64) {
    #[cfg(target_os = "linux")]
    if let Some(length) = std::num::NonZeroU64::new(length) {
        // Only a hint.
        rustix::fs::fadvise(file, start, Some(length), rustix::fs::Advice::DontNeed).ok();
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = (file, start, length);
}

/// Asks the kernel to start writing a file's dirty pages, and does not wait.
///
/// A later sync then waits for a device that is already busy, instead of starting it.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "sync_file_range has no safe wrapper; it takes a live descriptor and plain integers"
)]
pub fn start_writeback(file: &File) {
    use std::os::fd::AsRawFd;
    // Only a hint: if it fails, the sync that follows does the same work.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Does nothing where the system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn start_writeback(_file: &File) {}
