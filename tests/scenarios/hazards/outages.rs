//! What the companion needs and does not have: a program, a configuration, room, the right to write.

use std::time::Duration;

use tagship_tests::{Host, Mend, Scenario};

use super::{Versions, alive, amid, any_order, counted, id, shell, slow};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h27_an_answer_that_finds_no_room_is_written_later", h27_an_answer_that_finds_no_room),
    ("h36_what_keeps_the_companion_from_its_work_makes_nothing_spin", h36_nothing_spins),
    ("fault_bus_is_gone_before_a_deploy", fault_bus_is_gone_before_a_deploy),
    ("fault_bus_is_gone_in_the_middle", fault_bus_is_gone_in_the_middle),
];

/// The hand-off directory on a file system of its own, of so many pages of 4 KiB.
fn on_small_disk(host: &Host, pages: u32) -> Mend<'_> {
    host.changed_by_root(
        &format!(
            "user() {{ systemctl --user -M app@ $@; }}
             cp /home/app/tagship/demo/deploy-host /tmp/deploy-host
             mount -t tmpfs -o size={}k,uid=1000,gid=1000,mode=755 small /home/app/tagship/demo
             install -o app -g app -m 644 /tmp/deploy-host /home/app/tagship/demo/deploy-host",
            4 * pages
        ),
        "umount -l /home/app/tagship/demo",
    )
}

fn h27_an_answer_that_finds_no_room(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let _small = on_small_disk(host, 8);
    let _watched = host.changed("systemctl --user restart tagship@demo.path", "true");
    // The action finds out before it does anything.
    let full =
        host.changed("head -c 1M /dev/zero >~/tagship/demo/full 2>/dev/null || true", "rm -f ~/tagship/demo/full");
    host.release().run().exits(6).within(Duration::from_secs(60)).says("No space left").says("hint:");
    drop(full);
    // A request that fills the last page, which its claim gives back to the log: none is left for the answer.
    let request = id();
    shell(
        host,
        &format!(
            "full {request} $version $running >.new; head -c 1M /dev/zero >full 2>/dev/null || true; ls -la; df .
             since=$(date '+%F %T.%N'); mv -n .new deploy-request.{request}
             timeout 30 grep -q -m 1 'No space left' < <(journalctl --user -u tagship@demo --since \"$since\" -f -o cat --no-pager)
             ! [ -s deploy-status.{request} ]; systemctl --user is-active tagship@demo.path
             rm full; await '[ -e deploy-status.{request} ]'; cat deploy-status.{request}"
        ),
    )
    .ok()
    .says("Outcome: unchanged");
    assert_eq!(before, host.state());
}

fn h36_nothing_spins(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let _counted = counted(host);
    let program = "~/.local/bin/tagship-host";
    // Where nothing can be claimed the run fails, and the next one waits: the request is found where it is, the path unit
    // is alive, and the reason is in the journal.
    let mut measured = false;
    for (change, back, reason) in [
        (format!("mv {program} ~/away"), format!("mv ~/away {program}"), "tagship-host"),
        ("chmod 555 ~/tagship/demo".to_owned(), "chmod 755 ~/tagship/demo".to_owned(), "ermission denied"),
    ] {
        let request = id();
        // A name that the path unit does not look for, until nothing works any more; and the timer's next run a minute
        // away. A run before this scenario may have failed.
        shell(host, &format!("(served) || served; full {request} $version $running >.new; : >~/runs; systemctl --user stop tagship@demo.path; mv -n .new deploy-request.{request}")).ok();
        let broken = host.changed(&change, &back);
        host.app(&format!(
            "since=$(date '+%F %T.%N'); systemctl --user start tagship@demo.path
             timeout 20 grep -q -m 1 '{reason}' < <(journalctl --user -u tagship@demo --since \"$since\" -f -o cat --no-pager)
             timeout 20 bash -c 'until [[ $(systemctl --user show -p SubState --value tagship@demo) == stop-post ]]; do :; done'
             systemctl --user is-active tagship@demo.path; [ -e ~/tagship/demo/deploy-request.{request} ]"
        ))
        .ok();
        drop(broken);
        // Once is enough to see that the pause lasts for ten seconds.
        let end = if measured { "systemctl --user kill tagship@demo.service" } else { "true" };
        let ran = shell(
            host,
            &format!(
                "{end}; await '[ -e deploy-status.{request} ]'; cat deploy-status.{request} deploy-log.{request} ~/runs"
            ),
        );
        let ran = ran.ok().says("Outcome: unchanged");
        let runs: Vec<f64> = ran.text.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(runs.len() == 2 && (measured || runs[1] - runs[0] > 9.0), "{reason}: {runs:?}");
        measured = true;
    }
    // Where it can be claimed it is answered, by one run. Another one, with nobody to answer, fails for the same reason.
    for (change, back, kind) in [
        (
            "cp ~/.config/tagship/demo.yaml ~/good.yaml; echo 'keep-images: [1' >>~/.config/tagship/demo.yaml",
            "mv ~/good.yaml ~/.config/tagship/demo.yaml",
            "config-invalid",
        ),
        ("chmod 500 ~/.local/state/tagship/demo", "chmod 700 ~/.local/state/tagship/demo", "state-io"),
    ] {
        let request = id();
        let _broken = host.changed(change, back);
        let ran = shell(
            host,
            &format!("since=$(date '+%F %T.%N'); : >~/runs; put {request} $version $running; await '[ -e deploy-status.{request} ]'; (served) || true
                      cat deploy-status.{request}; echo runs $(wc -l <~/runs); journalctl --user -u tagship@demo --since \"$since\" -o cat --no-pager"),
        );
        let ran = ran.ok().says("Outcome: refused").says(&format!("Kind: {kind}"));
        let runs: u32 = ran.text.lines().find_map(|line| line.strip_prefix("runs ")).unwrap().parse().unwrap();
        assert!(runs <= 2, "{kind}: {runs} runs");
    }
    // The same where there is no room for it.
    {
        let state = "/home/app/.local/state/tagship/demo";
        let _full = host.changed_by_root(
            &format!(
                "cp -a {state} /tmp/state
                 mount -t tmpfs -o size=$(($(du -sk {state} | cut -f 1) + 64))k,uid=1000,gid=1000,mode=700 full {state}
                 cp -a /tmp/state/. {state} && {{ head -c 1M /dev/zero >{state}/full 2>/dev/null || true; }}"
            ),
            &format!("umount -l {state}; rm -r /tmp/state"),
        );
        let other = Versions::of(host).other(host);
        let request = id();
        let ran = shell(
            host,
            &format!(
                ": >~/runs; put {request} {} {}; await '[ -e deploy-status.{request} ]'; served; cat deploy-status.{request}; echo runs $(wc -l <~/runs)",
                other.tag, other.digest
            ),
        );
        let ran = ran.ok().says("Outcome: refused").says("Kind: state-io").says("No space left");
        let runs: u32 = ran.text.lines().find_map(|line| line.strip_prefix("runs ")).unwrap().parse().unwrap();
        assert!(runs <= 2, "{runs} runs");
    }
    assert_eq!(before, host.state());
    alive(host);
}

const NO_BUS: &str = "systemctl --user stop dbus.socket dbus.service";
const BUS: &str = "systemctl --user start dbus.socket dbus.service";

fn fault_bus_is_gone_before_a_deploy(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    {
        let _gone = host.changed(NO_BUS, BUS);
        host.ask(&other.tag, &other.digest)
            .ok()
            .within(Duration::from_secs(30))
            .says("Outcome: failed")
            .says("Kind: services-unreachable");
        assert_eq!(before.services, host.state().services);
    }
    assert_eq!(before, host.state());
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_bus_is_gone_in_the_middle(host: &Host) {
    let before = host.baseline();
    let (_order, slow) = (any_order(host), slow(host));
    let other = Versions::of(host).other(host);
    {
        let _back = host.changed("true", BUS);
        let act = format!("{NO_BUS}; told $request 'going back'; {BUS}");
        amid(host, &other, &act).ok().says("Outcome: rolled-back").says("Kind: services-");
    }
    assert_eq!(before.image(), host.state().healthy().image());
    drop(slow);
    // No image was blamed.
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}
