//! Releases that go wrong on the host: everything goes back to the image that was proven, and CI is told why.

use tagship_tests::{Host, Release, SERVICES, State};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("broken_healthcheck_rolls_back_the_whole_set", broken_healthcheck_rolls_back_the_whole_set),
    ("crash_at_start_rolls_back_the_whole_set", crash_at_start_rolls_back_the_whole_set),
    ("last_service_failing_rolls_back_the_first", last_service_failing_rolls_back_the_first),
    ("a_rejected_image_is_refused_with_the_first_reason", a_rejected_image_is_refused),
    ("h38_a_stopped_service_stays_stopped", h38_a_stopped_service_stays_stopped),
    ("killed_companion_puts_everything_back_and_answers", killed_companion),
];

fn broken_healthcheck_rolls_back_the_whole_set(host: &Host) {
    rolls_back(host, Release::unhealthy, "database is gone");
}

fn crash_at_start_rolls_back_the_whole_set(host: &Host) {
    rolls_back(host, Release::crashing, "cannot read settings");
}

fn last_service_failing_rolls_back_the_first(host: &Host) {
    let last = SERVICES[SERVICES.len() - 1];
    let role = last.trim_start_matches("demo-");
    rolls_back(
        host,
        |release| {
            release.edit(&format!("sed -i '2i [ \"$ROLE\" != {role} ] || {{ echo queue is gone; exit 4; }}' app"))
        },
        "queue is gone",
    );
}

fn a_rejected_image_is_refused(host: &Host) {
    let before = host.baseline();
    let release = host.release().crashing();
    let tag = release.tag();
    release.run().exits(1).says("rolled-back").says("exited with 3");
    let back = host.state().healthy();
    assert_eq!(back.image(), before.image());
    // The same image again, which the registry has signed: nobody is disturbed.
    host.release().of(&tag).steps("deploy").run().exits(1).says("rejected").says("exited with 3").says("--retry");
    assert_eq!(back, host.state());
    let retried = host.app(&format!("tagship-host deploy demo --retry {tag}"));
    retried.exits(1).says("is tried again").says("rolled-back").says("exited with 3");
    assert_eq!(host.state().healthy().image(), before.image());
}

fn h38_a_stopped_service_stays_stopped(host: &Host) {
    host.baseline();
    {
        let _stopped = host.changed("systemctl --user stop demo-flower", "systemctl --user start demo-flower");
        host.release().run().ok().says("demo-flower");
        host.app("systemctl --user is-active demo-flower").exits(3);
    }
    assert!(host.state().services.contains_key("demo-flower"));
    host.release().run().ok();
    host.state().healthy();
}

fn killed_companion(host: &Host) {
    let before = host.baseline();
    // Unhealthy, so that the companion is still at work after the first restart.
    let release = host.release().unhealthy().command();
    host.app(&format!(
        "rm -f /tmp/killed.*; touch /tmp/killed.log
         ({release} >>/tmp/killed.log 2>&1; echo $? >/tmp/killed.code) &
         grep -q -m 1 'demo-web: has restarted' < <(tail --pid=$! -n +1 -F /tmp/killed.log)
         kill -9 $(systemctl --user show --property MainPID --value tagship@demo.service)
         wait; cat /tmp/killed.log; exit $(cat /tmp/killed.code)"
    ))
    .exits(1)
    .says("interrupted");
    let after = host.state().healthy();
    assert_eq!((before.image(), &before.moving), (after.image(), &after.moving));
}

/// Releases something broken and requires the old image everywhere, healthy, the verdict in the job's log with the
/// container's last words, and the moving tag where it was.
fn rolls_back<'a>(host: &'a Host, fault: impl FnOnce(Release<'a>) -> Release<'a>, last_words: &str) {
    let before = host.baseline();
    let ran = fault(host.release()).run().exits(1).says("rolled-back").says(last_words);
    let after = host.state().healthy();
    assert_eq!(before.image(), after.image(), "not back on the old image\n{}", ran.text);
    assert_eq!(before.moving, after.moving, "the moving tag names what failed");
    untouched_names(&before, &after);
}

fn untouched_names(before: &State, after: &State) {
    assert!(before.services.keys().eq(after.services.keys()), "another set of services: {after:#?}");
}
