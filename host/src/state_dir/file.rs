//! How a state file is opened, replaced whole, and added to: what a crash leaves is the old content or the new one.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

/// Puts a file in another's place, whole or not at all, and waits until the disk has it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory)
}

/// Where a file is.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes what was made, renamed or removed in a directory outlast a crash.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What is in the place of a file that was to be opened.
#[derive(Debug, thiserror::Error)]
#[error("it is not a regular file")]
pub(super) struct NotAFile;

/// Opens a state file, and waits for nobody: what is in its place and is no file, such as a pipe that nobody writes to, is
/// an error.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match options.custom_flags(flags.bits().cast_signed()).open(path) {
        // What Linux says of a socket, and of a pipe that nobody reads (open(2)).
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => return Err(io::Error::other(NotAFile)),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(io::Error::other(NotAFile)),
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(NotAFile)),
    }
}

/// The end of a file of lines, at most so many bytes of it.
pub(super) fn read_end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path, OpenOptions::new().read(true))?;
    let cut = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(cut))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    // What the cut left of a line is none.
    let start =
        if cut == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1) };
    Ok(bytes.split_off(start))
}

/// Adds a line, and waits until the disk has it. Returns how long the file is then, in bytes.
pub(super) fn append(path: &Path, line: &str) -> io::Result<u64> {
    let is_new = !path.exists();
    let mut file = open(path, OpenOptions::new().create(true).append(true).read(true).mode(0o600))?;
    let mut last = *b"\n";
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, end)?;
    }
    let broken = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{broken}{line}\n").as_bytes())?;
    file.sync_all()?;
    if is_new {
        sync(directory_of(path))?;
    }
    Ok(file.metadata()?.len())
}
