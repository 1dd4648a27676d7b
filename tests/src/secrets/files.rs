//! Every file that was written since a host was booted, read from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Kind, Needles};
use crate::Host;

/// The places of a host that can be written, as its root sees them. The rest is the base, which no host changes.
pub struct Files<'a> {
    host: &'a Host,
    roots: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Files<'a> {
    /// Those of a host that is up.
    pub fn of(host: &'a Host) -> Self {
        let (directory, seen) = (host.directory(), PathBuf::from(format!("/proc/{}/root", host.init())));
        let mut roots = vec![(directory.join("upper"), "/".into()), (directory.join("home"), "/home".into())];
        roots.extend(["/run", "/run/user/1000", "/tmp", "/dev/shm"].map(|path| (seen.join(&path[1..]), path.into())));
        Self { host, roots }
    }

    /// Each file that holds a secret, and which ones; the journal, whose fields are compressed, as what it says, too.
    ///
    /// # Panics
    /// When a place cannot be read.
    pub fn with(&self, needles: &Needles) -> BTreeMap<String, BTreeSet<String>> {
        let journal = self.host.root("journalctl --sync && journalctl --all --output export").ok();
        let mut found = BTreeMap::new();
        add(&mut found, "the journal".to_owned(), journal.text.as_bytes(), needles);
        for (root, shown) in &self.roots {
            let device = std::fs::metadata(root).unwrap_or_else(|error| panic!("{}: {error}", root.display())).dev();
            walk(root, shown, device, needles, &mut found);
        }
        found
    }
}

/// What vanishes meanwhile is no error.
fn walk(real: &Path, shown: &Path, device: u64, needles: &Needles, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let Ok(entries) = std::fs::read_dir(real) else { return };
    for entry in entries.filter_map(Result::ok) {
        let Ok(meta) = entry.metadata() else { continue };
        let (real, shown) = (entry.path(), shown.join(entry.file_name()));
        if meta.dev() != device {
            continue;
        }
        if meta.is_dir() {
            walk(&real, &shown, device, needles, found);
        } else if meta.is_file()
            && let Ok(contents) = std::fs::read(&real)
        {
            add(found, shown.to_string_lossy().into_owned(), &contents, needles);
        }
    }
}

fn add(found: &mut BTreeMap<String, BTreeSet<String>>, path: String, contents: &[u8], needles: &Needles) {
    let names: BTreeSet<_> = needles
        .find(contents)
        .filter(|(needle, _)| needle.kind != Kind::Mark)
        .map(|(needle, _)| needle.name.clone())
        .collect();
    if !names.is_empty() {
        found.insert(path, names);
    }
}
