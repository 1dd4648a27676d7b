//! Waiting until whoever writes a plain request is done.
//!
//! A shell opens the file first and writes later, and it may be claimed in between.

use std::{io, os::fd::AsRawFd as _, time::Duration};

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};
use tagship_core::{handoff::dir::Opened, sys};

/// How long a writer is waited for. After that, what is there is judged.
const PATIENCE: Duration = Duration::from_secs(1);

/// Returns once nobody has the file open for writing, at most after a second.
///
/// A read lease tells, if the file is our own. For other users' files there is only the event of their closing it,
/// which may be past already: then the second passes.
pub(super) async fn done(opened: &Opened) {
    // Watched before the first look, so that no close is missed.
    let Ok(mut closes) = closes(opened) else { return };
    let closed = async {
        loop {
            let free = sys::no_writer(&opened.file);
            if matches!(free, Ok(true)) || closes.next().await.is_none_or(|event| event.is_err()) || free.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, closed).await;
}

fn closes(opened: &Opened) -> io::Result<EventStream<[u8; 1024]>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(format!("/proc/self/fd/{}", opened.file.as_raw_fd()), WatchMask::CLOSE_WRITE)?;
    inotify.into_event_stream([0; 1024])
}
