//! Requests that meet each other, or are half written: each has an answer of its own.

use tagship_tests::{Host, SERVICES, Scenario};

use super::{Version, Versions, alive, any_order, id, shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h02_each_of_three_requests_is_deployed_or_told_superseded", h02_each_of_three_is_deployed_or_superseded),
    ("h04_an_answer_stays_until_its_reader_saw_it", h04_an_answer_stays_until_its_reader_saw_it),
    ("h10_half_a_file_is_never_a_request", h10_half_a_file_is_never_a_request),
    ("h15_a_trigger_that_vanished_deploys_nothing", h15_a_trigger_that_vanished_deploys_nothing),
    ("h21_a_request_that_was_left_over_at_boot_is_refused", h21_a_request_left_over_at_boot_is_refused),
    ("h34_links_and_withdrawals_make_one_claim_and_one_answer", h34_one_claim_and_one_answer),
    ("h37_two_failures_in_a_row_leave_what_was_proven", h37_two_failures_leave_what_was_proven),
];

fn h02_each_of_three_is_deployed_or_superseded(host: &Host) {
    host.baseline();
    let versions = Versions::of(host);
    let _order = any_order(host);
    // The first must not be what runs already, and the last not what runs then. Nobody looks at what the second names.
    let first = versions.other(host);
    let third = versions.good.iter().find(|version| version.digest != first.digest).unwrap();
    let second = Version { tag: "v0.1.0".to_owned(), ..first.clone() };
    let [one, two, three] = [id(), id(), id()];
    shell(
        host,
        &format!(
            "put {one} {} {}; told {one} 'demo-web: restarts\\|restarts with image'
             put {two} {} {}; await '[ -e deploy-log.{two} ]'
             [ ! -e deploy-status.{one} ] || {{ echo claimed after the first had ended; cat deploy-log.{one}; exit 1; }}
             put {three} {} {}; await '[ -e deploy-status.{two} ]'
             [ ! -e deploy-status.{one} ] || {{ echo the first had ended before; cat deploy-log.{one} deploy-log.{two}; exit 1; }}
             await '[ -e deploy-status.{three} ]'
             for id in {one} {two} {three}; do head -n 3 deploy-status.$id; done",
            first.tag, first.digest, second.tag, second.digest, third.tag, third.digest
        ),
    )
    .ok()
    .says_in_order(&[
        &format!("ok {}\nRequest: {one}\nOutcome: deployed\n", first.tag),
        &format!("fail {}\nRequest: {two}\nOutcome: superseded\n", second.tag),
        &format!("ok {}\nRequest: {three}\nOutcome: deployed\n", third.tag),
    ]);
    host.state().healthy();
}

fn h04_an_answer_stays_until_its_reader_saw_it(host: &Host) {
    host.baseline();
    let _order = any_order(host);
    let [one, two] = [id(), id()];
    shell(
        host,
        &format!(
            "put {one} $version $running; served deploy-status.{one}; printf '%s' \"$version\" >deploy-trigger; served
             cp deploy-status.{one} ~/first; cp deploy-status ~/plain
             put {two} $version sha256:{zeros}; served deploy-status.{two}
             cmp deploy-status.{one} ~/first; cmp deploy-status ~/plain; rm ~/first ~/plain
             head -n 1 deploy-status.{one} deploy-status.{two} deploy-status",
            zeros = "0".repeat(64)
        ),
    )
    .ok()
    .says_in_order(&["ok ", "fail ", "ok "]);
}

fn h10_half_a_file_is_never_a_request(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    // A shell opens first and writes later: what is written in the meantime counts.
    shell(
        host,
        "exec 3>deploy-trigger; await '! [ -e deploy-trigger ]'; printf '%s\\n' \"$version\" >&3; exec 3>&-; served
         head -n 1 deploy-status",
    )
    .ok()
    .says("ok ");
    // Who opens it and never writes asks for nothing, and holds nobody up for long.
    shell(host, "exec 3>deploy-trigger; await '! [ -e deploy-trigger ]'; served; cat deploy-status")
        .ok()
        .says("fail invalid")
        .says("Kind: request-invalid");
    // Each beginning of a request is no request.
    let [lines, cut] = [id(), id()];
    shell(
        host,
        &format!(
            "full {lines} $version $running | head -n 3 >deploy-request.{lines}
             full {cut} $version $running | head -c -5 >deploy-request.{cut}
             served deploy-status.{lines}; served deploy-status.{cut}
             head -n 4 deploy-status.{lines} deploy-status.{cut}"
        ),
    )
    .ok()
    .says_in_order(&["Outcome: refused", "Kind: request-invalid", "Outcome: refused", "Kind: request-invalid"]);
    assert_eq!(before, host.state());
}

fn h15_a_trigger_that_vanished_deploys_nothing(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let history = || host.app("wc -l <~/.local/state/tagship/demo/history.jsonl").ok().text;
    let verdicts = history();
    // Each starts a run, or none, or one that finds nothing any more; the last certainly finds nothing.
    shell(
        host,
        "rm -f deploy-status; for i in $(seq 20); do : >.new; mv .new deploy-trigger; rm -f deploy-trigger; done; served; served
         ! [ -s deploy-status ] || head -n 1 deploy-status",
    )
    .ok()
    .never_says("ok");
    assert_eq!(verdicts, history());
    assert_eq!(before, host.state());
    alive(host);
}

fn h21_a_request_left_over_at_boot_is_refused(host: &Host) {
    host.baseline();
    let versions = Versions::of(host);
    let _order = any_order(host);
    let other = versions.other(host);
    let before = host.state().healthy();
    let [late, left] = [id(), id()];
    shell(
        host,
        &format!(
            "until=$(date -u -d '-1 sec' +%FT%TZ); put {late} {} {}; served deploy-status.{late}",
            other.tag, other.digest
        ),
    )
    .ok();
    shell(host, &format!("grep Kind: deploy-status.{late}")).ok().says("too-late");
    // The plain form has no word for it: its file is older than a deploy may take.
    let aged = format!(
        "rm -f deploy-status; echo {} >.new; touch -d '-11 min' .new; mv .new deploy-trigger; served deploy-status",
        other.tag
    );
    shell(host, &aged).ok();
    shell(host, "cat deploy-status").ok().says(&format!("fail {}", other.tag)).says("Kind: too-late");
    // Nobody looks any more, then the machine boots: the path unit finds it at once.
    let stop = "systemctl --user stop tagship@demo.path tagship@demo.timer";
    shell(host, &format!("{stop}; put {left} {} {}", other.tag, other.digest)).ok();
    host.reboot();
    shell(host, &format!("await '[ -e deploy-status.{left} ]'; grep Kind: deploy-status.{left}"))
        .ok()
        .says("before-boot");
    let services = SERVICES.join(" ");
    host.app(&format!("timeout 60 systemctl --user start {services}")).ok();
    host.app(&format!("timeout 60 podman wait --condition healthy {services}")).ok();
    assert_eq!(before.image(), host.state().healthy().image());
    alive(host);
}

fn h34_one_claim_and_one_answer(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    // Two names of one file, at the trigger and beside it, and a rename onto its own inode.
    let [one, linked] = [id(), id()];
    shell(
        host,
        &format!(
            "timeout 120 inotifywait -q -m -e moved_to --format %f . >~/events & until [ -s ~/events ]; do : >.x; mv .x .y; done
             systemctl --user stop tagship@demo.path
             echo $version >.new; ln .new .again; mv .new deploy-trigger; perl -e 'rename(\".again\", \"deploy-trigger\") or die'
             systemctl --user start tagship@demo.path; served; served
             full {one} $version $running >.new; ln .new deploy-request.{linked}; mv -n .new deploy-request.{one}; served; served
             rm .again; : >.x; mv .x .end; timeout 30 grep -q -m 1 -x -F .end < <(tail -n +1 -F ~/events); kill %1; echo plain $(grep -cx deploy-status ~/events) full $(grep -cx deploy-status.{one} ~/events) linked $(grep -cx deploy-status.{linked} ~/events)
             ls -A | grep -E '^deploy-(request|trigger)|^.tagship' || echo nothing left"
        ),
    )
    .ok()
    .says("plain 1 full 1 linked 0")
    .says("nothing left");
    // A withdrawal around the instant of the claim, each 5 ms later than the one before it, and the last one when it is
    // too late: one of both has it, and each has some.
    let ids: Vec<String> = (0..20).map(|_| id()).collect();
    shell(
        host,
        &format!(
            "n=0; for id in {ids}; do
               put $id $version $running
               if ((n < 19)); then sleep $(printf '0.%03d' $((5 * n))); else await \"! [ -e deploy-request.$id ]\"; fi; n=$((n + 1))
               if mv -n deploy-request.$id .withdrawn.$id 2>/dev/null; then echo $id; fi
             done >~/withdrawn
             served; served; withdrawn=$(wc -l <~/withdrawn)
             ((0 < withdrawn && withdrawn < n)) || {{ echo \"$withdrawn of $n withdrawn\"; exit 1; }}
             for id in {ids}; do
               if grep -q $id ~/withdrawn; then [ ! -e deploy-status.$id -a ! -e deploy-log.$id ]; else [ -e deploy-status.$id ]; fi || {{ echo $id; exit 1; }}
             done
             rm -f .withdrawn.* .y .end; ls -A | grep -E '^deploy-(request|trigger)|^.tagship' || echo nothing left",
            ids = ids.join(" ")
        ),
    )
    .ok()
    .says("nothing left");
    assert_eq!(before, host.state());
}

fn h37_two_failures_leave_what_was_proven(host: &Host) {
    let before = host.baseline();
    let versions = Versions::of(host);
    let _order = any_order(host);
    let [first, second] = [0, 1].map(|index| versions.bad[index].clone()).map(|version| {
        let release = host.release().of(&version.tag).steps("deploy,promote");
        (version.tag, release.command())
    });
    // The second comes when the first has begun, and waits.
    let ran = host.app(&format!(
        "cd /tmp; : >first.log
         ({}; echo code $?) >>first.log 2>&1 & timeout 30 grep -q -m 1 'restarts with image' < <(tail -n +1 -F first.log)
         ({}; echo code $?) >second.log 2>&1; wait %1; cat first.log second.log",
        first.1, second.1
    ));
    ran.ok().says_in_order(&[&first.0, "rolled-back", "code 1", &second.0, "rolled-back", "code 1"]);
    let after = host.state().healthy();
    assert_eq!((before.image(), &before.moving), (after.image(), &after.moving));
}
