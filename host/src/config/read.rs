//! Configuration files as bytes and text: which there are, and what is in them. What it means is `file`'s.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tagship_core::file;

use super::ConfigError;

/// The largest file read. A configuration of forty services has about two thousand bytes.
const LARGEST: u64 = 64 * 1024;

/// The files of a directory with one of these endings, by name; none if there is no directory.
pub(super) fn yaml_files(directory: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|end| endings.iter().any(|wanted| end == *wanted)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The file's text.
pub(super) fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, ConfigError> {
    std::str::from_utf8(bytes).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// Opens what is a regular file, also through a link; none if it is anything else.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    let file = match file::open(path) {
        // What Linux says of a socket (open(2)).
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => return Ok(None),
        opened => opened?,
    };
    // Of what was opened, not of what the path leads to by then.
    Ok(file.metadata()?.is_file().then_some(file))
}

/// The file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?.ok_or_else(|| ConfigError::NotAFile { path: path.to_owned() })?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: LARGEST });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode};
    use tagship_core::explain::Explain;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let place = |name: &str| temp.path().join(name);
        rustix::fs::mknodat(CWD, place("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(place("directory")).unwrap();
        let _socket = UnixListener::bind(place("socket")).unwrap();
        std::os::unix::fs::symlink("fifo", place("link")).unwrap();
        for name in ["fifo", "directory", "socket", "link"] {
            let error = read(&place(name)).unwrap_err();
            assert!(matches!(error, ConfigError::NotAFile { .. }), "{name}: {error}");
            assert!(error.hint().is_some());
        }
        fs::write(place("file"), "image: x").unwrap();
        std::os::unix::fs::symlink("file", place("good")).unwrap();
        assert_eq!(read(&place("good")).unwrap(), b"image: x");
    }
}
