//! Paths that are in root's hands, and each way in which they are not.

use std::collections::BTreeMap;

use super::*;

/// A file system of a few names; those not listed are root's directories with mode 0755.
struct Fake(BTreeMap<&'static str, Entry>);

impl Files for Fake {
    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let listed = self.0.get(path.to_str().unwrap()).cloned();
        if path.ends_with("missing") {
            return Err(io::ErrorKind::NotFound.into());
        }
        if path.parent() == Some(Path::new("/root")) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(listed.unwrap_or(Entry { kind: Kind::Directory, owner: 0, mode: 0o755 }))
    }
}

fn file(owner: u32, mode: u32) -> Entry {
    Entry { kind: Kind::File, owner, mode }
}

fn link(owner: u32, target: &str) -> Entry {
    Entry { kind: Kind::Link(target.into()), owner, mode: 0o777 }
}

fn walked<const N: usize>(path: &str, entries: [(&'static str, Entry); N]) -> Result<PathBuf, &'static str> {
    walk_to_file(Path::new(path), &Fake(entries.into())).map_err(name)
}

fn name(error: OwnershipError) -> &'static str {
    match error {
        OwnershipError::Relative { .. } => "relative",
        OwnershipError::Owner { .. } => "owner",
        OwnershipError::Writable { .. } => "writable",
        OwnershipError::NotAFile { .. } => "not a file",
        OwnershipError::NotADirectory { .. } => "not a directory",
        OwnershipError::Closed { .. } => "closed",
        OwnershipError::Links { .. } => "links",
        OwnershipError::TooLarge { .. } => "too large",
        OwnershipError::Io { .. } => "io",
    }
}

#[test]
fn a_directory_has_to_be_roots_with_and_without_anything_in_it() {
    let directory = |owner, mode| Entry { kind: Kind::Directory, owner, mode };
    for (entry, expected) in [
        (directory(0, 0o755), Ok(())),
        (directory(0, 0o775), Err("writable")),
        (directory(0, 0o1777), Err("writable")),
        (directory(1000, 0o755), Err("owner")),
        (link(1000, "/etc/keys"), Err("owner")),
        (link(0, "/home/app"), Err("owner")),
        (file(0, 0o644), Err("not a directory")),
    ] {
        let files = Fake([("/etc/tagship", entry.clone()), ("/home/app", directory(1000, 0o755))].into());
        assert_eq!(walk_to_directory(Path::new("/etc/tagship"), &files).map_err(name), expected, "{entry:?}");
    }
    assert!(check_directory(Path::new("/etc/there/is/none")).is_ok());
}

#[test]
fn roots_own_files_are_accepted() {
    let key = "/etc/keys/a.pub";
    assert_eq!(walked(key, [(key, file(0, 0o644))]), Ok(key.into()));
    assert_eq!(walked("/etc/./keys/../keys/a.pub", [(key, file(0, 0o644))]), Ok(key.into()));
}

#[test]
fn roots_links_are_followed() {
    let key = "/etc/keys/a.pub";
    let at = "/etc/keys/current";
    assert_eq!(walked(at, [(key, file(0, 0o644)), (at, link(0, "a.pub"))]), Ok(key.into()));
    assert_eq!(walked(at, [(key, file(0, 0o644)), (at, link(0, "../keys/a.pub"))]), Ok(key.into()));
    assert_eq!(walked("/key", [(key, file(0, 0o644)), ("/key", link(0, key))]), Ok(key.into()));
}

#[test]
fn whatever_another_may_change_is_refused() {
    let key = "/etc/keys/a.pub";
    let good = || (key, file(0, 0o644));
    let directory = |owner, mode| Entry { kind: Kind::Directory, owner, mode };
    assert_eq!(walked(key, [(key, file(1000, 0o644))]), Err("owner"));
    assert_eq!(walked(key, [(key, file(0, 0o664))]), Err("writable"));
    assert_eq!(walked(key, [(key, file(0, 0o646))]), Err("writable"));
    assert_eq!(walked(key, [good(), ("/etc/keys", directory(1000, 0o755))]), Err("owner"));
    assert_eq!(walked(key, [good(), ("/etc", directory(0, 0o775))]), Err("writable"));
    assert_eq!(walked(key, [good(), ("/", directory(1000, 0o755))]), Err("owner"));
    assert_eq!(walked("/tmp/a.pub", [("/tmp", directory(0, 0o1777))]), Err("writable"));
    assert_eq!(walked("/home/u/a.pub", [good(), ("/home/u/a.pub", link(1000, key))]), Err("owner"));
    let through = [good(), ("/home/u", directory(1000, 0o755)), ("/home/u/a.pub", link(0, key))];
    assert_eq!(walked("/home/u/a.pub", through), Err("owner"));
    let out = [("/etc/a.pub", link(0, "/home/u/a.pub")), ("/home/u", directory(1000, 0o755))];
    assert_eq!(walked("/etc/a.pub", out), Err("owner"));
}

#[test]
fn each_hint_mends_what_it_is_about() {
    let key = "/etc/keys/a.pub";
    let good = || (key, file(0, 0o644));
    let directory = |owner, mode| Entry { kind: Kind::Directory, owner, mode };
    let copy = "copy the public key to where only root writes, and name it there: `sudo install -D -m 644 -t /etc/tagship/keys";
    for (path, entries, error, hint) in [
        (
            key,
            vec![(key, file(1000, 0o644))],
            "the file /etc/keys/a.pub belongs to uid 1000, not to root",
            "look at what is in it, for its owner could change it until now; then `sudo chown root:root \
             /etc/keys/a.pub`"
                .to_owned(),
        ),
        (
            key,
            vec![(key, file(1000, 0o664))],
            "the file /etc/keys/a.pub belongs to uid 1000, not to root",
            "look at what is in it, for its owner could change it until now; then `sudo chown root:root \
             /etc/keys/a.pub && sudo chmod go-w /etc/keys/a.pub`"
                .to_owned(),
        ),
        // As an access control list for one more user shows: its mask is in the group's bits.
        (
            key,
            vec![(key, file(0, 0o664))],
            "the file /etc/keys/a.pub can be written by others than root (mode 0664)",
            "`sudo chmod go-w /etc/keys/a.pub`".to_owned(),
        ),
        (
            key,
            vec![good(), ("/etc/keys", directory(0, 0o2775))],
            "the directory /etc/keys can be written by others than root (mode 2775)",
            "`sudo chmod go-w /etc/keys`".to_owned(),
        ),
        (
            key,
            vec![good(), ("/etc/keys", directory(1000, 0o755))],
            "the directory /etc/keys belongs to uid 1000, not to root",
            format!("{copy} {key}`; or, if /etc/keys is there for keys alone, `sudo chown root:root /etc/keys`"),
        ),
        (
            "/home/u/a.pub",
            vec![("/home/u", directory(1000, 0o700))],
            "the directory /home/u belongs to uid 1000, not to root",
            format!("{copy} /home/u/a.pub`"),
        ),
        (
            "/srv/my keys/it's.pub",
            vec![("/srv/my keys", directory(1000, 0o755))],
            "the directory /srv/my keys belongs to uid 1000, not to root",
            format!("{copy} '/srv/my keys/it'\\''s.pub'`"),
        ),
        (
            "/etc/$(id)/a.pub",
            vec![("/etc/$(id)", directory(0, 0o775))],
            "the directory /etc/$(id) can be written by others than root (mode 0775)",
            "`sudo chmod go-w '/etc/$(id)'`".to_owned(),
        ),
        (
            key,
            vec![good(), ("/etc", directory(1000, 0o755))],
            "the directory /etc belongs to uid 1000, not to root",
            "`sudo chown root:root /etc`".to_owned(),
        ),
        (
            "/tmp/a.pub",
            vec![("/tmp", directory(0, 0o1777))],
            "the directory /tmp can be written by others than root (mode 1777)",
            format!("{copy} /tmp/a.pub`"),
        ),
        (
            "/dev/null",
            vec![("/dev/null", Entry { kind: Kind::Other, owner: 0, mode: 0o666 })],
            "/dev/null is no regular file",
            "name the file that holds the public key".to_owned(),
        ),
        ("/root/a.pub", vec![], "this user may not enter the directory /root", format!("{copy} /root/a.pub`")),
        (
            "/etc/link",
            vec![good(), ("/etc/link", link(1000, key))],
            "the link /etc/link belongs to uid 1000, not to root",
            "`sudo chown -h root:root /etc/link`".to_owned(),
        ),
    ] {
        let refused = walk(Path::new(path), &Fake(entries.into_iter().collect())).unwrap_err();
        assert_eq!((refused.to_string().as_str(), refused.hint()), (error, Some(hint)));
    }
}

#[test]
fn a_file_that_cannot_lie_elsewhere_is_never_mended_by_taking_a_home() {
    let remedy = |path: &str, at: &'static str| {
        let entries = [(at, Entry { kind: Kind::Directory, owner: 1000, mode: 0o755 })];
        let link = ("/etc/tagship/out.yaml", link(0, "/home/u/a.yaml"));
        walk(Path::new(path), &Fake(entries.into_iter().chain([link]).collect())).unwrap_err().remedy(false).unwrap()
    };
    assert_eq!(remedy("/etc/tagship/a.yaml", "/etc/tagship"), "`sudo chown root:root /etc/tagship`");
    let out = remedy("/etc/tagship/out.yaml", "/home/u");
    assert_eq!(out, "have no link on the way to /etc/tagship/out.yaml lead out of /etc");
}

#[test]
fn what_is_no_file_is_refused() {
    let other = Entry { kind: Kind::Other, owner: 0, mode: 0o600 };
    assert_eq!(walked("etc/a.pub", []), Err("relative"));
    assert_eq!(walked("/", []), Err("not a file"));
    assert_eq!(walked("/etc/keys", []), Err("not a file"));
    assert_eq!(walked("/etc/missing", []), Err("io"));
    assert_eq!(walked("/etc/fifo", [("/etc/fifo", other)]), Err("not a file"));
    assert_eq!(walked("/etc/a/b", [("/etc/a", file(0, 0o644))]), Err("not a file"));
    assert_eq!(walked("/etc/a", [("/etc/a", link(0, "b")), ("/etc/b", link(0, "a"))]), Err("links"));
}

#[test]
fn nothing_that_cannot_be_read_is_to_be_opened_to_all() {
    let closed = OwnershipError::Io { at: "/etc/k.pub".into(), source: io::ErrorKind::PermissionDenied.into() };
    let hint = closed.hint().unwrap();
    assert!(!hint.contains("chmod") && hint.contains("private key"), "{hint}");
    assert!(hint.contains("`sudo install -m 644 cosign.pub /etc/k.pub`"), "{hint}");
}

#[test]
fn a_key_in_a_temporary_directory_is_refused_for_real() {
    let temp = tempfile::tempdir().unwrap();
    let key = temp.path().join("a.pub");
    fs::write(&key, "key").unwrap();
    assert_eq!(RootFile::read(&key).unwrap_err().kind(), "not-root-owned");
}
