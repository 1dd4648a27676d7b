//! The hand-off directory as the requester finds it: there, mounted, used by a companion, and writable.
//!
//! Nothing is left here: only a small file is written and removed, since nothing less shows that a request could be.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use tagship_core::handoff::dir::{Dir, Owners};
use tagship_core::handoff::host::{self, HostFile};
use tagship_core::handoff::names;
use tagship_core::reference::Tag;

use super::DeployError;
use crate::inputs::Form;

/// A hand-off directory that could work.
#[derive(Debug)]
pub struct Place {
    pub(super) dir: Dir,
    /// Whose answers and logs are believed: our own user's, the directory's owner's, and the companion's.
    pub(super) owners: Owners,
    /// What the companion tells about itself; always there in the full form.
    pub(super) host: Option<HostFile>,
}

impl Place {
    pub(super) fn open(directory: &Path, must_be_mount: bool, form: Form) -> Result<Place, DeployError> {
        // In a job's container a directory that is not there is a volume that the runner left out.
        if must_be_mount && !(directory.exists() && is_mount(directory)?) {
            return Err(DeployError::NotMounted(directory.to_owned()));
        }
        let dir = Dir::open(directory).map_err(DeployError::Directory)?;
        let owner = dir.owner().map_err(DeployError::Directory)?;
        let mut place = Place { dir, owners: Owners::own_and(&[owner]), host: None };
        if form == Form::Full {
            let found = place.dir.open_file(names::HOST.as_ref(), &Owners::Anyone).map_err(DeployError::HostFile)?;
            let file = found.ok_or_else(|| DeployError::NoCompanion(directory.to_owned()))?;
            let bytes = file.read(host::LIMIT).map_err(DeployError::HostFile)?;
            place.host = Some(HostFile::parse(&bytes).map_err(DeployError::Companion)?);
            place.owners = Owners::own_and(&[owner, file.owner]);
        }
        place.dir.check_writable().map_err(DeployError::Directory)?;
        Ok(place)
    }

    /// What the companion tells about itself. Anybody who can write in the directory can write it: a hint, no proof.
    #[must_use]
    pub fn host(&self) -> Option<&HostFile> {
        self.host.as_ref()
    }

    /// The version that the companion says runs. A hint as well.
    #[must_use]
    pub fn running(&self) -> Option<&Tag> {
        self.host()?.running.as_ref()?.tag.as_ref()
    }
}

/// Whether something is mounted at a directory.
fn is_mount(directory: &Path) -> Result<bool, DeployError> {
    let resolved = std::fs::canonicalize(directory).map_err(DeployError::Mounts)?;
    let table = std::fs::read("/proc/self/mountinfo").map_err(DeployError::Mounts)?;
    Ok(mount_points(&table).any(|point| point == resolved))
}

/// The mount points of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): the fifth field of each line.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
}

/// Space, tab, line feed and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn mount_points_are_the_fifth_field() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 98:0 / /with\\040space\\134and\\011more rw - ext4 /dev/x rw\nshort line\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/mnt2"), PathBuf::from("/with space\\and\tmore")]);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for field in [&b"\\"[..], b"\\0", b"\\04", b"\\400", b"\\9ab", b"a\\"] {
            assert_eq!(unescape(field), field);
        }
    }

    #[test]
    fn the_root_is_a_mount_and_a_new_directory_is_not() {
        let temp = tempfile::tempdir().unwrap();
        assert!(is_mount(Path::new("/")).unwrap());
        assert!(!is_mount(temp.path()).unwrap());
        assert!(is_mount(&temp.path().join("absent")).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_a_path_all_the_same() {
        let points: Vec<_> = mount_points(b"1 2 3 4 /\xff x").collect();
        assert_eq!(points.first().unwrap().as_os_str().as_bytes(), b"/\xff");
    }
}
