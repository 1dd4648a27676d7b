//! Files that inputs name: keys, passwords, certificates. Read once, whole and within bounds; never waited for.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tagship_core::secret::Secret;
use tagship_core::{file, text};

use super::{InputError, Pem, Raw};

/// The largest file that an input may name: keys, passwords and certificates are far smaller.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The most that is read from a pipe, which does not tell beforehand how much there is.
const LARGEST_PIPE: u64 = 64 * 1024;

/// What helps where nothing can be read.
const A_FILE: &str = "give a regular file, or a pipe that is written to, such as a shell's <(…)";

/// What helps where there is too much.
const SMALLER: &str = "check which file it is: keys, passwords and certificates are far smaller";

/// A secret from its own input or from the file that another names. One line end after it is no part of it.
pub(super) fn secret(
    raw: &mut Raw,
    name: &'static str,
    file: &'static str,
    both: &'static str,
) -> Result<Option<Secret>, InputError> {
    let value = raw.take_secret(name);
    // A message shows the paths that cannot be read, and no runner masks a secret that is written on one line instead
    // of its own many.
    if raw.get(file).is_some_and(|path| path.contains('\n') || path.starts_with("-----BEGIN")) {
        return Err(InputError::NotAPath { name: file, meant: name });
    }
    let path = raw.get(file).map(PathBuf::from);
    match (value, path) {
        (Some(_), Some(_)) => Err(InputError::Conflict { inputs: both, why: "give one of them" }),
        (None, Some(path)) => match read(file, &path) {
            Ok(bytes) => Ok(Some(Secret::new(without_line_end(bytes)))),
            // A password or a token on one line, perhaps: in base64 it may even look like a path.
            Err(InputError::Unreadable { source, .. }) if is_no_file(&source) => {
                Err(InputError::NotAPath { name: file, meant: name })
            }
            Err(error) => Err(error),
        },
        (value, None) => Ok(value),
    }
}

fn is_no_file(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
}

/// PEM text as it is, or the file that a path names. What holds a block is text, whatever stands before it.
pub(super) fn pem(name: &'static str, text: Option<&str>) -> Result<Option<Pem>, InputError> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) if text.contains("-----BEGIN ") => {
            Ok(Some(Pem { name: name.to_owned(), bytes: format!("{text}\n").into_bytes() }))
        }
        Some(path) => Ok(Some(Pem { name: text::escape(path), bytes: read(name, Path::new(path))? })),
    }
}

/// Reads a small file whole. The buffer never grows, so that no copy of a secret stays behind in freed memory.
fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, InputError> {
    let unreadable = |source| InputError::Unreadable { name, path: path.to_owned(), source };
    let wrong = |why, hint| Err(InputError::Unfit { name, path: path.to_owned(), why, hint });
    let file = file::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if meta.file_type().is_fifo() {
        let bytes = read_pipe(file).map_err(unreadable)?;
        return match bytes.len() as u64 {
            0 => wrong("it is a pipe that nobody writes to", A_FILE),
            length if length > LARGEST_PIPE => wrong("the pipe holds more than 64 kibibytes", SMALLER),
            _ => Ok(bytes),
        };
    }
    if meta.is_dir() {
        return wrong("it is a directory", "name the file that is in it");
    }
    if !meta.is_file() {
        return wrong("it is neither a regular file nor a pipe", A_FILE);
    }
    if meta.len() > LARGEST_FILE {
        return wrong("the file is larger than a mebibyte", SMALLER);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Reads a pipe, such as a shell's `<(…)`, to its end. Waits for its writer, which may ask a person for a password, but
/// only if there is one.
fn read_pipe(file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(LARGEST_PIPE as usize + 2);
    let mut pipe = file.take(LARGEST_PIPE + 1);
    match pipe.read_to_end(&mut bytes) {
        // Nothing yet, and somebody who may write still.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            rustix::fs::fcntl_setfl(pipe.get_ref(), OFlags::empty())?;
            pipe.read_to_end(&mut bytes)?;
        }
        read => {
            read?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tagship_core::explain::Explain as _;

    use super::*;

    #[test]
    fn files_lose_one_line_end() {
        for (content, expected) in
            [("p", "p"), ("p\n", "p"), ("p\r\n", "p"), ("p\n\n", "p\n"), (" p ", " p "), ("", "")]
        {
            assert_eq!(without_line_end(content.as_bytes().to_vec()), expected.as_bytes(), "{content:?}");
        }
    }

    #[test]
    fn a_pipe_is_read_whole_and_bounded() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;

        for (length, good) in [(1, true), (60_000, true), (64 * 1024, true), (64 * 1024 + 1, false), (0, false)] {
            let (reader, mut writer) = std::io::pipe().expect("a pipe");
            let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
            let content = vec![b'k'; length];
            // Larger than a pipe holds at once: the reader waits for the rest. One that gives up early breaks the pipe.
            let (sent, expected) = (content.clone(), content);
            let writing = std::thread::spawn(move || writer.write_all(&sent).is_ok());
            let read = read("key-file", &path);
            drop(reader);
            assert!(writing.join().expect("the writer ends") || !good);
            assert_eq!(read.ok(), good.then_some(expected), "{length}");
        }
    }

    #[test]
    fn a_files_name_keeps_to_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a\nb.pub");
        std::fs::write(&path, "x").expect("written");
        let pem = pem("public-key", path.to_str()).expect("read").expect("given");
        assert!(pem.name.ends_with("/a\\nb.pub"), "{}", pem.name);
    }

    #[test]
    fn hints_are_for_the_cause() {
        let dir = tempfile::tempdir().expect("a directory");
        let large = dir.path().join("large");
        File::create(&large).and_then(|file| file.set_len(LARGEST_FILE + 1)).expect("a large file");
        let long = "a".repeat(100_000);
        for (path, cause, hint) in [
            (dir.path(), ": it is a directory", "name the file"),
            (&large, ": the file is larger", "check which file"),
            (&dir.path().join("none"), "", "in a workflow, the file must be in a volume"),
            (&large.join("none"), "", "in a workflow, the file must be in a volume"),
            (Path::new("/dev/zero"), ": it is neither", "give a regular file"),
            (Path::new(&long), "(a path of 100000 bytes, not shown)", "the text from its -----BEGIN line on"),
        ] {
            let error = pem("ca", path.to_str()).expect_err("refused");
            let (said, tried) = (error.to_string(), error.hint().unwrap_or_default());
            assert!(said.contains(cause) && tried.contains(hint), "{said}; {tried}");
            assert!(said.len() < 300 && tried.contains("workflow") == cause.is_empty(), "{said}; {tried}");
        }
        let denied =
            InputError::Unreadable { name: "ca", path: "/ca.pem".into(), source: ErrorKind::PermissionDenied.into() };
        assert_eq!(denied.hint().as_deref(), Some("let the user that this runs as read it"));
    }

    #[test]
    fn what_would_be_waited_for_in_vain_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a FIFO");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        for (path, why) in [(fifo.as_path(), "nobody writes"), (Path::new("/dev/zero"), "neither")] {
            let error = read("key-file", path).expect_err("refused");
            assert!(tagship_core::explain::chain(&error).contains(why), "{error}");
        }
        assert!(read("key-file", &socket).is_err());
    }
}
