//! What somebody with the mount can plant in the directory: nothing of it is followed, read, or waited for.

use tagship_tests::{Host, Scenario};

use super::{alive, any_order, counted, id, shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h06_a_directory_as_a_request_is_moved_out_of_the_way", h06_a_directory_as_a_request),
    ("h07_a_fifo_as_a_request_hangs_nobody", h07_a_fifo_as_a_request_hangs_nobody),
    ("h08_a_link_as_a_request_is_not_followed", h08_a_link_as_a_request_is_not_followed),
    ("h09_a_link_at_the_answer_is_replaced", h09_a_link_at_the_answer_is_replaced),
    ("h35_what_is_planted_at_a_name_of_the_host_is_replaced", h35_what_is_planted_at_a_name_of_the_host),
];

fn h06_a_directory_as_a_request(host: &Host) {
    let _counted = counted(host);
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
             ln -sf ~/target deploy-host; put {request} $version $running; served; echo $version >deploy-trigger; served
             stat -c %F deploy-status deploy-status.{request} deploy-host; head -qn 1 deploy-status deploy-status.{request}
             cat ~/target; rm ~/target"
        ),
    )
    .ok()
    .says_in_order(&["regular file\nregular file\nregular file\nok ", "ok ", "precious"]);
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
                 put {request} $version $running; served; echo $version >deploy-trigger; served
                 stat -c %F:%h deploy-host deploy-status deploy-log.{request} deploy-status.{request}
                 head -qn 1 deploy-status deploy-status.{request}; grep -c claimed deploy-log.{request}; jq .protocol deploy-host
                 cat ~/target; rm ~/target; rm -rf .tagship-aside; echo {what}"
            ),
        )
        .ok()
        .says_in_order(&[&"regular file:1\n".repeat(4), "ok ", "ok ", "1\n1\nprecious\n"]);
    }
}
