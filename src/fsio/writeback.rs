//! The one system call that no safe crate offers.

use std::fs::File;

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
