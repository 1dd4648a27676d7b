//! No secret is left anywhere: the released program in its container, with key and password in the environment as a
//! runner hands them over, is held where it ends, and its whole memory is searched from outside; so is every file of the
//! host. Good releases and failed ones.
//!
//! That the search finds what there is to be found is proven first, by a program that keeps everything, and again in each
//! release: where tagship signs, the key must be found.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock, mpsc};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use tagship_tests::secrets::{End, Files, Job, Kind, Needles, Running, Secrets, image};
use tagship_tests::{Host, IMAGE, suite};

fn main() -> ExitCode {
    suite(
        boot,
        &[
            ("the_search_finds_all_that_a_program_keeps", the_control_is_found),
            ("a_release_leaves_nothing", a_release_leaves_nothing),
            ("an_interrupted_release_leaves_nothing", an_interrupted_release_leaves_nothing),
            ("a_wrong_password_leaves_nothing", a_wrong_password_leaves_nothing),
            ("a_registry_that_goes_down_in_mid_sign_leaves_nothing", a_registry_down_leaves_nothing),
            ("a_killed_log_leaves_nothing", a_killed_log_leaves_nothing),
            ("a_wrong_command_line_leaves_nothing", a_wrong_command_line_leaves_nothing),
            ("a_panic_tells_its_place_and_nothing_else", a_panic_tells_its_place),
            ("no_signal_leaves_a_core_dump", no_signal_leaves_a_core_dump),
            ("no_other_container_reads_the_memory", no_other_container_reads_the_memory),
            ("what_the_engine_stores_goes_with_the_container", what_the_engine_stores),
            ("secrets_in_files_are_nowhere_else", secrets_in_files_are_nowhere_else),
        ],
    )
}

/// The program under test, and the control, as images.
const TAGSHIP: &str = "localhost/tagship:secrets";
const KEEPER: &str = "localhost/keeper:secrets";

/// A version that is in the registry, unsigned.
const TAG: &str = "v0.1.0";

/// What the log says when it signs: the key is open, and the registry has been asked what is there.
const SIGNS: &str = "signs sha256:";

/// The kinds that are secrets.
const SECRETS: [Kind; 5] = [Kind::Key, Kind::Password, Kind::Encrypted, Kind::Token, Kind::Job];

/// What is of no use any more once the key is open, or never was.
const SPENT: [Kind; 3] = [Kind::Password, Kind::Encrypted, Kind::Job];

/// An environment variable that is no secret. Who does not find it has not looked.
const MARK: &str = "looked-for-and-found";

static CA: OnceLock<String> = OnceLock::new();
static GIVEN: OnceLock<Secrets> = OnceLock::new();
static NEEDLES: LazyLock<Needles> = LazyLock::new(|| Needles::of(given(), MARK));

/// A host with secrets of its own, which after this are nowhere on it but in the scenarios' hands.
fn boot() -> Host {
    let host = Host::boot_with("secrets", &["--no-companion"]);
    let home = host.directory().join("home/app");
    let base = std::fs::read_to_string(host.directory().join("state/base")).unwrap();
    let base = Path::new(base.trim());
    let loader = base.join("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    let libraries = base.join("usr/lib/x86_64-linux-gnu");
    let authorities = base.join("etc/ssl/certs/ca-certificates.crt");
    image(
        &host,
        TAGSHIP,
        &[(&programs().join("tagship"), "/tagship"), (&authorities, "/etc/ssl/certs/ca-certificates.crt")],
    );
    let keeper = Path::new(env!("CARGO_BIN_EXE_keeper"));
    let (libc, libgcc) = (libraries.join("libc.so.6"), libraries.join("libgcc_s.so.1"));
    image(
        &host,
        KEEPER,
        &[
            (keeper, "/keeper"),
            (&loader, "/lib64/ld-linux-x86-64.so.2"),
            (&libc, "/lib/x86_64-linux-gnu/libc.so.6"),
            (&libgcc, "/lib/x86_64-linux-gnu/libgcc_s.so.1"),
        ],
    );
    host.app(&format!(
        "podman tag localhost/base:1 {IMAGE}:{TAG} && podman push --quiet --authfile ~/ci-auth.json {IMAGE}:{TAG}"
    ))
    .ok();

    let word = |name: &str| {
        let mut random = [0; 12];
        getrandom::fill(&mut random).unwrap();
        // Marks that URLs, JSON, base64 and shells treat in ways of their own.
        format!("{name}?>~ä%{}", random.map(|byte| format!("{byte:02x}")).concat())
    };
    let (password, token, job) = (word("password"), word("token"), word("job"));
    host.app(&format!("cd ~ && COSIGN_PASSWORD='{password}' cosign generate-key-pair --output-key-prefix own 2>&1"))
        .ok();
    host.root(&format!("htpasswd -bm /etc/nginx/registry.htpasswd ci '{token}' 2>&1")).ok();
    let pem = std::fs::read_to_string(home.join("own.key")).unwrap();
    CA.set(std::fs::read_to_string(home.join("ca.pem")).unwrap()).unwrap();
    host.app("rm ~/own.key ~/ci.env ~/ci-auth.json ~/cosign.key").ok();
    let secrets = Secrets { pem, password, user: "ci".to_owned(), token, job };
    assert!(GIVEN.set(secrets).is_ok(), "one host");
    assert_eq!(Files::of(&host).with(&NEEDLES), [].into(), "nothing is there before the first run");
    host
}

/// Where the static programs lie.
fn programs() -> std::path::PathBuf {
    std::env::var_os("TAGSHIP_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/x86_64-unknown-linux-musl/release"),
        Into::into,
    )
}

fn given() -> &'static Secrets {
    GIVEN.get().expect("a host was booted")
}

/// A step of the action, with what a runner passes beside the secrets.
fn step<'a>(host: &'a Host, steps: &str) -> Job<'a> {
    host.app("rm -rf ~/job && mkdir -p ~/job/workspace ~/job/files && touch ~/job/files/output ~/job/files/summary")
        .ok();
    Job::new(host, TAGSHIP, "action")
        .option("--volume ~/job/workspace:/workspace --workdir /workspace --volume ~/job/files:/files")
        // As much as may be had: that there is no dump is to be tagship's doing.
        .option("--ulimit core=-1:-1")
        .env("MARK", MARK)
        .env("INPUT_IMAGE", IMAGE)
        .env("INPUT_TAG", TAG)
        .env("INPUT_STEPS", steps)
        .env("INPUT_TLOG", "false")
        .env("INPUT_CA", CA.get().unwrap())
        .env("INPUT_REGISTRY-USER", &given().user)
        .env("GITHUB_OUTPUT", "/files/output")
        .env("GITHUB_STEP_SUMMARY", "/files/summary")
        .env("GITHUB_TOKEN", &given().job)
        .env("ACTIONS_RUNTIME_TOKEN", &given().job)
}

/// With the secrets in the environment, under all the names that runners use.
fn with_secrets<'a>(job: Job<'a>, password: &str) -> Job<'a> {
    job.env("INPUT_KEY", &given().pem)
        .env("key", &given().pem)
        .env("INPUT_KEY-PASSWORD", password)
        .env("key-password", password)
        .env("INPUT_REGISTRY-TOKEN", &given().token)
        .env("registry-token", &given().token)
}

/// A step that signs, and each time something else: what says nothing new is not signed again.
fn signing(host: &Host) -> Job<'_> {
    with_secrets(anew(step(host, "sign")), &given().password)
}

fn anew(job: Job<'_>) -> Job<'_> {
    static TIMES: AtomicU32 = AtomicU32::new(0);
    job.env("INPUT_ANNOTATIONS", &format!("n={}", TIMES.fetch_add(1, Ordering::Relaxed)))
}

/// The first process of a namespace of its own gets no signal that it has not asked for; beside others it does.
fn mortal(job: Job<'_>) -> Job<'_> {
    job.option("--pid host")
}

// --- The control ---------------------------------------------------------------------------------------------------

fn the_control_is_found(host: &Host) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let secrets: Vec<_> = NEEDLES.of_kinds(&SECRETS).map(|needle| hex(&needle.bytes)).collect();
    let job = Job::new(host, KEEPER, "").env("KEEP", &secrets.join(",")).env("MARK", MARK);
    let mut kept = with_secrets(job, &given().password).begin();
    kept.process().until_exit();
    let memory = kept.memory(&NEEDLES);
    for needle in NEEDLES.of_kinds(&SECRETS) {
        let places: BTreeSet<_> = memory.places(needle).into_iter().collect();
        let named = |name: &str| places.iter().any(|place| place.ends_with(name));
        // The other thread's stack is a mapping without a name.
        let unnamed = places.iter().any(|place| place.split_whitespace().count() == 5);
        assert!(named("[heap]") && named("[stack]") && unnamed, "{needle:?} is in {places:#?}\n{memory:#?}");
    }
    let environment = String::from_utf8_lossy(&kept.proc("environ")).into_owned();
    assert!(!NEEDLES.in_text(&environment).is_empty(), "it wipes nothing");
    assert_eq!(kept.end(), End::Exited(0), "{}", kept.log());
}

// --- Memory ----------------------------------------------------------------------------------------------------------

/// Where tagship signs it has the key: it must be found. What is spent must not be, nor anything in what
/// /proc shows to others, nor in the files that tagship has open.
fn held_where_it_signs(running: &mut Running<'_>) {
    let begun = running.memory(&NEEDLES);
    for needle in NEEDLES.of_kinds(&[Kind::Encrypted]).filter(|needle| needle.name.starts_with("line")) {
        assert!(!begun.places(needle).is_empty(), "the environment that it begins with has {needle:?}\n{begun:#?}");
    }
    running.process().until_writes(SIGNS);
    let memory = running.memory(&NEEDLES);
    for name in ["the PKCS#8 document", "the scalar, big-endian", "the token"] {
        assert!(memory.hits.iter().any(|hit| hit.name == name), "{name} is in use, and not found\n{memory:#?}");
    }
    memory.has_none(&SPENT);
    for name in ["environ", "cmdline"] {
        let shown = String::from_utf8_lossy(&running.proc(name)).into_owned();
        assert_eq!(NEEDLES.in_text(&shown), [""; 0], "/proc/PID/{name}");
    }
    for (path, contents) in running.open_files() {
        assert!(NEEDLES.in_text(&String::from_utf8_lossy(&contents)).is_empty(), "{} is open", path.display());
    }
}

/// Where it ends, nothing is left in memory, and no file has a secret but the engine's own, which go with the container.
/// The log has none either.
fn leaves_nothing(host: &Host, mut running: Running<'_>, needles: &Needles, code: i32) -> String {
    running.process().until_exit();
    running.memory(needles).has_none(&SECRETS);
    let end = running.end();
    let log = running.log();
    assert_eq!(end, End::Exited(code), "{log}");
    assert_eq!(needles.in_text(&log), [""; 0], "the log tells\n{log}");
    running.remove();
    assert_eq!(Files::of(host).with(needles), [].into(), "left in files");
    log
}

fn a_release_leaves_nothing(host: &Host) {
    let job = with_secrets(step(host, "build,push,sign"), &given().password)
        .env("INPUT_TAG", "v0.1.1")
        .env("INPUT_BUILD-ARGS", "BASE=localhost/base:1")
        .option("--volume /run/user/1000/podman/podman.sock:/var/run/docker.sock");
    host.app("cp -a ~/src/demo/. ~/job/workspace/").ok();
    let mut running = job.begin();
    held_where_it_signs(&mut running);
    let log = leaves_nothing(host, running, &NEEDLES, 0);
    assert!(log.contains("read back from"), "{log}");
    assert!(host.app("cat ~/job/files/output").ok().text.contains("digest=sha256:"));
}

fn an_interrupted_release_leaves_nothing(host: &Host) {
    let mut running = signing(host).begin();
    held_where_it_signs(&mut running);
    running.process().send(Signal::SIGTERM);
    leaves_nothing(host, running, &NEEDLES, 143);
}

fn a_wrong_password_leaves_nothing(host: &Host) {
    let wrong = format!("{}x", given().password);
    let needles = NEEDLES.with_password(given(), &wrong);
    let running = with_secrets(step(host, "sign"), &wrong).begin();
    let log = leaves_nothing(host, running, &needles, 5);
    assert!(log.contains("the password is wrong"), "{log}");
}

fn a_registry_down_leaves_nothing(host: &Host) {
    let mut running = signing(host).begin();
    held_where_it_signs(&mut running);
    // It is held: the key is open, and nothing is in the registry yet.
    let down = host.without_registry();
    let log = leaves_nothing(host, running, &NEEDLES, 4);
    assert!(log.contains("registry.test:5000"), "{log}");
    drop(down);
}

/// A log that dies with the entry in its hands, and is not there when it is asked again.
fn a_killed_log_leaves_nothing(host: &Host) {
    let listener = listen(host);
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        drop(listener);
        let mut request = vec![0; 64 * 1024];
        tell.send(connection.read(&mut request).unwrap()).unwrap();
    });
    let mut running = signing(host)
        .env("INPUT_TLOG", "true")
        .env("INPUT_REKOR-URL", &url)
        .env("INPUT_REKOR-PUBLIC-KEY", &host.app("cat /etc/containers/cosign-app.pub").ok().text)
        .begin();
    held_where_it_signs(&mut running);
    let log = leaves_nothing(host, running, &NEEDLES, 5);
    // The program has ended: what it sent is here, or never comes.
    assert!(asked.recv_timeout(Duration::from_secs(10)).expect("it was asked") > 0);
    assert!(log.contains(&url), "{log}");
}

fn a_wrong_command_line_leaves_nothing(host: &Host) {
    let running = with_secrets(Job::new(host, TAGSHIP, "sing").env("MARK", MARK), &given().password)
        .env("TAGSHIP_KEY", &given().pem)
        .env("TAGSHIP_KEY_PASSWORD", &given().password)
        .env("TAGSHIP_REGISTRY_TOKEN", &given().token)
        .begin();
    leaves_nothing(host, running, &NEEDLES, 2);
}

/// A socket in the host's network that this process serves.
fn listen(host: &Host) -> TcpListener {
    let network = std::fs::File::open(format!("/proc/{}/ns/net", host.init())).unwrap();
    // A thread's network is its own, and a socket stays where it was made.
    let made = std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
    });
    made.join().unwrap()
}

// --- Ends that are not meant -----------------------------------------------------------------------------------------

/// A panic of the real program: without room for a thread's stack tokio panics, with the secrets in memory already.
fn a_panic_tells_its_place(host: &Host) {
    let mut sound = signing(host).begin();
    let status = String::from_utf8(sound.proc("status")).unwrap();
    sound.remove();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap().trim().trim_end_matches(" kB");
    // A thread's stack has two mebibytes.
    let limit = (data.parse::<u64>().unwrap() + 1536) * 1024;
    let mut running = mortal(signing(host)).option(&format!("--ulimit data={limit}:{limit}")).begin();
    let end = running.end();
    let log = running.log();
    assert_eq!(end, End::Killed(Signal::SIGABRT, false), "{log}");
    assert!(log.contains("this is a bug in it") && log.contains(".rs:"), "{log}");
    assert!(!log.contains("panicked"), "Rust's own message, with the panic's words\n{log}");
    assert_eq!(NEEDLES.in_text(&log), [""; 0], "{log}");
}

fn no_signal_leaves_a_core_dump(host: &Host) {
    let limit = |running: &mut Running<'_>| {
        let limits = String::from_utf8(running.proc("limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    for signal in [Signal::SIGQUIT, Signal::SIGABRT] {
        let mut running = mortal(signing(host)).begin();
        assert_eq!(limit(&mut running), ["unlimited", "unlimited"], "nobody else forbids it");
        running.process().until_writes(SIGNS);
        assert_eq!(limit(&mut running), ["0", "0"]);
        running.process().send(signal);
        assert_eq!(running.end(), End::Killed(signal, false));
        running.remove();
        assert_eq!(Files::of(host).with(&NEEDLES), [].into());
    }
    // The control: this machine dumps what lets itself be dumped, unless it wants dumps in a place that no container has.
    if std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with('/') {
        eprintln!("the control of no_signal_leaves_a_core_dump is skipped: core_pattern names a directory");
        return;
    }
    let mut kept = mortal(Job::new(host, KEEPER, "").env("KEEP", "00").option("--ulimit core=-1:-1")).begin();
    kept.process().until_writes("kept");
    kept.process().send(Signal::SIGQUIT);
    assert_eq!(kept.end(), End::Killed(Signal::SIGQUIT, true), "the control leaves a dump");
}

/// Containers of the same user, who is root in all of them, against each other. The user outside, whose the containers'
/// namespace is, may read all of it: that no program can forbid.
fn no_other_container_reads_the_memory(host: &Host) {
    let reads = |pid: i32| {
        let read = format!("grep -c stack /proc/{pid}/maps && head -c 1 /proc/{pid}/environ | wc -c");
        let other = format!("podman run --rm --network host --pid host localhost/base:1 sh -c '{read}'");
        (host.app(&other).code == 0, host.app(&read).code == 0)
    };
    let mut kept = Job::new(host, KEEPER, "").env("KEEP", "00").begin();
    kept.process().until_writes("kept");
    assert_eq!(reads(kept.pid_in_host()), (true, true), "the control, which does not mind");
    kept.remove();
    let mut running = signing(host).begin();
    running.process().until_writes(SIGNS);
    assert_eq!(reads(running.pid_in_host()), (false, true));
}

// --- Files -----------------------------------------------------------------------------------------------------------

/// Where Podman keeps what a container was made with, as long as there is the container.
fn is_the_engines(path: &str) -> bool {
    ["/home/app/.local/share/containers/storage/", "/run/user/1000/crun/", "/run/user/1000/containers/"]
        .iter()
        .any(|place| path.starts_with(place))
}

fn what_the_engine_stores(host: &Host) {
    let files = Files::of(host);
    // A step that is there until it is removed, and one that a cancelled job left behind.
    let tidy = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/runner/tidy.service"));
    let tidy = tidy.unwrap().lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().replace("24h", "0s");
    for remove in [None, Some(tidy.as_str())] {
        let mut running = signing(host).begin();
        running.process().until_writes(SIGNS);
        let while_it_runs = files.with(&NEEDLES);
        running.end();
        let while_it_is_stopped = files.with(&NEEDLES);
        for found in [&while_it_runs, &while_it_is_stopped] {
            assert!(found.keys().all(|path| is_the_engines(path)), "{found:#?}");
            let names: BTreeSet<_> = found.values().flatten().map(String::as_str).collect();
            for name in ["the password in JSON", "the token in JSON", "the job's token in JSON", "line 3 of the PEM"] {
                assert!(names.contains(name), "the engine keeps {name}: {found:#?}");
            }
        }
        if let Some(command) = remove {
            host.app(command).ok();
        } else {
            running.remove();
        }
        assert_eq!(files.with(&NEEDLES), [].into(), "after {}", remove.unwrap_or("podman rm"));
    }
}

fn secrets_in_files_are_nowhere_else(host: &Host) {
    let Secrets { pem, password, token, .. } = given();
    let place = host.directory().join("home/app/keys");
    std::fs::create_dir(&place).unwrap();
    let names = ["cosign.key", "password", "token"];
    for (name, contents) in names.iter().zip([pem, password, token]) {
        std::fs::write(place.join(name), format!("{contents}\n")).unwrap();
    }
    host.root("chown -R app:app ~app/keys && chmod -R go= ~app/keys").ok();
    let mut running = anew(step(host, "sign"))
        .env("GITHUB_TOKEN", "")
        .env("ACTIONS_RUNTIME_TOKEN", "")
        .option("--volume ~/keys:/keys:ro")
        .env("INPUT_KEY-FILE", "/keys/cosign.key")
        .env("INPUT_KEY-PASSWORD-FILE", "/keys/password")
        .env("INPUT_REGISTRY-TOKEN-FILE", "/keys/token")
        .begin();
    let files = Files::of(host);
    let only_there = |when: &str| {
        let found = files.with(&NEEDLES);
        let paths: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(paths, names.map(|name| format!("/home/app/keys/{name}")), "{when}: {found:#?}");
    };
    only_there("before it runs");
    running.process().until_writes(SIGNS);
    running.memory(&NEEDLES).has_none(&SPENT);
    only_there("while it runs");
    running.process().until_exit();
    running.memory(&NEEDLES).has_none(&SECRETS);
    only_there("where it ends");
    let end = running.end();
    let log = running.log();
    assert_eq!(end, End::Exited(0), "{log}");
    assert_eq!(NEEDLES.in_text(&log), [""; 0], "{log}");
    only_there("while the container is there still");
    running.remove();
    std::fs::remove_dir_all(place).unwrap();
    assert_eq!(files.with(&NEEDLES), [].into());
}
