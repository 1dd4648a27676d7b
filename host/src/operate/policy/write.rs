//! Podman's files written as planned, and put back as they were. Whether they may be is decided elsewhere.
//!
//! Anybody else may edit them meanwhile. So a file is replaced only while it holds what the plan was made from, and put
//! back only while it holds what was written here.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown, symlink},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{
    PolicyError,
    files::{ContainersPlaces, text},
    plan::{Change, Plan},
};

/// What was written, and how it was before.
#[derive(Debug, Default)]
pub(super) struct Undo(Vec<Step>);

#[derive(Debug)]
enum Step {
    File { path: PathBuf, wrote: String, before: Option<String> },
    Directory { path: PathBuf, file: PathBuf, wrote: String, links: Vec<(PathBuf, PathBuf)> },
}

/// Makes what was renamed in a directory outlast a crash.
type Flush = fn(&Path) -> io::Result<()>;

fn flush(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Refuses a file that not even its owner may write. It could be replaced all the same, but whoever took that leave away
/// meant something by it.
pub(super) fn refuse_read_only(plan: &Plan) -> Result<(), PolicyError> {
    let read_only = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o200 == 0);
    match [&plan.attachments, &plan.policy].into_iter().find(|change| !change.is_none() && read_only(&change.path)) {
        Some(change) => Err(PolicyError::ReadOnly { path: change.path.clone() }),
        None => Ok(()),
    }
}

/// Writes the plan: registries.d first, which alone asks for nothing, then the policy. Each file, and a new directory
/// with all that is in it, appears at once or not at all; if one cannot be written, the others are put back.
pub(super) fn write(places: &ContainersPlaces, plan: &Plan) -> Result<Undo, PolicyError> {
    write_with(places, plan, flush)
}

fn write_with(places: &ContainersPlaces, plan: &Plan, flush: Flush) -> Result<Undo, PolicyError> {
    let mut undo = Undo::default();
    let Err(error) = write_all(places, plan, &mut undo, flush) else { return Ok(undo) };
    match undo.revert() {
        Ok(()) => Err(error),
        Err(left) => Err(PolicyError::NotRestored { why: Box::new(error), left }),
    }
}

fn write_all(places: &ContainersPlaces, plan: &Plan, undo: &mut Undo, flush: Flush) -> Result<(), PolicyError> {
    refuse_read_only(plan)?;
    // All that was read, the system's files too, of which a user's first ones are copies.
    if let Some(path) = plan.found.difference(&places.look()?) {
        return Err(PolicyError::Changed { path });
    }
    let directory = plan.attachments.path.parent().unwrap_or(Path::new("/"));
    if !plan.attachments.is_none() && !directory.exists() {
        write_directory(directory, plan, undo, flush)
            .map_err(|source| PolicyError::Write { path: directory.to_owned(), source })?;
    } else {
        write_one(&plan.attachments, undo, flush)?;
    }
    write_one(&plan.policy, undo, flush)
}

fn write_one(change: &Change, undo: &mut Undo, flush: Flush) -> Result<(), PolicyError> {
    if change.is_none() {
        return Ok(());
    }
    let failed = |source| PolicyError::Write { path: change.path.clone(), source };
    if let Some(directory) = change.path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let new = New::of(&change.path, &change.text).map_err(failed)?;
    // Once more, now that nothing is left to do but the renaming.
    let at_its_place = (&change.path, change.before());
    let sources = change.from.iter().map(|(path, text)| (path, Some(text)));
    for (path, known) in sources.chain([at_its_place]) {
        let now = text(path).map_err(|source| PolicyError::Read { path: path.clone(), source })?;
        if now.as_ref() != known {
            return Err(PolicyError::Changed { path: path.clone() });
        }
    }
    let directory = new.put().map_err(failed)?;
    let (path, wrote) = (change.path.clone(), change.text.clone());
    undo.0.push(Step::File { path, wrote, before: change.before().cloned() });
    flush(&directory).map_err(failed)
}

fn write_directory(path: &Path, plan: &Plan, undo: &mut Undo, flush: Flush) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new()
        .prefix(".registries.d-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent)?;
    let mut links = Vec::new();
    for to in &plan.links {
        let name = to.file_name().unwrap_or_default();
        symlink(to, new.path().join(name))?;
        links.push((path.join(name), to.clone()));
    }
    let file = new.path().join(plan.attachments.path.file_name().unwrap_or_default());
    New::of(&file, &plan.attachments.text)?.put()?;
    flush(new.path())?;
    fs::rename(new.path(), path)?;
    // It is no longer where the guard would look for it.
    let _ = new.keep();
    let (file, wrote) = (plan.attachments.path.clone(), plan.attachments.text.clone());
    undo.0.push(Step::Directory { path: path.to_owned(), file, wrote, links });
    flush(parent)
}

/// A text that is to take a file's place at once: on disk already, beside it.
struct New {
    file: NamedTempFile,
    at: PathBuf,
}

impl New {
    /// Through links, with the mode and the owner that the file has. A new one is for all to read, and when root makes
    /// it in somebody's directory it is his.
    fn of(path: &Path, text: &str) -> io::Result<Self> {
        let at = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                return Err(io::Error::new(error.kind(), "it is a link to what is not there"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            found => found?,
        };
        let directory = at.parent().unwrap_or(Path::new("/"));
        let (mode, owner) = match fs::metadata(&at) {
            Ok(found) => (found.permissions().mode() & 0o777, Some(found)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if rustix::process::geteuid().is_root() => (0o644, Some(fs::metadata(directory)?)),
            Err(_) => (0o644, None),
        };
        let mode = Permissions::from_mode(mode);
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(mode.clone()).tempfile_in(directory)?;
        if let Some(owner) = owner {
            give(file.as_file(), &owner)?;
        }
        // The mode of a new file is cut by the umask.
        file.as_file().set_permissions(mode)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(Self { file, at })
    }

    /// Puts it there. What is returned is the directory, which is to be flushed.
    fn put(self) -> io::Result<PathBuf> {
        self.file.persist(&self.at)?;
        Ok(self.at.parent().unwrap_or(Path::new("/")).to_owned())
    }
}

fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    let (is, wanted) = (file.metadata()?, (owner.uid(), owner.gid()));
    if (is.uid(), is.gid()) == wanted {
        return Ok(());
    }
    let (uid, gid) = wanted;
    fchown(file, Some(uid), Some(gid)).map_err(|error| {
        let why = format!("it belongs to uid {uid}, gid {gid}, and who runs this cannot have it stay so: {error}");
        io::Error::new(error.kind(), why)
    })
}

impl Undo {
    /// Puts everything back, as much as can be. What cannot is named, with the reason.
    pub(super) fn revert(self) -> Result<(), String> {
        let failed = |step: Step| step.revert().err().map(|error| format!("{}: {error}", step.path().display()));
        let left: Vec<String> = self.0.into_iter().rev().filter_map(failed).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

impl Step {
    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Directory { path, .. } => path,
        }
    }

    /// Undoes it, unless somebody else was there since: what he wrote is his.
    fn revert(&self) -> io::Result<()> {
        let changed = || io::Error::other("somebody changed it after it was written, so it is left as it is");
        match self {
            Self::File { path, wrote, before } => {
                let back = before.as_ref().map(|before| New::of(path, before)).transpose()?;
                match text(path)? {
                    now if now == *before => Ok(()),
                    Some(now) if now == *wrote => match back {
                        Some(back) => flush(&back.put()?),
                        None => fs::remove_file(path).and_then(|()| flush(path.parent().unwrap_or(Path::new("/")))),
                    },
                    _ => Err(changed()),
                }
            }
            Self::Directory { path, file, wrote, links } => {
                let mut known: BTreeSet<&PathBuf> = links.iter().map(|(link, _)| link).collect();
                known.insert(file);
                let names = match fs::read_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    names => names?,
                };
                let names = names.map(|entry| Ok(entry?.path())).collect::<io::Result<BTreeSet<_>>>()?;
                let same = names.iter().eq(known)
                    && text(file)?.as_ref() == Some(wrote)
                    && links.iter().all(|(link, to)| fs::read_link(link).is_ok_and(|found| found == *to));
                if !same {
                    return Err(changed());
                }
                names.iter().try_for_each(fs::remove_file)?;
                fs::remove_dir(path)?;
                flush(path.parent().unwrap_or(Path::new("/")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
