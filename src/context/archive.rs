//! The tar stream of a context, made while it is read.
//!
//! Owner and group are root's and the order is fixed, so that an unchanged tree makes unchanged layers. Modes,
//! links and times of change are kept; engines leave times out of their cache keys, as Docker does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::walk::{Found, Walk};
use super::{Context, ContextError, HIDING, OURS};

/// The size of the pieces that are handed on; four may wait. This bounds the memory that a context takes, whatever its
/// size.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 4;

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Files, directories and links.
    pub entries: u64,
    /// The archive's size.
    pub bytes: u64,
}

/// An archive on its way.
pub struct Stream {
    /// The archive in pieces. An error ends it, so that nobody takes half a context for a whole one.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// What was sent, or why not all of it was.
    pub outcome: JoinHandle<Result<Sent, ContextError>>,
}

/// Starts to read a context on a thread of its own.
pub(super) fn stream(context: Context) -> Stream {
    let (sender, pieces) = mpsc::channel(WAITING);
    let outcome = tokio::task::spawn_blocking(move || {
        let mut pipe = Pipe { sender: sender.clone(), piece: Vec::with_capacity(PIECE), sent: 0 };
        let written = write(&context, &mut pipe).and_then(|entries| {
            pipe.flush().map_err(|_| ContextError::Refused)?;
            Ok(Sent { entries, bytes: pipe.sent })
        });
        if written.is_err() {
            // Nobody is left to hear it if the engine went away.
            let _ = sender.blocking_send(Err(io::Error::other("the build context is incomplete")));
        }
        written
    });
    Stream { pieces, outcome }
}

/// Writes the whole archive and tells the number of its entries.
fn write(context: &Context, out: &mut impl Write) -> Result<u64, ContextError> {
    let mut archive = Builder::new(out);
    let mut entries = 0;
    own(context, &mut archive)?;
    for found in Walk::new(context) {
        append(&mut archive, &found?)?;
        entries += 1;
    }
    archive.finish().map_err(|_| ContextError::Refused)?;
    Ok(entries)
}

/// What the engine gets from us beside the context: the Containerfile, and what hides both from the build.
fn own(context: &Context, archive: &mut Builder<&mut impl Write>) -> Result<(), ContextError> {
    let path = &context.containerfile;
    let containerfile =
        std::fs::read(path).map_err(|source| ContextError::Unreadable { path: path.clone(), source })?;
    let name = context.containerfile();
    let hiding = format!("{OURS}\n{HIDING}\n").into_bytes();
    for (name, content) in [(name, containerfile), (HIDING.to_owned(), hiding)] {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_slice()).map_err(|_| ContextError::Refused)?;
    }
    Ok(())
}

fn append(archive: &mut Builder<&mut impl Write>, found: &Found) -> Result<(), ContextError> {
    let mut header = header(found);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::BrokenPipe => ContextError::Refused,
        _ => ContextError::Archive { path: found.path.clone(), source },
    };
    let unreadable = |source| ContextError::Unreadable { path: found.path.clone(), source };
    if found.meta.is_symlink() {
        let target = std::fs::read_link(&found.path).map_err(unreadable)?;
        header.set_entry_type(EntryType::Symlink);
        return archive.append_link(&mut header, &found.relative, target).map_err(failed);
    }
    if found.meta.is_dir() {
        header.set_entry_type(EntryType::Directory);
        return archive.append_data(&mut header, found.relative.join(""), io::empty()).map_err(failed);
    }
    let file = open(&found.path).map_err(unreadable)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(found.meta.len());
    let mut exactly = Exactly { file, left: found.meta.len(), outcome: Ok(()) };
    let appended = archive.append_data(&mut header, &found.relative, &mut exactly);
    match exactly.outcome {
        Err(Unfit::Size) => Err(ContextError::Changed { path: found.path.clone() }),
        Err(Unfit::Read(source)) => Err(unreadable(source)),
        Ok(()) => appended.map_err(failed),
    }
}

/// Opens a file that the walk has seen. Should it have become a pipe since, opening it must not hang.
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file any more")) }
}

fn header(found: &Found) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(found.meta.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(found.meta.mtime()).unwrap_or_default());
    header.set_size(0);
    header
}

/// Reads as many bytes as the header has promised, neither fewer nor more: an archive cannot take a promise back.
struct Exactly {
    file: File,
    left: u64,
    outcome: Result<(), Unfit>,
}

enum Unfit {
    Size,
    Read(io::Error),
}

impl Exactly {
    fn fail(&mut self, unfit: Unfit) -> io::Result<usize> {
        self.outcome = Err(unfit);
        Err(io::Error::other("the file cannot be sent"))
    }
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.file.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return self.fail(Unfit::Read(error)),
        };
        match self.left.checked_sub(count as u64) {
            None => self.fail(Unfit::Size),
            Some(left) if count == 0 && left > 0 && !buffer.is_empty() => self.fail(Unfit::Size),
            Some(left) => {
                self.left = left;
                Ok(count)
            }
        }
    }
}

/// From a thread that writes to a task that sends.
struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    sent: u64,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sent += piece.len() as u64;
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests;
