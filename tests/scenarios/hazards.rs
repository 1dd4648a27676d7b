//! What pipelines of this kind are known to fall over, one hazard a scenario: each is brought about on the host, and
//! must not come back. The names begin with the hazard's number in docs/hazards.md.

pub(crate) mod action;
pub(crate) mod amid;
pub(crate) mod answers;
pub(crate) mod burst;
pub(crate) mod companion;
pub(crate) mod directory;
pub(crate) mod durable;
pub(crate) mod faults;
pub(crate) mod health;
pub(crate) mod images;
pub(crate) mod outages;
pub(crate) mod systemd;
pub(crate) mod units;
pub(crate) mod versions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tagship_tests::{Host, IMAGE, Mend, Ran, SERVED, Version};

/// What every script here begins with.
const SHELL: &str = r#"set -eu
cd ~/tagship/demo
boot=$(cat /proc/sys/kernel/random/boot_id) until=$(date -u -d '+10 min' +%FT%TZ)
# full ID TAG DIGEST: the bytes of a request. put ID TAG DIGEST: puts it as any program with the mount can.
full() { printf '%s\n' "$2" "Request: $1" "Image: registry.test:5000/chris/demo" "Digest: $3" "Not-After: $until" "Boot: $boot"; }
put() { full "$@" >".new-$1"; mv -n ".new-$1" "deploy-request.$1"; }
# await CONDITION: until a change in this directory makes it true.
await() {
  local line deadline=$((SECONDS + 120))
  coproc WATCH { exec inotifywait -m -e create -e moved_to -e moved_from -e delete -e modify . 2>&1; }
  until read -r line <&"${WATCH[0]}" && [[ $line == 'Watches established.' ]]; do :; done
  until eval "$1"; do
    read -r -t 120 line <&"${WATCH[0]}" && ((SECONDS < deadline)) || { echo "never: $1"; ls -A | head -n 40; cat "$(ls -t deploy-log.* | head -n 1)"; exit 1; }
  done
  kill "$WATCH_PID"
  wait "$WATCH_PID" || true
}
# told ID WORDS: until the log of this request says so.
told() { await "grep -q -- '$2' deploy-log.$1 2>/dev/null"; }
running=$(jq -r .running.digest deploy-host) version=$(jq -r .running.tag deploy-host)
"#;

/// Runs a script in the hand-off directory.
fn shell(host: &Host, script: &str) -> Ran {
    host.app(&format!("{SHELL}{SERVED}{script}"))
}

/// An identifier for a request.
fn id() -> String {
    ulid::Ulid::generate().to_string()
}

/// Versions that are deployed by request alone: two good ones and three that die at once, each newer than the one before.
#[derive(Clone)]
struct Versions {
    good: [Version; 2],
    /// One for each scenario that needs some: what failed once is refused from then on.
    bad: [Version; 3],
}

impl Versions {
    /// Those of this host, made once, beside each other.
    fn of(host: &Host) -> Self {
        static MADE: Mutex<Option<HashMap<PathBuf, Versions>>> = Mutex::new(None);
        let find = || {
            let made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
            made.as_ref().and_then(|made| made.get(&host.directory()).cloned())
        };
        if let Some(versions) = find() {
            return versions;
        }
        let versions = Versions {
            good: [(); 2].map(|()| host.release().signed()),
            bad: [(); 3].map(|()| host.release().crashing().signed()),
        };
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.get_or_insert_default().insert(host.directory(), versions.clone());
        versions
    }

    /// A good one that does not run now.
    fn other(&self, host: &Host) -> Version {
        let running = shell(host, "echo $running").ok();
        self.good.iter().find(|version| version.digest != running.trimmed()).expect("another one").clone()
    }
}

/// A good version that does not run now, and of which the store has only what all versions share.
fn unknown(host: &Host) -> Version {
    let other = Versions::of(host).other(host);
    // By its identifier, which is its configuration's digest: what is kept for going back has names of other kinds.
    host.app(&format!(
        "image=$(skopeo inspect --raw docker://{IMAGE}@{} | jq -r .config.digest); podman rmi --force ${{image#*:}} 2>/dev/null ||
         ! podman image exists ${{image#*:}}",
        other.digest
    ))
    .ok();
    other
}

/// Lets versions follow each other in any order.
fn any_order(host: &Host) -> Mend<'_> {
    host.configured(r"sed -i 's/^verify:/verify:\n  downgrade: allow/' demo.yaml")
}

/// Makes each restart of demo-worker take a second longer, so that something can happen in it.
fn slow(host: &Host) -> Mend<'_> {
    slow_by(host, 1)
}

/// The same, by so many seconds.
fn slow_by(host: &Host, seconds: u32) -> Mend<'_> {
    let directory = "~/.config/systemd/user/demo-worker.service.d";
    host.changed(
        &format!("mkdir -p {directory}; printf '[Service]\\nExecStartPre=/bin/sleep {seconds}\\n' >{directory}/slow.conf; systemctl --user daemon-reload"),
        &format!("rm -r {directory}; systemctl --user daemon-reload"),
    )
}

/// Deploys this version, does this in the middle of a restart, and gives the answer.
fn amid(host: &Host, version: &Version, act: &str) -> Ran {
    let request = id();
    let ran = shell(
        host,
        &format!(
            "request={request}; put $request {} {}; told {request} '\"demo-worker\",\"event\":\"restart\"'; {act}
             await '[ -e deploy-status.{request} ]'; cat deploy-status.{request} deploy-log.{request}",
            version.tag, version.digest
        ),
    )
    .within(Duration::from_secs(180));
    host.at_rest();
    ran
}

/// Counts the companion's runs, in `~/runs`: a line for each.
fn counted(host: &Host) -> Mend<'_> {
    host.changed(
        r#"mkdir -p ~/.config/systemd/user/tagship@demo.service.d; : >~/runs
        printf "[Service]\nExecStartPre=/bin/sh -c 'date +%%%%s.%%%%N >>%%h/runs'\n" >~/.config/systemd/user/tagship@demo.service.d/counted.conf
        systemctl --user daemon-reload"#,
        "rm -rf ~/.config/systemd/user/tagship@demo.service.d ~/runs; systemctl --user daemon-reload",
    )
}

/// Requires that the path unit is alive: a request that nobody else starts a run for is answered.
fn alive(host: &Host) {
    let id = id();
    shell(
        host,
        &format!("put {id} $version $running; await '[ -e deploy-status.{id} ]'; head -n 1 deploy-status.{id}"),
    )
    .ok()
    .says("ok ");
    host.app("systemctl --user is-active tagship@demo.path tagship@demo.timer").ok();
}
