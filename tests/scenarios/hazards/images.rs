//! What the registry's tags and the local store hold at each moment.

use tagship_tests::{Host, Scenario};

use super::{any_order, unknown};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h24_no_key_is_left_behind_when_signing_fails", h24_no_key_is_left_behind),
    ("h26_the_moving_tag_is_moved_last", h26_the_moving_tag_is_moved_last),
    ("h31_what_a_build_tags_or_removes_is_not_started", h31_what_a_build_tags_or_removes),
    ("h42_a_full_disk_in_the_pull_touches_nothing", h42_a_full_disk_in_the_pull),
];

/// Where a program that leaves a key in a file would leave it, and what a key's file says.
fn h24_no_key_is_left_behind(host: &Host) {
    host.baseline();
    let search = "grep -rlsF -e 'ENCRYPTED SIGSTORE' -e 'ENCRYPTED COSIGN' /home/app /tmp /var/tmp /run/user /dev/shm 2>/dev/null | sort";
    let keys = host.root(search);
    // The registry takes everything but the signature, whose manifest is under a name of its own.
    let _closed = host.changed_by_root(
        r"sed -i 's#location / {#location ~ ^/v2/chris/demo/manifests/sha256- { if ($request_method = PUT) { return 403; } proxy_pass http://127.0.0.1:5001; } location / {#' /etc/nginx/conf.d/registry.conf
          nginx -s reload",
        r"sed -i 's#location ~ .*} location / {#location / {#' /etc/nginx/conf.d/registry.conf; nginx -s reload",
    );
    // What is there for a moment only would be seen being made.
    let release = host.release().script().replace('\'', "'\\''");
    host.app(&format!(
        "timeout 60 inotifywait -q -m -r -e create -e moved_to --format %f /tmp /var/tmp ~/tagship >~/made 2>/dev/null & watch=$!
         bash -c '{release}' || code=$?; kill $watch; cat ~/made; rm ~/made; exit ${{code:-0}}"
    ))
    .exits(4)
    .says("sign")
    .says("hint:")
    .never_says(".key")
    .never_says("PRIVATE KEY");
    assert_eq!(keys.text, host.root(search).text);
}

fn h26_the_moving_tag_is_moved_last(host: &Host) {
    host.baseline();
    host.root("wc -l </var/log/nginx/registry.log >/tmp/lines").ok();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    let digest = host.digest(&tag).unwrap();
    let puts = host.root("tail -n +$(($(cat /tmp/lines) + 1)) /var/log/nginx/registry.log | grep -o 'PUT /v2/chris/demo/manifests/[^ ]*'").ok();
    // Image, signatures, and what runs: then, and once, the moving tag.
    puts.says_in_order(&[
        &format!("manifests/{tag}"),
        &format!("manifests/{}.sig", digest.replace(':', "-")),
        "manifests/stable\n",
    ]);
    assert_eq!(host.digest("stable"), Some(digest));
}

fn h31_what_a_build_tags_or_removes(host: &Host) {
    let before = host.baseline();
    let drop_in = include_str!("../../../examples/quadlets/guard.conf");
    let services = "demo-web demo-worker demo-beat demo-flower";
    let units = "~/.config/systemd/user";
    let _guarded = host.changed(
        &format!(
            "for s in {services}; do mkdir -p {units}/$s.service.d; cat >{units}/$s.service.d/guard.conf <<'EOF'\n{drop_in}\nEOF\ndone
             systemctl --user daemon-reload"
        ),
        &format!(
            "for s in {services}; do rm {units}/$s.service.d/guard.conf; rmdir --ignore-fail-on-non-empty {units}/$s.service.d; done
             systemctl --user daemon-reload"
        ),
    );
    // What any build with this store can do.
    let foreign = "echo FROM scratch | podman build -q -t localhost/demo:demo-web -";
    for (act, words) in [
        (foreign, "stands for image"),
        ("podman untag localhost/demo:demo-web localhost/demo:demo-web", "no image is called"),
    ] {
        {
            let _moved = host.changed(
                act,
                &format!(
                    "podman tag {} localhost/demo:demo-web; systemctl --user reset-failed demo-web; systemctl --user restart demo-web",
                    before.image()
                ),
            );
            host.app("systemctl --user stop demo-web; systemctl --user start demo-web").exits(1);
            // Not by its unit, which journald does not always know of a process that has ended by then; Quadlet names the speaker.
            host.app("journalctl --user -t demo-web -n 30 -o cat --no-pager")
                .ok()
                .says("demo-web is not started")
                .says(words);
        }
        host.app("systemctl --user is-active demo-web").ok();
    }
    // A deploy and its way back pass the guard.
    host.release().run().ok();
    let deployed = host.state().healthy();
    assert_ne!(before.image(), deployed.image());
    host.release().crashing().run().exits(1).says("rolled-back");
    assert_eq!(deployed.image(), host.state().healthy().image());
    host.app("tagship-host rollback demo").ok();
    assert_eq!(before.image(), host.state().healthy().image());
}

fn h42_a_full_disk_in_the_pull(host: &Host) {
    let before = host.baseline();
    let other = unknown(host);
    let _order = any_order(host);
    let names = || {
        host.app("podman images --noheading --format '{{.Repository}}:{{.Tag}} {{.Id}}' | grep ^localhost/demo: | sort")
            .text
    };
    let named = names();
    // Podman puts what it fetches there first. What is full of bytes is seen before; what is full of files is not.
    for (full, kind, reason) in [
        ("size=4k full /var/tmp; head -c 4096 /dev/zero >/var/tmp/full", "no-space", "0 bytes are free"),
        ("size=1g,nr_inodes=1 full /var/tmp", "pull", "no space left on device"),
    ] {
        let _full = host.changed_by_root(&format!("mount -t tmpfs -o mode=1777,{full}"), "umount -l /var/tmp");
        host.ask(&other.tag, &other.digest).ok().says("fail ").says(&format!("Kind: {kind}")).says(reason);
        assert_eq!(before, host.state());
        assert_eq!(named, names());
    }
    // What ran still starts, and with room again it works.
    host.app("systemctl --user restart demo-flower || { journalctl --user --no-pager -n 40; exit 1; }").ok();
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
}
