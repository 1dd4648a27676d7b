//! Which files of a context are sent, in which order.
//!
//! Reads directories, never a file's content. The order is that of the names' bytes, so that the same tree always
//! makes the same archive.

use std::ffi::OsString;
use std::fs::{self, FileType, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::ignore::Verdict;
use super::{Context, ContextError, HIDING, OURS};

/// One thing to send.
pub(super) struct Found {
    /// Relative to the context.
    pub(super) relative: PathBuf,
    /// On this machine.
    pub(super) path: PathBuf,
    /// Of the thing itself: links are not followed.
    pub(super) meta: Metadata,
}

/// A directory that is being read.
struct Level {
    /// Names still to come, in reverse order.
    names: Vec<OsString>,
    verdict: Verdict,
    relative: PathBuf,
    /// The directory is left out unless something in it is kept; then it is sent first, so that its mode is kept too.
    pending: Option<Found>,
}

/// Walks a context. Stops for good after an error.
pub(super) struct Walk<'a> {
    context: &'a Context,
    levels: Vec<Level>,
    /// Found and not handed out yet: directories that turned out to be needed, then what is in them.
    ready: std::collections::VecDeque<Found>,
    /// The root's error, to be handed out first.
    failed: Option<ContextError>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(context: &'a Context) -> Walk<'a> {
        let mut walk = Walk { context, levels: Vec::new(), ready: Default::default(), failed: None };
        let verdict = context.rules.root();
        walk.failed = walk.enter(PathBuf::new(), verdict, None).err();
        walk
    }

    fn enter(&mut self, relative: PathBuf, verdict: Verdict, pending: Option<Found>) -> Result<(), ContextError> {
        let path = self.context.root.join(&relative);
        let mut names = names(&path).map_err(|source| ContextError::Unreadable { path, source })?;
        names.sort_unstable_by(|one, other| other.cmp(one));
        self.levels.push(Level { names, verdict, relative, pending });
        Ok(())
    }

    /// Goes on to the next name.
    fn step(&mut self, name: &OsString) -> Result<(), ContextError> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let relative = level.relative.join(name);
        let path = self.context.root.join(&relative);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(source) => return Err(ContextError::Unreadable { path, source }),
        };
        if !is_sendable(meta.file_type()) || [OURS, HIDING].iter().any(|ours| relative == Path::new(ours)) {
            return Ok(());
        }
        let bytes = relative.as_os_str().as_bytes();
        let verdict = self.context.rules.judge(bytes, &level.verdict);
        let ignored = verdict.ignored;
        let is_directory = meta.is_dir();
        let look_inside = is_directory && (!ignored || self.context.rules.may_keep_below(bytes, &verdict));
        let found = Found { relative: relative.clone(), path, meta };
        if !ignored {
            self.send(found);
            if look_inside {
                self.enter(relative, verdict, None)?;
            }
        } else if look_inside {
            self.enter(relative, verdict, Some(found))?;
        }
        Ok(())
    }

    fn send(&mut self, found: Found) {
        let above = self.levels.iter_mut().filter_map(|level| level.pending.take());
        self.ready.extend(above);
        self.ready.push_back(found);
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Found, ContextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.levels.clear();
            return Some(Err(error));
        }
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(Ok(found));
            }
            let Some(name) = self.levels.last_mut()?.names.pop() else {
                self.levels.pop();
                continue;
            };
            if let Err(error) = self.step(&name) {
                self.levels.clear();
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }
}

fn names(directory: &Path) -> std::io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Files, directories and links. Sockets, pipes and devices mean nothing to a build.
fn is_sendable(kind: FileType) -> bool {
    !(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device())
}
