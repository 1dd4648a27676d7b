//! Opening a file at whose path there may be anything.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens what is at a path for reading, and waits for nobody: to open a FIFO that nobody writes to would wait for a
/// writer, without a word and for ever. What was opened is for the caller to look at.
///
/// # Errors
/// As open(2) has them; `ENXIO` of a socket.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}
