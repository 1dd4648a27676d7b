//! Podman's files: which of them it reads, and what is in them. What that means is not known here, and nothing of it is
//! changed: that is `write`'s.
//!
//! Seen with Podman 5.4.2, the same for root and others: `~/.config/containers/policy.json`, where there is one, is read
//! in place of `/etc/containers/policy.json`, and so is the directory registries.d, each by itself. `XDG_CONFIG_HOME`
//! does not count.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    PolicyError,
    attachments::Entry,
    document,
    plan::{Found, Plan},
};
use crate::config;

pub(super) const POLICY: &str = "policy.json";
pub(super) const REGISTRIES: &str = "registries.d";

/// What a directory, a FIFO or a device in a file's place is read as.
pub(super) const NO_FILE: io::ErrorKind = io::ErrorKind::InvalidInput;

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

    pub(super) fn own(&self) -> PathBuf {
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
        leads_somewhere(&policy_target)?;
        leads_somewhere(&registries_target)?;
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

/// Refuses a link to nothing at a place that is to be written: whoever made it wants the file elsewhere, and a new one
/// here would take the link away.
fn leads_somewhere(path: &Path) -> Result<(), PolicyError> {
    match fs::read_link(path) {
        Ok(to) if !path.exists() => Err(PolicyError::Dangling { path: path.to_owned(), to }),
        _ => Ok(()),
    }
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
    text(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })
}

/// The same, for who knows better what it was read for. What is no regular file may never end, or never begin.
pub(super) fn text(path: &Path) -> io::Result<Option<String>> {
    let no_file = || io::Error::new(NO_FILE, "it is no regular file");
    let file = match config::open(path) {
        Ok(file) => file.ok_or_else(no_file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    let limit = document::LARGEST as u64;
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() > document::LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tagship_core::explain::Explain;

    use super::{super::requirement::tests::requirement, *};

    pub(in super::super) const POLICY_TEXT: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

    /// A machine with a system's files and a user.
    pub(in super::super) struct Machine {
        pub temp: tempfile::TempDir,
        pub places: ContainersPlaces,
    }

    impl Machine {
        pub(in super::super) fn new(is_root: bool) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let places = ContainersPlaces { home: temp.path().join("home"), system: temp.path().join("etc"), is_root };
            fs::create_dir_all(places.own()).unwrap();
            fs::create_dir_all(places.system.join(REGISTRIES)).unwrap();
            fs::write(places.system.join(POLICY), POLICY_TEXT).unwrap();
            fs::write(places.system.join(REGISTRIES).join("default.yaml"), "default-docker: {}\n").unwrap();
            Self { temp, places }
        }

        pub(in super::super) fn plan(&self) -> Plan {
            Plan::of(&self.places.look().unwrap(), &requirement("git.example.org/chris/app", &["/etc/app.pub"]))
                .unwrap()
        }

        /// Every file and link, with what is in it and its mode.
        pub(in super::super) fn all(&self) -> Vec<(PathBuf, String)> {
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
    fn what_is_no_text_file_is_not_read() {
        let machine = Machine::new(false);
        let policy = machine.places.own().join(POLICY);
        let refused = |what: &str| {
            let error = machine.places.look().unwrap_err();
            assert!(matches!(&error, PolicyError::Read { path, .. } if *path == policy), "{what}: {error}");
            assert!(error.is_configuration() && error.hint().is_some(), "{what}");
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
        fs::write(machine.places.own().join(REGISTRIES), "").unwrap();
        assert!(machine.places.look().unwrap_err().hint().unwrap().contains("directory"));
    }

    #[test]
    fn a_link_to_nothing_is_refused_where_it_would_be_replaced() {
        for name in [POLICY, REGISTRIES] {
            let machine = Machine::new(false);
            let link = machine.places.own().join(name);
            symlink("/nonexistent", &link).unwrap();
            let error = machine.places.look().unwrap_err();
            assert!(matches!(&error, PolicyError::Dangling { path, .. } if *path == link), "{name}: {error}");
            assert!(error.is_configuration() && error.hint().is_some());
        }
        let machine = Machine::new(true);
        symlink("/nonexistent", machine.places.own().join(POLICY)).unwrap();
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
