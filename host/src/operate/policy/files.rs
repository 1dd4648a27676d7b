//! Podman's files: which of them it reads, and how they are replaced and put back. What they say is not known here.
//!
//! Seen with Podman 5.4.2, the same for root and others: `~/.config/containers/policy.json`, where there is one, is read
//! in place of `/etc/containers/policy.json`, and so is the directory registries.d, each by itself. `XDG_CONFIG_HOME`
//! does not count.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    PolicyError,
    attachments::Entry,
    document,
    plan::{Change, Found, Plan},
};

const POLICY: &str = "policy.json";
const REGISTRIES: &str = "registries.d";

/// Where Podman's files are.
#[derive(Debug, Clone)]
pub struct ContainersPlaces {
    /// The user's home.
    pub home: PathBuf,
    /// `/etc/containers`.
    pub system: PathBuf,
    /// Whether the system's files are this user's to write.
    pub is_root: bool,
}

impl ContainersPlaces {
    /// Those of the user who runs this program.
    pub fn of_user(home: PathBuf) -> Self {
        Self { home, system: "/etc/containers".into(), is_root: rustix::process::geteuid().is_root() }
    }

    fn own(&self) -> PathBuf {
        self.home.join(".config/containers")
    }

    /// The path that Podman reads, and the one that is to be written.
    fn choose(&self, name: &str) -> (PathBuf, PathBuf) {
        let (own, system) = (self.own().join(name), self.system.join(name));
        // As Podman asks: a link that leads nowhere is none.
        match (own.exists(), self.is_root) {
            (true, _) => (own.clone(), own),
            (false, true) => (system.clone(), system),
            (false, false) => (system, own),
        }
    }

    /// Reads everything that counts.
    pub(super) fn look(&self) -> Result<Found, PolicyError> {
        let (policy, policy_target) = self.choose(POLICY);
        let (registries, registries_target) = self.choose(REGISTRIES);
        let text = read(&policy)?;
        let entries = entries(&registries)?;
        Ok(Found { policy: text.map(|text| (policy, text)), policy_target, registries, entries, registries_target })
    }

    /// Makes a home in this empty directory that is the user's own by links, but for Podman's two: they are the plan's.
    /// A Podman with this home reads what is not written yet, and all else as ever.
    pub(super) fn stage(&self, plan: &Plan, at: &Path) -> Result<(), PolicyError> {
        let stage = |source| PolicyError::Stage { path: at.to_owned(), source };
        let (config, containers) = (at.join(".config"), at.join(".config/containers"));
        fs::create_dir_all(containers.join(REGISTRIES)).map_err(stage)?;
        link_all(&self.home, at, &[".config"]).map_err(stage)?;
        link_all(&self.home.join(".config"), &config, &["containers"]).map_err(stage)?;
        link_all(&self.own(), &containers, &[POLICY, REGISTRIES]).map_err(stage)?;
        fs::write(containers.join(POLICY), &plan.policy.text).map_err(stage)?;
        for entry in &plan.entries {
            fs::write(containers.join(REGISTRIES).join(&entry.name), &entry.text).map_err(stage)?;
        }
        Ok(())
    }
}

fn link_all(from: &Path, to: &Path, but: &[&str]) -> io::Result<()> {
    let names = match fs::read_dir(from) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in names {
        let name = entry?.file_name();
        if !but.iter().any(|but| name == **but) {
            symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// The files that Podman reads there, by name.
fn entries(directory: &Path) -> Result<Vec<Entry>, PolicyError> {
    let failed = |source| PolicyError::Read { path: directory.to_owned(), source };
    let names = match fs::read_dir(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut entries = Vec::new();
    for entry in names {
        let path = entry.map_err(failed)?.path();
        if path.extension() != Some(OsStr::new("yaml")) {
            continue;
        }
        let name = path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        let name =
            name.ok_or_else(|| PolicyError::Read { path: path.clone(), source: io::ErrorKind::InvalidData.into() })?;
        if let Some(text) = read(&path)? {
            entries.push(Entry { name, text });
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// A file's text; none if it is not there.
fn read(path: &Path) -> Result<Option<String>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    // What is no regular file may never end, or never begin.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
        Ok(found) if !found.is_file() => return Err(failed(io::Error::other("it is no regular file"))),
        Ok(_) => {}
    }
    let mut text = String::new();
    let limit = document::LARGEST as u64;
    File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() > document::LARGEST {
        return Err(failed(io::Error::other(format!("it is larger than {limit} bytes"))));
    }
    Ok(Some(text))
}

/// What was written, and how it was before.
#[derive(Debug, Default)]
pub(super) struct Undo(Vec<Step>);

#[derive(Debug)]
enum Step {
    Replaced { path: PathBuf, before: String },
    Made { path: PathBuf },
    MadeDirectory { path: PathBuf, names: Vec<PathBuf> },
}

/// Writes the plan: registries.d first, which alone asks for nothing, then the policy. Each file, and a new directory
/// with all that is in it, appears at once or not at all; if one cannot be written, the others are put back.
pub(super) fn write(plan: &Plan) -> Result<Undo, PolicyError> {
    let mut undo = Undo::default();
    match write_all(plan, &mut undo) {
        Ok(()) => Ok(undo),
        Err(error) => match undo.revert() {
            Ok(()) => Err(error),
            Err(left) => Err(PolicyError::NotRestored { why: error.to_string(), left }),
        },
    }
}

fn write_all(plan: &Plan, undo: &mut Undo) -> Result<(), PolicyError> {
    for change in [&plan.attachments, &plan.policy] {
        if read(&change.path)?.as_ref() != change.before() {
            return Err(PolicyError::Changed { path: change.path.clone() });
        }
    }
    let directory = plan.attachments.path.parent().unwrap_or(Path::new("/"));
    if !plan.attachments.is_none() && !directory.exists() {
        make_directory(directory, plan).map_err(|source| PolicyError::Write { path: directory.to_owned(), source })?;
        let names = plan.links.iter().chain([&plan.attachments.path]).filter_map(|path| path.file_name());
        let names = names.map(|name| directory.join(name)).collect();
        undo.0.push(Step::MadeDirectory { path: directory.to_owned(), names });
    } else {
        write_one(&plan.attachments, undo)?;
    }
    write_one(&plan.policy, undo)
}

fn write_one(change: &Change, undo: &mut Undo) -> Result<(), PolicyError> {
    if change.is_none() {
        return Ok(());
    }
    let failed = |source| PolicyError::Write { path: change.path.clone(), source };
    if let Some(directory) = change.path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    replace(&change.path, &change.text).map_err(failed)?;
    undo.0.push(match change.before() {
        Some(before) => Step::Replaced { path: change.path.clone(), before: before.clone() },
        None => Step::Made { path: change.path.clone() },
    });
    Ok(())
}

fn make_directory(path: &Path, plan: &Plan) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new()
        .prefix(".registries.d-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent)?;
    for link in &plan.links {
        symlink(link, new.path().join(link.file_name().unwrap_or_default()))?;
    }
    replace(&new.path().join(plan.attachments.path.file_name().unwrap_or_default()), &plan.attachments.text)?;
    fs::rename(new.path(), path)?;
    // It is no longer where the guard would look for it.
    let _ = new.keep();
    File::open(parent)?.sync_all()
}

/// Puts a text in place of a file at once, through links, with the mode that the file had.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mode = fs::metadata(path).map_or(0o644, |found| found.permissions().mode() & 0o777);
    let builder =
        tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(mode)).tempfile_in(directory);
    let mut file = builder?;
    // The mode of a new file is cut by the umask.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

impl Undo {
    /// Puts everything back, as much as can be. What cannot is named.
    pub(super) fn revert(self) -> Result<(), String> {
        let mut left = Vec::new();
        for step in self.0.into_iter().rev() {
            let (path, done) = match step {
                Step::Replaced { path, before } => (path.clone(), replace(&path, &before)),
                Step::Made { path } => (path.clone(), fs::remove_file(&path)),
                Step::MadeDirectory { path, names } => {
                    let gone = names.iter().try_for_each(fs::remove_file).and_then(|()| fs::remove_dir(&path));
                    (path, gone)
                }
            };
            if let Err(error) = done {
                left.push(format!("{}: {error}", path.display()));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::requirement::tests::requirement, *};

    const POLICY_TEXT: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

    /// A machine with a system's files and a user.
    struct Machine {
        temp: tempfile::TempDir,
        places: ContainersPlaces,
    }

    impl Machine {
        fn new(is_root: bool) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let places = ContainersPlaces { home: temp.path().join("home"), system: temp.path().join("etc"), is_root };
            fs::create_dir_all(places.own()).unwrap();
            fs::create_dir_all(places.system.join(REGISTRIES)).unwrap();
            fs::write(places.system.join(POLICY), POLICY_TEXT).unwrap();
            fs::write(places.system.join(REGISTRIES).join("default.yaml"), "default-docker: {}\n").unwrap();
            Self { temp, places }
        }

        fn plan(&self) -> Plan {
            Plan::of(&self.places.look().unwrap(), &requirement("git.example.org/chris/app", &["/etc/app.pub"]))
                .unwrap()
        }

        /// Every file and link, with what is in it and its mode.
        fn all(&self) -> Vec<(PathBuf, String)> {
            let mut found = Vec::new();
            let mut open = vec![self.temp.path().to_owned()];
            while let Some(directory) = open.pop() {
                for entry in fs::read_dir(directory).unwrap() {
                    let path = entry.unwrap().path();
                    let kind = fs::symlink_metadata(&path).unwrap();
                    let text = if kind.is_symlink() {
                        format!("-> {}", fs::read_link(&path).unwrap().display())
                    } else if kind.is_dir() {
                        open.push(path.clone());
                        "/".to_owned()
                    } else {
                        format!("{:o} {}", kind.permissions().mode() & 0o777, fs::read_to_string(&path).unwrap())
                    };
                    found.push((path, text));
                }
            }
            found.sort();
            found
        }
    }

    #[test]
    fn a_users_first_files_are_his_own_and_the_systems_stay() {
        let machine = Machine::new(false);
        let before = machine.all();
        let plan = machine.plan();
        let undo = write(&plan).unwrap();
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
        let undo = write(&machine.plan()).unwrap();
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
        let undo = write(&machine.plan()).unwrap();
        assert_eq!(fs::read_link(own.join(POLICY)).unwrap(), elsewhere);
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("sigstoreSigned"));
        assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o600);
        undo.revert().unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), POLICY_TEXT);
    }

    #[test]
    fn what_changed_meanwhile_is_left_alone() {
        let machine = Machine::new(false);
        fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
        let plan = machine.plan();
        fs::write(machine.places.own().join(POLICY), "{}").unwrap();
        let before = machine.all();
        assert!(matches!(write(&plan), Err(PolicyError::Changed { path }) if path.ends_with(POLICY)));
        assert_eq!(machine.all(), before);
        let machine = Machine::new(false);
        let plan = machine.plan();
        fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
        assert!(matches!(write(&plan), Err(PolicyError::Changed { .. })), "made meanwhile");
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
        assert!(matches!(write(&plan), Err(PolicyError::Write { .. } | PolicyError::Read { .. })));
        assert_eq!(machine.all(), before);
    }

    #[test]
    fn what_is_no_text_file_is_not_read() {
        let machine = Machine::new(false);
        let policy = machine.places.own().join(POLICY);
        let refused = |what: &str| {
            let error = machine.places.look().unwrap_err();
            assert!(matches!(&error, PolicyError::Read { path, .. } if *path == policy), "{what}: {error}");
            assert!(error.is_configuration());
        };
        fs::create_dir(&policy).unwrap();
        refused("directory");
        fs::remove_dir(&policy).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &policy, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        refused("FIFO");
        fs::remove_file(&policy).unwrap();
        fs::write(&policy, b"{\xff}").unwrap();
        refused("not text");
        fs::write(&policy, " ".repeat(document::LARGEST + 1)).unwrap();
        refused("too large");
        fs::remove_file(&policy).unwrap();
        symlink("/nonexistent", &policy).unwrap();
        assert!(machine.places.look().unwrap().policy.unwrap().0.ends_with("etc/policy.json"), "as Podman does");
    }

    #[test]
    fn only_what_podman_reads_in_registries_d_counts() {
        let machine = Machine::new(false);
        let registries = machine.places.system.join(REGISTRIES);
        fs::write(registries.join("note.yml"), "[").unwrap();
        fs::write(registries.join("a.yaml"), "docker: {}\n").unwrap();
        symlink("/nonexistent", registries.join("dangling.yaml")).unwrap();
        let names: Vec<String> = machine.places.look().unwrap().entries.into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a.yaml", "default.yaml"]);
        fs::remove_dir_all(&registries).unwrap();
        assert!(machine.places.look().unwrap().entries.is_empty());
    }

    #[test]
    fn a_staged_home_is_the_users_but_for_the_plan() {
        let machine = Machine::new(false);
        let own = machine.places.own();
        for (name, text) in
            [("home/.docker", ""), ("home/.config/other", ""), ("home/.config/containers/auth.json", "{}")]
        {
            fs::write(machine.temp.path().join(name), text).unwrap();
        }
        let plan = machine.plan();
        let before = machine.all();
        let stage = tempfile::tempdir().unwrap();
        machine.places.stage(&plan, stage.path()).unwrap();
        let at = |name: &str| stage.path().join(name);
        assert_eq!(fs::read_link(at(".config/containers/auth.json")).unwrap(), own.join("auth.json"));
        assert_eq!(fs::read_link(at(".docker")).unwrap(), machine.places.home.join(".docker"));
        assert!(at(".config/other").is_symlink() && !at(".config").is_symlink());
        assert_eq!(fs::read_to_string(at(".config/containers/policy.json")).unwrap(), plan.policy.text);
        assert_eq!(fs::read_dir(at(".config/containers/registries.d")).unwrap().count(), 2);
        assert_eq!(machine.all(), before, "nothing of the user's was touched");
    }
}
