//! Waiting until something happens in the directory.
//!
//! Tells that something happened, not what: whoever waits looks for itself.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};

use super::dir::Dir;

/// How often to look where the kernel does not tell of others' changes: NFS, SMB, virtiofs and their like.
const POLL: Duration = Duration::from_secs(2);

/// A watch on one directory. What happens after it was made is never missed.
pub struct Watch {
    events: Option<EventStream<[u8; 4096]>>,
    poll: Option<Duration>,
}

impl Watch {
    /// Starts watching. Where events cannot be had at all, or not of other machines' changes, it polls every two
    /// seconds.
    #[must_use]
    pub fn new(dir: &Dir) -> Watch {
        let events = watch(dir).ok();
        let poll = (events.is_none() || is_remote(dir)).then_some(POLL);
        Watch { events, poll }
    }

    /// Waits for a change of a name that `matters`. Returns also when changes may have been missed.
    ///
    /// Many changes at once are one. Safe to cancel.
    pub async fn changed(&mut self, matters: impl Fn(&[u8]) -> bool) {
        let poll = self.poll;
        let timer = async move {
            match poll {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.event(matters) => {}
            () = timer => {}
        }
    }

    async fn event(&mut self, matters: impl Fn(&[u8]) -> bool) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        loop {
            match events.next().await {
                // No name: the kernel's queue ran over, or the directory itself is gone.
                Some(Ok(event)) if event.name.as_ref().is_none_or(|name| matters(name.as_bytes())) => break,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.events = None;
                    self.poll = Some(POLL);
                    return;
                }
            }
        }
        while let Some(Some(Ok(_))) = events.next().now_or_never() {}
    }
}

fn watch(dir: &Dir) -> io::Result<EventStream<[u8; 4096]>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE;
    // By the open directory, which its path may no longer lead to.
    let open = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    inotify.watches().add(open, mask).or_else(|_| inotify.watches().add(dir.path(), mask))?;
    inotify.into_event_stream([0; 4096])
}

fn is_remote(dir: &Dir) -> bool {
    // linux/magic.h: NFS, SMB, SMB2, CIFS, FUSE (virtiofs among them), 9P, Ceph, AFS.
    const REMOTE: [u32; 8] =
        [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f];
    // The word's width and sign differ between architectures; the magic numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let remote = |kind| REMOTE.contains(&(kind as u32));
    rustix::fs::fstatfs(dir).is_ok_and(|stat| remote(stat.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_told_once_and_never_missed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut watch = Watch::new(&dir);
        assert_eq!(watch.poll, None, "a temporary directory is local");
        // Before anybody waits.
        dir.put("ours", b"x").unwrap();
        dir.put("other", b"x").unwrap();
        watch.changed(|name| name == b"ours").await;
        // Both were one change, and what does not matter wakes nobody.
        dir.put("another", b"x").unwrap();
        assert!(watch.changed(|name| name == b"ours").now_or_never().is_none());
        dir.replace("ours", b"y").unwrap();
        watch.changed(|name| name == b"ours").await;
        dir.discard("ours".as_ref()).unwrap();
        watch.changed(|name| name == b"ours").await;
    }

    #[tokio::test]
    async fn a_directory_without_events_is_looked_at() {
        let mut watch = Watch { events: None, poll: Some(Duration::from_millis(1)) };
        watch.changed(|_| false).await;
    }

    #[tokio::test]
    async fn the_open_directory_is_watched_wherever_it_moves() {
        let temp = tempfile::tempdir().unwrap();
        let (first, second) = (temp.path().join("first"), temp.path().join("second"));
        std::fs::create_dir(&first).unwrap();
        let dir = Dir::open(&first).unwrap();
        std::fs::rename(&first, &second).unwrap();
        let mut watch = Watch::new(&dir);
        std::fs::write(second.join("ours"), "x").unwrap();
        watch.changed(|name| name == b"ours").await;
    }
}
