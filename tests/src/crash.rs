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

/// Where a deploy is cut off, and what comes after it as well. Places are meant by their number or by the beginning of
/// their name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cuts<'a> {
    /// The deploy itself.
    pub deploy: Option<(Cut, &'a str)>,
    /// The run that ends what was cut off is killed here.
    pub recovery: Option<&'a str>,
    /// The unit that a boot starts before the services is killed here.
    pub at_boot: Option<&'a str>,
}

impl<'a> From<Option<(Cut, &'a str)>> for Cuts<'a> {
    fn from(deploy: Option<(Cut, &'a str)>) -> Self {
        Self { deploy, ..Self::default() }
    }
}

/// How a deploy went that was to be cut off.
#[derive(Debug)]
pub struct Attempt {
    /// The places that were passed, in order, those of the recovery as well.
    pub passed: Vec<String>,
    /// Whether there were enough of them for each cut.
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

/// What was found to be true.
struct Whole {
    /// How many verdicts on the request there are.
    verdicts: u32,
    /// All that there is to say, for messages.
    text: String,
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

    /// Deploys a version and cuts that off at places that the companion passes.
    ///
    /// # Panics
    /// When there is no answer afterwards, when not all services run one good image and are healthy, or when anything is
    /// left in the middle: that is what has to hold wherever the cut came.
    pub fn attempt<'c>(&self, version: &str, cuts: impl Into<Cuts<'c>>) -> Attempt {
        let Version { tag, digest, image } = &self.versions[version];
        let Cuts { deploy: cut, recovery, at_boot } = cuts.into();
        let first = cut.map(|(cut, place)| match cut {
            Cut::Kill => format!("kill {place}\n"),
            Cut::Power => format!("hold {place}\n"),
        });
        let kill = |place: Option<&str>| place.map(|place| format!("kill {place}\n")).unwrap_or_default();
        let (order, at_boot) = (first.unwrap_or_default() + &kill(recovery), kill(at_boot));
        let id = ulid::Ulid::generate();
        let before = self.host.app(&format!(
                "podman inspect --format '{{{{.Image}}}}' demo-web 2>/dev/null || true
                 # What was rejected before is tried again.
                 trust=~/.local/state/tagship/demo/trust.json
                 [ ! -e $trust ] || {{ jq 'del(.trust.rejected)' $trust >$trust.new && mv $trust.new $trust; }}
                 set -eu; cd ~/tagship/demo; rm -f ~/failpoints.* ~/failpoints-recover*; printf %s '{order}' >~/failpoints
                 printf %s '{at_boot}' >~/failpoints-recover; [ -s ~/failpoints-recover ] || rm ~/failpoints-recover
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
             cd ~/tagship/demo; cat deploy-status.{id}; echo ---; cat ~/failpoints.passed; echo ---; ls ~/failpoints ~/failpoints-recover 2>/dev/null || true"
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

    /// Goes back by hand to the good version that does not run now, and kills that at the `at`-th place that it passes.
    /// Whether there were so many.
    ///
    /// # Panics
    /// As [`Self::attempt`]. Whoever was cut off has no answer, but the next run of the companion ends what was begun: the
    /// services run what the last verdict says, and what they ran before where there is none.
    pub fn roll_back(&self, at: u32) -> bool {
        let Version { tag, image, .. } = &self.versions[self.other()];
        // In a file of its own: the timer may start the companion at any time.
        let ran = self.host.app(&format!(
            "history=~/.local/state/tagship/demo/history.jsonl; rm -f ~/by-hand*; echo 'kill {at}' >~/by-hand
             echo before $(podman inspect --format '{{{{.Image}}}}' demo-web) $(wc -l <$history)
             TAGSHIP_FAILPOINTS=~/by-hand tagship-host rollback demo {tag} 2>~/by-hand.said; echo code $?
             systemctl --user start tagship@demo || exit
             echo after $(tail -n 1 $history | jq -r .outcome) $(wc -l <$history); tail -n 1 ~/by-hand.passed; cat ~/by-hand.said"
        ));
        let ran = ran.ok();
        let words = |of: &str| {
            let line = ran.text.lines().find_map(|line| line.strip_prefix(of)).expect("a line");
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (before, after, code) = (words("before "), words("after "), words("code "));
        assert!(matches!(code[0].as_str(), "0" | "137"), "{}", ran.text);
        let went_back = after[1] != before[1] && after[0] == "deployed";
        assert!(went_back || code[0] == "137", "{}", ran.text);
        let expected = if went_back { image } else { &before[0] };
        self.whole("no request", expected, &ran.text);
        code[0] == "137"
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
        let rest = self.whole(id, expected, &format!("after {last:?}, answered:\n{answer}"));
        // One verdict, or two where the first was cut off between being written down and being told. None where a boot came
        // before the deploy began: the request is refused, and the history is of deploys.
        let before_boot = answer.contains("\nKind: before-boot\n");
        let verdicts = rest.verdicts;
        assert!(if before_boot { verdicts == 0 } else { matches!(verdicts, 1 | 2) }, "{}", rest.text);
        assert!(answer.lines().any(|line| line == format!("Request: {id}")), "{}", rest.text);
    }

    /// Requires what must be true wherever the cut came: each service runs the expected image, healthy, its name stands for
    /// it, somebody waits for requests, and nothing is left in the middle.
    fn whole(&self, id: &str, expected: &str, context: &str) -> Whole {
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
        let text = format!("{context}\n{}", ran.ok().text);
        let lines: Vec<&str> = text[context.len() + 1..].lines().collect();
        let [health, named, path, timer, rest @ ..] = lines.as_slice() else { panic!("{text}") };
        assert_eq!(*health, format!("healthy {expected}"), "{text}");
        assert_eq!(*named, format!("named {expected}"), "{text}");
        assert_eq!((*path, *timer), ("active", "active"), "{text}");
        let [verdicts, journal] = rest else { panic!("something is left in the directory: {text}") };
        assert_eq!(*journal, "null", "{text}");
        Whole { verdicts: verdicts.parse().expect("a number"), text }
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
