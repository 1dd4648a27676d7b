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
                        None => fs::remove_file(path),
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
                fs::remove_dir(path)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use tagship_core::explain::{Explain, chain};

    use super::{
        super::files::{
            POLICY, REGISTRIES,
            tests::{Machine, POLICY_TEXT},
        },
        *,
    };

    fn written(machine: &Machine) -> Undo {
        write(&machine.places, &machine.plan()).unwrap()
    }

    #[test]
    fn a_users_first_files_are_his_own_and_the_systems_stay() {
        let machine = Machine::new(false);
        let before = machine.all();
        let plan = machine.plan();
        let undo = write(&machine.places, &plan).unwrap();
        let own = machine.places.own();
        assert_eq!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap(), POLICY_TEXT);
        assert_eq!(fs::read_to_string(own.join(POLICY)).unwrap(), plan.policy.text);
        let link = fs::read_link(own.join(REGISTRIES).join("default.yaml")).unwrap();
        assert_eq!(link, machine.places.system.join(REGISTRIES).join("default.yaml"));
        assert_eq!(fs::metadata(own.join(REGISTRIES)).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(machine.plan().is_none(), "a second time there is nothing to do");
        undo.revert().unwrap();
        assert_eq!(machine.all(), before);
    }

    #[test]
    fn root_writes_the_systems_unless_he_has_his_own() {
        let machine = Machine::new(true);
        let before = machine.all();
        let undo = written(&machine);
        assert!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap().contains("sigstoreSigned"));
        assert!(!machine.places.own().join(POLICY).exists() && !machine.places.own().join(REGISTRIES).exists());
        undo.revert().unwrap();
        assert_eq!(machine.all(), before);
        fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
        let plan = machine.plan();
        assert_eq!(plan.policy.path, machine.places.own().join(POLICY), "it is what Podman reads");
        assert!(plan.attachments.path.starts_with(&machine.places.system));
    }

    #[test]
    fn modes_and_links_are_kept() {
        let machine = Machine::new(false);
        let (own, elsewhere) = (machine.places.own(), machine.temp.path().join("dotfiles.json"));
        fs::write(&elsewhere, POLICY_TEXT).unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
        symlink(&elsewhere, own.join(POLICY)).unwrap();
        let undo = written(&machine);
        assert_eq!(fs::read_link(own.join(POLICY)).unwrap(), elsewhere);
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("sigstoreSigned"));
        assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o600);
        undo.revert().unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), POLICY_TEXT);
    }

    #[test]
    fn what_is_read_only_stays_as_it_is() {
        let machine = Machine::new(false);
        let (own, elsewhere) = (machine.places.own(), machine.temp.path().join("dotfiles.json"));
        fs::write(&elsewhere, POLICY_TEXT).unwrap();
        symlink(&elsewhere, own.join(POLICY)).unwrap();
        let mode = |mode| fs::set_permissions(&elsewhere, Permissions::from_mode(mode)).unwrap();
        mode(0o444);
        let before = machine.all();
        let error = write(&machine.places, &machine.plan()).unwrap_err();
        assert!(matches!(&error, PolicyError::ReadOnly { path } if *path == own.join(POLICY)), "{error}");
        assert!(error.is_configuration() && error.hint().unwrap().contains("chmod u+w"));
        assert_eq!(machine.all(), before);
        mode(0o644);
        written(&machine);
        mode(0o444);
        assert!(refuse_read_only(&machine.plan()).is_ok(), "nothing would be written");
    }

    #[test]
    fn what_changed_meanwhile_is_left_alone() {
        let machine = Machine::new(false);
        fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
        let plan = machine.plan();
        fs::write(machine.places.own().join(POLICY), "{}").unwrap();
        let before = machine.all();
        assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Changed { path }) if path.ends_with(POLICY)));
        assert_eq!(machine.all(), before);
        let machine = Machine::new(false);
        let plan = machine.plan();
        fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
        assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Changed { .. })), "made meanwhile");
    }

    #[test]
    fn a_source_that_changed_meanwhile_is_not_copied() {
        for name in [POLICY, "registries.d/default.yaml", "registries.d/new.yaml"] {
            let machine = Machine::new(false);
            let plan = machine.plan();
            let source = machine.places.system.join(name);
            fs::write(&source, POLICY_TEXT.replace("insecureAcceptAnything", "reject")).unwrap();
            let before = machine.all();
            let error = write(&machine.places, &plan).unwrap_err();
            assert!(matches!(&error, PolicyError::Changed { path } if *path == source), "{name}: {error}");
            assert_eq!(machine.all(), before);
        }
    }

    #[test]
    fn each_file_is_read_again_right_before_it_is_replaced() {
        let machine = Machine::new(true);
        let plan = machine.plan();
        let mut undo = Undo::default();
        write_one(&plan.attachments, &mut undo, flush).unwrap();
        fs::write(machine.places.system.join(POLICY), "{}").unwrap();
        let error = write_one(&plan.policy, &mut undo, flush).unwrap_err();
        assert!(matches!(error, PolicyError::Changed { .. }), "{error}");
        undo.revert().unwrap();
        assert_eq!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap(), "{}");
        assert!(!plan.attachments.path.exists());
    }

    #[test]
    fn what_might_not_outlast_a_crash_is_taken_back() {
        let fails: [(bool, Flush); 4] = [
            (false, |at| if at.ends_with("containers") { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
            (false, |_| Err(io::ErrorKind::Other.into())),
            (true, |at| if at.ends_with(REGISTRIES) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
            // The second file's, when the first is there for good.
            (true, |at| if at.ends_with("etc") { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
        ];
        for (is_root, fail) in fails {
            let machine = Machine::new(is_root);
            let before = machine.all();
            let error = write_with(&machine.places, &machine.plan(), fail).unwrap_err();
            assert!(matches!(error, PolicyError::Write { .. }), "{error}");
            assert_eq!(machine.all(), before);
        }
    }

    #[test]
    fn what_somebody_changed_since_is_his_and_named() {
        let machine = Machine::new(false);
        let undo = written(&machine);
        let (policy, registries) = (machine.places.own().join(POLICY), machine.places.own().join(REGISTRIES));
        fs::write(&policy, "{}").unwrap();
        fs::write(registries.join("his.yaml"), "docker: {}\n").unwrap();
        let before = machine.all();
        let left = undo.revert().unwrap_err();
        assert!(left.contains(&format!("{}: somebody changed it", policy.display())), "{left}");
        assert!(left.contains(&format!("{}: somebody changed it", registries.display())), "{left}");
        assert_eq!(machine.all(), before);
    }

    #[test]
    fn one_file_that_somebody_changed_does_not_keep_the_other() {
        let machine = Machine::new(true);
        let undo = written(&machine);
        fs::remove_file(machine.places.system.join(POLICY)).unwrap();
        let left = undo.revert().unwrap_err();
        assert!(left.contains(POLICY) && !left.contains(REGISTRIES), "{left}");
        assert_eq!(fs::read_dir(machine.places.system.join(REGISTRIES)).unwrap().count(), 1);
    }

    #[test]
    fn what_is_back_already_needs_nothing() {
        let machine = Machine::new(true);
        let before = machine.all();
        let undo = written(&machine);
        fs::write(machine.places.system.join(POLICY), POLICY_TEXT).unwrap();
        undo.revert().unwrap();
        assert_eq!(machine.all(), before);
    }

    /// Only root can make files of others: elsewhere this shows that one's own stay one's own.
    #[test]
    fn a_file_stays_its_owners() {
        let machine = Machine::new(true);
        let (own, is_root) = (machine.places.own(), rustix::process::geteuid().is_root());
        fs::write(own.join(POLICY), POLICY_TEXT).unwrap();
        fs::create_dir(own.join(REGISTRIES)).unwrap();
        if is_root {
            chown(own.join(POLICY), Some(1234), Some(4321)).unwrap();
            chown(own.join(REGISTRIES), Some(1234), Some(4321)).unwrap();
        }
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        let plan = machine.plan();
        let before = (owner(&plan.policy.path), owner(&own.join(REGISTRIES)));
        let undo = written(&machine);
        assert_eq!((owner(&plan.policy.path), owner(&plan.attachments.path)), before);
        undo.revert().unwrap();
        assert_eq!(owner(&plan.policy.path), before.0);
    }

    #[test]
    fn a_link_to_nothing_is_not_replaced() {
        let machine = Machine::new(true);
        let plan = machine.plan();
        symlink("/nonexistent", &plan.attachments.path).unwrap();
        let before = machine.all();
        let error = write(&machine.places, &plan).unwrap_err();
        assert!(chain(&error).contains("it is a link to what is not there"), "{error}");
        assert_eq!(error.kind(), "policy-write");
        assert_eq!(machine.all(), before);
    }

    #[test]
    fn a_second_file_that_cannot_be_written_takes_the_first_back() {
        let machine = Machine::new(false);
        let mut plan = machine.plan();
        // A file where a directory has to be: no right of root's helps.
        fs::write(machine.temp.path().join("file"), "").unwrap();
        let before = machine.all();
        plan.policy.path = machine.temp.path().join("file/policy.json");
        plan.policy.from = None;
        assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Write { .. } | PolicyError::Read { .. })));
        assert_eq!(machine.all(), before);
    }
}
