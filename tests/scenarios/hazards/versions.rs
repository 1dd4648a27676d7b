//! Which version counts: what moves a tag, a name or the state in between, and what is asked for twice.

use tagship_tests::{Host, IMAGE, Mend, Ran, SERVICES, Scenario, Version};

use super::{SHELL, Versions, amid, any_order, id, shell, slow};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h13_a_moving_tag_that_moves_changes_no_answer", h13_a_moving_tag_that_moves),
    ("h13_a_moving_tag_that_moves_changes_no_answer_in_the_plain_form", h13_in_the_plain_form),
    ("h32_a_service_that_crashes_before_its_turn_runs_the_old_image", h32_a_crash_before_its_turn),
    ("h33_a_request_grants_nothing_that_is_not_signed", h33_a_request_grants_nothing),
    ("h33_a_version_that_only_the_registry_names_counts_until_a_signature_does", h33_the_registrys_word),
    ("h43_what_nobody_verified_is_put_back_without_a_registry", h43_put_back_without_a_registry),
    ("h43_what_a_rotated_key_signed_is_put_back_without_a_registry", h43_put_back_after_a_rotation),
    ("h44_a_state_that_is_lost_or_old_lifts_no_order", h44_a_state_that_is_lost_or_old),
    ("h45_two_apps_share_nothing_and_release_at_once", h45_two_apps),
    ("tags_that_are_no_versions_follow_each_other_by_their_signed_time", tags_by_their_time),
];

/// The mark as the operator is shown it, without what runs.
fn mark(host: &Host) -> String {
    host.app("tagship-host mark demo | grep '^mark'").ok().text
}

fn h13_a_moving_tag_that_moves(host: &Host) {
    host.baseline();
    let _slow = slow(host);
    let (one, two) = (host.release().signed(), host.release().signed());
    let ran = amid(
        host,
        &one,
        &format!("skopeo copy --quiet --authfile ~/ci-auth.json docker://{IMAGE}:{} docker://{IMAGE}:stable", two.tag),
    );
    ran.ok().says(&format!("ok {}", one.tag)).says(&format!("Digest: {}", one.digest));
    assert_eq!(host.digest("stable"), Some(two.digest));
    let image = host.state().healthy().image().to_owned();
    host.app(&format!("podman image inspect --format '{{{{json .RepoDigests}}}}' {image}")).ok().says(&one.digest);
}

/// In the plain form it is the registry that says what the tag names: once, before anything is touched.
fn h13_in_the_plain_form(host: &Host) {
    host.baseline();
    let _slow = slow(host);
    for by in ["its version", "the moving tag"] {
        let (one, two) = (host.release().signed(), host.release().signed());
        let copy = |from: &str| {
            format!("skopeo copy --quiet --authfile ~/ci-auth.json docker://{IMAGE}:{from} docker://{IMAGE}:stable")
        };
        host.app(&copy(&one.tag)).ok();
        let asked = if by == "its version" { one.tag.as_str() } else { "stable" };
        let ran = shell(
            host,
            &format!(
                "rm -f deploy-status; since=$(date '+%F %T.%N'); echo {asked} >deploy-trigger
                 timeout 30 grep -q -m 1 'demo-worker.*restarts with image' < <(journalctl --user -u tagship@demo --since \"$since\" -f -o cat --no-pager)
                 {}; await '[ -e deploy-status ]'; cat deploy-status",
                copy(&two.tag)
            ),
        );
        ran.ok().says(&format!("ok {asked}")).says("Outcome: deployed").says(&format!("Digest: {}", one.digest));
        assert_eq!(host.digest("stable"), Some(two.digest), "{by}");
        let image = host.state().healthy().image().to_owned();
        host.app(&format!("podman image inspect --format '{{{{json .RepoDigests}}}}' {image}")).ok().says(&one.digest);
    }
}

fn h32_a_crash_before_its_turn(host: &Host) {
    let before = host.baseline();
    let other = Versions::of(host).other(host);
    let (_order, _slow) = (any_order(host), slow(host));
    let _one_by_one = host.configured(
        "sed -i '/^services:/,/^[a-z]/{/^services:/d; /^  - /d}' demo.yaml
         echo 'services: [demo-web, demo-worker, demo-beat, demo-flower]' >>demo.yaml",
    );
    // demo-worker is being restarted; demo-flower comes after it.
    let crash = "since=$(date '+%F %T.%N'); podman kill --signal KILL demo-flower >/dev/null
        timeout 20 grep -q -m 1 '^Started' < <(journalctl --user -u demo-flower --since \"$since\" -f -o cat --no-pager)
        podman inspect --format '{{.Image}}' demo-flower >~/in-between";
    amid(host, &other, crash).ok().says("Outcome: deployed");
    assert_eq!(before.image(), host.app("cat ~/in-between; rm ~/in-between").ok().trimmed());
    assert_ne!(before.image(), host.state().healthy().image());
}

/// What somebody writes who has the directory and nothing else.
fn h33_a_request_grants_nothing(host: &Host) {
    host.baseline();
    let old = host.release().signed();
    host.ask(&old.tag, &old.digest).ok().says("Outcome: deployed");
    host.release().run().ok();
    let (before, marked) = (host.state().healthy(), mark(host));
    // A version that is not the image's.
    host.ask("v9.9.9", &old.digest).says("Outcome: refused").says("Kind: tag-mismatch");
    // An image that is signed without a version: it would count as any.
    let Version { digest, .. } = unnamed(host);
    host.ask("v9.9.9", &digest).says("Outcome: refused").says("Kind: annotations-missing");
    assert_eq!((&before, &marked), (&host.state(), &mark(host)));
    // A rollback that CI has asked for, whose bytes somebody kept. The action writes into a copy of the directory.
    let release =
        host.release().of(&old.tag).flag("rollback", "true").flag("handoff", "~/spied").background("/dev/null");
    shell(
        host,
        &format!(
            "mkdir -p ~/spied; cp deploy-host ~/spied; cd ~/spied
             {release}
             await 'compgen -G \"deploy-request.*\" >/dev/null'
             cp deploy-request.* ~/kept; kill $job; wait $job || true; rm -r ~/spied; grep -q '^Rollback: true$' ~/kept"
        ),
    )
    .ok();
    let put = |edit: &str, named: &str| {
        shell(
            host,
            &format!(
                "named={named}; {edit} ~/kept >.new-kept; mv -n .new-kept deploy-request.$named; served deploy-status.$named
                 cat deploy-status.$named 2>/dev/null || echo no answer"
            ),
        )
    };
    let kept = "$(sed -n 's/^Request: //p' ~/kept)";
    put("cat", kept).ok().says("Outcome: deployed").says(&old.digest);
    assert_eq!(marked, mark(host), "going back moves no mark");
    host.release().run().ok();
    let (forward, marked) = (host.state().healthy(), mark(host));
    // The same bytes again: neither obeyed nor answered anew.
    host.app("cp ~/tagship/demo/deploy-status.$(sed -n 's/^Request: //p' ~/kept) ~/answered").ok();
    // Also where so many came after it that its identifier is forgotten among theirs.
    for forget in ["true", ": >~/.local/state/tagship/demo/seen"] {
        host.app(forget).ok();
        put("cat", kept).ok();
        host.app("cmp ~/tagship/demo/deploy-status.$(sed -n 's/^Request: //p' ~/kept) ~/answered; ! ls ~/tagship/demo/deploy-request.* 2>/dev/null").ok();
        assert_eq!((&forward, &marked), (&host.state(), &mark(host)), "{forget}");
    }
    // As another request it is not what was signed, and without the signature it grants nothing.
    let other = id();
    put(&format!("sed 's/^Request: .*/Request: {other}/'"), &other).says("Kind: request-signature");
    let other = id();
    put(&format!("sed 's/^Request: .*/Request: {other}/; /^Signature: /d'"), &other).says("Kind: request-unsigned");
    let other = id();
    put(&format!("sed 's/^Request: .*/Request: {other}/; /^Signature: /d; /^Rollback: /d'"), &other)
        .says("Kind: downgrade");
    assert_eq!((forward, marked), (host.state(), mark(host)));
    host.app("rm ~/kept ~/answered").ok();
}

/// A version that cosign signed without saying which it is.
fn unnamed(host: &Host) -> Version {
    let version = host.release().unsigned();
    host.app(&format!(
        "export DOCKER_CONFIG=$(mktemp -d); cp ~/ci-auth.json $DOCKER_CONFIG/config.json; . ~/ci.env
         COSIGN_PASSWORD=$TAGSHIP_KEY_PASSWORD cosign sign --yes --tlog-upload=false --key ~/cosign.key {IMAGE}@{}",
        version.digest
    ))
    .ok();
    version
}

/// The state as it is where nothing was ever deployed, and what there is put back in the end, with what has come into the
/// history since: the system's journal has it, too. The timer rests meanwhile: a run of it would write a state of its own
/// between two of these steps.
pub(crate) fn without_state(host: &Host) -> Mend<'_> {
    host.changed(
        "systemctl --user stop tagship@demo.timer tagship@demo.service; mv -T ~/.local/state/tagship/demo ~/state.kept",
        "systemctl --user stop tagship@demo.service
         cd ~/state.kept && grep -vxFf history.jsonl ~/.local/state/tagship/demo/history.jsonl >~/state.since && cat ~/state.since >>history.jsonl
         rm -rf ~/state.since ~/.local/state/tagship/demo
         mv -T ~/state.kept ~/.local/state/tagship/demo; systemctl --user start tagship@demo.timer",
    )
}

/// All services run what somebody built and named here, which has to do with no registry; in the end what they ran before.
fn built_by_hand(host: &Host) -> Mend<'_> {
    let services = SERVICES.join(" ");
    let before = host.state().healthy().image().to_owned();
    let built = host.changed(
        &format!(
            "printf 'FROM localhost/demo:demo-web\nLABEL by=hand\n' | podman build -q --format docker -t localhost/by-hand -
             for s in {services}; do podman tag localhost/by-hand localhost/demo:$s; done; systemctl --user restart {services}"
        ),
        &format!(
            "for s in {services}; do podman tag {before} localhost/demo:$s; done; systemctl --user restart {services}
             podman rmi --force localhost/by-hand >/dev/null 2>&1 || true"
        ),
    );
    host.checked(&SERVICES);
    assert_ne!(before, host.state().healthy().image());
    built
}

/// Where no signature has named its version yet, the registry says which a digest is; from the first one on that does,
/// all have to.
fn h33_the_registrys_word(host: &Host) {
    host.baseline();
    let (first, second, named) = (unnamed(host), unnamed(host), host.release().signed());
    let (_state, _built) = (without_state(host), built_by_hand(host));
    let before = host.state();
    host.ask("v9.9.9", &first.digest).says("Outcome: refused").says("Kind: tag-elsewhere");
    host.ask(&second.tag, &first.digest).says("Outcome: refused").says("Kind: tag-elsewhere");
    assert_eq!(before, host.state());
    host.ask(&first.tag, &first.digest).ok().says("Outcome: deployed");
    host.ask(&named.tag, &named.digest).ok().says("Outcome: deployed");
    // What the registry says of a digest is not asked any more, be it above or below.
    let (before, marked) = (host.state().healthy(), mark(host));
    let third = unnamed(host);
    for version in [&second, &third] {
        host.ask(&version.tag, &version.digest).says("Outcome: refused").says("Kind: annotations-missing");
    }
    assert_eq!((before, marked), (host.state(), mark(host)));
}

fn tags_by_their_time(host: &Host) {
    host.baseline();
    let early = host.release().of("nightly-2").signed();
    // Times have whole seconds, and each of these its own.
    host.app("begun=$(date +%s); until (($(date +%s) > begun)); do sleep 0.05; done").ok();
    let late = host.release().of("nightly-1").signed();
    host.ask(&late.tag, &late.digest).ok().says("Outcome: deployed");
    let (before, marked) = (host.state().healthy(), mark(host));
    assert!(marked.contains("nightly-1"), "{marked}");
    host.ask(&early.tag, &early.digest).says("Outcome: refused").says("Kind: downgrade").says("nightly-1");
    assert_eq!((before, marked), (host.state(), mark(host)));
    // What is signed after it is above it, also a version.
    host.release().run().ok();
}

/// The key that signed what runs is trusted no more when the next release fails, and the registry is down by then.
fn h43_put_back_after_a_rotation(host: &Host) {
    host.baseline();
    // What runs was proven by the key that is rotated out.
    host.release().run().ok();
    let before = host.state().healthy();
    host.key_pair("next");
    let _next = host
        .changed_by_root("install -m 644 /home/app/next.pub /etc/containers/next.pub", "rm /etc/containers/next.pub");
    let bad = host.release().unhealthy().with_key("next").signed();
    let _rotated = host.configured("sed -i 's#^  keys: .*#  keys: [/etc/containers/next.pub]#' demo.yaml");
    let running = host.app("jq -r .running.tag ~/tagship/demo/deploy-host").ok();
    answered_amid_an_outage(host, &bad).says("Outcome: rolled-back").never_says("never proven");
    assert_eq!(before.image(), host.state().healthy().image());
    // It may run on; to be deployed or gone back to is another matter.
    let digest = host.digest(running.trimmed()).expect("what runs");
    host.ask(running.trimmed(), &digest).says("Outcome: refused").says("Kind: foreign-signature");
}

fn h43_put_back_without_a_registry(host: &Host) {
    let before = host.baseline();
    let (bad, good) = (host.release().unhealthy().signed(), host.release().signed());
    let _state = without_state(host);
    let _built = built_by_hand(host);
    let incumbent = host.state().healthy();
    assert_ne!(before.image(), incumbent.image());
    // Down once the image is here: nothing of the way back may need it.
    answered_amid_an_outage(host, &bad).says("Outcome: rolled-back").says("what runs again was never proven here");
    assert_eq!(incumbent.image(), host.state().healthy().image());
    host.ask(&good.tag, &good.digest).ok().says("Outcome: deployed");
    let _outage = host.without_registry();
    host.app("tagship-host rollback demo").ok().says("which was never proven here");
    assert_eq!(incumbent.image(), host.app("podman inspect --format '{{.Image}}' demo-flower").ok().trimmed());
    // Pruned since, there is no way back to it, and that is found out before anything is touched.
    host.app(&format!("tagship-host rollback demo {}; podman rmi --force {} >/dev/null", good.tag, incumbent.image()))
        .ok();
    let running = host.app("podman ps --quiet --no-trunc | sort").ok();
    host.app("tagship-host rollback demo").exits(1).says("no longer in the store").says("hint:");
    assert_eq!(running.text, host.app("podman ps --quiet --no-trunc | sort").ok().text);
}

/// The answer to a request for a version that never gets healthy, with the registry stopped while its first service is
/// waited for.
fn answered_amid_an_outage(host: &Host, version: &Version) -> Ran {
    let request = id();
    host.app(&format!(
        "{SHELL} put {request} {} {}; told {request} '\"demo-web\",\"event\":\"restart'",
        version.tag, version.digest
    ))
    .ok();
    let _outage = host.without_registry();
    shell(host, &format!("await '[ -e deploy-status.{request} ]'; cat deploy-status.{request}"))
}

fn h44_a_state_that_is_lost_or_old(host: &Host) {
    host.baseline();
    let (old, newest) = (host.release().signed(), host.release().signed());
    host.ask(&old.tag, &old.digest).ok().says("Outcome: deployed");
    host.app("cp -a ~/.local/state/tagship/demo ~/state.old").ok();
    host.ask(&newest.tag, &newest.digest).ok().says("Outcome: deployed");
    let running = host.state().healthy();
    for (what, known, was) in [
        ("rm -rf", "no highest version is known here", ("null", "null")),
        ("cp -aT ~/state.old", &*format!("what is known here ends with {}", old.tag), (&*old.tag, &*old.digest)),
    ] {
        let _state = without_state(host);
        host.app(&format!("{what} ~/.local/state/tagship/demo")).ok();
        // Loudly: in the request's log, and where the app's user cannot change it.
        host.ask(&old.tag, &old.digest)
            .says("Outcome: refused")
            .says("Kind: downgrade")
            .says(&format!("{known}, and {} runs, signed", newest.tag));
        assert_eq!(running, host.state());
        let told = host.root(&format!(
            "journalctl --sync; journalctl -o json -n 1 TAGSHIP_APP=demo TAGSHIP_BY=companion TAGSHIP_MARK={} |
                 jq -r '.TAGSHIP_MARK_DIGEST, .TAGSHIP_PREVIOUS_MARK, .TAGSHIP_PREVIOUS_MARK_DIGEST'",
            newest.tag
        ));
        assert_eq!(told.ok().text.lines().collect::<Vec<_>>(), [&newest.digest, was.0, was.1]);
        assert!(mark(host).contains(&newest.tag));
    }
    // Where nothing runs, nothing can tell: that is what the administrator's floor is for.
    let _floor = host.administrator(&format!("floor: {}", newest.tag));
    let _state = without_state(host);
    let services = SERVICES.join(" ");
    let _stopped =
        host.changed(&format!("systemctl --user stop {services}"), &format!("systemctl --user start {services}"));
    host.ask(&old.tag, &old.digest).says("Outcome: refused").says("Kind: below-floor").says(&newest.tag);
    host.app("rm -r ~/state.old").ok();
}

fn h45_two_apps(host: &Host) {
    let before = host.baseline();
    let units = "~/.config/containers/systemd";
    let _other = host.changed(
        &format!(
            "sed 's/demo-web/other-web/g; s#localhost/demo:#localhost/other:#; /^PublishPort/d' {units}/demo-web.container >{units}/other-web.container
             sed '/^services:/,$d; s#localhost/demo#localhost/other#' ~/.config/tagship/demo.yaml >~/.config/tagship/other.yaml
             printf 'services: [other-web]\nhealth: {{timeout: 10s}}\n' >>~/.config/tagship/other.yaml
             mkdir -p ~/tagship/other; systemctl --user daemon-reload
             systemctl --user enable --quiet --now tagship@other.path tagship@other.timer; systemctl --user start tagship@other.service"
        ),
        &format!(
            "systemctl --user disable --quiet --now tagship@other.path tagship@other.timer; systemctl --user stop other-web
             rm -rf {units}/other-web.container ~/.config/tagship/other.yaml ~/tagship/other ~/.local/state/tagship/other
             systemctl --user daemon-reload
             podman images -q --filter reference='localhost/other' --filter reference='localhost/tagship/other' | sort -u | xargs -r podman rmi --force >/dev/null"
        ),
    );
    // What both claim is refused by name, for either of them, until one lets go of it.
    for (edit, named) in [
        ("echo 'handoff: ~/tagship/demo' >>other.yaml", "hand-off directory"),
        ("sed -i 's/\\[other-web\\]/[demo-flower]/' other.yaml", "service demo-flower"),
    ] {
        let _claimed = host.changed(
            &format!("cp ~/.config/tagship/other.yaml ~/other.yaml; cd ~/.config/tagship; {edit}"),
            "mv ~/other.yaml ~/.config/tagship/other.yaml",
        );
        host.app("tagship-host status other").exits(2).says(named).says("demo.yaml").says("hint:");
        host.app("tagship-host status demo").exits(2).says(named).says("other.yaml").says("hint:");
    }
    // Both at once, in one store and under one manager.
    let version = host.release().signed();
    let (one, two) = (id(), id());
    let _slow = slow(host);
    let answers = shell(
        host,
        &format!(
            "put {one} {tag} {digest}; told {one} '\"demo-web\",\"event\":\"restart\"'
             cd ~/tagship/other; put {two} {tag} {digest}; await '[ -e deploy-status.{two} ]'
             cd ~/tagship/demo; await '[ -e deploy-status.{one} ]'; cat deploy-status.{one} ~/tagship/other/deploy-status.{two}",
            tag = version.tag,
            digest = version.digest
        ),
    )
    .ok()
    .says_in_order(&["Outcome: deployed", "Service: demo-web", "Outcome: deployed", "Service: other-web"]);
    let times = |name: &str| -> Vec<&str> { answers.text.lines().filter_map(|line| line.strip_prefix(name)).collect() };
    assert!(times("Started: ")[1] < times("Finished: ")[0], "one after the other\n{}", answers.text);
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    host.app("podman inspect --format '{{.Image}}' other-web").ok().says(after.image());
}
