//! Hundreds of requests in a few seconds, by many writers, of every form and type of file.

use std::time::Duration;

use tagship_tests::{Host, Scenario};

use super::{alive, any_order, id, shell};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("h05_a_burst_of_requests_leaves_the_path_unit_alive", h05_a_burst_leaves_the_path_unit_alive)];

const WRITERS: usize = 20;

/// By each writer: one of each kind.
const REQUESTS: usize = 10;

/// Single ones afterwards, each of which has a run of its own: systemd's own limits are 5 starts in 10 s, and 200
/// triggers in 2 s.
const SINGLE: usize = 30;

/// The most memory that any run may take, in KiB. One takes 8 MiB, most of it the program itself; requests are of 4 KiB
/// at most, so that 200 of them, held twice, are less than 2 MiB on top.
const MEMORY: u64 = 16 * 1024;

/// The most processor time of all runs together: 10 ms for each request and as much for each run, of which a third is
/// used. A run that spins would take a second each second.
const TIME: Duration = Duration::from_millis(10 * (WRITERS * REQUESTS + 2 * SINGLE) as u64);

/// One writer: a request of each kind, each for what runs already or for what is not signed.
const WRITER: &str = r#"
writer() {
  local n=$1 new=.new-$1 none=sha256:0000000000000000000000000000000000000000000000000000000000000000
  shift
  put $1 $version $running; expect $1; plain
  put $2 v0.0.$n $none; expect $2
  full $3 $version $running | sed 's/^Boot:/Boots:/' >$new; mv -n $new deploy-request.$3; expect $3
  mkfifo $new; mv -nT $new deploy-request.$4; expect $4
  mkdir $new; ((n % 2)) || : >$new/file; mv -nT $new deploy-request.$5; expect $5; plain
  ((n % 2)) && ln -s /nowhere $new || ln -s ~/cosign.key $new; mv -nT $new deploy-request.$6; expect $6
  # Changed while it is read: under its name from its first byte on.
  { while read -r line; do echo "$line"; done < <(full $7 $version $running); } >deploy-request.$7; expect $7
  put $8 $version $running
  if mv -nT deploy-request.$8 .withdrawn-$8 2>/dev/null; then echo $8 >>~/burst/withdrawn; rm .withdrawn-$8; else expect $8; fi
  put $9 $version $running; ln deploy-request.$9 deploy-request.${10} 2>/dev/null || true; expect $9; plain
}
plain() {
  rm -rf $new
  case $((RANDOM % 6)) in
    0) echo $version >$new ;;
    1) printf 'bad\nok pwn\n' >$new ;;
    2) mkfifo $new ;;
    3) mkdir $new ;;
    4) ln -s /nowhere $new ;;
    5) perl -e 'use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])) or die' $new ;;
  esac
  mv -fT $new deploy-trigger 2>/dev/null || rm -rf $new
}
expect() { echo $1 >>~/burst/expected; }
"#;

fn h05_a_burst_leaves_the_path_unit_alive(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    // Each run by a wrapper that writes down what it took: largest resident memory in KiB, user and system time in ms.
    let _measured = host.changed(
        r#"rm -rf ~/burst; mkdir -p ~/burst ~/.config/systemd/user/tagship@demo.service.d
        cat >~/burst/measure <<'PERL'
#!/usr/bin/perl
my $status = system(@ARGV);
my $usage = "\0" x 144;
syscall(98, -1, $usage) == 0 or die;
my @usage = unpack("q18", $usage);
open(my $out, ">>", "$ENV{HOME}/burst/measured");
printf $out "%d %d\n", $usage[4], ($usage[0] + $usage[2]) * 1000 + ($usage[1] + $usage[3]) / 1000;
exit($status >> 8);
PERL
        chmod +x ~/burst/measure
        printf '[Service]\nExecStart=\nExecStart=%%h/burst/measure %%h/.local/bin/tagship-host deploy %%i\n' \
            >~/.config/systemd/user/tagship@demo.service.d/measured.conf
        systemctl --user daemon-reload"#,
        "rm -rf ~/burst ~/.config/systemd/user/tagship@demo.service.d; systemctl --user daemon-reload",
    );
    let writers: String = (0..WRITERS)
        .map(|n| format!("writer {n} {} &\n", (0..REQUESTS).map(|_| id()).collect::<Vec<_>>().join(" ")))
        .collect();
    let ran = shell(
        host,
        &format!(
            r#"{WRITER}
            timeout 120 inotifywait -m -e moved_to --format %f . >~/burst/events 2>~/burst/watching & watch=$!
            timeout 30 grep -q -m 1 established < <(tail -n +1 -F ~/burst/watching 2>/dev/null)
            started=$(date +%s%N); writers=()
            exec 9<&0
            {writers}
            for job in $(jobs -p); do [ $job = $watch ] || wait $job; done
            echo "written in $((($(date +%s%N) - started) / 1000000)) ms"
            served; served
            echo "answered in $((($(date +%s%N) - started) / 1000000)) ms"
            for ((i = 0; i < {SINGLE}; i++)); do echo -x >.new; mv .new deploy-trigger; served; done
            echo "all done in $((($(date +%s%N) - started) / 1000000)) ms"
            : >.end; mv .end .ended; timeout 30 grep -q -m 1 -x .ended < <(tail -n +1 -F ~/burst/events 2>/dev/null); kill $watch; rm .ended
            wrong=0
            while read -r id; do
              times=$(grep -cx "deploy-status.$id" ~/burst/events) || true
              [[ $times = 1 ]] && grep -qx "Request: $id" deploy-status.$id || {{ echo "$id: $times answers"; wrong=1; }}
            done <~/burst/expected
            while read -r id; do [ ! -e deploy-status.$id ] || {{ echo "$id was withdrawn, and answered"; wrong=1; }}; done < <(cat ~/burst/withdrawn 2>/dev/null)
            claims=$(grep -c '^.tagship-trigger' ~/burst/events) || true; answers=$(grep -cx deploy-status ~/burst/events) || true
            [[ $claims = "$answers" ]] || {{ echo "$claims plain requests claimed, $answers answered"; wrong=1; }}
            left=$(ls -A | grep -E '^deploy-(request|trigger)|^\.(new|tagship-(request|trigger|writing))') || true
            [[ -z $left ]] || {{ echo "left: $left"; wrong=1; }}
            grep -h ^Kind: deploy-status.* | sort | uniq -c
            echo "$(wc -l <~/burst/expected) expected, $claims plain, $(wc -l 2>/dev/null <~/burst/withdrawn) withdrawn, $(wc -l <~/burst/measured) runs"
            awk '{{ if ($1 > memory) memory = $1; time += $2 }} END {{ print "measured", memory, time }}' ~/burst/measured
            exit $wrong"#
        ),
    )
    .ok();
    let [memory, time] = ran
        .text
        .lines()
        .find_map(|line| line.strip_prefix("measured "))
        .map(|line| line.split(' ').map(|word| word.parse::<u64>().unwrap()).collect::<Vec<_>>())
        .unwrap()[..]
    else {
        panic!("{}", ran.text)
    };
    assert!(memory < MEMORY, "a run took {memory} KiB\n{}", ran.text);
    assert!(u128::from(time) < TIME.as_millis(), "the runs took {time} ms\n{}", ran.text);
    assert_eq!(before, host.state());
    alive(host);
    host.release().run().ok();
}
