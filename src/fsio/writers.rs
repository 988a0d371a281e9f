//! Who else has a file open.

use std::fs::File;

/// Whether some process may write to a file without opening it first: it has the file open for writing, or mapped.
///
/// Stores through a mapping change a page that is dirty already without changing the file's times, so an equal stat proves
/// nothing as long as there is such a process. Whoever opens the file later changes its times with the first store.
///
/// The kernel grants a read lease (`fcntl(2)`) only on a file that nobody has open for writing. Where it grants none to
/// anybody (network file systems, files of other users), dirty pages are written out instead, after which the next store to
/// each shows.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "leases have no safe wrapper; fcntl takes a live descriptor and plain integers here"
)]
pub fn is_open_for_writing(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    // Of `asm-generic/fcntl.h`; the libc crate does not have it.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_raw_fd();
    // Who opens the file meanwhile waits until the lease is given back, and the holder is sent a signal: one that is ignored
    // unless asked for, in place of SIGIO, which would end this process.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    };
    if leased {
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return false;
    }
    if std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
        return true;
    }
    file.sync_data().is_err()
}

/// Writes dirty pages out, after which the next store to each shows in the file's times.
#[cfg(not(target_os = "linux"))]
pub fn is_open_for_writing(file: &File) -> bool {
    file.sync_data().is_err()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_writer_is_seen_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"x").unwrap();
        let reader = File::open(&path).unwrap();
        if cfg!(target_os = "linux") {
            assert!(is_open_for_writing(&reader));
        }
        drop(writer);
        assert!(!is_open_for_writing(&reader));
        // The lease was given back: nobody waits.
        File::options().append(true).open(&path).unwrap().write_all(b"y").unwrap();
        assert!(!is_open_for_writing(&reader));
    }
}
