//! What state the units are in before a deploy, what ties them together, and what runs before them.

use tagship_tests::{Host, Scenario};

use super::{Version, Versions, any_order, shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h38_what_a_unit_is_before_a_deploy_is_found_out_first", h38_what_a_unit_is_before_a_deploy),
    ("h39_units_that_restart_each_other_are_one_group_or_refused", h39_coupled_units),
    ("h40_nothing_restarts_unless_the_one_shot_ended_well", h40_one_shots),
];

const QUADLET: &str = "~/.config/containers/systemd/demo-flower.container";

fn h38_what_a_unit_is_before_a_deploy(host: &Host) {
    let before = host.baseline();
    let other = Versions::of(host).other(host);
    let _order = any_order(host);
    let reload = "systemctl --user daemon-reload";
    for (change, back, kind) in [
        (
            "systemctl --user mask demo-flower".to_owned(),
            "systemctl --user unmask demo-flower; rm -f ~/.config/systemd/user/demo-flower.service; systemctl --user daemon-reload".to_owned(),
            "service-masked",
        ),
        (
            format!("cp {QUADLET} ~/quadlet; echo '# edited' >>{QUADLET}"),
            format!("mv ~/quadlet {QUADLET}; {reload}"),
            "service-changed",
        ),
    ] {
        let _changed = host.changed(&change, &back);
        refused(host, &other, kind, "demo-flower");
    }
    {
        let _unknown = host.configured("sed -i 's/demo-flower/demo-flowre/' demo.yaml");
        refused(host, &other, "service-unknown", "demo-flowre");
    }
    assert_eq!(before, host.state());
    // Not enabled, and failing: neither keeps the deploy from going well, and enabled it is not afterwards.
    let _disabled = host.changed(
        &format!(
            "cp {QUADLET} ~/quadlet; sed -i '/^\\[Install\\]/,$d; s/^Restart=.*/Restart=no/' {QUADLET}; {reload}
             podman kill --signal KILL demo-flower >/dev/null; timeout 20 grep -q -m 1 'Failed with result' < <(journalctl --user -u demo-flower -f -n 1 --no-pager)
             systemctl --user is-failed demo-flower"
        ),
        &format!("mv ~/quadlet {QUADLET}; {reload}; systemctl --user start demo-flower"),
    );
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed").says("is failing before the deploy");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    host.app("systemctl --user is-enabled demo-flower").ok().says("generated");
}

fn h39_coupled_units(host: &Host) {
    let before = host.baseline();
    let other = Versions::of(host).other(host);
    let _order = any_order(host);
    let units = "~/.config/containers/systemd";
    let _tied = host.changed(
        &format!(
            "cp -r {units} ~/quadlets; cd {units}; tie() {{ sed -i \"s/^\\[Unit\\]/[Unit]\\n$2=demo-web.service/\" $1.container; }}
             tie demo-worker BindsTo; tie demo-beat Requires; tie demo-flower PartOf; systemctl --user daemon-reload"
        ),
        &format!("rm -r {units}; mv ~/quadlets {units}; systemctl --user daemon-reload"),
    );
    // Each that is not in the group of what takes it along is named, until none is left.
    for (groups, named) in [
        ("[demo-web, demo-beat, demo-flower], demo-worker", Some("[demo-web, demo-worker]")),
        ("[demo-web, demo-worker, demo-flower], demo-beat", Some("[demo-web, demo-beat]")),
        ("[demo-web, demo-worker, demo-beat], demo-flower", Some("[demo-web, demo-flower]")),
        ("[demo-web, demo-worker, demo-beat, demo-flower]", None),
    ] {
        let _grouped = host.configured(&format!(
            "sed -i '/^services:/,/^[a-z]/{{/^services:/d; /^  - /d}}' demo.yaml; echo 'services: [{groups}]' >>demo.yaml"
        ));
        match named {
            Some(named) => refused(host, &other, "services-coupled", named),
            None => drop(host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed")),
        }
    }
    assert_ne!(before.image(), host.state().healthy().image());
}

fn h40_one_shots(host: &Host) {
    let before = host.baseline();
    let ran = shell(host, "echo $version").ok();
    let other = Versions::of(host).other(host);
    let _order = any_order(host);
    let _before = host.configured("echo 'before: [demo-migrate]' >>demo.yaml");
    // It does what the host says: the image is the same each time. Each run leaves a line.
    let _migrate = host.changed(
        "mkdir -p ~/migrate; cat >~/.config/containers/systemd/demo-migrate.container <<'UNIT'
[Container]
ContainerName=demo-migrate
Image=localhost/demo:demo-migrate
Pull=never
Volume=%h/migrate:/migrate
Entrypoint=/bin/sh
Exec=-c \"echo ran >>/migrate/runs; . /migrate/does\"
[Service]
Type=oneshot
TimeoutStartSec=3
UNIT
        systemctl --user daemon-reload",
        "rm -rf ~/migrate ~/.config/containers/systemd/demo-migrate.container; systemctl --user daemon-reload
         systemctl --user reset-failed demo-migrate 2>/dev/null || true; podman untag localhost/demo:demo-migrate localhost/demo:demo-migrate 2>/dev/null || true",
    );
    for (does, word) in [
        ("echo no such table; exit 7", "no such table"),
        ("echo waits for a lock; trap \"exit 1\" TERM; sleep 60 & wait", "timeout"),
    ] {
        host.app(&format!("echo '{does}' >~/migrate/does")).ok();
        host.ask(&other.tag, &other.digest).ok().says("fail ").says("Kind: one-shot").says("demo-migrate").says(word);
        assert_eq!(before, host.state(), "{does}");
    }
    host.app("echo true >~/migrate/does").ok();
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed").says("demo-migrate");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // The way back runs none, neither by itself nor by hand.
    let back = format!("wc -l <~/migrate/runs; tagship-host rollback demo {}; wc -l <~/migrate/runs", ran.trimmed());
    host.app(&back).ok().says_in_order(&["3\n", "3\n"]);
    assert_eq!(before.image(), host.state().healthy().image());
}

fn refused(host: &Host, version: &Version, kind: &str, unit: &str) {
    host.ask(&version.tag, &version.digest).ok().says("Outcome: refused").says(&format!("Kind: {kind}")).says(unit);
}
