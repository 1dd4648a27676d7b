//! examples/rotation/README.md, executed: its commands and configurations are read from that file.
//!
//! All the while the application answers, but for the restarts of its deploys.

use tagship_tests::{Host, IMAGE, Release, Scenario};

use crate::hazards::versions::without_state;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("the_release_key_is_rotated_as_the_example_says", rotated),
    ("a_leaked_key_is_worthless_at_once", leaked),
    ("what_a_revoked_key_signed_is_not_put_back", revoked),
    ("what_a_revoked_key_signed_is_not_put_back_with_lost_state_either", revoked_and_lost),
];

/// What the scenarios do is in that file. A step that restarts something, or whose words changed, fails here.
const GUIDE: &str = include_str!("../../examples/rotation/README.md");

/// Beside the commands of the guide: what its reader chooses.
const PASSWORD: &str = "\"$(cat ~/new/cosign-demo-2.password)\"";

/// A host whose key is rotated, put back in the end.
struct Rotation<'a>(&'a Host);

impl Rotation<'_> {
    /// Does what a step of the guide says, about one version where it names one.
    fn step(&self, heading: &str, version: &str) {
        let host = self.0;
        let (_, section) = GUIDE.split_once(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no {heading:?}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        // In each pair the second is what a fence encloses.
        for (at, block) in section.split("```").enumerate().filter(|(at, _)| at % 2 == 1) {
            let (place, text) = block.split_once('\n').unwrap_or_else(|| panic!("block {at} of {heading:?} is empty"));
            let text = text
                .replace("git.example.org/chris/demo", IMAGE)
                .replace("cosign-demo.pub", "cosign-app.pub")
                .replace("tagship sign", "tagship sign --tlog false")
                .replace("v0.1.0", version);
            match place {
                "sh yours" => host.app(&format!("rm -rf ~/new; mkdir ~/new; cd ~/new; {text}")).ok(),
                "sh root" => host.root(&format!("cd /home/app/new; {text}")).ok(),
                "sh app" => host.app(&text).ok(),
                "sh ci" => host
                    .app(&format!(
                        ". ~/ci.env; TAGSHIP_KEY=$(cat ~/new/cosign-demo-2.key) TAGSHIP_KEY_PASSWORD={PASSWORD}; {text}"
                    ))
                    .ok(),
                "yaml" => {
                    let keys =
                        text.lines().find(|line| line.starts_with("  keys:")).unwrap_or_else(|| panic!("{text}"));
                    host.app(&format!("sed -i 's#^  keys:.*#{keys}#' ~/.config/tagship/demo.yaml")).ok()
                }
                other => panic!("{heading:?} has a block of {other:?}"),
            };
        }
    }

    /// A release that CI signs with the new key.
    fn new_key<'r>(&self, release: Release<'r>) -> Release<'r> {
        release.env("TAGSHIP_KEY", "\"$(cat ~/new/cosign-demo-2.key)\"").env("TAGSHIP_KEY_PASSWORD", PASSWORD)
    }

    /// Does something that must touch no container: each answers on, in the same one.
    fn quietly(&self, what: &str, act: impl FnOnce()) {
        let before = (self.0.state().healthy(), self.unanswered());
        act();
        assert_eq!(before, (self.0.state().healthy(), self.unanswered()), "{what}");
    }

    /// How often the application has not answered since the rotation began. Somebody asks it all the time.
    fn unanswered(&self) -> u32 {
        let counted = self.0.app("systemctl --user is-active --quiet visitor && grep -c missed ~/visits || true");
        assert!(self.0.app("grep -c answered ~/visits").trimmed() != "0", "nobody asks");
        counted.trimmed().parse().unwrap()
    }

    /// Starts the visitor, who notes whether each of his visits was answered: what is shown is that nothing happens, and
    /// there is no event for that.
    fn begin(host: &Host) -> Rotation<'_> {
        let rotation = Rotation(host);
        host.app(
            "rm -f ~/visits; systemd-run --user --quiet --unit=visitor bash -c '
               while :; do
                 if curl --silent --fail --max-time 10 --output /dev/null http://127.0.0.1:8000/version
                 then echo answered; else echo missed; fi >>~/visits
                 sleep 0.2
               done'
             timeout 60 tail -F ~/visits 2>/dev/null | grep -q -m 1 answered",
        )
        .ok();
        rotation
    }
}

impl Drop for Rotation<'_> {
    fn drop(&mut self) {
        let host = self.0;
        host.root("install -m 644 /home/app/cosign.pub /etc/containers/cosign-app.pub; rm -rf /etc/tagship /etc/containers/cosign-demo-2.pub");
        host.app(
            "systemctl --user stop visitor; rm -rf ~/new ~/visits
             sed -i 's#^  keys:.*#  keys: [/etc/containers/cosign-app.pub]#' ~/.config/tagship/demo.yaml",
        );
        if !std::thread::panicking() {
            // What can be gone back to is by the host's own key again.
            host.release().run().ok();
            host.release().run().ok();
        }
    }
}

fn rotated(host: &Host) {
    host.baseline();
    let early = host.release();
    let (early_tag, kept) = (early.tag(), host.release());
    early.run().ok();
    let kept_tag = kept.tag();
    kept.run().ok();
    let rotation = Rotation::begin(host);
    rotation.quietly("a new key", || rotation.step("1.", ""));
    rotation.quietly("a release by the new key, too early", || {
        rotation.new_key(host.release()).run().exits(1).says("foreign-signature").says("refused");
    });
    rotation.quietly("the host trusts both", || rotation.step("2.", ""));
    // CI goes on with the old key until its secrets are replaced, and what each key signed can be gone back to.
    host.release().run().ok();
    rotation.new_key(host.release()).run().ok().says("deployed");
    host.app(&format!("tagship-host rollback demo {kept_tag}")).ok();
    let newest = rotation.new_key(host.release());
    let newest_tag = newest.tag();
    newest.run().ok();
    // A job that is run once more for an old version has a hint that leads to the next step.
    rotation.quietly("an old job, run again", || {
        rotation
            .new_key(host.release().of(&kept_tag))
            .run()
            .exits(4)
            .says("exists in the registry as")
            .says("and is not this release")
            .says("sign,deploy,promote");
    });
    rotation.quietly("signed again", || rotation.step("4.", &kept_tag));
    rotation.quietly("the host forgets the old key", || rotation.step("5.", ""));
    rotation.quietly("a release by the old key, too late", || {
        host.release().run().exits(1).says("foreign-signature").says("refused");
    });
    rotation.quietly("back to what the old key alone signed", || {
        host.app(&format!("tagship-host rollback demo {early_tag}"))
            .exits(1)
            .says("not by a trusted key")
            .says("hint:");
    });
    host.app(&format!("tagship-host rollback demo {kept_tag}")).ok().says("asking the registry");
    assert_eq!(host.digest(&kept_tag), proven(host, &kept_tag));
    host.app(&format!("tagship-host rollback demo {newest_tag}")).ok();
    rotation.new_key(host.release()).run().ok();
    host.state().healthy();
}

fn leaked(host: &Host) {
    host.baseline();
    let earlier = host.release();
    let earlier_tag = earlier.tag();
    earlier.run().ok();
    host.release().run().ok();
    let rotation = Rotation::begin(host);
    rotation.quietly("the key is out of use at once", || {
        rotation.step("1.", "");
        rotation.step("2.", "");
        rotation.step("5.", "");
    });
    rotation.quietly("the thief", || {
        host.release().run().exits(1).says("foreign-signature");
        host.app(&format!("tagship-host rollback demo {earlier_tag}")).exits(1);
    });
    // What runs is put back, although nobody's key that counts has signed it.
    let before = host.state().healthy();
    rotation.new_key(host.release().unhealthy()).run().exits(1).says("rolled-back");
    assert_eq!(before.image(), host.state().healthy().image());
    rotation.step("4.", &earlier_tag);
    host.app(&format!("tagship-host rollback demo {earlier_tag}")).ok();
    rotation.new_key(host.release()).run().ok();
    host.state().healthy();
}

/// What runs was signed with a key that is revoked since: its version, and the rotation that is under way.
fn with_a_revoked_key(host: &Host) -> (String, Rotation<'_>) {
    host.baseline();
    let stolen = host.release();
    let stolen_tag = stolen.tag();
    stolen.run().ok();
    let rotation = Rotation::begin(host);
    rotation.quietly("the key is out of use, and on the list", || {
        rotation.step("1.", "");
        rotation.step("2.", "");
        rotation.step("The list of revoked keys", "");
        // It counts nowhere, although the user's file still names it.
        host.release()
            .run()
            .exits(1)
            .says("revoked-key")
            .says("/etc/containers/cosign-app.pub, and that key is revoked");
    });
    (stolen_tag, rotation)
}

/// A deploy fails, and nothing goes back to what ran before. Signed again and asked for again, the same image runs.
fn fails_without_a_way_back(host: &Host, (stolen_tag, rotation): (&str, &Rotation<'_>)) {
    let runs = |service: &str| host.app(&format!("podman inspect -f '{{{{.Image}}}}' {service}")).trimmed().to_owned();
    let before = host.state().healthy();
    let failed = rotation.new_key(host.release().unhealthy()).run();
    failed.exits(1).says("whose key is revoked").says("failed (unhealthy)").never_says("has restarted with the old");
    host.app("systemctl --user is-active demo-web").exits(3);
    host.app("podman image exists localhost/demo:demo-web").exits(1);
    assert_eq!(before.image(), runs("demo-flower"), "its turn had not come");
    rotation.step("4.", stolen_tag);
    host.ask(stolen_tag, &host.digest(stolen_tag).unwrap()).says("Outcome: deployed");
    assert_eq!(before.image(), host.state().healthy().image());
}

/// The state is gone, and with it whose key signed what runs: the registry has the signature.
fn revoked_and_lost(host: &Host) {
    let (stolen_tag, rotation) = with_a_revoked_key(host);
    let _state = without_state(host);
    fails_without_a_way_back(host, (&stolen_tag, &rotation));
}

fn revoked(host: &Host) {
    let (stolen_tag, rotation) = with_a_revoked_key(host);
    let before = host.state().healthy();
    fails_without_a_way_back(host, (&stolen_tag, &rotation));
    rotation.new_key(host.release().unhealthy()).run().exits(1).says("rolled-back");
    assert_eq!(before.image(), host.state().healthy().image());
    rotation.new_key(host.release()).run().ok();
    // The administrator's word is not lifted by taking the new key away: there is none left then.
    host.app("sed -i 's#^  keys:.*#  keys: [/etc/containers/cosign-app.pub]#' ~/.config/tagship/demo.yaml").ok();
    host.app("tagship-host status demo").exits(2).says("list of revoked keys");
}

/// The digest that the host has proven under a tag.
fn proven(host: &Host, tag: &str) -> Option<String> {
    let ran = host.app(&format!("jq -r '.proven[] | select(.release.tag == \"{tag}\") | .release.digest' ~/.local/state/tagship/demo/trust.json")).ok();
    Some(ran.trimmed().to_owned())
}
