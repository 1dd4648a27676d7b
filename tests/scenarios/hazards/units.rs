//! What state the units are in before a deploy, what ties them together, and what runs before them.

use std::time::Duration;

use tagship_tests::{Host, SERVICES, Scenario};

use super::{Version, Versions, any_order, shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h38_what_a_unit_is_before_a_deploy_is_found_out_first", h38_what_a_unit_is_before_a_deploy),
    ("h39_units_that_restart_each_other_are_one_group_or_refused", h39_coupled_units),
    ("h39_services_of_one_pod_are_restarted_alone", h39_one_pod),
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
    for service in SERVICES {
        assert_eq!(after.names.get(service).map(String::as_str), Some(after.image()), "{service}");
    }
    // A Quadlet's unit is always `generated`: what being enabled does is to be wanted by the target that a boot starts.
    host.app("wants=$(systemctl --user show -P Wants default.target); [[ $wants = *demo-web.service* && $wants != *demo-flower.service* ]]").ok();
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
    // By way of a unit that no configuration names.
    let _target = host.changed(
        &format!(
            "rm -r {units}; cp -r ~/quadlets {units}; printf '[Unit]\\nBindsTo=demo-web.service\\nAfter=demo-web.service\\n' >~/.config/systemd/user/demo-tie.target
             sed -i 's/^\\[Unit\\]/&\\nBindsTo=demo-tie.target\\nAfter=demo-tie.target/' {units}/demo-worker.container
             systemctl --user daemon-reload; systemctl --user restart demo-tie.target demo-worker"
        ),
        "rm ~/.config/systemd/user/demo-tie.target",
    );
    let running = host.app("jq -r .running.digest ~/tagship/demo/deploy-host").ok();
    let versions = Versions::of(host);
    let other = versions.good.iter().find(|version| version.digest != running.trimmed()).unwrap();
    refused(host, other, "services-coupled", "by way of demo-tie.target");
}

fn h39_one_pod(host: &Host) {
    let before = host.baseline();
    let other = Versions::of(host).other(host);
    let _order = any_order(host);
    let units = "~/.config/containers/systemd";
    let up = "systemctl --user daemon-reload; systemctl --user start demo-web demo-worker; podman wait --condition healthy demo-web demo-worker";
    // The pod's own container is of the image that there is: Podman's is made with a program that the host does not have.
    let _pod = host.changed(
        &format!(
            "cp -r {units} ~/quadlets; cd {units}; systemctl --user stop demo-web demo-worker
             sed -i '/^PublishPort/d' demo-web.container; sed -i 's/^\\[Container\\]/&\\nPod=demo.pod/' demo-web.container demo-worker.container
             cat >demo.pod <<'POD'
[Pod]
PodName=demo
PublishPort=127.0.0.1:8000:8080
PodmanArgs=--infra-image=localhost/base:1 \"--infra-command=sleep infinity\"
POD
             {up}"
        ),
        &format!("systemctl --user stop demo-pod; rm -r {units}; mv ~/quadlets {units}; {up}"),
    );
    refused(host, &other, "service-pod", "demo-web");
    host.app(&format!(
        "sed -i 's/^PodmanArgs=/&--exit-policy=continue /' {units}/demo.pod; systemctl --user daemon-reload; systemctl --user stop demo-pod; {up}"
    ))
    .ok();
    // A restart of one leaves the other as it is: they need not be one group.
    let (one, two) = (host.state(), {
        host.app("systemctl --user restart demo-web").ok();
        host.state()
    });
    let same = |service: &str| one.services[service].container == two.services[service].container;
    assert_eq!(["demo-web", "demo-worker"].map(same), [false, true]);
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // Going back restarts both at the same time.
    let bad = host.release().edit(r#"sed -i '2i [ "$ROLE" != flower ] || { echo no petals; exit 3; }' app"#);
    bad.run().exits(1).says("rolled-back").says("no petals");
    assert_eq!(after.image(), host.state().healthy().image());
}

fn h40_one_shots(host: &Host) {
    let before = host.baseline();
    let ran = shell(host, "echo $version").ok();
    let other = Versions::of(host).other(host);
    let _order = any_order(host);
    let _before = host.configured("echo 'before: [demo-migrate]' >>demo.yaml");
    // It does what the host says: the image is the same each time. Each run leaves a line, the version of its
    // image.
    let _migrate = host.changed(
        "mkdir -p ~/migrate; cat >~/.config/containers/systemd/demo-migrate.container <<'UNIT'
[Container]
ContainerName=demo-migrate
Image=localhost/demo:demo-migrate
Pull=never
Volume=%h/migrate:/migrate
Entrypoint=/bin/sh
Exec=-c \"cat /version >>/migrate/runs; . /migrate/does\"
[Service]
Type=oneshot
TimeoutStartSec=10
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
    {
        // The last one goes on for a minute; without a timeout of its own the deploy's budget ends it.
        let directory = "~/.config/systemd/user/demo-migrate.service.d";
        let _endless = host.changed(
            &format!("mkdir -p {directory}; printf '[Service]\\nTimeoutStartSec=infinity\\n' >{directory}/endless.conf; systemctl --user daemon-reload"),
            &format!("rm -r {directory}; systemctl --user daemon-reload"),
        );
        let _short = host.configured(
            "sed -i '/^health:/d; /^budget:/d' demo.yaml; printf 'health: {timeout: 5s}\\nbudget: 18s\\n' >>demo.yaml",
        );
        let spent = host.ask(&other.tag, &other.digest).ok().within(Duration::from_secs(50)).says("fail ");
        spent.says("Kind: budget").says("demo-migrate");
        host.app("[[ $(systemctl --user show -P ActiveState demo-migrate) != activating ]]").ok();
        assert_eq!(before, host.state());
    }
    host.app("echo true >~/migrate/does").ok();
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed").says("demo-migrate");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // The way back runs none, neither by itself nor by hand.
    let back = format!("wc -l <~/migrate/runs; tagship-host rollback demo {}; wc -l <~/migrate/runs", ran.trimmed());
    host.app(&back).ok().says_in_order(&["4\n", "4\n"]);
    assert_eq!(before.image(), host.state().healthy().image());
    // One that ended well before services failed runs once, with the new image and before any of them.
    let Version { tag, digest } = host.release().crashing().signed();
    let runs = || host.app("cat ~/migrate/runs").ok().text;
    let earlier = runs();
    let asked = host.ask(&tag, &digest).ok().says("Outcome: rolled-back");
    assert_eq!(runs(), format!("{earlier}{tag}\n"));
    let at = |words: &str| asked.text.find(words).unwrap_or_else(|| panic!("never {words}: {}", asked.text));
    let prepared = at(r#""phase":"prepare","service":"demo-migrate","event":"done""#);
    assert!(prepared < at(r#""phase":"restart""#), "{}", asked.text);
    assert_eq!(before.image(), host.state().healthy().image());
}

fn refused(host: &Host, version: &Version, kind: &str, unit: &str) {
    host.ask(&version.tag, &version.digest).ok().says("Outcome: refused").says(&format!("Kind: {kind}")).says(unit);
}
