//! The table in docs/threat-model.md, a scenario for each row: what each party can do, and what it tries in vain, with
//! what it has and nothing else.

use std::collections::BTreeMap;

use tagship_tests::{Host, IMAGE, Ran, Scenario, Service, Version, quoted};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("who_has_the_mount_can_ask_and_lie_and_nothing_more", the_mount),
    ("h23_who_has_the_socket_changes_neither_keys_nor_journal", the_socket),
    ("who_has_the_registrys_password_can_withhold", the_registry),
    ("who_has_the_key_undoes_neither_floor_nor_list", the_key),
    ("the_apps_user_loosens_nothing_that_root_wrote", the_user),
];

/// What a job of a build runs: a container of the same engine, with these mounts.
fn job(host: &Host, mounts: &str, script: &str) -> Ran {
    host.app(&format!("podman run --rm --network none {mounts} localhost/base:1 sh -euc {}", quoted(script)))
}

/// What somebody does from elsewhere, with copies of these files of the application's user's: a user who reaches neither
/// its home nor its engine nor the hand-off directory.
fn elsewhere(host: &Host, holds: &[&str], script: &str) -> Ran {
    let copies: String = holds.iter().map(|file| format!("cp /home/app/{file} $place; ")).collect();
    host.root(&format!(
        "place=$(mktemp -d); trap 'rm -rf $place' EXIT; {copies}chown -R nobody: $place; cd $place
         env --ignore-environment HOME=$place PATH=/usr/local/bin:/usr/bin:/bin \
         setpriv --reuid nobody --regid nogroup --clear-groups -- bash -euc {}",
        quoted(script)
    ))
}

/// What must not change: each service's container, and the highest version.
fn what_runs(host: &Host) -> (BTreeMap<String, Service>, String) {
    (host.state().services, host.app("tagship-host mark demo | grep ^mark").ok().text)
}

const MOUNT: &str = "--volume ~/tagship/demo:/data";

/// Asks for this from a job with the mount alone, with a further line in the request, and gives the host's answer.
fn asks(host: &Host, (tag, digest): (&str, &str), line: &str) -> Ran {
    let id = ulid::Ulid::generate();
    let request = format!(
        "cd /data; boot=$(tr , '\\n' <deploy-host | sed -n 's/.*\"boot\": *\"\\([^\"]*\\)\".*/\\1/p'); until=$(date -u -d @$(($(date +%s) + 600)) +%Y-%m-%dT%H:%M:%SZ)
         printf '%s\\n' '{tag}' 'Request: {id}' 'Image: {IMAGE}' 'Digest: {digest}' \"Not-After: $until\" \"Boot: $boot\" >.new
         {} mv .new deploy-request.{id}",
        if line.is_empty() { String::new() } else { format!("echo '{line}' >>.new;") }
    );
    job(host, MOUNT, &request).ok();
    host.answer(&format!("~/tagship/demo/deploy-status.{id}"))
}

fn refused(host: &Host, what: (&str, &str), line: &str, kind: &str) {
    let before = (host.state(), what_runs(host));
    asks(host, what, line).says("Outcome: refused").says(&format!("Kind: {kind}"));
    assert_eq!(before, (host.state(), what_runs(host)), "{what:?}");
}

/// A request's bytes for a rollback to this, under this identifier, signed by a key of somebody else's.
fn signed_by_a_stranger(host: &Host, version: &Version, id: &str) -> String {
    let Version { tag, digest } = version;
    let until = host.app("date -u -d '+10 min' +%FT%TZ; cat /proc/sys/kernel/random/boot_id").ok().text;
    let (until, boot) = until.trim().split_once('\n').expect("two lines");
    elsewhere(
        host,
        &[],
        &format!(
            "printf '%s\\n' '{tag}' 'Request: {id}' 'Image: {IMAGE}' 'Digest: {digest}' 'Not-After: {until}' 'Boot: {boot}' 'Rollback: true' >request
             openssl ecparam -genkey -name prime256v1 -noout -out key 2>/dev/null
             signature=$(openssl dgst -sha256 -sign key request | base64 -w0)
             echo \"Signature: $signature\" >>request; cat request"
        ),
    )
    .ok()
    .text
}

fn the_mount(host: &Host) {
    host.baseline();
    let (old, new, unsigned) = (host.release().signed(), host.release().signed(), host.release().unsigned());
    let ask = |Version { tag, digest }: &Version, line: &str| asks(host, (tag, digest), line);
    // What it can: have deployed what is signed and newer.
    ask(&old, "").says("Outcome: deployed");
    ask(&new, "").says("Outcome: deployed");
    let before = host.state().healthy();
    // What it cannot.
    refused(host, (&unsigned.tag, &unsigned.digest), "", "no-signature");
    refused(host, (&old.tag, &old.digest), "", "downgrade");
    refused(host, (&old.tag, &old.digest), "Rollback: true", "request-unsigned");
    refused(host, (&old.tag, &old.digest), "Rollback: true\nSignature: MEUCIQ==", "request-signature");
    refused(host, ("v9.9.9", &new.digest), "", "tag-mismatch");
    let id = ulid::Ulid::generate().to_string();
    let request = signed_by_a_stranger(host, &old, &id);
    job(host, MOUNT, &format!("cd /data; printf %s {} >.new; mv .new deploy-request.{id}", quoted(&request))).ok();
    host.answer(&format!("~/tagship/demo/deploy-status.{id}")).ok().says("Kind: request-signature");
    assert_eq!(before, host.state());
    // Where requests must be signed it cannot even ask; the action, which holds the key, can.
    let next = {
        let _signed = host.configured(r"sed -i 's/^verify:/verify:\n  requests: signed/' demo.yaml");
        let next = host.release().signed();
        refused(host, (&next.tag, &next.digest), "", "request-unsigned");
        job(host, MOUNT, &format!("rm -f /data/deploy-status; echo {} >/data/deploy-trigger", next.tag)).ok();
        host.answer("~/tagship/demo/deploy-status").ok().says("Kind: request-unsigned");
        assert_eq!(before, host.state());
        host.release().of(&next.tag).steps("deploy").run().ok().says("deployed");
        next
    };
    let before = host.state().healthy();
    // Out of the directory: by a link where the host writes, and by one where it reads.
    let files = "~/.config/tagship/demo.yaml ~/.bashrc";
    let kept = host.app(&format!("md5sum {files}"));
    job(
        host,
        MOUNT,
        "cd /data; rm -f deploy-status; ln -s /home/app/.config/tagship/demo.yaml deploy-status
         ln -s /home/app/.bashrc deploy-trigger",
    )
    .ok();
    host.answer("~/tagship/demo/deploy-status").ok().says("fail invalid");
    assert_eq!(kept.text, host.app(&format!("md5sum {files}")).text);
    // What it can: lie to a job that waits, while the host does not answer. What the host says of itself stays true.
    let _away = host.changed(
        "systemctl --user stop tagship@demo.path tagship@demo.timer",
        "systemctl --user start tagship@demo.path tagship@demo.timer",
    );
    let lie = "cd /data
        answer() { id=${1#deploy-request.}; rm deploy-request.$id
          printf 'ok %s\\nRequest: %s\\nOutcome: deployed\\nKind: deployed\\nReason: all is well\\n' $2 $id >.lie; mv .lie deploy-status.$id; }
        while read -r event place name; do case $name in deploy-request.*) answer $name TAG; break ;; esac; done";
    let lied = host.release();
    let tag = lied.tag();
    let lie = quoted(&lie.replace("TAG", &tag));
    host.app(&format!(
        "inotifywait -q -m -e moved_to ~/tagship/demo >~/seen & watch=$!
         {{ tail --pid=$watch -n +1 -F ~/seen 2>/dev/null | podman run -i --rm --network none {MOUNT} localhost/base:1 sh -euc {lie}; }} & liar=$!
         {}; code=$?; kill $watch; wait $liar; rm ~/seen; exit $code",
        lied.command()
    ))
    .ok()
    .says("all is well");
    assert_eq!(before.services, host.state().services);
    host.app("tagship-host status demo").ok().says(&next.tag).never_says(&tag);
}

/// What a job does that has the engine's socket and no other mount: it has the engine start a container with these.
fn by_socket(host: &Host, mounts: &str, script: &str) -> Ran {
    // The base image has no client of the engine; the host's own programs are lent to it.
    let client = "--volume $XDG_RUNTIME_DIR/podman/podman.sock:/podman.sock --volume /usr:/usr:ro \
                  --volume /usr/lib:/lib:ro --volume /usr/lib64:/lib64:ro";
    let run = "HOME=/tmp podman --url unix:///podman.sock run --rm --network none";
    job(host, client, &format!("{run} {mounts} localhost/base:1 sh -euc {}", quoted(script)))
}

fn the_socket(host: &Host) {
    let before = host.baseline();
    // The user's own is the job's: that is what the threat model says, and why the remedy is another user.
    by_socket(host, "--volume /home/app:/home", "echo mine >/home/.config/tagship/mine; rm /home/.config/tagship/mine")
        .ok();
    let (all, journal) = ("--volume /etc:/outside/etc --volume /var/log:/outside/log", "/outside/log/journal");
    let state = "md5sum /etc/containers/cosign-app.pub; ls -la /etc/containers /etc/tagship 2>&1";
    let verdicts = "journalctl --sync; journalctl -o cat TAGSHIP_APP=demo | md5sum";
    let (held, told) = (host.root(state), host.root(verdicts));
    for attempt in [
        "echo key >/outside/etc/containers/cosign-app.pub",
        "rm -f /outside/etc/containers/cosign-app.pub",
        "mv /outside/etc/containers /outside/etc/elsewhere",
        "mkdir /outside/etc/tagship",
        "chmod 666 /outside/etc/containers/cosign-app.pub",
        "chown 0 /outside/etc/containers/cosign-app.pub",
    ] {
        by_socket(host, all, attempt).exits(1).denied();
        by_socket(host, &format!("--privileged --user 0 {all}"), attempt).exits(1).denied();
    }
    for attempt in [format!("rm -r {journal}"), format!("for f in {journal}/*/*; do : >$f; done")] {
        by_socket(host, &format!("--privileged {all}"), &attempt).denied();
    }
    assert_eq!(held.text, host.root(state).text);
    assert_eq!(told.text, host.root(verdicts).text);
    // To deploy alone, a job needs no socket.
    let Version { tag, digest } = host.release().signed();
    asks(host, (&tag, &digest), "").says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
}

fn the_registry(host: &Host) {
    host.baseline();
    let (old, new) = (host.release().signed(), host.release().signed());
    host.ask(&old.tag, &old.digest).says("Outcome: deployed");
    host.ask(&new.tag, &new.digest).says("Outcome: deployed");
    let before = what_runs(host);
    // All that this party has: the login.
    let with_login = |script: &str| elsewhere(host, &["ci-auth.json"], script);
    for place in ["/home/app", "/home/app/tagship/demo", "/run/user/1000"] {
        with_login(&format!("ls {place}")).denied();
    }
    let copy = |from: &str, to: &str| {
        with_login(&format!(
            "skopeo copy --quiet --authfile ci-auth.json docker://{IMAGE}{from} docker://{IMAGE}:{to}"
        ))
        .ok();
    };
    // Somebody asks in good faith, for what the registry says.
    let trigger = |tag: &str| host.ask_plainly(tag);
    // Moved tags, whether the request names a digest or the tag has to say it.
    let unsigned = host.release().unsigned();
    copy(&format!("@{}", old.digest), "stable");
    trigger("stable").says("Outcome: refused").says("Kind: downgrade");
    copy(&format!("@{}", unsigned.digest), "stable");
    trigger("stable").says("Outcome: refused").says("Kind: no-signature");
    copy(&format!("@{}", old.digest), "v9.9.9");
    trigger("v9.9.9").says("Outcome: refused").says("Kind: tag-mismatch");
    copy(&format!("@{}", unsigned.digest), &new.tag);
    trigger(&new.tag).says("Outcome: refused").says("Kind: no-signature");
    copy(&format!("@{}", new.digest), &new.tag);
    // Withheld: no new version, and what runs goes on.
    let next = host.release().signed();
    let withheld = next.digest.replace(':', "-");
    with_login(&format!(
        "login=$(jq -r '.auths[].auth' ci-auth.json | base64 -d)
         for tag in {withheld}.sig {withheld}; do
           digest=$(skopeo inspect --raw --authfile ci-auth.json docker://{IMAGE}:$tag | sha256sum | cut -d' ' -f1)
           curl -fsS -u \"$login\" -X DELETE https://registry.test:5000/v2/chris/demo/manifests/sha256:$digest
         done"
    ))
    .ok();
    host.ask(&next.tag, &next.digest).says("Outcome: refused").says("Kind: no-signature");
    assert_eq!(before, what_runs(host));
    copy(&format!("@{}", new.digest), "stable");
}

/// What a job does that holds the key, its password and the registry's login, in a container that has nothing of the
/// host's but these mounts: it signs what is in the registry already, wherever that was built, and asks.
fn with_key(host: &Host, mounts: &str, tag: &str, flags: &str) -> Ran {
    let own = "--network host --volume /etc/hosts:/etc/hosts:ro --volume ~/ci.env:/ci.env:ro --volume ~/ca.pem:/ca.pem:ro \
               --volume /usr/local/bin/tagship:/usr/bin/tagship:ro";
    host.app(&format!(
        "podman run --rm {own} {mounts} localhost/base:1 sh -euc {}",
        quoted(&format!(
            ". /ci.env; tagship release --image {IMAGE} --tag {tag} --registry-user ci --ca /ca.pem --tlog false \
             --handoff /data {flags}"
        ))
    ))
}

fn the_key(host: &Host) {
    host.baseline();
    let below = host.release().signed();
    host.ask(&below.tag, &below.digest).says("Outcome: deployed");
    // What it can: anything at all, as the next version.
    let anything = "printf '#!/bin/sh\\necho anything; exec sleep 1d\\n' >app; printf '#!/bin/sh\\n' >health";
    let Version { tag: any_tag, .. } = host.release().edit(anything).unsigned();
    let before = host.state();
    with_key(host, "", &any_tag, "--steps sign,deploy").exits(6).says("cannot open the hand-off directory /data");
    assert_eq!(before, host.state(), "without the hand-off directory nobody is asked");
    with_key(host, MOUNT, &any_tag, "--steps sign,deploy").ok();
    host.app("podman logs demo-web").ok().says("anything");
    let rollback = |tag: &str| with_key(host, MOUNT, tag, "--rollback true");
    rollback(&below.tag).ok();
    host.app(&format!("tagship-host rollback demo {any_tag}")).ok();
    // What it cannot: what root wrote binds it, as it binds the operator.
    let before = what_runs(host);
    {
        let _floor = host.administrator(&format!("floor: {any_tag}"));
        rollback(&below.tag).exits(1).says("below-floor");
        host.app(&format!("tagship-host rollback demo {}", below.tag)).exits(1).says("floor");
        host.app(&format!("tagship-host mark demo --set {}", below.tag)).exits(1).says("floor");
    }
    {
        host.key_pair("next");
        let _next = host.changed_by_root(
            "install -m 644 /home/app/next.pub /etc/containers/next.pub",
            "rm /etc/containers/next.pub",
        );
        let _trusted = host.configured(
            "sed -i 's#^  keys: .*#  keys: [/etc/containers/cosign-app.pub, /etc/containers/next.pub]#' demo.yaml",
        );
        let _revoked = host.administrator("revoked-keys: [/etc/containers/cosign-app.pub]");
        let Version { tag, .. } = host.release().unsigned();
        with_key(host, MOUNT, &tag, "--steps sign,deploy").exits(1).says("revoked-key");
        rollback(&below.tag).exits(1).says("request-signature");
        host.app(&format!("tagship-host rollback demo {}", below.tag)).exits(1).says("is revoked");
    }
    assert_eq!(before, what_runs(host));
    host.release().run().ok();
}

fn the_user(host: &Host) {
    host.baseline();
    host.key_pair("own");
    // Not changed, not added to, not by a link from one's own.
    for attempt in [
        "echo x >>/etc/containers/cosign-app.pub",
        "mv /etc/containers/cosign-app.pub ~",
        "ln -sf ~/own.pub /etc/containers/cosign-app.pub",
        "mkdir -p /etc/tagship",
    ] {
        host.app(attempt).denied();
    }
    {
        let _floor = host.administrator("floor: v0.0.1");
        let state = "ls -lan /etc/tagship; md5sum /etc/tagship/*";
        let held = host.root(state).ok();
        // Anybody may be root of a user namespace, and is nobody outside it.
        host.app("unshare --user --map-root-user true").ok();
        for attempt in [
            "echo 'floor: v0.0.0' >>/etc/tagship/demo.yaml",
            "rm -f /etc/tagship/demo.yaml",
            "mv /etc/tagship /etc/elsewhere",
            "mv /etc/tagship/demo.yaml ~",
            "echo 'floor: v0.0.0' >~/own.yaml; ln -sfn ~/own.yaml /etc/tagship/demo.yaml",
            "cp ~/.config/tagship/demo.yaml /etc/tagship/more.yaml",
            "chmod 666 /etc/tagship/demo.yaml",
            "unshare --user --map-root-user sh -c 'echo >/etc/tagship/demo.yaml'",
        ] {
            host.app(attempt).denied();
        }
        assert_eq!(held.text, host.root(state).text);
    }
    let own = host.release().with_key("own");
    let Version { tag, digest } = own.signed();
    let ask = || host.ask(&tag, &digest).says("Outcome: refused");
    let before = what_runs(host);
    {
        let _own = host.configured("sed -i \"s#^  keys: .*#  keys: [$HOME/own.pub]#\" demo.yaml");
        ask().says("Kind: not-root-owned");
    }
    // The administrator's block replaces the user's, whole: by the image, and by a service, under any name.
    let verify = "verify: {keys: [/etc/containers/cosign-app.pub], rekor: \"off\"}";
    for says in [verify.to_owned(), format!("services: [demo-beat]\n{verify}")] {
        let _bound = host.administrator(&says);
        let _own = host.configured(
            "sed -i \"s#^  keys: .*#  keys: [$HOME/own.pub]#; s/^verify:/verify:\\n  downgrade: allow/\" demo.yaml",
        );
        ask().says("Kind: foreign-signature");
        let _elsewhere = host.configured("sed -i 's#^image: .*#image: registry.test:5000/chris/other#' demo.yaml");
        let refused = host.ask(&tag, &digest).says("Outcome: refused");
        refused.says(if says.contains("services") { "Kind: config-pinned" } else { "Kind: not-root-owned" });
    }
    assert_eq!(before, what_runs(host));
    // What is the user's stays the user's.
    host.app("systemctl --user restart demo-flower").ok();
}
