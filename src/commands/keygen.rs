//! `tagship keygen`: makes a key pair that cosign can use, too.
//!
//! The only place that writes a private key, and only an encrypted one.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tagship_core::explain::Explain;
use tagship_core::secret::Secret;
use tagship_core::signature::Fingerprint;
use tagship_core::text;

use crate::failure::{Code, Failure};
use crate::log::Log;
use crate::signing::key::{SigningKey, SigningKeyError};

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    /// The encrypted private key, readable by its owner alone.
    private: PathBuf,
    /// The public key.
    public: PathBuf,
    /// The pair's fingerprint.
    fingerprint: Fingerprint,
}

/// Why there is no key pair.
#[derive(Debug, thiserror::Error)]
enum KeygenError {
    /// No key.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    /// A key is there already.
    #[error("{} exists", text::path(path))]
    Exists {
        /// What exists.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}", text::path(path))]
    Write {
        /// What cannot be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The work was interrupted.
    #[error("the making of the key pair was interrupted")]
    Interrupted,
}

impl KeygenError {
    fn code(&self) -> Code {
        match self {
            Self::Exists { .. } | Self::Write { .. } => Code::Usage,
            Self::Key(_) | Self::Interrupted => Code::Signing,
        }
    }
}

impl Explain for KeygenError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Key(error) => error.kind(),
            Self::Exists { .. } => "key-exists",
            Self::Write { .. } | Self::Interrupted => "key-not-written",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Key(error) => error.hint(),
            Self::Exists { .. } => Some("keys are never overwritten: choose another prefix".to_owned()),
            Self::Write { source, .. } => Some(unwritable(source.kind()).to_owned()),
            Self::Interrupted => None,
        }
    }
}

/// What helps where a file cannot be written.
fn unwritable(why: io::ErrorKind) -> &'static str {
    match why {
        io::ErrorKind::InvalidFilename => "choose a shorter prefix: a name with its ending has at most 255 bytes",
        io::ErrorKind::NotFound => "make the directory first, or choose another",
        io::ErrorKind::NotADirectory => "choose a prefix whose directory is one",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on the directory's file system",
        _ => "check that the directory may be written by the user that this runs as",
    }
}

/// Makes a pair, and says where it is.
///
/// # Errors
/// When there is one already, or it cannot be written.
pub async fn command(prefix: PathBuf, password: Secret, log: &Log) -> Result<(), Failure> {
    let pair = run(prefix, password).await.map_err(|error| Failure::new(error.code(), error))?;
    report(&pair).iter().for_each(|line| log.say(line));
    Ok(())
}

/// What was made, line by line, for a person to read.
fn report(pair: &Pair) -> [String; 3] {
    // A name may have line ends in it.
    let shown = |path: &Path| text::escape(&path.to_string_lossy());
    [
        format!("private key  {}", shown(&pair.private)),
        format!("public key   {}", shown(&pair.public)),
        format!("fingerprint  {}", pair.fingerprint),
    ]
}

/// Makes a pair and writes `PREFIX.key` (mode 0600) and `PREFIX.pub` (0644). Neither is overwritten.
async fn run(prefix: PathBuf, password: Secret) -> Result<Pair, KeygenError> {
    tokio::task::spawn_blocking(move || make(&prefix, &password)).await.map_err(|_| KeygenError::Interrupted)?
}

fn make(prefix: &Path, password: &Secret) -> Result<Pair, KeygenError> {
    let (private, public) = (beside(prefix, ".key"), beside(prefix, ".pub"));
    // Encrypting takes a while: what cannot work is said before. The writing itself does not rely on this.
    for path in [&private, &public] {
        match path.symlink_metadata() {
            Ok(_) => return Err(KeygenError::Exists { path: path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(KeygenError::Write { path: path.clone(), source }),
        }
    }
    directory(&private).metadata().map_err(|source| KeygenError::Write { path: private.clone(), source })?;
    let key = SigningKey::generate()?;
    let encrypted = key.to_encrypted_pem(password)?;
    write(&private, encrypted.as_bytes(), 0o600)?;
    write(&public, key.public().to_pem().as_bytes(), 0o644)?;
    Ok(Pair { private, public, fingerprint: key.public().fingerprint() })
}

/// Writes a whole new file or none.
fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), KeygenError> {
    let failed = |source| KeygenError::Write { path: path.to_owned(), source };
    // The error itself names the temporary file, which tells nobody anything.
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory(path))
        .map_err(|error| failed(error.kind().into()))?;
    file.write_all(contents).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeygenError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(failed(error.error)),
    }
}

/// Where a file is, or will be.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `PREFIX` with an ending added, whatever dots it has.
fn beside(prefix: &Path, ending: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn makes_a_pair_that_opens_and_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("release.v1");
        let pair = run(prefix.clone(), Secret::from("pass".to_owned())).await.unwrap();
        assert_eq!(pair.private, dir.path().join("release.v1.key"));
        assert_eq!(pair.private.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(pair.public.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let pem = std::fs::read(&pair.private).unwrap();
        assert!(pem.starts_with(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
        let key = SigningKey::decrypt(&Secret::new(pem.clone()), &Secret::from("pass".to_owned())).unwrap();
        assert_eq!(key.public().fingerprint(), pair.fingerprint);
        assert_eq!(std::fs::read_to_string(&pair.public).unwrap(), key.public().to_pem());

        let again = run(prefix.clone(), Secret::from("pass".to_owned())).await.unwrap_err();
        assert_eq!((again.kind(), again.code()), ("key-exists", Code::Usage));
        std::fs::remove_file(&pair.private).unwrap();
        let again = run(prefix, Secret::from("pass".to_owned())).await.unwrap_err();
        assert_eq!(again.kind(), "key-exists", "the public key alone is there");
        assert!(!pair.private.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, dir.path().join("k.key")).unwrap();
        let error = run(dir.path().join("k"), Secret::new(Vec::new())).await.unwrap_err();
        assert_eq!(error.kind(), "key-exists");
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn what_is_made_is_said_in_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let pair = run(dir.path().join("a\nb\u{1b}"), Secret::from("pass".to_owned())).await.unwrap();
        let lines = report(&pair);
        assert!(lines.iter().all(|line| text::is_plain(line)), "{lines:?}");
        assert!(lines[0].ends_with("a\\nb\\u{1b}.key") && lines[1].ends_with("a\\nb\\u{1b}.pub"), "{lines:?}");
        let again = run(dir.path().join("a\nb\u{1b}"), Secret::from("pass".to_owned())).await.unwrap_err();
        assert!(text::is_plain(&again.to_string()), "{again}");
    }

    #[tokio::test]
    async fn hints_are_for_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let (long, file) = ("a".repeat(300), dir.path().join("file"));
        std::fs::write(&file, "").unwrap();
        for (prefix, expected) in [
            (dir.path().join(long), "shorter prefix"),
            (dir.path().join("no/k"), "make the directory"),
            (file.join("k"), "whose directory is one"),
        ] {
            let error = run(prefix, Secret::new(Vec::new())).await.unwrap_err();
            assert!(error.hint().is_some_and(|hint| hint.contains(expected)), "{error}: {:?}", error.hint());
            assert!(error.to_string().len() < 300, "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_missing_directory_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(dir.path().join("no/k"), Secret::new(Vec::new())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), ("key-not-written", Code::Usage));
        assert!(!tagship_core::explain::chain(&error).contains("at path"), "{error}");
        let error = run("/proc/k".into(), Secret::new(Vec::new())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), ("key-not-written", Code::Usage));
        assert!(!tagship_core::explain::chain(&error).contains("at path"), "{error}");
    }
}
