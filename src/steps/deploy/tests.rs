//! Against hosts of every kind: good, slow, silent, absent and hostile ones.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::handoff::dir::{Dir, DirError, Owners};
use tagship_core::handoff::host::HostFile;
use tagship_core::handoff::log::LogLine;
use tagship_core::handoff::names::{HOST, Name, RequestId, STATUS, TRIGGER};
use tagship_core::handoff::request::{self, Received};
use tagship_core::handoff::watch::Watch;

use super::*;
use crate::failure::Code;
use crate::log::Style;
use crate::log::testing::{Printed, log};

/// Long enough for what is to happen, on any machine.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to be waited for in a test.
const SHORT: Duration = Duration::from_millis(50);

struct Host {
    temp: tempfile::TempDir,
    image: Repository,
    tag: Tag,
    digest: Digest,
    origin: Origin,
    printed: Printed,
    log: Log,
}

impl Host {
    fn new() -> Host {
        let host = Host::absent();
        host.write_host_file(1);
        host
    }

    /// A directory without a companion.
    fn absent() -> Host {
        let (log, printed) = log(Style::Plain);
        Host {
            temp: tempfile::tempdir().unwrap(),
            image: "registry.test/app".parse().unwrap(),
            tag: "v1.0.0".parse().unwrap(),
            digest: Digest::of(b"image"),
            origin: Origin { run: Some("https://forge.test/app/actions/runs/7".to_owned()), ..Origin::default() },
            printed,
            log,
        }
    }

    fn write_host_file(&self, protocol: u32) {
        let host = HostFile {
            protocol,
            request_keys: Vec::new(),
            companion: Line::lossy("0.1.0"),
            image: self.image.clone(),
            budget_seconds: 600,
            boot: "0a0a0a0a-0000-4000-8000-00000000000f".parse().unwrap(),
            log_required: false,
            running: None,
        };
        fs::write(self.path(HOST), host.encode()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn dir(&self) -> Dir {
        Dir::open(self.temp.path()).unwrap()
    }

    async fn ask(&self, form: Form, patience: Patience, timeout: Option<Duration>) -> Result<Verdict, DeployError> {
        self.ask_signed(form, patience, timeout, None).await
    }

    async fn ask_signed(
        &self,
        form: Form,
        patience: Patience,
        timeout: Option<Duration>,
        key: Option<&SigningKey>,
    ) -> Result<Verdict, DeployError> {
        self.ask_until(form, patience, timeout, key, Stop::new().unwrap()).await
    }

    async fn ask_until(
        &self,
        form: Form,
        patience: Patience,
        timeout: Option<Duration>,
        key: Option<&SigningKey>,
        mut stop: Stop,
    ) -> Result<Verdict, DeployError> {
        let place = check(self.temp.path(), false, form)?;
        let needs = Needs {
            place: &place,
            form,
            timeout,
            image: &self.image,
            tag: &self.tag,
            digest: &self.digest,
            origin: &self.origin,
            rollback: false,
            key,
        };
        match form {
            Form::Full => full::run(&needs, patience, &mut stop, &self.log).await,
            Form::Plain => plain::run(&needs, patience, &mut stop, &self.log).await,
        }
    }

    /// Claims the next request, as a companion does.
    async fn claim(&self) -> (RequestId, Vec<u8>) {
        let dir = self.dir();
        let mut watch = Watch::new(&dir);
        loop {
            for name in dir.names().unwrap() {
                if let Name::Request(Some(id)) = Name::of(name.as_encoded_bytes()) {
                    let claim = dir.claim(&name).unwrap().unwrap();
                    let file = dir.open_file(&claim.name, &Owners::Anyone).unwrap().unwrap();
                    let bytes = file.read(request::LIMIT).unwrap();
                    dir.discard(&claim.name).unwrap();
                    return (id, bytes);
                }
            }
            watch.changed(|_| true).await;
        }
    }

    fn answer(&self, id: RequestId, change: impl FnOnce(&mut Status)) {
        let mut status = Status {
            tag: Some(self.tag.clone()),
            request: Some(id),
            digest: Some(self.digest),
            ..Status::new(Outcome::Deployed, "deployed", "all services are healthy")
        };
        change(&mut status);
        self.dir().replace(&id.status_name(), &status.encode()).unwrap();
    }

    fn requests_left(&self) -> usize {
        let is_request = |name: &std::ffi::OsString| {
            !matches!(Name::of(name.as_encoded_bytes()), Name::Host | Name::Log(_) | Name::Answer(_) | Name::Status)
        };
        self.dir().names().unwrap().iter().filter(|name| is_request(name)).count()
    }
}

const PATIENT: Patience = Patience { claim: LONG, silence: LONG, plain: LONG };

fn line(text: &str) -> Vec<u8> {
    LogLine {
        time: Timestamp::UNIX_EPOCH,
        phase: Word::lossy("health"),
        service: Some(Line::lossy("web")),
        event: Word::lossy("healthy"),
        text: Line::lossy(text),
    }
    .encode()
}

#[tokio::test]
async fn the_hosts_words_are_shown_and_its_verdict_returned() {
    let host = Host::new();
    let companion = async {
        let (id, bytes) = host.claim().await;
        let request = Received::parse(&bytes).unwrap().request;
        assert_eq!((request.id, &request.tag, request.digest), (id, &host.tag, host.digest));
        assert_eq!(request.run.unwrap().to_string(), "https://forge.test/app/actions/runs/7");
        let ahead = request.not_after.duration_since(Timestamp::now()).as_secs();
        assert!((600..=700).contains(&ahead), "{ahead} s are about the budget");
        let mut log = host.dir().create(&id.log_name()).unwrap();
        log.write_all(&line("first")).unwrap();
        log.write_all(&line("::error::second")).unwrap();
        host.answer(id, |status| status.previous_digest = Some(Digest::of(b"before")));
    };
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, None), companion);
    let verdict = verdict.unwrap();
    assert!(verdict.is_ok());
    assert_eq!(verdict.previous_digest, Some(Digest::of(b"before")));
    let printed = host.printed.text();
    assert!(printed.contains("health: web: first\n"), "{printed}");
    assert!(printed.lines().all(|line| !line.trim_start().starts_with("::")), "{printed}");
}

#[tokio::test]
async fn a_no_is_a_verdict_too() {
    let host = Host::new();
    let companion = async {
        let (id, _) = host.claim().await;
        host.answer(id, |status| {
            *status = Status {
                tag: status.tag.take(),
                request: status.request,
                ..Status::new(Outcome::Refused, "downgrade", "v1.0.0 is older than v2.0.0")
            };
        });
    };
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, None), companion);
    let verdict = verdict.unwrap();
    assert!(!verdict.is_ok());
    verdict.show(&host.tag, &host.log);
    let printed = host.printed.text();
    assert!(printed.contains("the host says no: v1.0.0 refused (downgrade)"), "{printed}");
    assert!(printed.contains("v1.0.0 is older than v2.0.0"), "{printed}");
}

#[tokio::test]
async fn a_request_is_signed_where_the_key_is() {
    let host = Host::new();
    let key = SigningKey::generate().unwrap();
    let companion = async {
        let (id, bytes) = host.claim().await;
        let received = Received::parse(&bytes).unwrap();
        let signature = received.signature().unwrap();
        assert!(bytes.starts_with(&signature.message));
        assert!(key.public().verify(&signature.bytes, &signature.message));
        host.answer(id, |_| {});
    };
    let (verdict, ()) = tokio::join!(host.ask_signed(Form::Full, PATIENT, None, Some(&key)), companion);
    verdict.unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let host = Host::absent();
    let error = host.ask(Form::Full, PATIENT, None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), ("no-companion", Code::Handoff));
    assert!(!error.may_be_claimed());
    host.write_host_file(2);
    assert_eq!(host.ask(Form::Full, PATIENT, None).await.unwrap_err().kind(), "protocol-version");
    fs::remove_file(host.path(HOST)).unwrap();
    symlink("/proc/self/environ", host.path(HOST)).unwrap();
    assert_eq!(host.ask(Form::Full, PATIENT, None).await.unwrap_err().kind(), "not-a-file");
    let error = check(host.temp.path(), true, Form::Full).unwrap_err();
    assert_eq!(error.kind(), "handoff-not-mounted");
    assert!(error.hint().unwrap().contains("valid_volumes"));
    let error = check(&host.path("absent"), true, Form::Full).unwrap_err();
    assert_eq!(error.kind(), "handoff-not-mounted", "a volume that the runner left out is not there at all");
    let error = check(&host.path("absent"), false, Form::Full).unwrap_err();
    assert_eq!(error.kind(), "handoff-missing");
    assert_eq!(host.requests_left(), 0);
}

#[tokio::test]
async fn what_nobody_claims_is_withdrawn() {
    let host = Host::new();
    let error = host.ask(Form::Full, Patience { claim: SHORT, ..PATIENT }, None).await.unwrap_err();
    assert_eq!(error.kind(), "unclaimed");
    assert!(!error.may_be_claimed());
    let error = host.ask(Form::Full, PATIENT, Some(SHORT)).await.unwrap_err();
    assert!(matches!(error, DeployError::TimedOut { claimed: false, .. }), "{error}");
    assert_eq!(host.requests_left(), 0);
}

#[tokio::test]
async fn who_is_interrupted_before_the_claim_takes_the_request_back() {
    let host = Host::new();
    let stop = Stop::new().unwrap();
    let told = stop.told.clone();
    let interrupt = async {
        let (dir, name) = (host.dir(), "deploy-request.");
        let mut watch = Watch::new(&dir);
        while !dir.names().unwrap().iter().any(|found| found.to_string_lossy().starts_with(name)) {
            watch.changed(|_| true).await;
        }
        told.notify_one();
    };
    let (verdict, ()) = tokio::join!(host.ask_until(Form::Full, PATIENT, None, None, stop), interrupt);
    let error = verdict.unwrap_err();
    assert!(matches!(error, DeployError::Interrupted { claimed: false }), "{error}");
    assert!(error.to_string().contains("withdrawn"), "{error}");
    assert_eq!(host.requests_left(), 0);
}

#[tokio::test]
async fn a_companion_that_falls_silent_is_told_apart_from_none() {
    for shows_the_claim in [false, true] {
        let host = Host::new();
        let patience = Patience { claim: Duration::from_secs(1), silence: SHORT, ..PATIENT };
        let companion = async {
            let (id, _) = host.claim().await;
            if shows_the_claim {
                host.dir().create(&id.log_name()).unwrap();
            }
        };
        let (verdict, ()) = tokio::join!(host.ask(Form::Full, patience, None), companion);
        let error = verdict.unwrap_err();
        assert_eq!(error.kind(), "host-silent", "{error}");
        assert!(error.may_be_claimed());
    }
}

#[tokio::test]
async fn a_host_that_shows_life_is_waited_for_as_long_as_it_takes() {
    let host = Host::new();
    let silence = Duration::from_millis(400);
    let patience = Patience { claim: Duration::from_secs(5), silence, ..PATIENT };
    let companion = async {
        let (id, _) = host.claim().await;
        let mut log = host.dir().create(&id.log_name()).unwrap();
        // Nothing but signs of life, for three times as long as silence is borne.
        let mut beat = tokio::time::interval(silence / 8);
        for _ in 0..24 {
            beat.tick().await;
            log.write_all(&LogLine::heartbeat(Timestamp::now(), Word::lossy("health")).encode()).unwrap();
        }
        host.answer(id, |_| {});
    };
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, patience, None), companion);
    assert!(verdict.unwrap().is_ok());
}

#[tokio::test]
async fn a_living_host_is_waited_for_until_the_timeout() {
    let host = Host::new();
    let companion = async {
        let (id, _) = host.claim().await;
        host.dir().create(&id.log_name()).unwrap();
    };
    let timeout = Some(Duration::from_millis(300));
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, timeout), companion);
    let error = verdict.unwrap_err();
    assert!(matches!(error, DeployError::TimedOut { claimed: true, .. }), "{error}");
    assert!(error.to_string().contains("the host goes on"), "{error}");
}

#[tokio::test]
async fn an_endless_log_outlasts_no_timeout() {
    let host = Host::new();
    let companion = async {
        let (id, _) = host.claim().await;
        host.dir().create(&id.log_name()).unwrap().set_len(1 << 40).unwrap();
    };
    let timeout = Some(Duration::from_millis(300));
    let began = std::time::Instant::now();
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, timeout), companion);
    assert!(matches!(verdict.unwrap_err(), DeployError::TimedOut { claimed: true, .. }));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_answer_about_something_else_is_no_answer() {
    for (word, kind, change) in [
        ("request", "answer-foreign", (|status: &mut Status| status.request = None) as fn(&mut Status)),
        ("digest", "answer-foreign", |status| status.digest = Some(Digest::of(b"another"))),
    ] {
        let host = Host::new();
        let companion = async {
            let (id, _) = host.claim().await;
            host.answer(id, change);
        };
        let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, None), companion);
        assert_eq!(verdict.unwrap_err().kind(), kind, "{word}");
    }
}

#[tokio::test]
async fn a_broken_answer_is_told() {
    let host = Host::new();
    let companion = async {
        let (id, _) = host.claim().await;
        host.dir().replace(&id.status_name(), b"ok v1.0.0\nOutcome: failed\n").unwrap();
    };
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, None), companion);
    assert_eq!(verdict.unwrap_err().kind(), "status-invalid");
}

#[tokio::test]
async fn what_is_planted_in_place_of_log_and_answer_is_neither_read_nor_waited_for() {
    let host = Host::new();
    let companion = async {
        let (id, _) = host.claim().await;
        let fifo = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, host.path(&id.log_name()), fifo).unwrap();
        symlink(host.path(HOST), host.path(&id.status_name())).unwrap();
        // The companion's own replace both.
        let mut log = host.dir().create(&id.log_name()).unwrap();
        log.write_all(&line("real")).unwrap();
        host.answer(id, |_| {});
    };
    let (verdict, ()) = tokio::join!(host.ask(Form::Full, PATIENT, None), companion);
    assert!(verdict.unwrap().is_ok());
    assert!(host.printed.text().contains("real"));
}

/// What a deploy script does with a trigger: reads it, removes it, works, writes the status.
async fn script(host: &Host, answers: &[&str]) {
    let dir = host.dir();
    let mut watch = Watch::new(&dir);
    while !host.path(TRIGGER).exists() {
        watch.changed(|_| true).await;
    }
    assert_eq!(fs::read_to_string(host.path(TRIGGER)).unwrap(), "v1.0.0\n");
    fs::remove_file(host.path(TRIGGER)).unwrap();
    let mut status = fs::File::create(host.path(STATUS)).unwrap();
    for answer in answers {
        // Each piece is seen before the next one is written.
        status.write_all(answer.as_bytes()).unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_scripts_first_line_decides() {
    for (pieces, outcome) in [
        (&["ok v1.0.0\n"][..], Outcome::Deployed),
        (&["fail v1.0.0\n"], Outcome::Failed),
        (&["ok v1.0.0"], Outcome::Deployed),
        (&["", "fail", " v1.0", ".0", "\n"], Outcome::Failed),
    ] {
        let host = Host::absent();
        fs::write(host.path(STATUS), "ok v1.0.0\n").unwrap();
        let (verdict, ()) = tokio::join!(host.ask(Form::Plain, PATIENT, None), script(&host, pieces));
        assert_eq!(verdict.unwrap().outcome, outcome, "{pieces:?}");
        assert_eq!(host.requests_left(), 0);
    }
}

#[tokio::test]
async fn a_companions_plain_answer_is_read_whole() {
    let host = Host::absent();
    let status = Status { tag: Some(host.tag.clone()), ..Status::new(Outcome::RolledBack, "unhealthy", "web is not") };
    let text = String::from_utf8(status.encode()).unwrap();
    let pieces = [text.as_str()];
    let (verdict, ()) = tokio::join!(host.ask(Form::Plain, PATIENT, None), script(&host, &pieces));
    assert_eq!(verdict.unwrap().outcome, Outcome::RolledBack);
}

#[tokio::test]
async fn answers_to_others_are_passed_over() {
    for other in ["ok v0.9.0\n", "fail invalid\n", "ok\n", "", "ok v1.0.0 \n"] {
        let host = Host::absent();
        let pieces = [other];
        let timeout = Some(Duration::from_millis(300));
        let (verdict, ()) = tokio::join!(host.ask(Form::Plain, PATIENT, timeout), script(&host, &pieces));
        let error = verdict.unwrap_err();
        assert!(matches!(error, DeployError::TimedOut { claimed: true, .. }), "{other:?}: {error}");
    }
}

#[tokio::test]
async fn a_trigger_that_nobody_takes_is_withdrawn() {
    let host = Host::absent();
    let patience = Patience { claim: Duration::from_millis(10), plain: SHORT, ..PATIENT };
    let error = host.ask(Form::Plain, patience, None).await.unwrap_err();
    assert!(!error.may_be_claimed(), "{error}");
    assert_eq!(host.requests_left(), 0);
    assert_eq!(host.printed.text().matches("warning: nobody has taken the request").count(), 1);
}

#[test]
fn a_directory_that_cannot_be_written_is_found_before() {
    // Nobody, root included, makes files there.
    let error = check(Path::new("/proc"), false, Form::Plain).unwrap_err();
    assert!(matches!(error, DeployError::Directory(DirError::Unwritable { .. })), "{error:?}");
    assert_eq!(error.code(), Code::Handoff);
    let host = Host::new();
    check(host.temp.path(), false, Form::Full).unwrap();
    assert_eq!(host.dir().names().unwrap(), [HOST], "nothing is left behind");
}
