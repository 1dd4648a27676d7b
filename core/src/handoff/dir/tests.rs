//! Every type of file at every name, and everybody at once.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Barrier;

use super::*;
use crate::explain::Explain as _;
use crate::handoff::names::{RequestId, STATUS, TRIGGER};

struct Place {
    temp: tempfile::TempDir,
    dir: Dir,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("d")).unwrap();
        let dir = Dir::open(&temp.path().join("d")).unwrap();
        Place { temp, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn outside(&self) -> PathBuf {
        self.temp.path().join("outside")
    }

    /// All names except those in the fixed place for what cannot be removed.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.dir.names().unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(ASIDE));
        names.sort();
        names
    }
}

/// Plants something at the first path; the second one is a file beyond the directory.
type Plant = fn(&Path, &Path);

/// Everything that a job can plant at a name, each with a word for it.
const PLANTS: [(&str, Plant); 9] = [
    ("a FIFO", |at, _| rustix::fs::mkfifoat(rustix::fs::CWD, at, Mode::from_raw_mode(0o666)).unwrap()),
    ("a symbolic link", |at, outside| {
        fs::write(outside, "secret").unwrap();
        symlink(outside, at).unwrap();
    }),
    ("a dangling symbolic link", |at, outside| symlink(outside, at).unwrap()),
    ("a symbolic link to itself", |at, _| symlink(at, at).unwrap()),
    ("a symbolic link to a directory", |at, outside| {
        fs::create_dir(outside).unwrap();
        symlink(outside, at).unwrap();
    }),
    ("an empty directory", |at, _| fs::create_dir(at).unwrap()),
    ("a full directory", |at, _| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("file"), "x").unwrap();
    }),
    ("a full directory without rights", |at, _| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("file"), "x").unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o0)).unwrap();
    }),
    ("a socket", |at, _| drop(UnixListener::bind(at).unwrap())),
];

fn anyone(place: &Place, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
    place.dir.open_file(OsStr::new(name), &Owners::Anyone)?.map(|opened| opened.read(100)).transpose()
}

#[test]
fn a_file_is_put_whole_and_once() {
    let place = Place::new();
    place.dir.put("name", b"content").unwrap();
    assert_eq!(fs::read(place.path("name")).unwrap(), b"content");
    assert_eq!(fs::metadata(place.path("name")).unwrap().permissions().mode() & 0o777, 0o644);
    let error = place.dir.put("name", b"other").unwrap_err();
    assert!(error.to_string().starts_with("cannot put name"), "{error}");
    assert_eq!(fs::read(place.path("name")).unwrap(), b"content");
    assert_eq!(place.names(), ["name"]);
}

#[test]
fn nothing_planted_is_put_over() {
    for (word, plant) in PLANTS {
        let place = Place::new();
        plant(&place.path("name"), &place.outside());
        assert!(place.dir.put("name", b"x").is_err(), "{word}");
        assert_eq!(place.names(), ["name"], "{word}");
    }
}

#[test]
fn everything_planted_is_replaced_and_nothing_followed() {
    for (word, plant) in PLANTS {
        let place = Place::new();
        plant(&place.path(STATUS), &place.outside());
        let before = fs::read(place.outside()).ok();
        place.dir.replace(STATUS, b"ok v1\n").unwrap();
        assert!(fs::symlink_metadata(place.path(STATUS)).unwrap().is_file(), "{word}");
        assert_eq!(fs::read(place.path(STATUS)).unwrap(), b"ok v1\n", "{word}");
        assert_eq!(fs::read(place.outside()).ok(), before, "{word}");
        assert_eq!(place.names(), [STATUS], "{word}");
    }
}

#[test]
fn everything_planted_gives_way_to_a_new_log() {
    for (word, plant) in PLANTS {
        let place = Place::new();
        plant(&place.path("log"), &place.outside());
        let before = fs::read(place.outside()).ok();
        let mut log = place.dir.create("log").unwrap();
        log.write_all(b"one\n").unwrap();
        assert_eq!(fs::read(place.path("log")).unwrap(), b"one\n", "{word}");
        assert_eq!(fs::read(place.outside()).ok(), before, "{word}");
        assert_eq!(place.names(), ["log"], "{word}");
    }
}

#[test]
fn a_hard_link_at_the_name_keeps_its_content() {
    let place = Place::new();
    fs::write(place.outside(), "secret").unwrap();
    let writes: [fn(&Dir); 2] = [
        |dir| {
            dir.replace("name", b"x").unwrap();
        },
        |dir| {
            dir.create("name").unwrap();
        },
    ];
    for write in writes {
        let _ = fs::remove_file(place.path("name"));
        fs::hard_link(place.outside(), place.path("name")).unwrap();
        write(&place.dir);
        assert_eq!(fs::read(place.outside()).unwrap(), b"secret");
        assert_ne!(fs::read(place.path("name")).unwrap(), b"secret");
    }
}

#[test]
fn everything_planted_is_claimed_and_removed_but_not_read() {
    for (word, plant) in PLANTS {
        let place = Place::new();
        plant(&place.path(TRIGGER), &place.outside());
        let claim = place.dir.claim(OsStr::new(TRIGGER)).unwrap().unwrap();
        assert_eq!(claim.was, Name::Trigger, "{word}");
        assert!(fs::symlink_metadata(place.path(TRIGGER)).is_err(), "{word}");
        let read = place.dir.open_file(&claim.name, &Owners::Anyone);
        assert!(matches!(read, Err(ReadError::NotAFile { .. })), "{word}: {read:?}");
        assert!(read.unwrap_err().to_string().starts_with("deploy-trigger is "), "{word}");
        place.dir.discard(&claim.name).unwrap();
        assert_eq!(place.names(), [""; 0], "{word}");
    }
}

#[test]
fn a_full_directory_is_kept_aside() {
    let place = Place::new();
    fs::create_dir(place.path(TRIGGER)).unwrap();
    fs::write(place.path(TRIGGER).join("file"), "x").unwrap();
    place.dir.discard(OsStr::new(TRIGGER)).unwrap();
    let kept: Vec<_> = fs::read_dir(place.path(ASIDE)).unwrap().collect();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_planted_fixed_place_leads_nowhere() {
    for (word, plant) in PLANTS {
        let place = Place::new();
        plant(&place.path(ASIDE), &place.outside());
        fs::create_dir(place.path(TRIGGER)).unwrap();
        fs::write(place.path(TRIGGER).join("file"), "x").unwrap();
        place.dir.discard(OsStr::new(TRIGGER)).unwrap();
        assert!(fs::symlink_metadata(place.path(TRIGGER)).is_err(), "{word}");
        if place.outside().is_dir() {
            assert_eq!(fs::read_dir(place.outside()).unwrap().count(), 0, "{word}");
        }
    }
}

#[test]
fn what_is_not_there_is_nothing() {
    let place = Place::new();
    assert!(place.dir.claim(OsStr::new(TRIGGER)).unwrap().is_none());
    assert_eq!(anyone(&place, "name").unwrap(), None);
    assert_eq!(place.dir.modified(OsStr::new("name")).unwrap(), None);
    place.dir.discard(OsStr::new("name")).unwrap();
}

#[test]
fn only_requests_are_claimed() {
    let place = Place::new();
    for name in [STATUS, "deploy-host", "config.yml", ".tagship-writing.0"] {
        fs::write(place.path(name), "x").unwrap();
        assert!(place.dir.claim(OsStr::new(name)).unwrap().is_none(), "{name}");
        assert!(place.path(name).exists(), "{name}");
    }
}

#[test]
fn one_of_two_links_is_one_claim() {
    let place = Place::new();
    fs::write(place.path("other"), "v1").unwrap();
    fs::hard_link(place.path("other"), place.path(TRIGGER)).unwrap();
    let claim = place.dir.claim(OsStr::new(TRIGGER)).unwrap().unwrap();
    assert!(place.dir.claim(OsStr::new(TRIGGER)).unwrap().is_none());
    assert_eq!(anyone(&place, claim.name.to_str().unwrap()).unwrap().unwrap(), b"v1");
    // A rename onto its own inode does nothing: the other name stays, and so does the claim.
    fs::rename(place.path("other"), place.path(claim.name.to_str().unwrap())).unwrap();
    assert!(place.path("other").exists());
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let place = Place::new();
    for name in ["", ".", "..", "../outside", "/etc/passwd", "a/b"] {
        assert!(place.dir.put(name, b"x").is_err(), "{name:?}");
        assert!(place.dir.replace(name, b"x").is_err(), "{name:?}");
        assert!(place.dir.create(name).is_err(), "{name:?}");
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_withdrawn_request_is_gone() {
    let place = Place::new();
    let put = place.dir.put(TRIGGER, b"v1").unwrap();
    assert!(place.dir.holds(OsStr::new(TRIGGER), &put));
    assert!(place.dir.withdraw(TRIGGER, &put).unwrap());
    assert!(!place.dir.withdraw(TRIGGER, &put).unwrap());
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn what_another_requester_put_at_the_name_is_not_withdrawn() {
    type Other = fn(&Place);
    let others: [(&str, Other); 3] = [
        ("replaced", |place| {
            place.dir.replace(TRIGGER, b"v2").unwrap();
        }),
        ("written over", |place| fs::write(place.path(TRIGGER), "v2.0").unwrap()),
        ("a FIFO", |place| {
            fs::remove_file(place.path(TRIGGER)).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, place.path(TRIGGER), Mode::from_raw_mode(0o600)).unwrap();
        }),
    ];
    for (word, other) in others {
        let place = Place::new();
        let put = place.dir.put(TRIGGER, b"v1").unwrap();
        other(&place);
        assert!(!place.dir.holds(OsStr::new(TRIGGER), &put), "{word}");
        assert!(!place.dir.withdraw(TRIGGER, &put).unwrap(), "{word}");
        assert_eq!(place.names(), [TRIGGER], "{word}");
    }
}

#[test]
fn reading_is_bounded_and_asks_for_the_owner() {
    let place = Place::new();
    fs::write(place.path("name"), vec![b'x'; 101]).unwrap();
    assert!(matches!(anyone(&place, "name"), Err(ReadError::TooLarge { limit: 100, .. })));
    let nobody = Owners::Only(vec![4_294_967_294]);
    let refused = place.dir.open_file(OsStr::new("name"), &nobody);
    assert!(matches!(refused, Err(ReadError::Owner { .. })), "{refused:?}");
    assert!(place.dir.open_file(OsStr::new("name"), &Owners::own_and(&[])).unwrap().is_some());
    // A file of any size costs no memory and no time.
    File::create(place.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(anyone(&place, "sparse"), Err(ReadError::TooLarge { .. })));
}

#[test]
fn an_error_says_what_to_try() {
    let temp = tempfile::tempdir().unwrap();
    let error = Dir::open(&temp.path().join("absent")).unwrap_err();
    assert_eq!(error.kind(), "handoff-missing");
    assert!(error.hint().is_some());
    fs::write(temp.path().join("file"), "x").unwrap();
    assert_eq!(Dir::open(&temp.path().join("file")).unwrap_err().kind(), "handoff-missing");
}

#[test]
fn without_an_exclusive_rename_a_link_is_as_exclusive() {
    let place = Place::new();
    let [from, to] = ["from", "to"].map(OsStr::new);
    fs::write(place.path("from"), "new").unwrap();
    fs::write(place.path("to"), "old").unwrap();
    assert_eq!(place.dir.rename_by_link(from, to), Err(Errno::EXIST));
    assert_eq!(fs::read(place.path("to")).unwrap(), b"old");
    fs::remove_file(place.path("to")).unwrap();
    assert_eq!(place.dir.rename_by_link(from, to), Ok(()));
    assert_eq!(place.names(), ["to"]);
    assert_eq!(place.dir.rename_by_link(from, OsStr::new("another")), Err(Errno::NOENT));
    // A directory has no links.
    fs::create_dir(place.path("from")).unwrap();
    assert_eq!(place.dir.rename_by_link(from, to), Err(Errno::EXIST));
    assert_eq!(place.dir.rename_by_link(from, OsStr::new("another")), Ok(()));
    assert_eq!(place.names(), ["another", "to"]);
}

#[test]
fn without_an_exclusive_rename_there_is_still_one_winner() {
    let place = Place::new();
    for _ in 0..200 {
        fs::write(place.path("from"), "x").unwrap();
        let start = Barrier::new(2);
        let won = std::thread::scope(|scope| {
            let threads = ["a", "b"].map(|to| {
                let (place, start) = (&place, &start);
                scope.spawn(move || {
                    start.wait();
                    place.dir.rename_by_link(OsStr::new("from"), OsStr::new(to)).is_ok()
                })
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!((won, place.names().len()), (1, 1));
        fs::remove_file(place.path(&place.names()[0])).unwrap();
    }
}

/// Requesters put and withdraw, companions claim, all at once: every request is had by exactly one of them.
#[test]
fn every_request_has_exactly_one_winner() {
    const REQUESTS: usize = 200;
    const CLAIMERS: usize = 3;
    let place = Place::new();
    let ids: Vec<RequestId> = (0..REQUESTS).map(|_| RequestId::generate()).collect();
    let start = Barrier::new(CLAIMERS + 2);
    let done = std::sync::atomic::AtomicBool::new(false);
    let (withdrawn, claimed) = std::thread::scope(|scope| {
        let requesters: Vec<_> = ids
            .chunks(REQUESTS / 2)
            .map(|ids| {
                let (place, start) = (&place, &start);
                scope.spawn(move || {
                    start.wait();
                    let put = |id: &RequestId| {
                        let put = place.dir.put(&id.request_name(), id.to_string().as_bytes()).unwrap();
                        place.dir.withdraw(&id.request_name(), &put).unwrap().then_some(*id)
                    };
                    ids.iter().filter_map(put).collect::<Vec<_>>()
                })
            })
            .collect();
        let claimers: Vec<_> = (0..CLAIMERS)
            .map(|_| {
                let (place, start, done) = (&place, &start, &done);
                scope.spawn(move || {
                    start.wait();
                    let mut claimed = Vec::new();
                    loop {
                        // Looked at before the names, so that the last look comes after the last request.
                        let last = done.load(std::sync::atomic::Ordering::SeqCst);
                        for name in place.dir.names().unwrap() {
                            if !matches!(Name::of(name.as_bytes()), Name::Request(_)) {
                                continue;
                            }
                            if let Some(claim) = place.dir.claim(&name).unwrap() {
                                let text = anyone(place, claim.name.to_str().unwrap()).unwrap().unwrap();
                                claimed.push(String::from_utf8(text).unwrap().parse::<RequestId>().unwrap());
                                place.dir.discard(&claim.name).unwrap();
                            }
                        }
                        if last {
                            return claimed;
                        }
                    }
                })
            })
            .collect();
        let withdrawn: Vec<_> = requesters.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        (withdrawn, claimers.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    let mut winners: Vec<_> = withdrawn.iter().chain(&claimed).copied().collect();
    winners.sort();
    assert_eq!(winners, ids.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    assert_eq!(place.names(), [""; 0]);
}
