//! The action against a host that it cannot trust, or that is slow, and a host whose requester goes away.

use tagship_tests::{Host, Ran, Scenario};

use super::{Version, Versions, any_order, id, shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h18_the_action_waits_as_long_as_the_host_may_take", h18_the_action_waits_as_long_as_the_host_may_take),
    ("h22_a_deploy_ends_without_the_job_that_asked", h22_a_deploy_ends_without_the_job_that_asked),
    ("h30_control_characters_and_commands_reach_no_log", h30_control_characters_and_commands_reach_no_log),
    ("h35_a_hostile_directory_neither_holds_nor_fools_the_action", h35_a_hostile_directory),
];

/// A shell script that plays the host in `~/DIRECTORY`: `act` does what it does to the request `$id`, which it has then
/// taken. The action is run against it; its output and its code follow.
fn played(host: &Host, directory: &str, budget: u32, flags: &[(&str, &str)], act: &str) -> String {
    let tag = shell(host, "echo $version").ok();
    let release = host.release().of(tag.trimmed()).steps("deploy").flag("handoff", &format!("~/{directory}"));
    let release = flags.iter().fold(release, |release, (name, value)| release.flag(name, value));
    let command = release.env("GITHUB_ACTIONS", "true").env("FORGEJO_ACTIONS", "true").command();
    format!(
        "rm -rf ~/{directory} ~/{directory}.watches; mkdir ~/{directory}; jq '.budget_seconds = {budget}' deploy-host >~/{directory}/deploy-host
         mkfifo ~/{directory}.watches
         (cd ~/{directory}; coproc WATCH {{ exec timeout 60 inotifywait -m -e moved_to --format %f . 2>&1; }}
          until read -r name <&${{WATCH[0]}} && [[ $name == 'Watches established.' ]]; do :; done; echo >~/{directory}.watches
          until read -r name <&${{WATCH[0]}} && [[ $name == deploy-request.* ]]; do :; done
          kill $WATCH_PID; id=${{name#deploy-request.}}; mv $name .taken
          answer() {{ printf '%s\\n' \"ok $version\" \"Request: $id\" Outcome:\\ deployed Kind:\\ deployed \"Reason: $1\" \"Digest: $running\"; }}
          {act}) >/dev/null 2>&1 &
         read -r _ <~/{directory}.watches; rm ~/{directory}.watches
         code=0; timeout 60 {command} >~/{directory}.log 2>&1 || code=$?; echo \"code $code\" >>~/{directory}.log; rm -rf ~/{directory}"
    )
}

fn h18_the_action_waits_as_long_as_the_host_may_take(host: &Host) {
    host.baseline();
    let act = "sed -n 's/^Not-After: //p' .taken >~/latest; answer 'it runs' >.status; mv .status deploy-status.$id";
    let ran = shell(
        host,
        &format!(
            "{}
             cat ~/played.log; echo seconds $(($(date -d \"$(cat ~/latest)\" +%s) - $(date +%s))); rm ~/latest",
            played(host, "played", 1234, &[], act)
        ),
    );
    let ran = ran.ok().says("code 0");
    let seconds: u32 = ran.text.lines().find_map(|line| line.strip_prefix("seconds ")).unwrap().parse().unwrap();
    // The whole budget and a minute for clocks, to the next second, less what the action took to end.
    assert!((1234 + 50..=1234 + 61).contains(&seconds), "{}", ran.text);
}

fn h22_a_deploy_ends_without_the_job_that_asked(host: &Host) {
    let before = host.baseline();
    let versions = Versions::of(host);
    let _order = any_order(host);
    let other = versions.other(host);
    ended_amid(host, &other, "KILL").says("code 137").says(&format!("ok {}", other.tag)).says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
    // A runner asks it to end first. It says what becomes of the deploy, and the job that runs again is green.
    let other = versions.other(host);
    ended_amid(host, &other, "TERM")
        .says("interrupted while waiting for the host")
        .says("the request was claimed: the host goes on with it")
        .says_in_order(&["code 143", "Outcome: deployed"]);
    let deployed = host.state().healthy();
    host.release().of(&other.tag).run().ok().says("unchanged");
    assert_eq!(deployed.services, host.state().services);
}

/// A job's log, its exit code, and the answer that came without it: it was ended by this signal in mid-deploy.
fn ended_amid(host: &Host, version: &Version, signal: &str) -> Ran {
    let job = host.release().of(&version.tag).steps("deploy").background("~/job.log");
    shell(
        host,
        &format!(
            "{job}
             timeout 30 grep -q -m 1 'restarts with image' < <(tail -n +1 -F ~/job.log 2>/dev/null)
             pkill -{signal} -x -P $job tagship; code=0; wait $job || code=$?; id=$(sed -n 's/.*(request \\(.*\\))$/\\1/p' ~/job.log)
             cat ~/job.log; rm ~/job.log; echo code $code
             [ ! -e deploy-status.$id ]; await '[ -e deploy-status.$id ]'; cat deploy-status.$id"
        ),
    )
    .ok()
}

fn h30_control_characters_and_commands_reach_no_log(host: &Host) {
    host.baseline();
    // In a request.
    let [cut, line, run] = [id(), id(), id()];
    let ran = shell(
        host,
        &format!(
            "since=$(date '+%F %T'); put {cut} $'v1\\033[2J' $running; put {line} $'v1\\r::error::pwned' $running
             full {run} v1 $running >.new; printf '%s\\n' $'Run: https://x/\\u202e::add-mask::' >>.new; mv -n .new deploy-request.{run}; served deploy-status.{run}
             cat deploy-status.{cut} deploy-status.{line} deploy-status.{run}
             journalctl --user -u tagship@demo --since \"$since\" -o cat --no-pager"
        ),
    );
    let ran = ran.ok().says_in_order(&["Kind: request-invalid", "Kind: request-invalid", "Kind: request-invalid"]);
    quiet(&ran.text);
    // In what a host says: it is shown, and is nothing but words.
    let act = r#"printf '{"time":"2026-02-03T04:05:06Z","phase":"claim","event":"x","text":"%s"}\n' '::error::pwned' '\u001b[2Jpwned' '\r::set-output name=digest::pwned' >deploy-log.$id
                 sleep 0.1; answer '::add-mask::pwned' >.status; mv .status deploy-status.$id"#;
    let ran = shell(host, &format!("{}\ncat ~/played.log", played(host, "played", 600, &[("timeout", "20s")], act)));
    quiet(&ran.ok().says("error::pwned").says("code 0").text);
}

/// Requires a text in which nothing controls a terminal or a runner.
fn quiet(text: &str) {
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    let command =
        text.lines().find(|line| line.starts_with("::") && !line.starts_with("::group::") && *line != "::endgroup::");
    assert_eq!(command, None, "{text}");
}

fn h35_a_hostile_directory(host: &Host) {
    host.baseline();
    let acts = [
        ("fifo", "mkfifo deploy-log.$id deploy-status.$id"),
        ("link", "ln -s ~/cosign.key deploy-log.$id; ln -s ~/cosign.key deploy-status.$id"),
        ("hard-link", "ln ~/cosign.key deploy-log.$id; ln ~/cosign.key deploy-status.$id"),
        ("directory", "mkdir deploy-log.$id deploy-status.$id"),
        ("endless", "ln -s /dev/zero deploy-log.$id; ln -s /dev/zero deploy-status.$id"),
        ("huge", "truncate -s 1T deploy-log.$id deploy-status.$id"),
        (
            "another",
            "id=01ARZ3NDEKTSV4RRFFQ69G5FAV; answer yes >.status; id=${name#deploy-request.}; mv .status deploy-status.$id",
        ),
    ];
    // All at once: each waits ten seconds for an answer that never comes.
    let scripts: String = acts
        .iter()
        .map(|(name, act)| {
            format!("({}) &\n", played(host, &format!("hostile-{name}"), 600, &[("timeout", "10s")], act))
        })
        .collect();
    let ran = shell(host, &format!("{scripts} wait; tail -n 4 ~/hostile-*.log; rm ~/hostile-*.log"));
    let ran =
        ran.ok().never_says("SIGSTORE").never_says("PRIVATE KEY").never_says("code 0").says("is about another request");
    assert_eq!(ran.text.matches("code 6").count(), acts.len(), "{}", ran.text);
}
