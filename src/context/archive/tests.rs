//! Against trees of every kind, and files that change while they are read.

use super::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().expect("a directory"));
        for (path, content) in files {
            tree.put(path, content);
        }
        tree
    }

    fn path(&self, relative: &str) -> std::path::PathBuf {
        self.0.path().join(relative)
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    fn archive(&self) -> Result<Vec<u8>, ContextError> {
        let mut bytes = Vec::new();
        write(&Context::open(self.0.path(), None).expect("a context"), &mut bytes)?;
        Ok(bytes)
    }

    /// Names and what is behind them, in order.
    fn entries(&self) -> Vec<(String, String)> {
        let bytes = self.archive().expect("an archive");
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().expect("entries").skip(2).map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mode = entry.header().mode().expect("a mode");
            let content = match entry.header().entry_type() {
                EntryType::Directory => format!("directory {mode:o}"),
                EntryType::Symlink => {
                    format!("link to {}", String::from_utf8_lossy(&entry.link_name_bytes().expect("a target")))
                }
                EntryType::Regular => {
                    let mut text = String::new();
                    entry.read_to_string(&mut text).expect("text");
                    format!("{mode:o} {text}")
                }
                other => panic!("{name} is {other:?}"),
            };
            assert_eq!((entry.header().uid().expect("a uid"), entry.header().gid().expect("a gid")), (0, 0));
            (name, content)
        });
        entries.collect()
    }

    fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn modes_links_and_order_are_kept() {
    let tree = Tree::new(&[("Containerfile", "FROM scratch"), ("b", "2"), ("a/c", "3"), ("a.txt", "4")]);
    fs::set_permissions(tree.path("b"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::set_permissions(tree.path("a/c"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::set_permissions(tree.path("a"), fs::Permissions::from_mode(0o750)).expect("a mode");
    for name in ["Containerfile", "a.txt"] {
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(0o644)).expect("a mode");
    }
    symlink("b", tree.path("link")).expect("a link");
    symlink("/nowhere", tree.path("dangling")).expect("a link");
    symlink(".", tree.path("loop")).expect("a link");
    let expected = [
        ("Containerfile", "644 FROM scratch"),
        ("a/", "directory 750"),
        ("a/c", "600 3"),
        ("a.txt", "644 4"),
        ("b", "4755 2"),
        ("dangling", "link to /nowhere"),
        ("link", "link to b"),
        ("loop", "link to ."),
    ];
    assert_eq!(tree.entries(), expected.map(|(name, content)| (name.to_owned(), content.to_owned())));
}

#[test]
fn the_same_tree_makes_the_same_archive() {
    let files = [("Containerfile", "x"), ("z", "1"), ("a/b/c", "2"), ("a/b.c", "3"), ("B", "4")];
    let mut reversed = files;
    reversed.reverse();
    let archives = [files, reversed].map(|files| {
        let tree = Tree::new(&files);
        for path in ["Containerfile", "z", "a/b/c", "a/b.c", "B", "a/b", "a"] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
            File::open(tree.path(path)).expect("open").set_modified(time).expect("a time");
        }
        tree.archive().expect("an archive")
    });
    assert!(archives[0] == archives[1]);
}

#[test]
fn rules_are_obeyed() {
    let tree = Tree::new(&[
        ("Containerfile", ""),
        (".containerignore", "*\n!src\nsrc/secret\n!logs/keep/**"),
        (".dockerignore", ""),
        ("README.md", ""),
        ("src/main", ""),
        ("src/secret", ""),
        ("logs/a", ""),
        ("logs/keep/b", ""),
        ("target/x", ""),
    ]);
    assert_eq!(tree.names(), ["logs/", "logs/keep/", "logs/keep/b", "src/", "src/main"]);
}

#[test]
fn the_containerfile_is_sent_whatever_the_rules_say() {
    let tree = Tree::new(&[("Containerfile", "FROM x"), (".dockerignore", "*"), (".tagship-build/x", "")]);
    let bytes = tree.archive().expect("an archive");
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        (entry.path().expect("a path").display().to_string(), text)
    });
    let expected =
        [(".tagship-build/Containerfile", "FROM x"), (".containerignore", ".tagship-build\n.containerignore\n")];
    assert_eq!(entries.collect::<Vec<_>>(), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn an_ignored_directory_with_nothing_kept_is_not_sent() {
    let tree = Tree::new(&[("Containerfile", ""), (".dockerignore", "a\n!a/b/keep"), ("a/b/c", ""), ("a/d", "")]);
    assert_eq!(tree.names(), [".dockerignore", "Containerfile"]);
}

#[test]
fn what_means_nothing_to_a_build_is_skipped() {
    let tree = Tree::new(&[("Containerfile", "")]);
    let _socket = std::os::unix::net::UnixListener::bind(tree.path("socket")).expect("a socket");
    rustix::fs::mknodat(rustix::fs::CWD, tree.path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    assert_eq!(tree.names(), ["Containerfile"]);
}

#[test]
fn hard_links_are_files() {
    let tree = Tree::new(&[("Containerfile", ""), ("a", "x")]);
    fs::hard_link(tree.path("a"), tree.path("b")).expect("a link");
    let entries: BTreeMap<_, _> = tree.entries().into_iter().collect();
    assert_eq!(entries["a"], entries["b"]);
}

#[test]
fn long_names_and_targets() {
    let long = ["d".repeat(120), "e".repeat(200)].join("/");
    let tree = Tree::new(&[("Containerfile", ""), (&long, "x")]);
    symlink("t".repeat(150), tree.path("link")).expect("a link");
    let entries: BTreeMap<_, _> = tree.entries().into_iter().collect();
    assert!(entries[&long].ends_with(" x"));
    assert_eq!(entries["link"], format!("link to {}", "t".repeat(150)));
}

#[test]
fn names_that_are_no_text() {
    let tree = Tree::new(&[("Containerfile", "")]);
    for name in [&b"\xff\xfe"[..], b"line\nbreak", b"\xc3"] {
        fs::write(tree.0.path().join(OsStr::from_bytes(name)), "x").expect("a file");
    }
    let bytes = tree.archive().expect("an archive");
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<Vec<u8>> =
        archive.entries().expect("entries").map(|entry| entry.expect("an entry").path_bytes().into_owned()).collect();
    assert_eq!(names[2..], [&b"Containerfile"[..], b"line\nbreak", b"\xc3", b"\xff\xfe"]);
}

#[test]
fn an_empty_directory_is_sent() {
    let tree = Tree::new(&[("Containerfile", "")]);
    fs::create_dir(tree.path("empty")).expect("a directory");
    assert_eq!(tree.names(), ["Containerfile", "empty/"]);
}

#[test]
fn a_file_that_shrinks_or_grows_is_named() {
    for (promised, content) in [(10, "short"), (3, "longer")] {
        let tree = Tree::new(&[("file", content)]);
        let mut exactly =
            Exactly { file: File::open(tree.path("file")).expect("open"), left: promised, outcome: Ok(()) };
        io::copy(&mut exactly, &mut io::sink()).expect_err("refused");
        assert!(matches!(exactly.outcome, Err(Unfit::Size)), "{promised} {content}");
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let tree = Tree::new(&[("Containerfile", ""), ("gone", "")]);
    let context = Context::open(tree.0.path(), None).expect("a context");
    let found: Vec<_> = Walk::new(&context).map(|found| found.expect("found")).collect();
    fs::remove_file(tree.path("gone")).expect("removed");
    let mut bytes = Vec::new();
    let error = append(&mut Builder::new(&mut bytes), &found[1]).expect_err("gone");
    assert!(matches!(&error, ContextError::Unreadable { path, .. } if path.ends_with("gone")), "{error}");
}

#[tokio::test]
async fn a_context_is_streamed_in_pieces() {
    let tree = Tree::new(&[("Containerfile", ""), ("large", &"x".repeat(3 * PIECE))]);
    let expected = tree.archive().expect("an archive");
    let mut stream = Context::open(tree.0.path(), None).expect("a context").stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.pieces.recv().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    assert!(bytes == expected);
    let sent = stream.outcome.await.expect("joined").expect("sent");
    assert_eq!(sent, Sent { entries: 2, bytes: expected.len() as u64 });
}

#[tokio::test]
async fn an_engine_that_goes_away_ends_the_walk() {
    let tree = Tree::new(&[("Containerfile", ""), ("large", &"x".repeat(8 * PIECE))]);
    let stream = Context::open(tree.0.path(), None).expect("a context").stream();
    drop(stream.pieces);
    let error = stream.outcome.await.expect("joined").expect_err("refused");
    assert!(matches!(error, ContextError::Refused), "{error}");
}

#[tokio::test]
async fn an_unreadable_tree_is_no_whole_archive() {
    let tree = Tree::new(&[("Containerfile", ""), ("a", "")]);
    let context = Context::open(tree.0.path(), None).expect("a context");
    fs::remove_dir_all(tree.0.path()).expect("removed");
    let mut stream = context.stream();
    let mut last = None;
    while let Some(piece) = stream.pieces.recv().await {
        last = Some(piece);
    }
    assert!(matches!(last, Some(Err(_))), "the stream ends with an error");
    assert!(stream.outcome.await.expect("joined").is_err());
}
