//! Deploys that are cut off where a test wants it, and what must be true afterwards. The programs are built with the
//! feature `failpoints`; `tagship_core::failpoint` says how they are told.

use std::collections::BTreeMap;

use crate::{Host, IMAGE, Ran};

/// The services of the app that is deployed here, in their groups.
const SERVICES: [&str; 3] = ["demo-web", "demo-worker", "demo-beat"];

/// How long an answer may take, in seconds: a deploy of its own, a restart, and a recovery.
const PATIENCE: u32 = 60;

/// A host on which deploys are cut off.
pub struct Ground<'a> {
    host: &'a Host,
    /// Two good versions and one that does not get healthy.
    versions: BTreeMap<&'static str, Version>,
}

/// A signed image in the registry.
#[derive(Clone, Debug)]
struct Version {
    tag: String,
    digest: String,
    /// Its local id.
    image: String,
}

/// What a cut means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process is killed.
    Kill,
    /// The machine loses its power.
    Power,
}

/// How a deploy went that was to be cut off.
#[derive(Debug)]
pub struct Attempt {
    /// The places that were passed, in order, those of the recovery as well.
    pub passed: Vec<String>,
    /// Whether there were enough of them for the cut.
    pub cut: bool,
    /// The answer.
    pub answer: String,
}

/// Boots a host for it: a one-shot unit and three services in two groups, a short settle time, and versions that may
/// follow each other in any order.
pub fn boot(name: &str) -> Host {
    let host = Host::boot(name);
    host.app(
            r#"set -eu
            units=~/.config/containers/systemd
            rm $units/demo-flower.container
            sed 's/^ContainerName=.*/ContainerName=demo-migrate/; s/demo-worker/demo-migrate/; s/ROLE=.*/ROLE=migrate/
                 s/^Restart=.*/Type=oneshot/; /^\[Install\]/,$d' $units/demo-worker.container >$units/demo-migrate.container
            sed -i '/^services:/,/^[a-z]/{/^services:/d; /^  - /d}' ~/.config/tagship/demo.yaml
            sed -i 's/^health:.*/health: {timeout: 10s, settle: 200ms}/; s/^verify:/verify:\n  downgrade: allow/' ~/.config/tagship/demo.yaml
            printf 'services: [demo-web, [demo-worker, demo-beat]]\nbefore: [demo-migrate]\n' >>~/.config/tagship/demo.yaml
            mkdir -p ~/.config/systemd/user/tagship@demo.service.d
            printf '[Service]\nEnvironment=TAGSHIP_FAILPOINTS=%%h/failpoints\nRestartSec=100ms\n' \
                >~/.config/systemd/user/tagship@demo.service.d/failpoints.conf
            # In a file of its own: the places of a deploy are counted without those of the boot before it.
            mkdir -p ~/.config/systemd/user/tagship-recover@demo.service.d
            printf '[Service]\nEnvironment=TAGSHIP_FAILPOINTS=%%h/failpoints-recover\n' \
                >~/.config/systemd/user/tagship-recover@demo.service.d/failpoints.conf
            # A migration ends; the services go on.
            sed -i '2i [ "$ROLE" != migrate ] || exit 0' ~/src/demo/app
            systemctl --user daemon-reload
            systemctl --user start tagship@demo"#,
        )
        .ok();
    host
}

/// A run of the action.
#[derive(Debug)]
pub struct Released {
    /// What it said.
    pub ran: Ran,
    /// The places that it passed, in order.
    pub passed: Vec<String>,
}

impl<'a> Ground<'a> {
    /// Releases the versions that are deployed here, and deploys a good one.
    pub fn prepare(host: &'a Host) -> Self {
        let mut ground = Self { host, versions: BTreeMap::new() };
        for (name, release) in [
            ("a", host.release()),
            ("b", host.release()),
            ("bad", host.release().edit("sed -i '3i echo cannot read settings; exit 3' app")),
        ] {
            let tag = release.tag();
            release.steps("build,push,sign").run().ok();
            let digest = host.digest(&tag).expect("the pushed version");
            let image = host.app(&format!("podman image inspect --format '{{{{.Id}}}}' {IMAGE}:{tag}")).ok();
            ground.versions.insert(name, Version { tag, digest, image: image.trimmed().to_owned() });
        }
        ground.attempt("a", None).answered("ok ");
        ground
    }

    /// Deploys a version and cuts that off at a place that the companion passes, by its number
    /// or by the beginning of its name.
    ///
    /// # Panics
    /// When there is no answer afterwards, when not all services run one good image and are healthy, or when anything is
    /// left in the middle: that is what has to hold wherever the cut came.
    pub fn attempt(&self, version: &str, cut: Option<(Cut, &str)>) -> Attempt {
        let Version { tag, digest, image } = &self.versions[version];
        let order = match cut {
            Some((Cut::Kill, place)) => format!("kill {place}"),
            Some((Cut::Power, place)) => format!("hold {place}"),
            None => String::new(),
        };
        let id = ulid::Ulid::generate();
        let before = self.host.app(&format!(
                "podman inspect --format '{{{{.Image}}}}' demo-web 2>/dev/null || true
                 # What was rejected before is tried again.
                 trust=~/.local/state/tagship/demo/trust.json
                 [ ! -e $trust ] || {{ jq 'del(.trust.rejected)' $trust >$trust.new && mv $trust.new $trust; }}
                 set -eu; cd ~/tagship/demo; rm -f ~/failpoints.* ~/failpoints-recover.*; echo '{order}' >~/failpoints
                 boot=$(cat /proc/sys/kernel/random/boot_id); until=$(date -u -d '+10 min' +%FT%TZ)
                 printf '%s\\n' '{tag}' 'Request: {id}' 'Image: {IMAGE}' 'Digest: {digest}' \"Not-After: $until\" \"Boot: $boot\" >.new-{id}
                 mv -n .new-{id} deploy-request.{id}"
            ));
        let before = before.ok();
        if let Some((Cut::Power, _)) = cut {
            // Until it is held, or has answered without coming so far.
            self.wait(
                &format!("[ -e ~/failpoints.held ] || [ -e ~/tagship/demo/deploy-status.{id} ]"),
                "~ ~/tagship/demo",
            );
            self.host.reboot_hard();
        }
        self.wait(&format!("[ -e ~/tagship/demo/deploy-status.{id} ]"), "~/tagship/demo");
        if let Some((Cut::Power, _)) = cut {
            // The boot has started what no deploy had touched: that gets healthy in its own time.
            let services = SERVICES.join(" ");
            let started = format!(
                "systemctl --user start {services} && timeout {PATIENCE} podman wait --condition healthy {services}"
            );
            self.host.app(&started).ok();
        }
        // Cut off after its answer, it comes again by itself; until then it may still be the run that is cut off.
        let after = self.host.app(&format!(
            "systemctl --user start tagship@demo || systemctl --user start tagship@demo || exit
             cd ~/tagship/demo; cat deploy-status.{id}; echo ---; cat ~/failpoints.passed; echo ---; ls ~/failpoints 2>/dev/null || true"
        ));
        let after = after.ok();
        let mut parts = after.text.split("---\n").map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let attempt = Attempt {
            answer: next(),
            passed: next().lines().map(str::to_owned).collect(),
            cut: next().trim().is_empty(),
        };
        // The answer says which: what was asked for, or what ran before.
        let expected = if attempt.answer.starts_with("ok ") { image } else { before.trimmed() };
        self.hold_true(&attempt, &id.to_string(), expected);
        attempt
    }

    /// Runs the action for a version of this commit, and kills it at the `at`-th place that it passes.
    pub fn release(&self, tag: &str, at: Option<u32>) -> Released {
        let order = at.map(|at| format!("kill {at}")).unwrap_or_default();
        self.host.app(&format!("rm -f /tmp/action.*; echo '{order}' >/tmp/action")).ok();
        let release = self.host.release().of(tag).env("TAGSHIP_FAILPOINTS", "/tmp/action");
        let ran = release.env("GITHUB_SHA", &format!("{:040x}", tag.len())).run();
        let passed = self.host.app("cat /tmp/action.passed; rm -f /tmp/action.*").ok();
        Released { ran, passed: passed.text.lines().map(str::to_owned).collect() }
    }

    /// A version higher than all before it.
    pub fn next_version(&self) -> String {
        self.host.next_version()
    }

    /// Requires every service to run this version, healthy.
    pub fn runs(&self, tag: &str) {
        let services = SERVICES.join(" ");
        self.host
            .app(&format!(
                "set -eu; image=$(podman image inspect --format '{{{{.Id}}}}' {IMAGE}:{tag})
                 podman inspect --format '{{{{.State.Health.Status}}}} {{{{.Image}}}}' {services} | sort -u |
                     diff - <(echo \"healthy $image\")"
            ))
            .ok();
    }

    /// Waits for something that a change of files in these directories brings.
    fn wait(&self, condition: &str, directories: &str) {
        self.host
            .app(&format!(
                "timeout {PATIENCE} bash -c 'until {condition}; do
                     inotifywait -qq -t 1 -e create -e moved_to {directories}; done; exit 0' || {{
                     echo 'no answer within {PATIENCE} s'; ls -la ~/tagship/demo; tail -n 5 ~/failpoints.passed
                     journalctl --user -u tagship@demo -n 30 --no-pager; exit 1; }}"
            ))
            .ok();
    }

    /// What must be true after every deploy, however it went.
    fn hold_true(&self, attempt: &Attempt, id: &str, expected: &str) {
        let Attempt { answer, passed, .. } = attempt;
        let last = passed.last().map_or("", String::as_str);
        let ran = self.host.app(&format!(
            "set -eu
             {{ podman inspect --format '{{{{.State.Health.Status}}}} {{{{.Image}}}}' {services}
                podman image inspect --format 'named {{{{.Id}}}}' {names}; }} | sort -u
             systemctl --user is-active tagship@demo.path tagship@demo.timer
             ls -A ~/tagship/demo | grep -E 'request|trigger|claim|writing' || true
             grep -c '\"{id}\"' ~/.local/state/tagship/demo/history.jsonl || true
             cat ~/.local/state/tagship/demo/journal.json",
            services = SERVICES.join(" "),
            names = SERVICES.map(|service| format!("localhost/demo:{service}")).join(" ")
        ));
        let ran = ran.ok();
        let lines: Vec<&str> = ran.text.lines().collect();
        let context = || format!("after {last:?}, answered:\n{answer}\n{}", ran.text);
        let [health, named, path, timer, rest @ ..] = lines.as_slice() else { panic!("{}", context()) };
        assert_eq!(*health, format!("healthy {expected}"), "{}", context());
        assert_eq!(*named, format!("named {expected}"), "{}", context());
        assert_eq!((*path, *timer), ("active", "active"), "{}", context());
        // One verdict, or two where the first was cut off between being written down and being told.
        let [verdicts, journal] = rest else { panic!("something is left in the directory: {}", context()) };
        assert!(matches!(*verdicts, "1" | "2"), "{}", context());
        assert_eq!(*journal, "null", "{}", context());
        assert!(answer.lines().any(|line| line == format!("Request: {id}")), "{}", context());
    }

    /// The good version that does not run now.
    pub fn other(&self) -> &'static str {
        let running = self.host.app("podman inspect --format '{{.Image}}' demo-web").ok();
        if running.trimmed() == self.versions["a"].image { "b" } else { "a" }
    }
}

impl Attempt {
    /// The number of the first place whose name has these words.
    ///
    /// # Panics
    /// When none has.
    pub fn place(&self, words: &str) -> u32 {
        let index = self.passed.iter().position(|place| place.contains(words));
        let index = index.unwrap_or_else(|| panic!("no place {words:?} among {:#?}", self.passed));
        u32::try_from(index).expect("few places") + 1
    }

    /// Requires this beginning of the answer.
    pub fn answered(self, beginning: &str) -> Self {
        assert!(self.answer.starts_with(beginning), "not {beginning:?}: {}", self.answer);
        self
    }
}
