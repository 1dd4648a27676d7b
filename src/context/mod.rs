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

/// The names of an ignore file: beside the Containerfile with its name before it, else at the root of the context.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];

/// An ignore file is read whole; a larger one is no ignore file.
const LARGEST_IGNORE_FILE: u64 = 1024 * 1024;

/// Where a Containerfile from outside of the context is put in the archive.
const OUTSIDER: &str = ".tagship.Containerfile";

/// A build context that exists, with its rules.
#[derive(Debug, Clone)]
pub struct Context {
    root: PathBuf,
    containerfile: Containerfile,
    ignore_file: Option<PathBuf>,
    rules: Rules,
}

#[derive(Debug, Clone)]
enum Containerfile {
    /// By its path relative to the context.
    Inside(PathBuf),
    /// By its path on this machine.
    Outside(PathBuf),
}

/// Why there is no build context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory is not there, or is none.
    #[error("the build context {} is no readable directory", shown(path))]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No Containerfile.
    #[error("there is no Containerfile: tried {}", tried.iter().map(|path| shown(path)).collect::<Vec<_>>().join(" and "))]
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
        let real_root = root.canonicalize().map_err(no_root)?;
        let tried: Vec<PathBuf> = match file {
            Some(file) if file.is_absolute() => vec![file.to_owned()],
            Some(file) if root == Path::new(".") => vec![file.to_owned()],
            Some(file) => vec![file.to_owned(), root.join(file)],
            None => CONTAINERFILES.iter().map(|name| root.join(name)).collect(),
        };
        let Some(found) = tried.iter().find(|path| path.is_file()) else {
            return Err(ContextError::NoContainerfile { tried });
        };
        let ignore_file = find_ignore_file(root, found);
        let rules = match &ignore_file {
            Some(path) => read_rules(path)?,
            None => Rules::default(),
        };
        Ok(Context { containerfile: place(&real_root, found)?, root: real_root, ignore_file, rules })
    }

    /// The Containerfile's name in the archive.
    #[must_use]
    pub fn containerfile(&self) -> &Path {
        match &self.containerfile {
            Containerfile::Inside(path) => path,
            Containerfile::Outside(_) => Path::new(OUTSIDER),
        }
    }

    /// The Containerfile's text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_containerfile(&self) -> Result<String, ContextError> {
        let path = match &self.containerfile {
            Containerfile::Inside(relative) => self.root.join(relative),
            Containerfile::Outside(path) => path.clone(),
        };
        let bytes = std::fs::read(&path).map_err(|source| ContextError::Unreadable { path, source })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts to stream the archive.
    #[must_use]
    pub fn stream(self) -> Stream {
        archive::stream(self)
    }

    /// What is sent whatever the rules say, relative to the context: without the Containerfile nothing can be built,
    /// and with the ignore file the engine keeps both out of `COPY` where the rules say so, as Docker does.
    fn always_sent(&self) -> impl Iterator<Item = &Path> {
        let containerfile = match &self.containerfile {
            Containerfile::Inside(path) => Some(path.as_path()),
            Containerfile::Outside(_) => None,
        };
        let ignore_file = self.ignore_file.as_deref().and_then(|path| path.strip_prefix(&self.root).ok());
        containerfile.into_iter().chain(ignore_file)
    }

    fn is_always_sent(&self, relative: &Path) -> bool {
        self.always_sent().any(|path| path == relative)
    }
}

/// Where the Containerfile lies. One that is a link counts as lying where the link lies, if that is in the context.
fn place(root: &Path, found: &Path) -> Result<Containerfile, ContextError> {
    let unreadable = |source| ContextError::Unreadable { path: found.to_owned(), source };
    let name = found.file_name().ok_or_else(|| unreadable(io::Error::other("it has no name")))?;
    let directory = match found.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let real = directory.canonicalize().map_err(unreadable)?.join(name);
    Ok(match real.strip_prefix(root) {
        Ok(inside) => Containerfile::Inside(inside.to_owned()),
        Err(_) => Containerfile::Outside(real),
    })
}

fn find_ignore_file(root: &Path, containerfile: &Path) -> Option<PathBuf> {
    let beside = IGNORE_FILES.iter().map(|suffix| {
        let mut path = containerfile.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    });
    let found = beside.chain(IGNORE_FILES.iter().map(|name| root.join(name))).find(|path| path.is_file())?;
    // In the form in which the walk sees it.
    Some(found.parent().and_then(|parent| parent.canonicalize().ok()).zip(found.file_name()).map_or_else(
        || found.clone(),
        |(parent, name)| parent.join(name),
    ))
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
        let file = file.map(|file| if file.starts_with('/') { directory.path().join(&file[1..]) } else { file.into() });
        let context = Context::open(directory.path(), file.as_deref())?;
        Ok(context.containerfile().display().to_string())
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
        assert_eq!(context.containerfile(), Path::new("Dockerfile"));
    }

    #[test]
    fn a_containerfile_outside_gets_a_name() {
        let directory = directory(&["app/x", "Containerfile"]);
        let file = directory.path().join("Containerfile");
        let context = Context::open(&directory.path().join("app"), Some(&file)).expect("found");
        assert_eq!(context.containerfile(), Path::new(OUTSIDER));
    }

    #[test]
    fn missing_roots() {
        let directory = directory(&["file"]);
        for name in ["nowhere", "file"] {
            let error = Context::open(&directory.path().join(name), None).expect_err(name);
            assert!(matches!(error, ContextError::Root { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn ignore_files_in_order() {
        let vectors: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&[".dockerignore"], Some(".dockerignore")),
            (&[".dockerignore", ".containerignore"], Some(".containerignore")),
            (&[".containerignore", "Containerfile.dockerignore"], Some("Containerfile.dockerignore")),
            (&["Containerfile.dockerignore", "Containerfile.containerignore"], Some("Containerfile.containerignore")),
        ];
        for (files, expected) in vectors {
            let directory = directory(&[files, &["Containerfile"][..]].concat());
            let context = Context::open(directory.path(), None).expect("a context");
            let found = context.ignore_file.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
            assert_eq!(found.as_deref(), *expected, "{files:?}");
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
