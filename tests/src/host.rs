//! A test host with the demo stack on it: booted once, told what to do, taken down at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Ran, Release, Service, State, quoted};

/// The image that the stack releases.
pub const IMAGE: &str = "registry.test:5000/chris/demo";

/// The repository of the names that its services run, as its configuration has it.
const LOCAL: &str = "localhost/demo";

/// The password of the keys that scenarios make.
pub(crate) const PASSWORD: &str = "long-enough";

/// The services of the stack, in the order of its configuration.
pub const SERVICES: [&str; 4] = ["demo-web", "demo-worker", "demo-beat", "demo-flower"];

/// A booted host. Dropping it takes it down.
pub struct Host {
    name: String,
    tools: PathBuf,
    patch: AtomicU32,
}

impl Host {
    /// Boots a host of this name, with a number that no other host has, and puts the stack on it.
    ///
    /// # Panics
    /// When a tool of the harness fails; its output says why.
    pub fn boot(name: &str) -> Self {
        Self::boot_with(name, &[])
    }

    /// Boots a host, and sets the stack up in another way than usual.
    ///
    /// # Panics
    /// As [`Host::boot`].
    pub fn boot_with(name: &str, stack: &[&str]) -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("testhost");
        let host = Self { name: own_name(name), tools, patch: AtomicU32::new(0) };
        host.tool("testhost", &["up", host.name()]).ok();
        host.tool("stack", &[&["up", host.name()], stack].concat()).ok();
        host
    }

    /// Its name, for the tools of the harness.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where this machine keeps the host: its writable files and its state.
    pub fn directory(&self) -> PathBuf {
        let cache = std::env::var_os("TAGSHIP_TESTHOST_DIR")
            .map_or_else(|| "/var/cache/tagship-testhost".into(), PathBuf::from);
        cache.join("hosts").join(&self.name)
    }

    /// The pid of the host's init, in the machine's eyes.
    ///
    /// # Panics
    /// When the host is not up.
    pub fn init(&self) -> i32 {
        std::fs::read_to_string(self.directory().join("state/pid")).unwrap().trim().parse().unwrap()
    }

    /// Runs a tool of the harness on the machine itself.
    pub fn tool(&self, tool: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(self.tools.join(tool));
        command.args(args);
        finish(&format!("{tool} {}", args.join(" ")), command)
    }

    /// A program of this machine that will run in the host's network.
    pub fn in_network(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("tagship-{}", self.name), program]);
        command
    }

    /// A program that `tools` builds, as the host sees it.
    pub fn tool_in_host(&self, name: &str) -> String {
        let ran = self.tool("tools", &[name]).ok();
        let (_, path) = ran.text.lines().next().and_then(|path| path.rsplit_once("/tools/")).expect("a path");
        format!("/opt/tools/{path}")
    }

    /// Runs a shell script in the host as the user `app`, with a user session.
    pub fn app(&self, script: &str) -> Ran {
        self.enter(&[], script)
    }

    /// Runs a shell script in the host as root.
    pub fn root(&self, script: &str) -> Ran {
        self.enter(&["--root"], script)
    }

    /// Puts a program of this machine into the host, for everybody to run.
    pub fn install(&self, program: &Path, to: &str) {
        let mut command = Command::new(self.tools.join("testhost"));
        command.args(["run", &self.name, "--root", "--", "install", "-m", "755", "/dev/stdin", to]);
        command.stdin(File::open(program).unwrap_or_else(|error| panic!("{}: {error}", program.display())));
        let output = command.output().unwrap_or_else(|error| panic!("starting testhost: {error}"));
        Ran::new(&format!("install {}", program.display()), &output, Duration::ZERO).ok();
    }

    /// Ends the host's init and boots the same directories again.
    pub fn reboot(&self) {
        self.tool("testhost", &["reboot", &self.name]).ok();
    }

    /// The same as if its power had failed.
    pub fn reboot_hard(&self) {
        self.tool("testhost", &["reboot", &self.name, "--hard"]).ok();
    }

    /// A version that no scenario of this host has used, higher than all before it.
    pub fn next_version(&self) -> String {
        format!("v0.2.{}", self.patch.fetch_add(1, Ordering::Relaxed))
    }

    /// A release of a new version of the demo application.
    pub fn release(&self) -> Release<'_> {
        Release::new(self, self.next_version())
    }

    /// What runs now. All is asked in one go: it is asked all the time, and each program's start costs.
    pub fn state(&self) -> State {
        const EACH: &str = "{{.Name}} {{.Id}} {{.Image}} {{if .State.Health}}{{.State.Health.Status}}{{end}}";
        let ran = self.app(&format!(
            "podman inspect --type container --format '{EACH}' {} 2>/dev/null
             podman images --no-trunc --filter 'reference={LOCAL}' --format '{LOCAL}:{{{{.Tag}}}} {{{{.ID}}}}'
             {}",
            SERVICES.join(" "),
            digest("stable")
        ));
        let (names, others): (Vec<_>, Vec<_>) = ran.text.lines().partition(|line| line.starts_with(LOCAL));
        State {
            services: others.iter().filter_map(|line| service(line)).collect(),
            names: names.iter().filter_map(|line| name(line)).collect(),
            moving: others.iter().find(|line| line.starts_with("sha256:")).map(|line| (*line).to_owned()),
        }
    }

    /// A proven state to start a scenario from: what runs, or a first release when not all services do.
    pub fn baseline(&self) -> State {
        let state = self.state();
        let whole = state.services.len() == SERVICES.len() && state.services.values().all(|s| s.health == "healthy");
        if whole && state.moving.is_some() {
            return state.healthy();
        }
        self.release().run().ok();
        self.state().healthy()
    }

    /// Makes a key pair, `NAME.key` and `NAME.pub` in the home, anew; to sign with by [`Release::with_key`].
    pub fn key_pair(&self, name: &str) {
        self.app(&format!("cd; rm -f {name}.*; TAGSHIP_KEY_PASSWORD={PASSWORD} tagship keygen --output {name}")).ok();
    }

    /// The images in the store, as `podman images` shows them with these flags, sorted.
    pub fn images(&self, flags: &str) -> String {
        self.at_rest();
        self.app(&format!("podman images --no-trunc {flags} | sort -u")).ok().text
    }

    /// Has these services checked until they are healthy, for those that were started by hand: their own first check may
    /// come too early, and the next one is half a minute away.
    ///
    /// # Panics
    /// When one of them is not within a minute.
    pub fn checked(&self, services: &[&str]) {
        let services = services.join(" ");
        self.app(&format!(
            "for s in {services}; do timeout 60 bash -c \"until podman healthcheck run $s; do :; done\" || exit; done"
        ))
        .ok();
    }

    /// Waits for the end of the companion's run, which removes old images after its answer and looks for requests once
    /// more: it holds the lock until then.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub fn at_rest(&self) {
        const LOCK: &str = "~/.local/state/tagship/demo/lock";
        self.app(&format!("test ! -e {LOCK} || flock --shared --timeout 60 {LOCK} true")).ok();
    }

    /// The digest that the registry holds for a tag of the demo image.
    pub fn digest(&self, tag: &str) -> Option<String> {
        let ran = self.app(&digest(tag));
        (ran.code == 0).then(|| ran.trimmed().to_owned())
    }

    /// Asks the companion by a request file as any program with the mount could, and gives its answer.
    pub fn ask(&self, tag: &str, digest: &str) -> Ran {
        let id = ulid::Ulid::generate();
        self.app(&format!(
            "{SERVED} cd ~/tagship/demo && boot=$(cat /proc/sys/kernel/random/boot_id) && until=$(date -u -d '+10 min' +%FT%TZ) &&
             printf '%s\\n' '{tag}' 'Request: {id}' 'Image: {IMAGE}' 'Digest: {digest}' \"Not-After: $until\" \"Boot: $boot\" >.new-{id} &&
             mv -n .new-{id} deploy-request.{id} &&
             served deploy-status.{id} && cat deploy-status.{id} deploy-log.{id}"
        ))
    }

    /// Asks in the plain form, as a shell script would, and gives the answer.
    pub fn ask_plainly(&self, content: &str) -> Ran {
        self.app(&format!(
            "{SERVED} cd ~/tagship/demo && rm -f deploy-status && printf %s {} >deploy-trigger &&
             served deploy-status && cat deploy-status",
            quoted(content)
        ))
    }

    /// Waits for an answer, by its path in the host, and gives it.
    pub fn answer(&self, path: &str) -> Ran {
        self.app(&format!("{SERVED} served {path} && cat {path}"))
    }

    fn enter(&self, flags: &[&str], script: &str) -> Ran {
        let mut command = Command::new(self.tools.join("testhost"));
        command.args(["run", &self.name]).args(flags).args(["--", "bash", "-c", script]);
        finish(script, command)
    }
}

/// A function of the shell, `served [ANSWER]`: waits for the end of the run that the path unit started, or of one that
/// begins now. The former may have looked for requests before the last one came: where ANSWER is not there, the next run
/// has it. It may also have ended before, and one that finds nothing to do fails where the configuration is wrong: where
/// ANSWER is there, that is fine. Shows the journal when it fails.
pub const SERVED: &str = r#"served() {
  local run
  for run in 1 2; do
    if timeout 60 systemctl --user start tagship@demo.service && [ $# = 0 ]; then return; fi
    if [ $# = 0 ]; then break; elif [ -e "$1" ]; then return; fi
  done
  journalctl --user -u tagship@demo -n 20 -o cat --no-pager
  return 1
}
"#;

/// A shell line that prints the digest of the demo image under a tag, and fails when there is none.
fn digest(tag: &str) -> String {
    format!("skopeo inspect --format '{{{{.Digest}}}}' docker://{IMAGE}:{tag} 2>/dev/null")
}

/// A service from its line: name, container, image, and health unless there is none.
fn service(line: &str) -> Option<(String, Service)> {
    let mut words = line.split(' ').map(str::to_owned);
    let (name, container, image) = (words.next()?, words.next()?, words.next()?);
    Some((name, Service { container, image, health: words.next().unwrap_or_default() }))
}

/// The name of a service: a one-shot unit's, which moves before any service is touched, is none.
fn name(line: &str) -> Option<(String, String)> {
    let (name, image) = line.strip_prefix(LOCAL)?.strip_prefix(':')?.split_once(' ')?;
    SERVICES.contains(&name).then(|| (name.to_owned(), image.trim_start_matches("sha256:").to_owned()))
}

/// Names are the whole machine's, and another checkout's tests may boot hosts on it at the same time.
fn own_name(name: &str) -> String {
    static BOOTED: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), BOOTED.fetch_add(1, Ordering::Relaxed) + 1)
}

impl Drop for Host {
    fn drop(&mut self) {
        let ran = self.tool("testhost", &["down", &self.name]);
        assert!(ran.code == 0 || std::thread::panicking(), "{}", ran.text);
    }
}

fn finish(what: &str, mut command: Command) -> Ran {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("starting {what}: {error}"));
    Ran::new(what, &output, start.elapsed())
}
