//! The build context: which files an engine gets, and the tar stream that carries them.
//!
//! Knows nothing of engines. Opening it reads the ignore file only; the files are read while they are streamed.

mod archive;
mod ignore;
mod pattern;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use tagship_core::explain::Explain;
use tagship_core::text;

pub use archive::{Sent, Stream};
pub use ignore::{RuleError, Rules};

/// The names of a Containerfile that are tried, in this order.
const CONTAINERFILES: [&str; 2] = ["Containerfile", "Dockerfile"];

/// The names of an ignore file at the root of the context.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];

/// The endings of an ignore file beside the Containerfile, in Podman's order. It counts before one at the root.
const OWN_IGNORE_FILES: [&str; 2] = [".dockerignore", ".containerignore"];

/// An ignore file is read whole; a larger one is no ignore file.
const LARGEST_IGNORE_FILE: u64 = 1024 * 1024;

/// The directory of the archive that holds the Containerfile, whatever its name and place.
const OURS: &str = ".tagship-build";

/// The ignore file that Podman reads in an archive (5.4 takes `.containerignore`, else `.dockerignore`, and one beside
/// the Containerfile only without them). What is sent has been chosen here, and Podman reads some rules differently: it
/// does not look for `!**/keep` in an ignored directory. So it gets one that hides what is ours from `COPY`, and
/// nothing else. A `.containerignore` of the user's stays behind; all other files are sent as the rules say.
const HIDING: &str = ".containerignore";

/// A build context that exists, with its rules.
#[derive(Debug, Clone)]
pub struct Context {
    root: PathBuf,
    containerfile: PathBuf,
    rules: Rules,
}

/// Why there is no build context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory is not there, or is none.
    #[error("the build context {} is no readable directory", text::path(path))]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No Containerfile.
    #[error("there is no Containerfile: tried {}", tried.iter().map(|path| text::path(path)).collect::<Vec<_>>().join(" and "))]
    NoContainerfile {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The ignore file has a line that is no rule.
    #[error("{} is malformed", shown(path))]
    Rule {
        /// The ignore file.
        path: PathBuf,
        /// Which line.
        source: RuleError,
    },
    /// A file cannot be read.
    #[error("cannot read {}", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file grew or shrank while it was sent.
    #[error("{} changed while it was sent to the engine", shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The archive cannot hold a file.
    #[error("cannot put {} into the build context", shown(path))]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine takes no more, which it explains itself.
    #[error("the engine stopped reading the build context")]
    Refused,
}

/// A file of the context, whose path may be long.
fn shown(path: &Path) -> String {
    text::escape(&path.to_string_lossy())
}

impl Explain for ContextError {
    fn kind(&self) -> &'static str {
        match self {
            ContextError::Root { .. } => "context-missing",
            ContextError::NoContainerfile { .. } => "containerfile-missing",
            ContextError::Rule { .. } => "ignore-file-malformed",
            ContextError::Unreadable { .. } => "context-unreadable",
            ContextError::Changed { .. } => "context-changed",
            ContextError::Archive { .. } => "context-archive",
            ContextError::Refused => "context-refused",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            ContextError::Root { .. } => "in a workflow, check the repository out in an earlier step of the same job",
            ContextError::NoContainerfile { .. } => {
                "name it with file; in a workflow, check the repository out in an earlier step of the same job"
            }
            ContextError::Rule { .. } => "a special character is written literally behind a backslash",
            ContextError::Unreadable { .. } => "make it readable, or leave it out with a line in .containerignore",
            ContextError::Changed { .. } => {
                "leave files that others write to (logs, databases) out with a line in .containerignore"
            }
            ContextError::Archive { .. } | ContextError::Refused => return None,
        };
        Some(hint.to_owned())
    }
}

impl Context {
    /// Finds the Containerfile and the ignore file. A `file` is looked for from the working directory and, if it is
    /// not there, from the context.
    ///
    /// # Errors
    /// When the directory or the Containerfile is missing, or the ignore file malformed.
    pub fn open(root: &Path, file: Option<&Path>) -> Result<Context, ContextError> {
        let no_root = |source| ContextError::Root { path: root.to_owned(), source };
        std::fs::read_dir(root).map_err(no_root)?;
        let tried: Vec<PathBuf> = match file {
            Some(file) if file.is_absolute() => vec![file.to_owned()],
            Some(file) if root == Path::new(".") => vec![file.to_owned()],
            Some(file) => vec![file.to_owned(), root.join(file)],
            None => CONTAINERFILES.iter().map(|name| root.join(name)).collect(),
        };
        let Some(found) = tried.iter().find(|path| path.is_file()) else {
            return Err(ContextError::NoContainerfile { tried });
        };
        let rules = match find_ignore_file(root, found) {
            Some(path) => read_rules(&path)?,
            None => Rules::default(),
        };
        Ok(Context { root: root.to_owned(), containerfile: found.clone(), rules })
    }

    /// The Containerfile's name in the archive. Podman runs a preprocessor over one that ends with `.in`.
    #[must_use]
    pub fn containerfile(&self) -> String {
        let ending = if self.containerfile.extension().is_some_and(|ending| ending == "in") { ".in" } else { "" };
        format!("{OURS}/Containerfile{ending}")
    }

    /// The Containerfile's text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_containerfile(&self) -> Result<String, ContextError> {
        let bytes = std::fs::read(&self.containerfile)
            .map_err(|source| ContextError::Unreadable { path: self.containerfile.clone(), source })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts to stream the archive.
    #[must_use]
    pub fn stream(self) -> Stream {
        archive::stream(self)
    }
}

fn find_ignore_file(root: &Path, containerfile: &Path) -> Option<PathBuf> {
    let own = OWN_IGNORE_FILES.iter().map(|ending| {
        let mut path = containerfile.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    });
    own.chain(IGNORE_FILES.iter().map(|name| root.join(name))).find(|path| path.is_file())
}

fn read_rules(path: &Path) -> Result<Rules, ContextError> {
    use std::io::Read as _;
    let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST_IGNORE_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST_IGNORE_FILE {
        return Err(unreadable(io::Error::other("it is larger than a mebibyte")));
    }
    Rules::parse(&text).map_err(|source| ContextError::Rule { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, "").expect("a file");
        }
        directory
    }

    fn opened(files: &[&str], file: Option<&str>) -> Result<String, ContextError> {
        let directory = directory(files);
        let file = file.map(|file| match file.strip_prefix('/') {
            Some(absolute) => directory.path().join(absolute),
            None => file.into(),
        });
        let context = Context::open(directory.path(), file.as_deref())?;
        let found = context.containerfile.strip_prefix(directory.path()).unwrap_or(&context.containerfile);
        Ok(found.display().to_string())
    }

    #[test]
    fn containerfiles_are_found() {
        let vectors: &[(&[&str], Option<&str>, &str)] = &[
            (&["Containerfile"], None, "Containerfile"),
            (&["Dockerfile"], None, "Dockerfile"),
            (&["Dockerfile", "Containerfile"], None, "Containerfile"),
            (&["deploy/Web"], Some("deploy/Web"), "deploy/Web"),
            (&["deploy/Web"], Some("/deploy/Web"), "deploy/Web"),
            (&["Web"], Some("./Web"), "Web"),
            (&["app/Web"], Some("app/../app/Web"), "app/../app/Web"),
        ];
        for (files, file, expected) in vectors {
            assert_eq!(opened(files, *file).expect("found"), *expected, "{files:?} {file:?}");
        }
    }

    #[test]
    fn both_names_are_told_when_there_is_none() {
        let error = opened(&["README.md"], None).expect_err("nothing there").to_string();
        assert!(error.contains("/Containerfile") && error.contains("/Dockerfile"), "{error}");
        let error = opened(&["Dockerfile"], Some("nowhere/Web")).expect_err("nothing there").to_string();
        assert!(error.contains("nowhere/Web"), "{error}");
    }

    #[test]
    fn a_directory_is_no_containerfile() {
        let directory = directory(&["Containerfile/x", "Dockerfile"]);
        let context = Context::open(directory.path(), None).expect("the other one");
        assert_eq!(context.containerfile, directory.path().join("Dockerfile"));
    }

    #[test]
    fn a_containerfile_for_the_preprocessor_stays_one() {
        for (name, expected) in [("Web", ".tagship-build/Containerfile"), ("Web.in", ".tagship-build/Containerfile.in")]
        {
            let directory = directory(&[name]);
            let context = Context::open(directory.path(), Some(Path::new(name))).expect("found");
            assert_eq!(context.containerfile(), expected);
        }
    }

    #[test]
    fn missing_roots() {
        let directory = directory(&["file"]);
        for name in ["nowhere", "file"] {
            let error = Context::open(&directory.path().join(name), None).expect_err(name);
            assert!(matches!(error, ContextError::Root { .. }), "{name}: {error}");
        }
        for (root, file) in [(&*"x".repeat(5000), "Web"), (".", &*"x".repeat(5000))] {
            let error = Context::open(Path::new(root), Some(Path::new(file))).expect_err("too long").to_string();
            assert!(error.contains("not shown") && error.len() < 500, "{error}");
        }
    }

    #[test]
    fn ignore_files_in_order() {
        let vectors: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&[".dockerignore"], Some(".dockerignore")),
            (&[".dockerignore", ".containerignore"], Some(".containerignore")),
            (&[".containerignore", "Containerfile.containerignore"], Some("Containerfile.containerignore")),
            (&["Containerfile.dockerignore", "Containerfile.containerignore"], Some("Containerfile.dockerignore")),
        ];
        for (files, expected) in vectors {
            let directory = directory(files);
            let found = find_ignore_file(directory.path(), &directory.path().join("Containerfile"));
            assert_eq!(found, expected.map(|name| directory.path().join(name)), "{files:?}");
        }
    }

    #[test]
    fn a_malformed_ignore_file_is_named_with_its_line() {
        let directory = directory(&["Containerfile"]);
        fs::write(directory.path().join(".dockerignore"), "a\n[\n").expect("written");
        let error = Context::open(directory.path(), None).expect_err("malformed");
        let chain = tagship_core::explain::chain(&error);
        assert!(chain.contains(".dockerignore") && chain.contains("line 2"), "{chain}");
    }
}
