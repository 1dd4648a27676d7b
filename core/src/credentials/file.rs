//! Reading an auth file: at once, whole and within bounds, whatever lies at its path.

use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::CredentialError;
use crate::file;

/// The longest file that is read; a login takes some hundred bytes.
const LONGEST: u64 = 1024 * 1024;

/// The file's content. What is longer than a mebibyte is refused, and so is what is no regular file, but for /dev/null.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let failed = |source: io::Error| CredentialError::Read { path: path.to_owned(), source };
    let file = file::open(path).map_err(failed)?;
    if let Some(what) = irregular(&file.metadata().map_err(failed)?) {
        return Err(CredentialError::Irregular { path: path.to_owned(), what });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        let why = "it is longer than 1 MiB".to_owned();
        return Err(CredentialError::Malformed { path: path.to_owned(), why });
    }
    Ok(bytes)
}

/// What it is, if not a file that can be read again and again: one run looks logins up more than once.
fn irregular(meta: &std::fs::Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    // Who names /dev/null, or mounts it over the file, says that there is no login.
    let null = kind.is_char_device() && meta.rdev() == rustix::fs::makedev(1, 3);
    if kind.is_file() || null {
        None
    } else if kind.is_fifo() {
        Some("a pipe, which can be read only once")
    } else if kind.is_dir() {
        Some("a directory")
    } else {
        Some("a device")
    }
}
