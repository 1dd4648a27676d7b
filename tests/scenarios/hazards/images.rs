//! What the registry's tags and the local store hold at each moment.

use tagship_tests::{Host, IMAGE, SERVICES, Scenario, Version};

use super::{Versions, any_order, unknown};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h24_no_key_is_left_behind_when_signing_fails", h24_no_key_is_left_behind),
    ("h26_the_moving_tag_is_moved_last", h26_the_moving_tag_is_moved_last),
    ("h31_what_a_build_tags_or_removes_is_not_started", h31_what_a_build_tags_or_removes),
    ("h42_a_full_disk_in_the_pull_touches_nothing", h42_a_full_disk_in_the_pull),
    ("h42_a_way_back_that_somebody_pruned_is_refused_first", h42_a_way_back_that_somebody_pruned),
    ("old_images_go_and_what_may_be_needed_stays", old_images_go),
];

/// Where a program that leaves a key in a file would leave it, and what a key's file says.
fn h24_no_key_is_left_behind(host: &Host) {
    let before = host.baseline();
    let search = "grep -rlsF -e 'ENCRYPTED SIGSTORE' -e 'ENCRYPTED COSIGN' /home/app /tmp /var/tmp /run/user /dev/shm 2>/dev/null | sort";
    let keys = host.root(search);
    // The registry takes everything but the signature, whose manifest is under a name of its own. A reload would return
    // before the new rule holds; a restart does not.
    let restart = "systemctl reset-failed nginx; systemctl restart nginx";
    let _closed = host.changed_by_root(
        &format!(
            r"sed -i 's#location / {{#location ~ ^/v2/chris/demo/manifests/sha256- {{ if ($request_method = PUT) {{ return 403; }} proxy_pass http://127.0.0.1:5001; }} location / {{#' /etc/nginx/conf.d/registry.conf
              {restart}"
        ),
        &format!("sed -i 's#location ~ .*}} location / {{#location / {{#' /etc/nginx/conf.d/registry.conf; {restart}"),
    );
    // What is there for a moment only would be seen being made.
    let release = host.release().command();
    host.app(&format!(
        "timeout 60 inotifywait -q -m -r -e create -e moved_to --format %f /tmp /var/tmp ~/tagship >~/made 2>/dev/null & watch=$!
         {release} || code=$?; kill $watch; cat ~/made; rm ~/made; exit ${{code:-0}}"
    ))
    .exits(4)
    .says("sign")
    .says("hint:")
    .never_says(".key")
    .never_says("PRIVATE KEY");
    assert_eq!(keys.text, host.root(search).text);
    assert_eq!(before, host.state());
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
    let puts = puts.says_in_order(&[
        &format!("manifests/{tag}"),
        &format!("manifests/{}.sig", digest.replace(':', "-")),
        "manifests/stable\n",
    ]);
    assert_eq!(host.digest("stable"), Some(digest));
    assert_eq!(puts.text.matches("manifests/stable\n").count(), 1, "{}", puts.text);
}

fn h31_what_a_build_tags_or_removes(host: &Host) {
    let before = host.baseline();
    let drop_in = include_str!("../../../examples/quadlets/guard.conf");
    let services = SERVICES.join(" ");
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
            host.root("journalctl --sync").ok();
            host.app("journalctl --user -u demo-web -n 30 -o cat --no-pager")
                .ok()
                .says("demo-web is not started")
                .says(words);
        }
        host.app("systemctl --user is-active demo-web").ok();
        host.checked(&["demo-web"]);
    }
    // A pull over the registry's names, and a prune of all that no container runs, while the services run. The base image
    // is not production's, and other scenarios build on it.
    let running = host.state();
    host.app(&format!(
        "set -e; podman create --quiet --name spared localhost/base:1 sh >/dev/null
         podman tag localhost/base:1 {IMAGE}:stable; podman pull --quiet {IMAGE}:stable >/dev/null
         podman image prune --all --force >/dev/null; podman rm spared >/dev/null"
    ))
    .ok();
    assert_eq!(running, host.state());
    for service in SERVICES {
        host.app(&format!("systemctl --user restart {service}")).ok();
    }
    host.checked(&SERVICES);
    assert_eq!(before.image(), host.state().healthy().image());
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

fn h42_a_way_back_that_somebody_pruned(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    // An image that one service alone runs, as after a deploy that an administrator mended by hand.
    let _own = host.changed(
        &format!(
            "printf 'FROM {0}\nLABEL own=1\n' | podman build -q --format docker -t localhost/demo:demo-flower - && systemctl --user restart demo-flower",
            before.image()
        ),
        "podman image prune -f >/dev/null",
    );
    host.checked(&["demo-flower"]);
    let mixed = host.state();
    let own = &mixed.services["demo-flower"].image;
    assert_ne!(before.image(), own);
    // `podman rmi` takes the container along, and then there is nothing to go back to. Gone under a container that runs is
    // what is taken out of the store's list behind Podman's back: by a prune of another store that this one reads, or by
    // the repair of one that a crash has damaged.
    let images = "~/.local/share/containers/storage/overlay-images/images.json";
    let again = "systemctl --user restart podman.socket podman.service";
    let pruned = host.changed(
        &format!(
            "cp {images} ~/images.json; jq -c 'map(select(.id != \"{own}\"))' ~/images.json >~/less.json; cat ~/less.json >{images}; {again}
             ! podman image exists {own}"
        ),
        &format!("cat ~/images.json >{images}; rm ~/images.json ~/less.json; {again}"),
    );
    host.ask(&other.tag, &other.digest)
        .ok()
        .says("Outcome: refused")
        // By the engine, which does not show a container whose image it does not know, and so before anybody looks for the
        // image itself.
        .says("Kind: engine")
        .says("demo-flower")
        .says("image not known");
    drop(pruned);
    // The same containers; Podman shows none of them while it does not know the image of one.
    let after = host.state();
    for (name, was) in &mixed.services {
        assert_eq!(was.container, after.services[name].container, "{name}");
    }
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
}

fn old_images_go(host: &Host) {
    host.baseline();
    let _two = host.configured("echo 'keep-images: 2' >>demo.yaml");
    // What is none of the app's, with a name and without.
    let others = host.app(
        "printf 'FROM scratch\nLABEL what=foreign\n' | podman build -q -t localhost/foreign:1 -
         printf 'FROM scratch\nLABEL what=nameless\n' | podman build -q -",
    );
    let others: Vec<String> = others.ok().text.lines().map(str::to_owned).collect();
    let there = |image: &str| host.app(&format!("podman image exists {image}")).code == 0;
    let since = host.app("date '+%F %T'").ok();
    let images: Vec<String> = (0..4)
        .map(|n| {
            let Version { tag, digest } = host.release().signed();
            let image = host.app(&format!("skopeo inspect --raw docker://{IMAGE}@{digest} | jq -r .config.digest"));
            let image = image.trimmed().trim_start_matches("sha256:").to_owned();
            // As on a host that builds nothing: only the pull brings it.
            host.app(&format!("podman rmi --force {image}")).ok();
            host.ask(&tag, &digest).ok().says("Outcome: deployed");
            assert!(there(&image));
            if n == 0 {
                host.app(&format!("podman tag {image} localhost/theirs:1")).ok();
            }
            image
        })
        .collect();
    // Of the two old ones that goes which nobody else has named; the other has lost the app's names alone.
    assert_eq!(images.iter().map(|image| there(image)).collect::<Vec<_>>(), [true, false, true, true]);
    let names = host.app(&format!("podman image inspect --format '{{{{json .RepoTags}}}}' {}", images[0])).ok();
    names.says("localhost/theirs:1").never_says("localhost/tagship/");
    assert!(others.len() == 2 && others.iter().all(|image| there(image)), "{others:?}");
    host.app(&format!("journalctl --user -u tagship@demo --since '{}' -o cat --no-pager", since.trimmed()))
        .ok()
        .says("old image was removed")
        .never_says("old images stay");
    // What is kept is enough to go back to, and from it, without a registry.
    let _outage = host.without_registry();
    host.app("tagship-host rollback demo").ok();
    let running = host.app("podman inspect --format '{{.Image}}' demo-web").ok();
    assert_eq!(running.trimmed(), images[2]);
    assert!(there(&images[3]));
    host.app(&format!("podman rmi --force {} localhost/theirs:1 >/dev/null", others.join(" "))).ok();
}
