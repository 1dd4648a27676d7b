//! What requesters do to an inbox, good and bad, and what becomes of it after a crash.

use std::{fs, io::Write as _, path::PathBuf, time::SystemTime};

use tagship_core::{
    handoff::{
        log::LogLine,
        names::{STATUS, TRIGGER},
        request::Request,
        status::{FirstLine, Outcome},
        watch::Watch,
    },
    reference::Digest,
};

use super::*;
use crate::{requests::Requests, state_dir::StateDir};

const BOOT: &str = "0a0a0a0a-0000-4000-8000-00000000000f";

/// A hand-off directory, the companion's state, and requesters.
struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("d")).unwrap();
        Place { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("d").join(name)
    }

    fn dir(&self) -> Dir {
        Dir::open(&self.temp.path().join("d")).unwrap()
    }

    fn ledger(&self) -> Requests {
        Requests::open(StateDir::at(self.temp.path().join("state")).unwrap()).unwrap()
    }

    async fn inbox(&self) -> Inbox {
        self.inbox_with(|_| {}).await
    }

    async fn inbox_with(&self, change: impl FnOnce(&mut Rules)) -> Inbox {
        let mut rules = Rules {
            owners: Owners::own_and(&[]),
            budget: Duration::from_secs(600),
            boot: BOOT.parse().unwrap(),
            booted: Timestamp::UNIX_EPOCH,
        };
        change(&mut rules);
        Inbox::open(self.dir(), rules, self.ledger()).await.unwrap()
    }

    /// Puts a full request, as the action does.
    fn ask(&self, tag: &str) -> RequestId {
        self.ask_with(tag, |_| {})
    }

    fn ask_with(&self, tag: &str, change: impl FnOnce(&mut Request)) -> RequestId {
        let mut request = request(tag);
        change(&mut request);
        self.dir().put(&request.id.request_name(), &request.encode()).unwrap();
        request.id
    }

    fn answer(&self, id: RequestId) -> Option<Status> {
        fs::read(self.path(&id.status_name())).ok().map(|bytes| Status::parse(&bytes).unwrap())
    }

    fn plain_answer(&self) -> Option<String> {
        let bytes = fs::read(self.path(STATUS)).ok()?;
        FirstLine::parse(&bytes).unwrap();
        Some(String::from_utf8(bytes).unwrap().lines().next().unwrap().to_owned())
    }

    /// The names of everything that is no answer, log or kept-aside directory.
    fn waiting_names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.dir().names().unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| {
            !name.starts_with(".tagship-aside")
                && !matches!(Name::of(name.as_bytes()), Name::Answer(_) | Name::Log(_) | Name::Status)
        });
        names
    }
}

fn request(tag: &str) -> Request {
    Request {
        tag: tag.parse().unwrap(),
        id: RequestId::generate(),
        image: "registry.test/app".parse().unwrap(),
        digest: Digest::of(tag.as_bytes()),
        commit: None,
        run: None,
        not_after: Timestamp::now().saturating_add(Duration::from_secs(60)).unwrap(),
        boot: BOOT.parse().unwrap(),
        rollback: false,
    }
}

fn deployed() -> Status {
    Status::new(Outcome::Deployed, "deployed", "all services are healthy")
}

async fn deploy_all(inbox: &Inbox) -> Vec<String> {
    let mut tags = Vec::new();
    inbox
        .work(|arrival, _| {
            tags.push(arrival.tag().to_string());
            async { deployed() }
        })
        .await
        .unwrap();
    tags
}

#[tokio::test]
async fn a_request_is_claimed_shown_deployed_and_answered() {
    let place = Place::new();
    let id = place.ask("v1.0.0");
    let inbox = place.inbox().await;
    assert!(place.path(&id.log_name()).exists(), "the claim shows");
    assert_eq!(place.waiting_names(), [""; 0]);
    assert_eq!(place.answer(id), None);
    inbox
        .work(|arrival, progress| {
            assert_eq!(arrival.id(), id);
            assert!(matches!(arrival.asked(), Asked::Full(received) if received.request.tag == *arrival.tag()));
            progress.tell("health", Some("web"), "healthy", "one\ntwo");
            async { deployed() }
        })
        .await
        .unwrap();
    let answer = place.answer(id).unwrap();
    assert_eq!((answer.outcome, answer.request), (Outcome::Deployed, Some(id)));
    let log = fs::read_to_string(place.path(&id.log_name())).unwrap();
    let texts: Vec<_> = log.lines().filter(|line| line.contains("\"service\":\"web\"")).collect();
    assert_eq!(texts.len(), 2, "a line for each: {log}");
}

#[tokio::test]
async fn of_several_the_newest_version_goes_and_the_others_hear_of_it_at_once() {
    let place = Place::new();
    let ids = ["v1.9.0", "v1.10.0", "nightly", "v1.2.0"].map(|tag| place.ask(tag));
    let inbox = place.inbox().await;
    for (at, id) in ids.iter().enumerate() {
        let outcome = place.answer(*id).map(|status| status.outcome);
        assert_eq!(outcome, (at != 1).then_some(Outcome::Superseded), "{at}");
    }
    assert!(place.answer(ids[0]).unwrap().reason.as_str().contains("v1.10.0"));
    assert_eq!(deploy_all(&inbox).await, ["v1.10.0"]);
}

#[tokio::test]
async fn of_two_for_the_same_version_the_later_goes() {
    let place = Place::new();
    let early = RequestId::generate();
    let late: RequestId = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse().unwrap();
    place.ask_with("v1.0.0", |request| request.id = late);
    place.ask_with("v1.0.0", |request| request.id = early);
    let inbox = place.inbox().await;
    assert_eq!(place.answer(early).unwrap().outcome, Outcome::Superseded);
    assert_eq!(deploy_all(&inbox).await.len(), 1);
    assert_eq!(place.answer(late).unwrap().outcome, Outcome::Deployed);
}

#[tokio::test]
async fn what_comes_during_a_deploy_is_claimed_during_it() {
    let place = Place::new();
    let first = place.ask("v1.0.0");
    let inbox = place.inbox().await;
    let place = &place;
    let later = Mutex::new(Vec::new());
    let mut deploys = Vec::new();
    inbox
        .work(|arrival, _| {
            deploys.push(arrival.tag().to_string());
            let later = &later;
            async move {
                if arrival.id() != first {
                    return deployed();
                }
                let mut watch = Watch::new(&place.dir());
                let (second, third) = (place.ask("v1.1.0"), place.ask("v1.2.0"));
                while place.answer(second).is_none() || !place.path(&third.log_name()).exists() {
                    watch.changed(|_| true).await;
                }
                assert_eq!(place.answer(first), None);
                *later.lock().unwrap() = vec![second, third];
                Status::new(Outcome::RolledBack, "unhealthy", "web did not become healthy")
            }
        })
        .await
        .unwrap();
    let later = later.into_inner().unwrap();
    assert_eq!(deploys, ["v1.0.0", "v1.2.0"]);
    assert_eq!(place.answer(first).unwrap().outcome, Outcome::RolledBack);
    assert_eq!(place.answer(later[0]).unwrap().outcome, Outcome::Superseded);
    assert_eq!(place.answer(later[1]).unwrap().outcome, Outcome::Deployed);
}

#[tokio::test]
async fn a_burst_is_answered_whole() {
    let place = Place::new();
    let mut ids: Vec<_> = (0..150).map(|at| place.ask(&format!("v1.0.{at}"))).collect();
    let inbox = place.inbox().await;
    ids.extend((0..150).map(|at| place.ask(&format!("v1.1.{at}"))));
    deploy_all(&inbox).await;
    assert!(ids.iter().all(|id| place.answer(*id).is_some()));
    assert_eq!(place.waiting_names(), [""; 0]);
}

#[tokio::test]
async fn a_request_that_was_seen_is_not_answered_anew() {
    let place = Place::new();
    let request = request("v1.0.0");
    let inbox = place.inbox().await;
    for written_again in [false, true] {
        place.dir().put(&request.id.request_name(), &request.encode()).unwrap();
        assert_eq!(deploy_all(&inbox).await.len(), usize::from(!written_again));
        if written_again {
            assert_eq!(fs::read(place.path(&request.id.status_name())).unwrap(), b"read already");
        }
        fs::write(place.path(&request.id.status_name()), "read already").unwrap();
    }
    drop(inbox);
    place.dir().put(&request.id.request_name(), &request.encode()).unwrap();
    // Also an invalid one that names it, and also after a new start.
    fs::write(place.path("deploy-request.x"), format!("bad\nRequest: {}\n", request.id)).unwrap();
    assert_eq!(deploy_all(&place.inbox().await).await.len(), 0);
    assert_eq!(fs::read(place.path(&request.id.status_name())).unwrap(), b"read already");
    assert_eq!(place.waiting_names(), [""; 0]);
}

#[tokio::test]
async fn an_invalid_request_is_answered_under_its_identifier() {
    let place = Place::new();
    let id = RequestId::generate();
    let good = String::from_utf8(Request { id, ..request("v1.0.0") }.encode()).unwrap();
    for (defect, kind, name, text) in [
        ("no tag", "request-invalid", id.request_name(), good.replacen("v1.0.0", "-", 1)),
        ("another file's name", "request-name", RequestId::generate().request_name(), good.clone()),
        ("a file's name without identifier", "request-name", "deploy-request.mine".to_owned(), good.clone()),
        ("unknown key", "request-key-unknown", id.request_name(), good.clone() + "Services: web\n"),
        ("nothing in it", "request-invalid", id.request_name(), String::new()),
        ("too large", "too-large", id.request_name(), good.clone() + &"x".repeat(10_000)),
    ] {
        let place = Place::new();
        fs::write(place.path(&name), text).unwrap();
        assert_eq!(deploy_all(&place.inbox().await).await.len(), 0, "{defect}");
        let answer = place.answer(id).unwrap_or_else(|| panic!("{defect}: no answer"));
        assert_eq!((answer.outcome, answer.kind.as_str()), (Outcome::Refused, kind), "{defect}");
        assert_eq!(place.waiting_names(), [""; 0], "{defect}");
    }
    fs::write(place.path("deploy-request."), "no identifier at all").unwrap();
    deploy_all(&place.inbox().await).await;
    assert_eq!(place.dir().names().unwrap().len(), 0);
}

#[tokio::test]
async fn an_invalid_request_takes_nothing_from_the_good_one_that_it_names() {
    let place = Place::new();
    let id = place.ask("v1.0.0");
    let copied = fs::read(place.path(&id.request_name())).unwrap();
    fs::write(place.path("deploy-request.0"), &copied).unwrap();
    fs::write(place.path("deploy-request.1"), format!("bad\nRequest: {id}\n")).unwrap();
    assert_eq!(deploy_all(&place.inbox().await).await, ["v1.0.0"]);
    assert_eq!(place.answer(id).unwrap().outcome, Outcome::Deployed);
}

#[tokio::test]
async fn a_late_request_is_refused() {
    let place = Place::new();
    let late = place.ask_with("v1.0.0", |request| request.not_after = Timestamp::UNIX_EPOCH);
    assert_eq!(deploy_all(&place.inbox().await).await.len(), 0);
    assert_eq!(place.answer(late).unwrap().kind.as_str(), "too-late");
    let before = place.ask_with("v1.0.0", |request| {
        request.boot = "ffffffff-0000-4000-8000-00000000000f".parse().unwrap();
    });
    assert_eq!(deploy_all(&place.inbox().await).await.len(), 0);
    assert_eq!(place.answer(before).unwrap().kind.as_str(), "before-boot");
}

#[tokio::test]
async fn a_rollback_request_that_counts_for_long_is_refused() {
    for (rollback, hours, kind) in [(true, 26, "too-long"), (true, 24, "deployed"), (false, 26, "deployed")] {
        let place = Place::new();
        let id = place.ask_with("v1.0.0", |request| {
            request.rollback = rollback;
            request.not_after = Timestamp::now().saturating_add(Duration::from_secs(hours * 60 * 60)).unwrap();
        });
        assert_eq!(deploy_all(&place.inbox().await).await.len(), usize::from(kind == "deployed"), "{rollback} {hours}");
        assert_eq!(place.answer(id).unwrap().kind.as_str(), kind, "{rollback} {hours}");
    }
}

#[tokio::test]
async fn a_late_plain_request_is_refused() {
    for (change, kind) in [
        ((|rules: &mut Rules| rules.budget = Duration::ZERO) as fn(&mut Rules), "too-late"),
        (|rules| rules.booted = Timestamp::now().saturating_add(Duration::from_secs(60)).unwrap(), "before-boot"),
    ] {
        let place = Place::new();
        fs::write(place.path(TRIGGER), "v1.0.0").unwrap();
        assert_eq!(deploy_all(&place.inbox_with(change).await).await.len(), 0);
        let answer = Status::parse(&fs::read(place.path(STATUS)).unwrap()).unwrap();
        assert_eq!((answer.kind.as_str(), answer.tag.unwrap().as_str()), (kind, "v1.0.0"));
    }
}

/// The clock was not set when the host booted, and then jumped forward: the boot seems to have been in 1970.
#[tokio::test]
async fn a_boot_without_a_clock_lets_no_old_request_pass() {
    let unset = |rules: &mut Rules| rules.booted = Timestamp::UNIX_EPOCH;
    let (epoch, day) = (SystemTime::UNIX_EPOCH, Duration::from_secs(24 * 60 * 60));
    for (written, answer) in
        [(Some(epoch + day), "fail v1.0.0"), (Some(epoch - day), "fail v1.0.0"), (None, "ok v1.0.0")]
    {
        let place = Place::new();
        fs::write(place.path(TRIGGER), "v1.0.0").unwrap();
        if let Some(written) = written {
            fs::File::open(place.path(TRIGGER)).unwrap().set_modified(written).unwrap();
        }
        let inbox = place.inbox_with(unset).await;
        assert_eq!(deploy_all(&inbox).await.len(), usize::from(written.is_none()), "{written:?}");
        assert_eq!(place.plain_answer().as_deref(), Some(answer), "{written:?}");
    }
    // A full one says itself until when it counts.
    let place = Place::new();
    let late = place.ask_with("v1.0.0", |request| request.not_after = "1970-01-02T00:00:00Z".parse().unwrap());
    assert_eq!(deploy_all(&place.inbox_with(unset).await).await.len(), 0);
    assert_eq!(place.answer(late).unwrap().kind.as_str(), "too-late");
}

#[tokio::test]
async fn a_plain_request_is_a_tag_and_nothing_else() {
    for (content, tag, answer) in [
        ("v1.0.0", Some("v1.0.0"), "ok v1.0.0"),
        ("v1.0.0\n", Some("v1.0.0"), "ok v1.0.0"),
        ("stable\n", Some("stable"), "ok stable"),
        ("", None, "fail invalid"),
        ("\n", None, "fail invalid"),
        ("bad\nok pwn", None, "fail invalid"),
        ("v1.0.0\n\n", None, "fail invalid"),
        ("v1.0.0\r\n", None, "fail invalid"),
        (" v1.0.0", None, "fail invalid"),
        ("v1.0.0 v1.1.0", None, "fail invalid"),
        ("../../etc/passwd", None, "fail invalid"),
        ("$(reboot)", None, "fail invalid"),
        ("v1\u{1b}[2J", None, "fail invalid"),
        ("::error::v1", None, "fail invalid"),
    ] {
        let place = Place::new();
        fs::write(place.path(TRIGGER), content).unwrap();
        let deployed = deploy_all(&place.inbox().await).await;
        assert_eq!(deployed, tag.into_iter().collect::<Vec<_>>(), "{content:?}");
        assert_eq!(place.plain_answer().as_deref(), Some(answer), "{content:?}");
        assert_eq!(place.waiting_names(), [""; 0], "{content:?}");
    }
    let place = Place::new();
    fs::write(place.path(TRIGGER), "v".repeat(5000)).unwrap();
    deploy_all(&place.inbox().await).await;
    assert_eq!(place.plain_answer().as_deref(), Some("fail invalid"));
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_gone_and_the_next_request_works() {
    type Plant = fn(&PathBuf);
    let plants: [(&str, Plant); 5] = [
        ("FIFO", |at| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, at, mode).unwrap();
        }),
        ("link", |at| std::os::unix::fs::symlink("/etc/passwd", at).unwrap()),
        ("dangling link", |at| std::os::unix::fs::symlink("/absent", at).unwrap()),
        ("directory", |at| fs::create_dir_all(at.join("full")).unwrap()),
        ("socket", |at| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
    ];
    for (word, plant) in plants {
        let place = Place::new();
        let id = RequestId::generate();
        plant(&place.path(TRIGGER));
        plant(&place.path(&id.request_name()));
        let inbox = place.inbox().await;
        assert_eq!(place.plain_answer().as_deref(), Some("fail invalid"), "{word}");
        assert_eq!(place.answer(id).unwrap().kind.as_str(), "not-a-file", "{word}");
        assert!(!fs::read_to_string(place.path(STATUS)).unwrap().contains("root:"), "{word}");
        assert_eq!(place.waiting_names(), [""; 0], "{word}");
        place.ask("v1.0.0");
        assert_eq!(deploy_all(&inbox).await, ["v1.0.0"], "{word}");
    }
}

#[tokio::test]
async fn what_is_planted_at_log_and_status_leads_nowhere() {
    let place = Place::new();
    let outside = place.temp.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let request = request("v1.0.0");
    for name in [request.id.log_name(), request.id.status_name(), STATUS.to_owned()] {
        std::os::unix::fs::symlink(&outside, place.path(&name)).unwrap();
    }
    place.dir().put(&request.id.request_name(), &request.encode()).unwrap();
    fs::write(place.path(TRIGGER), "v0.1.0").unwrap();
    assert_eq!(deploy_all(&place.inbox().await).await, ["v1.0.0"]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    assert_eq!(place.answer(request.id).unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.plain_answer().as_deref(), Some("fail v0.1.0"));
}

#[tokio::test]
async fn a_plain_request_is_read_when_its_writer_is_done() {
    let place = Place::new();
    let inbox = place.inbox().await;
    // As `echo v1.0.0 > deploy-trigger` does, with the claim between its opening and its writing.
    let mut watch = Watch::new(&place.dir());
    let mut shell = fs::File::create(place.path(TRIGGER)).unwrap();
    let writer = async {
        while place.path(TRIGGER).exists() {
            watch.changed(|_| true).await;
        }
        shell.write_all(b"v1.0.0\n").unwrap();
        drop(shell);
    };
    let (taken, ()) = tokio::join!(inbox.take(), writer);
    taken.unwrap();
    assert_eq!(deploy_all(&inbox).await, ["v1.0.0"]);
    assert_eq!(place.plain_answer().as_deref(), Some("ok v1.0.0"));
}

#[tokio::test]
async fn a_writer_that_never_ends_is_not_waited_for() {
    let place = Place::new();
    let shell = fs::File::create(place.path(TRIGGER)).unwrap();
    assert_eq!(deploy_all(&place.inbox().await).await.len(), 0);
    assert_eq!(place.plain_answer().as_deref(), Some("fail invalid"));
    drop(shell);
}

#[tokio::test]
async fn another_link_to_a_plain_request_is_the_same_request() {
    let place = Place::new();
    let inbox = place.inbox().await;
    fs::write(place.path("other"), "v1.0.0").unwrap();
    fs::hard_link(place.path("other"), place.path(TRIGGER)).unwrap();
    assert_eq!(deploy_all(&inbox).await, ["v1.0.0"]);
    fs::remove_file(place.path(STATUS)).unwrap();
    fs::rename(place.path("other"), place.path(TRIGGER)).unwrap();
    assert_eq!(deploy_all(&inbox).await.len(), 0);
    assert_eq!(place.plain_answer(), None);
    assert_eq!(place.waiting_names(), [""; 0]);
}

#[tokio::test]
async fn other_users_files_are_refused() {
    let place = Place::new();
    fs::write(place.path(TRIGGER), "v1.0.0").unwrap();
    let id = place.ask("v1.0.0");
    let inbox = place.inbox_with(|rules| rules.owners = Owners::Only(vec![4_294_967_294])).await;
    assert_eq!(deploy_all(&inbox).await.len(), 0);
    assert_eq!(place.plain_answer().as_deref(), Some("fail invalid"));
    let answer = place.answer(id).unwrap();
    assert_eq!(answer.kind.as_str(), "foreign-owner");
    assert!(answer.reason.as_str().contains("requesters"), "{}", answer.reason);
}

#[tokio::test]
async fn after_a_crash_every_request_still_has_its_answer() {
    let place = Place::new();
    // One whose deploy had begun, one that waited, one claimed by a companion that then died before reading it, and
    // one whose answer was decided but not written.
    let begun = place.ask("v1.0.0");
    let inbox = place.inbox().await;
    assert_eq!(inbox.next(Timestamp::now()).unwrap().unwrap().id(), begun);
    let waiting = place.ask("v1.1.0");
    inbox.take().await.unwrap();
    let claimed = place.ask("v1.2.0");
    place.dir().claim(claimed.request_name().as_ref()).unwrap().unwrap();
    let decided = request("v1.3.0");
    let status = Status { request: Some(decided.id), tag: Some(decided.tag.clone()), ..deployed() };
    let entry = Entry {
        id: decided.id,
        claimed: Timestamp::now(),
        form: EntryForm::Full { text: String::from_utf8(decided.encode()).unwrap() },
        stage: Stage::Decided(Box::new(status.clone())),
        handoff: None,
    };
    inbox.shared.ledger.put(&entry).unwrap();
    drop(inbox);

    let inbox = place.inbox().await;
    assert_eq!(place.answer(decided.id), Some(status));
    assert_eq!(place.answer(waiting).unwrap().outcome, Outcome::Superseded);
    let interrupted = inbox.interrupted();
    assert_eq!(interrupted.iter().map(Arrival::id).collect::<Vec<_>>(), [begun]);
    inbox.answer(&interrupted[0], Status::new(Outcome::Interrupted, "interrupted", "recovered")).unwrap();
    assert_eq!(deploy_all(&inbox).await, ["v1.2.0"]);
    assert_eq!(place.answer(begun).unwrap().outcome, Outcome::Interrupted);
    assert_eq!(place.answer(claimed).unwrap().outcome, Outcome::Deployed);
    drop(inbox);
    assert!(place.ledger().open_entries().unwrap().is_empty());
}

#[tokio::test]
async fn a_plain_claim_left_by_a_crash_is_one_request() {
    for in_the_ledger in [false, true] {
        let place = Place::new();
        fs::write(place.path(TRIGGER), "v1.0.0").unwrap();
        let claim = place.dir().claim(TRIGGER.as_ref()).unwrap().unwrap();
        if in_the_ledger {
            let form = EntryForm::Plain {
                tag: "v1.0.0".parse().unwrap(),
                written: Timestamp::now(),
                claim: claim.name.into_string().unwrap(),
            };
            let id = RequestId::generate();
            let entry = Entry { id, claimed: Timestamp::now(), form, stage: Stage::Waiting, handoff: None };
            place.ledger().put(&entry).unwrap();
        }
        assert_eq!(deploy_all(&place.inbox().await).await, ["v1.0.0"]);
        assert_eq!(place.plain_answer().as_deref(), Some("ok v1.0.0"));
        assert_eq!(place.waiting_names(), [""; 0]);
    }
}

/// The plain form has one answer: what a run could not write of a request is not written over by that to a file that was
/// none, which it could not write either.
#[tokio::test]
async fn a_plain_answer_left_by_a_crash_stands_over_one_to_no_request() {
    let place = Place::new();
    fs::write(place.path(TRIGGER), "two words").unwrap();
    place.dir().claim(TRIGGER.as_ref()).unwrap().unwrap();
    let tag: Tag = "v2.0.0".parse().unwrap();
    let entry = Entry {
        id: RequestId::generate(),
        claimed: Timestamp::now(),
        form: EntryForm::Plain { tag: tag.clone(), written: Timestamp::now(), claim: ".tagship-trigger.gone".into() },
        stage: Stage::Decided(Box::new(Status { tag: Some(tag), ..deployed() })),
        handoff: None,
    };
    place.ledger().put(&entry).unwrap();
    place.inbox().await;
    assert_eq!(place.plain_answer().as_deref(), Some("ok v2.0.0"));
    assert_eq!(place.waiting_names(), [""; 0]);
}

/// A ledger on a full disk.
struct Full;

impl Full {
    fn error() -> StateError {
        StateError::Io { action: "write", path: "requests.json".into(), source: io::ErrorKind::StorageFull.into() }
    }
}

impl Ledger for Full {
    fn knows(&self, _: RequestId) -> Result<bool, StateError> {
        Ok(false)
    }

    fn open_entries(&self) -> Result<Vec<Entry>, StateError> {
        Ok(Vec::new())
    }

    fn put(&self, _: &Entry) -> Result<(), StateError> {
        Err(Full::error())
    }

    fn spend(&self, _: RequestId, _: Timestamp) -> Result<(), StateError> {
        Err(Full::error())
    }

    fn close(&self, _: RequestId) -> Result<(), StateError> {
        Err(Full::error())
    }
}

#[tokio::test]
async fn without_a_ledger_nothing_is_deployed_and_everybody_hears_why() {
    let place = Place::new();
    let rules = Rules::here(Owners::own_and(&[]), Duration::from_secs(600)).unwrap();
    let inbox = Inbox::open(place.dir(), rules, Full).await.unwrap();
    let id = place.ask("v1.0.0");
    fs::write(place.path(TRIGGER), "v1.0.0").unwrap();
    let error = inbox.work(|_, _| async { panic!("nothing is deployed") }).await.unwrap_err();
    assert_eq!(error.kind(), "state-io");
    assert_eq!(place.answer(id).unwrap().kind.as_str(), "state-io");
    assert_eq!(place.plain_answer().as_deref(), Some("fail v1.0.0"));
    assert_eq!(place.waiting_names(), [""; 0]);
}

/// A ledger that cannot say, so many times, whether it knows this request.
struct Unsure {
    kept: Requests,
    about: RequestId,
    times: Mutex<usize>,
}

impl Ledger for Unsure {
    fn knows(&self, id: RequestId) -> Result<bool, StateError> {
        let mut times = self.times.lock().unwrap();
        if id == self.about && *times > 0 {
            *times -= 1;
            return Err(Full::error());
        }
        self.kept.knows(id)
    }

    fn open_entries(&self) -> Result<Vec<Entry>, StateError> {
        self.kept.open_entries()
    }

    fn put(&self, entry: &Entry) -> Result<(), StateError> {
        self.kept.put(entry)
    }

    fn spend(&self, id: RequestId, not_after: Timestamp) -> Result<(), StateError> {
        self.kept.spend(id, not_after)
    }

    fn close(&self, id: RequestId) -> Result<(), StateError> {
        self.kept.close(id)
    }
}

/// An inbox with a request that is not well-formed, and cannot be answered the first so many times.
async fn with_an_answer_in_vain(place: &Place, times: usize) -> (Inbox, RequestId) {
    let about = RequestId::generate();
    fs::write(place.path(&about.request_name()), "not a tag").unwrap();
    let ledger = Unsure { kept: place.ledger(), about, times: Mutex::new(times) };
    let rules = Rules {
        owners: Owners::own_and(&[]),
        budget: Duration::from_secs(600),
        boot: BOOT.parse().unwrap(),
        booted: Timestamp::UNIX_EPOCH,
    };
    (Inbox::open(place.dir(), rules, ledger).await.unwrap(), about)
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_what_is_not_well_formed_is_tried_again_by_the_same_run() {
    let place = Place::new();
    let (inbox, id) = with_an_answer_in_vain(&place, 3).await;
    assert_eq!(place.answer(id), None);
    assert!(inbox.work(|_, _| async { deployed() }).await.is_err(), "what went wrong meanwhile is said");
    assert_eq!(place.answer(id).unwrap().kind.as_str(), "request-invalid");
    assert_eq!(place.waiting_names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_another_ones_answer_that_cannot_be_written() {
    let place = Place::new();
    let (inbox, _) = with_an_answer_in_vain(&place, usize::MAX).await;
    place.ask("v1.0.0");
    assert!(inbox.take().await.is_err());
    let begun = tokio::time::Instant::now();
    assert!(inbox.answers_are_due().await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[test]
fn this_boot_began_in_the_past() {
    let rules = Rules::here(Owners::Anyone, Duration::ZERO).unwrap();
    assert!(rules.booted < Timestamp::now());
    assert!(rules.booted > Timestamp::UNIX_EPOCH);
}

/// The lines of a request's log that say only that the companion is alive, where its deploy takes so long.
async fn beats(seconds: u64) -> usize {
    let place = Place::new();
    let id = place.ask("v1.0.0");
    let deploy = |_, _| async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        deployed()
    };
    place.inbox().await.work(deploy).await.unwrap();
    let log = fs::read(place.path(&id.log_name())).unwrap();
    log.split(|byte| *byte == b'\n').filter_map(LogLine::parse).filter(LogLine::is_heartbeat).count()
}

#[tokio::test(start_paused = true)]
async fn a_waiting_requester_sees_a_sign_of_life_each_five_seconds() {
    assert_eq!(beats(29).await - beats(14).await, 3);
}
