//! Hundreds of requests in a few seconds, by many writers, of every form and type of file.

use std::time::Duration;

use tagship_tests::{Host, Scenario};

use super::{alive, any_order, id, shell};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("h05_a_burst_of_requests_leaves_the_path_unit_alive", h05_a_burst_leaves_the_path_unit_alive)];

const WRITERS: usize = 20;

/// By each writer: one of each kind.
const REQUESTS: usize = 11;

/// Further ones that are put and withdrawn, as long as only one of both ends of that was seen.
const FURTHER: usize = 40;

/// Single ones afterwards, each of which has a run of its own: systemd's own limits are 5 starts in 10 s, and 200
/// triggers in 2 s. They are of each kind in turn.
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
  put $1 $version $running; expect $1 good; plain $n
  put $2 v0.0.$n $none; expect $2 unsigned
  full $3 $version $running | sed 's/^Boot:/Boots:/' >$new; mv -n $new deploy-request.$3; expect $3 malformed
  mkfifo $new; mv -nT $new deploy-request.$4; expect $4 no-file
  mkdir $new; ((n % 2)) || : >$new/file; mv -nT $new deploy-request.$5; expect $5 no-file; plain $((n + 1))
  ((n % 2)) && ln -s /nowhere $new || ln -s ~/cosign.key $new; mv -nT $new deploy-request.$6; expect $6 no-file
  # Changed while it is read: under its name from its first byte on, and by every second writer beyond its claim.
  if ((n % 2)); then
    { while read -r line; do echo "$line"; done < <(full $7 $version $running); } >deploy-request.$7
  else
    { full $7 $version $running | head -n 3; gone deploy-request.$7; full $7 $version $running | tail -n +4; } >deploy-request.$7
    echo $7 >>~/burst/changed
  fi
  expect $7 changed
  withdrawn $8 $n
  put $9 $version $running; ln deploy-request.$9 deploy-request.${10} 2>/dev/null || true; expect $9 linked; plain $((n + 2))
  unix_socket $new; mv -nT $new deploy-request.${11}; expect ${11} no-file
}
# plain KIND: a plain request, of the kind with this number.
plain() {
  local new=.plain-$1-$BASHPID
  case $(($1 % 6)) in
    0) echo $version >$new ;;
    1) printf 'bad\nok pwn\n' >$new ;;
    2) mkfifo $new ;;
    3) mkdir $new ;;
    4) ln -s /nowhere $new ;;
    5) unix_socket $new ;;
  esac
  mv -fT $new deploy-trigger 2>/dev/null || rm -rf $new
}
unix_socket() { perl -e 'use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])) or die' $1; }
# withdrawn ID N: puts it and takes it back 20 ms times N later, unless it was claimed. The claims come 100 ms apart.
withdrawn() {
  put $1 $version $running
  sleep $(printf '0.%02d' $((2 * ($2 % 20))))
  if mv -nT deploy-request.$1 .withdrawn-$1 2>/dev/null; then echo $1 >>~/burst/withdrawn; rm .withdrawn-$1; else echo $1 >>~/burst/late; expect $1 good; fi
}
gone() { until [ ! -e $1 ]; do inotifywait -qq -t 1 -e move_self $1 2>/dev/null || true; done; }
# expect ID WHAT: what came under this identifier, each of which has answers of its own.
expect() { echo $1 $2 >>~/burst/expected; }
# seen NAME: until the watcher has written down all that has happened so far.
seen() {
  : >.new-seen; mv .new-seen .seen-$1; timeout 30 grep -q -m 1 -x .seen-$1 < <(tail -n +1 -F ~/burst/events 2>/dev/null); rm .seen-$1
}
claims() { grep -c '^.tagship-trigger' ~/burst/events || true; }
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
    let further: Vec<String> = (0..FURTHER).map(|_| id()).collect();
    let ran = shell(
        host,
        &format!(
            r#"{WRITER}
            timeout 600 inotifywait -m -e moved_to --format %f . >~/burst/events 2>~/burst/watching & watch=$!
            timeout 30 grep -q -m 1 established < <(tail -n +1 -F ~/burst/watching 2>/dev/null)
            started=$(date +%s%N); wrong=0
            {writers}
            for job in $(jobs -p); do [ $job = $watch ] || wait $job; done
            echo "written in $((($(date +%s%N) - started) / 1000000)) ms"
            n=0
            for id in {further}; do
              if [[ -s ~/burst/withdrawn && -s ~/burst/late ]]; then break; fi
              withdrawn $id $n; n=$((n + 1))
            done
            served; served
            echo "answered in $((($(date +%s%N) - started) / 1000000)) ms"
            seen burst; burst=$(claims)
            for ((i = 0; i < {SINGLE}; i++)); do
              plain $i; served; read -r word what <deploy-status
              if ((i % 6)); then [[ $word = fail ]]; else [[ "$word $what" = "ok $version" ]]; fi || {{ echo "of kind $((i % 6)): $word $what"; wrong=1; }}
            done
            echo "all done in $((($(date +%s%N) - started) / 1000000)) ms"
            seen end; kill $watch
            while read -r id what; do
              times=$(grep -cx "deploy-status.$id" ~/burst/events) || true
              [[ $times = 1 ]] && grep -qx "Request: $id" deploy-status.$id || {{ echo "$id: $times answers"; wrong=1; }}
              [ -e deploy-status.$id ] || continue
              kind=$(sed -n 's/^Kind: //p' deploy-status.$id) outcome=$(sed -n 's/^Outcome: //p' deploy-status.$id)
              case $what:$outcome:$kind in
                *:superseded:superseded) [[ $what != malformed && $what != no-file ]] ;;
                good:unchanged:unchanged | linked:unchanged:unchanged | changed:unchanged:unchanged | changed:refused:request-invalid) ;;
                unsigned:refused:no-signature | malformed:refused:request-key-unknown | no-file:refused:not-a-file) ;;
                *) false ;;
              esac || {{ echo "$id, which was $what, is $outcome: $kind"; wrong=1; }}
            done <~/burst/expected
            while read -r id; do [ ! -e deploy-status.$id ] || {{ echo "$id was withdrawn, and answered"; wrong=1; }}; done < <(cat ~/burst/withdrawn 2>/dev/null)
            claims=$(claims); answers=$(grep -cx deploy-status ~/burst/events) || true
            [[ $claims = "$answers" ]] || {{ echo "$claims plain requests claimed, $answers answered"; wrong=1; }}
            [[ $burst -gt 0 && $claims -ge $((burst + {SINGLE})) ]] || {{ echo "$burst plain requests claimed in the burst, $claims in all"; wrong=1; }}
            [[ -s ~/burst/withdrawn && -s ~/burst/late ]] || {{ echo "not both withdrawn and too late for that"; wrong=1; }}
            left=$(ls -A | grep -E '^deploy-(request|trigger)|^\.(new|plain|tagship-(request|trigger|writing))') || true
            [[ -z $left ]] || {{ echo "left: $left"; wrong=1; }}
            grep -h ^Kind: deploy-status.* | sort | uniq -c
            echo "changed beyond their claim: $(while read -r id; do grep -h -e ^Outcome: -e ^Kind: deploy-status.$id; done <~/burst/changed | sort | uniq -c | tr -s '\n ' ' ')"
            echo "$(wc -l <~/burst/expected) expected, $burst plain in the burst, $(wc -l <~/burst/withdrawn) withdrawn, $(wc -l <~/burst/late) too late for that, $(wc -l <~/burst/measured) runs"
            awk '{{ if ($1 > memory) memory = $1; time += $2 }} END {{ print "measured", memory, time }}' ~/burst/measured
            exit $wrong"#,
            further = further.join(" ")
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
