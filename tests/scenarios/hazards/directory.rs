//! What somebody with the mount can plant in the directory: nothing of it is followed, read, or waited for.

use std::time::Duration;

use tagship_tests::{Host, Scenario};

use super::{Versions, alive, any_order, counted, id, shell, slow_by};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h06_a_directory_as_a_request_is_moved_out_of_the_way", h06_a_directory_as_a_request),
    ("h07_a_fifo_as_a_request_hangs_nobody", h07_a_fifo_as_a_request_hangs_nobody),
    ("h08_a_link_as_a_request_is_not_followed", h08_a_link_as_a_request_is_not_followed),
    ("h09_a_link_at_the_answer_is_replaced", h09_a_link_at_the_answer_is_replaced),
    ("h29_a_directory_that_tells_nothing_is_looked_at", h29_a_directory_that_tells_nothing),
    ("h35_what_is_planted_at_a_name_of_the_host_is_replaced", h35_what_is_planted_at_a_name_of_the_host),
];

fn h06_a_directory_as_a_request(host: &Host) {
    let _counted = counted(host);
    // From now on, and with the timer's next run a minute away.
    host.baseline();
    shell(host, "(served) || served; : >~/runs").ok();
    planted(
        host,
        &[
            ("an empty directory", "plant() { mkdir $1; }"),
            ("a directory with a file", "plant() { mkdir $1; : >$1/file; }"),
            ("a closed directory", "plant() { mkdir -p $1/inner/most; chmod 0 $1/inner $1; }"),
        ],
    );
    shell(host, "chmod -R u+rwx .tagship-aside*; rm -r .tagship-aside*").ok();
    // Three requests each, and one run for each of them at most, whatever was moved aside: nothing starts anew for it.
    let runs: u32 = host.app("wc -l <~/runs").ok().trimmed().parse().unwrap();
    assert!(runs <= 3 * 4 + 1, "{runs} runs");
}

fn h07_a_fifo_as_a_request_hangs_nobody(host: &Host) {
    planted(
        host,
        &[
            ("a FIFO", "plant() { mkfifo $1; }"),
            ("a FIFO that somebody has open, who writes nothing", "plant() { mkfifo $1; exec {open}<>$1; }"),
            (
                "a socket",
                "plant() { perl -e 'use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])) or die' $1; }",
            ),
        ],
    );
}

fn h08_a_link_as_a_request_is_not_followed(host: &Host) {
    planted(
        host,
        &[
            (
                // It holds what would be a request, were it read.
                "a link",
                "full $id $version $running >~/target; timeout 60 inotifywait -m -e open,access ~/target >~/opened 2>~/watching & watch=$!
                 timeout 30 grep -q -m 1 established < <(tail -n +1 -F ~/watching 2>/dev/null)
                 plant() { ln -s ~/target $1; }; planted() { kill $watch; cat ~/opened; rm ~/target ~/opened ~/watching; }",
            ),
            ("a dangling link", "plant() { ln -s /nowhere/at/all $1; }"),
            ("a link to an endless file", "plant() { ln -s /dev/zero $1; }"),
            ("a link to itself", "plant() { ln -s $1 $1; }"),
        ],
    );
}

/// Plants each of these at both kinds of name: it is answered that it is no file, it is gone, and the next request works.
fn planted(host: &Host, plants: &[(&str, &str)]) {
    let before = host.baseline();
    let _order = any_order(host);
    for (what, plant) in plants {
        let [full, next] = [id(), id()];
        shell(
            host,
            &format!(
                "id={full}; {plant}
                 rm -f deploy-status; plant .planted; mv -T .planted deploy-trigger; await '[ -e deploy-status ]'
                 plant .planted; mv -T .planted deploy-request.{full}; await '[ -e deploy-status.{full} ]'
                 put {next} $version $running; await '[ -e deploy-status.{next} ]'; served
                 echo '{what}'; head -n 4 deploy-status deploy-status.{full} deploy-status.{next}
                 ls -A | grep -E '^deploy-(request|trigger)|^.tagship-[rtw]|planted' || echo nothing left
                 ! declare -F planted >/dev/null || planted"
            ),
        )
        .ok()
        .never_says("OPEN")
        .never_says("ACCESS")
        .says("nothing left")
        .says_in_order(&[
            "fail invalid\nOutcome: refused\nKind: not-a-file",
            &format!("fail invalid\nRequest: {full}\nOutcome: refused\nKind: not-a-file"),
            "ok ",
        ]);
    }
    assert_eq!(before, host.state());
    alive(host);
}

fn h09_a_link_at_the_answer_is_replaced(host: &Host) {
    host.baseline();
    let _order = any_order(host);
    let request = id();
    shell(
        host,
        &format!(
            "echo precious >~/target; rm -f deploy-status; ln -s ~/target deploy-status; ln -s ~/target deploy-status.{request}
             ln -sf ~/target deploy-host; put {request} $version $running; served deploy-status.{request}; echo $version >deploy-trigger; served
             stat -c %F deploy-status deploy-status.{request} deploy-host; head -qn 1 deploy-status deploy-status.{request}
             cat ~/target; rm ~/target"
        ),
    )
    .ok()
    .says_in_order(&["regular file\nregular file\nregular file\nok ", "ok ", "precious"]);
}

fn h29_a_directory_that_tells_nothing(host: &Host) {
    host.baseline();
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    {
        // What is written below a FUSE file system makes no event in it, as what another machine writes on a network's.
        let _quiet = host.changed_by_root(
            "mkdir -p /mnt/quiet; mount -t tmpfs quiet /mnt/quiet; mkdir /mnt/quiet/lower /mnt/quiet/work
             cp -a /home/app/tagship/demo /mnt/quiet/upper
             fuse-overlayfs -o lowerdir=/mnt/quiet/lower,upperdir=/mnt/quiet/upper,workdir=/mnt/quiet/work,allow_other,timeout=0 /home/app/tagship/demo",
            "umount -l /home/app/tagship/demo; umount -l /mnt/quiet",
        );
        // Long enough to look more than once.
        let _slow = slow_by(host, 6);
        let [first, second] = [id(), id()];
        // The first is deployed while the second appears, of which nobody is told.
        let ran = shell(
            host,
            &format!(
                "put {first} {} {}; systemctl --user start --no-block tagship@demo.service
                 told {first} '\"demo-worker\",\"event\":\"restart\"'
                 full {second} $version $running >/mnt/quiet/upper/.new; mv -n /mnt/quiet/upper/.new /mnt/quiet/upper/deploy-request.{second}
                 start=$(date +%s); (cd /mnt/quiet/upper; await '[ -e deploy-log.{second} ]')
                 echo took $(($(date +%s) - start)); [ ! -e deploy-status.{first} ]; served; cat deploy-status.{first} deploy-status.{second}",
                other.tag, other.digest
            ),
        );
        let ran = ran.ok().says("Outcome: deployed");
        let seconds: u32 = ran.text.lines().find_map(|line| line.strip_prefix("took ")).unwrap().parse().unwrap();
        assert!(seconds <= 10, "{}", ran.text);
    }
    // What runs now is told in the directory that is there again.
    host.app("systemctl --user start tagship@demo").ok();
    // With nobody to tell at all the timer finds it, and brings the path unit back.
    let directory = "~/.config/systemd/user/tagship@demo.timer.d";
    let _quick = host.changed(
        &format!(
            "mkdir -p {directory}; printf '[Timer]\\nOnUnitInactiveSec=\\nOnUnitInactiveSec=2s\\n' >{directory}/quick.conf
             systemctl --user daemon-reload; systemctl --user restart tagship@demo.timer"
        ),
        &format!(
            "rm -r {directory}; systemctl --user daemon-reload
             systemctl --user restart tagship@demo.timer; systemctl --user start tagship@demo.path"
        ),
    );
    let request = id();
    shell(
        host,
        &format!(
            "systemctl --user stop tagship@demo.path; put {request} $version $running
             await '[ -e deploy-status.{request} ]'; cat deploy-status.{request}
             timeout 20 bash -c 'until systemctl --user --quiet is-active tagship@demo.path; do :; done'"
        ),
    )
    .ok()
    .within(Duration::from_secs(50))
    .says("ok ");
}

fn h35_what_is_planted_at_a_name_of_the_host(host: &Host) {
    host.baseline();
    let _order = any_order(host);
    for (plant, what) in [
        ("ln -s ~/target $1", "a link"),
        ("ln -s /nowhere/at/all $1", "a dangling link"),
        ("ln ~/target $1", "a hard link"),
        ("mkfifo $1", "a FIFO"),
        ("mkdir $1", "a directory"),
        ("mkdir $1; : >$1/file", "a directory with a file"),
    ] {
        let request = id();
        shell(
            host,
            &format!(
                "plant() {{ {plant}; }}; echo precious >~/target
                 for name in deploy-host deploy-status deploy-log.{request} deploy-status.{request}; do rm -f $name; plant $name; done
                 put {request} $version $running; served deploy-status.{request}; echo $version >deploy-trigger; served
                 stat -c %F:%h deploy-host deploy-status deploy-log.{request} deploy-status.{request}
                 head -qn 1 deploy-status deploy-status.{request}; grep -c claimed deploy-log.{request}; jq .protocol deploy-host
                 cat ~/target; rm ~/target; rm -rf .tagship-aside; echo {what}"
            ),
        )
        .ok()
        .says_in_order(&[&"regular file:1\n".repeat(4), "ok ", "ok ", "1\n1\nprecious\n"]);
    }
}
