//! Is there room for an image? Asked before the first effect: a pull that fills the disk takes the services' own writes
//! along.
//!
//! Pure: what is free and what is needed in, a refusal out. What is needed is a lower bound: layers are unpacked in the
//! store, where they are rarely smaller than as they came, and pass through a directory for temporary files as they came.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use tagship_core::reference::Digest;

use super::{contents::Contents, outcome::Failure};

/// A place that takes a pulled image's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The directory.
    pub directory: PathBuf,
    /// The file system's number: what lies on one shares its room.
    pub device: u64,
    /// Bytes that this user may still write there.
    pub free: u64,
}

/// Refuses contents for which a file system has no room beside the reserve, the first that is found; `there` are the layers
/// in the store.
pub(crate) fn check(
    contents: &Contents,
    there: &BTreeSet<Digest>,
    rooms: &[Room],
    reserve: u64,
) -> Result<(), Failure> {
    let missing = contents.missing(there);
    if missing == 0 {
        return Ok(());
    }
    let mut by_device: BTreeMap<u64, Vec<&Room>> = BTreeMap::new();
    for room in rooms {
        by_device.entry(room.device).or_default().push(room);
    }
    for places in by_device.into_values() {
        let Some(room) = places.iter().min_by_key(|room| room.free) else { continue };
        let needed = missing.saturating_mul(places.len() as u64);
        if needed > room.free.saturating_sub(reserve) {
            return Err(refusal(room, needed, reserve));
        }
    }
    Ok(())
}

fn refusal(room: &Room, needed: u64, reserve: u64) -> Failure {
    let (directory, free) = (room.directory.display(), Bytes(room.free));
    let reason = format!(
        "there is no room for the image: fetching it takes at least {} in {directory}, {free} are free, and `reserve-space` \
         keeps {} of them",
        Bytes(needed),
        Bytes(reserve)
    );
    Failure::new("no-space", reason).hint(
        "`podman system df` shows what images take; remove some, make the disk larger, or set `reserve-space` lower",
    )
}

/// A number of bytes for readers.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| self.0 >> shift > 0) {
            // A tenth is enough, and rounded down it never shows more than there is.
            Some((unit, shift)) => {
                let tenths = (u128::from(self.0) * 10) >> shift;
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}","{}"]}}}}"#, Digest::of(b"a"), Digest::of(b"b"));
        Contents::new(&[60, 40], config.as_bytes()).unwrap()
    }

    fn room(directory: &str, device: u64, free: u64) -> Room {
        Room { directory: directory.into(), device, free }
    }

    fn fits(rooms: &[Room], there: &[&str], reserve: u64) -> bool {
        check(&contents(), &there.iter().map(|name| Digest::of(name.as_bytes())).collect(), rooms, reserve).is_ok()
    }

    #[test]
    fn the_reserve_stays() {
        assert!(fits(&[room("/store", 1, 150)], &[], 50));
        assert!(!fits(&[room("/store", 1, 149)], &[], 50));
        assert!(!fits(&[room("/store", 1, u64::MAX)], &[], u64::MAX));
    }

    #[test]
    fn every_place_needs_room() {
        assert!(fits(&[room("/store", 1, 100), room("/var/tmp", 2, 100)], &[], 0));
        assert!(!fits(&[room("/store", 1, 100), room("/var/tmp", 2, 99)], &[], 0));
        // On one file system all of it comes twice.
        assert!(!fits(&[room("/store", 1, 199), room("/var/tmp", 1, 199)], &[], 0));
        assert!(fits(&[room("/store", 1, 200), room("/var/tmp", 1, 200)], &[], 0));
    }

    #[test]
    fn what_is_in_the_store_needs_no_room() {
        assert!(fits(&[room("/store", 1, 40)], &["a"], 0));
        assert!(!fits(&[room("/store", 1, 39)], &["a"], 0));
        // Nothing is fetched, so nothing is kept in reserve either.
        assert!(fits(&[room("/store", 1, 0)], &["a", "b"], 50));
    }

    #[test]
    fn a_refusal_says_what_is_where() {
        let failure = check(&contents(), &BTreeSet::new(), &[room("/store", 1, 1 << 30)], 3 << 39).unwrap_err();
        assert_eq!(failure.kind, "no-space");
        for word in ["100 bytes in /store", "1.0 GiB are free", "keeps 1.5 TiB"] {
            assert!(failure.reason.contains(word), "{}", failure.reason);
        }
        assert_eq!(Bytes(u64::MAX).to_string(), "16777215.9 TiB");
        assert_eq!(Bytes(1023).to_string(), "1023 bytes");
    }
}
