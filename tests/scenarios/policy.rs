//! Podman's own policy, made and proven by `tagship-host policy`: what it prints, writes, and leaves alone.
//!
//! Each scenario begins without files of the user's and ends so, since all later pulls of this host would heed them.

use tagship_tests::{Host, IMAGE, Ran, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_policy_is_shown_and_nothing_is_written", shown_only),
    ("a_policy_is_written_and_podman_enforces_it", written_and_enforced),
    ("a_policy_is_merged_with_what_others_wrote", merged),
    ("a_policy_that_refuses_what_runs_is_never_written", wrong_key),
    ("a_policy_that_lets_unsigned_images_through_is_never_written", hole),
    ("a_policy_that_podman_cannot_read_is_refused", unreadable),
    ("a_policy_with_several_keys_is_enforced", several_keys),
    ("a_policy_for_a_podman_without_sigstore_is_never_written", without_sigstore),
    ("a_policy_that_is_shown_to_an_old_podman_says_so", doubted),
    ("a_policy_is_not_written_untried_for_an_old_podman", untried_and_old),
    ("a_policy_that_fails_where_it_is_written_is_taken_back", second_check),
    ("a_policy_that_somebody_changed_meanwhile_is_left_to_him", meddled),
    ("what_the_check_of_a_policy_cannot_remove_is_a_warning", left_behind),
    ("the_policy_of_root_is_the_systems", of_root),
    ("a_policy_that_root_writes_for_a_user_stays_the_users", of_root_for_a_user),
    ("a_policy_can_be_written_before_the_first_release", before_the_first_release),
    ("an_interrupted_policy_leaves_nothing", interrupted),
];

const POLICY: &str = "~/.config/containers/policy.json";
const REGISTRIES: &str = "~/.config/containers/registries.d";
const NO_SIGNATURE: &str = "A signature was required, but no signature exists";

/// A host with a proven release, whose user has no policy of his own: now, and again when this is dropped.
struct Bare<'a>(&'a Host);

fn bare(host: &Host) -> Bare<'_> {
    host.baseline();
    let bare = Bare(host);
    bare.clear();
    bare
}

impl Bare<'_> {
    /// What a scenario has mended itself, or could not any more because it failed.
    fn clear(&self) {
        self.0.app(&format!(
            "rm -rf {POLICY} {REGISTRIES} ~/stand-in ~/stranger.*; podman unshare rm -rf ~/.local/share/containers/.tagship-check-*; test ! -e ~/demo.saved || mv ~/demo.saved ~/.config/tagship/demo.yaml"
        ));
        self.0.root(
            "rm -rf /etc/containers/registries.d /etc/containers/stranger.pub /root/.config /root/.local
             test ! -e /root/policy.saved || mv /root/policy.saved /etc/containers/policy.json
             systemctl kill --signal=CONT nginx.service",
        );
    }

    /// Changes the app's configuration by a sed script, until the end.
    fn configure(&self, script: &str) {
        self.0
            .app(&format!("cp ~/.config/tagship/demo.yaml ~/demo.saved; sed -i '{script}' ~/.config/tagship/demo.yaml"))
            .ok();
    }

    /// Puts a podman before the real one, which does another thing in some cases, written as those of a shell: first
    /// the home that it is given, then its arguments, each between spaces. Asks for a policy with it.
    fn with_podman(&self, case: &str, flags: &str) -> (Ran, [String; 2]) {
        self.0
            .app(&format!(
                "mkdir ~/stand-in; cat >~/stand-in/podman <<'SH'
#!/bin/sh
case \" $HOME $* \" in
{case} ;;
*) exec /usr/bin/podman \"$@\" ;;
esac
SH
chmod 755 ~/stand-in/podman"
            ))
            .ok();
        let before = traces(self.0);
        let ran = self.0.app(&format!("PATH=$HOME/stand-in:$PATH tagship-host policy demo {flags}"));
        (ran, [before, traces(self.0)])
    }

    /// A key that signed nothing here.
    fn stranger(&self) {
        self.0.key_pair("stranger");
        self.0.root("install -m 644 /home/app/stranger.pub /etc/containers/stranger.pub").ok();
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn policy(host: &Host, flags: &str) -> Ran {
    host.app(&format!("tagship-host policy demo {flags}"))
}

/// Everything that a check could leave behind: images and their names, Podman's files, rooms beside the store.
fn traces(host: &Host) -> String {
    let images = host.images("--all --format '{{.Id}} {{.Names}}'");
    let script = "podman ps --format '{{.Names}} {{.ImageID}}' | sort
         find ~/.config/containers /etc/containers -type f,l -exec sha256sum {} + | sort -k 2
         ls -A ~/.local/share/containers ~/.local/state/tagship/demo; pgrep --count catatonit || true";
    images + &host.app(script).text
}

/// The digest that was proven here last: what the check pulls.
fn proven(host: &Host) -> String {
    host.app("tagship-host status demo --json | jq --raw-output .running.digest").ok().trimmed().to_owned()
}

/// That digest, and one of an image in the same repository that nobody signed. It has bytes of its own: other scenarios
/// sign what they push.
fn signed_and_unsigned(host: &Host) -> (String, String) {
    let unsigned = host.release().unsigned();
    (proven(host), unsigned.digest)
}

fn pull(host: &Host, digest: &str) -> Ran {
    host.app(&format!("podman pull --quiet {IMAGE}@{digest}"))
}

fn shown_only(host: &Host) {
    let _bare = bare(host);
    let before = traces(host);
    policy(host, "")
        .ok()
        .says_in_order(&[
            "/home/app/.config/containers/policy.json <==",
            "insecureAcceptAnything",
            "\"sigstoreSigned\"",
            "/etc/containers/cosign-app.pub",
            "matchRepository",
            "/home/app/.config/containers/registries.d/tagship-registry.test-5000-chris-demo.yaml <==",
            "use-sigstore-attachments: true",
            "--- /etc/containers/policy.json",
            "+++ /home/app/.config/containers/policy.json",
        ])
        .says("no longer reads /etc/containers/policy.json")
        .says("nothing was written");
    assert_eq!(before, traces(host));
    // Tried before it is written, by real pulls, and nothing of these stays.
    policy(host, "--check").ok().says("podman pulls it").says("podman refuses").never_says("wrote");
    assert_eq!(before, traces(host));
    // Where the user is does not matter, even if he may not be there.
    host.app("mkdir ~/closed; cd ~/closed; chmod 0 .; tagship-host policy demo --check; ended=$?; rmdir ~/closed; exit $ended")
        .ok()
        .says("podman pulls it");
    // What nobody could read is not written, whoever could not.
    // A reader that has ended before there is anything to read.
    for nowhere in ["exec 4>/dev/full", "exec 4> >(true); wait $!"] {
        host.app(&format!("{nowhere}; tagship-host policy demo --write >&4"))
            .exits(1)
            .says("cannot write to standard output")
            .says("hint:");
        assert_eq!(before, traces(host), "{nowhere}");
    }
}

fn written_and_enforced(host: &Host) {
    let _bare = bare(host);
    let (signed, unsigned) = signed_and_unsigned(host);
    pull(host, &unsigned).ok();
    let before = host.state();
    policy(host, "--write").ok().says("podman pulls it").says("podman refuses").says("wrote /home/app/.config");
    assert_eq!(before, host.state(), "production is as it was");
    pull(host, &signed).ok();
    pull(host, &unsigned).exits(125).says(NO_SIGNATURE);
    // The service, by which deploys pull, reads the same files.
    host.app(&format!(
        "curl --silent --unix-socket $XDG_RUNTIME_DIR/podman/podman.sock -X POST 'http://d/v1.41/images/create?fromImage={IMAGE}@{unsigned}'"
    ))
    .ok()
    .says(NO_SIGNATURE);
    // A release goes through under it.
    host.release().run().ok();
    let written = traces(host);
    policy(host, "--write").ok().says("nothing would change").says("podman refuses").never_says("wrote");
    assert_eq!(written, traces(host));
}

fn merged(host: &Host) {
    let _bare = bare(host);
    host.root("mkdir -p /etc/containers/registries.d; printf 'default-docker:\\n  lookaside: file:///var/lib/containers/sigstore\\n' >/etc/containers/registries.d/default.yaml").ok();
    // A policy of somebody's: refused unless named, a rule for the same image, one of another's, its own indentation.
    host.app(&format!(
        r#"cat >{POLICY} <<'JSON'
{{
  "default": [{{"type": "reject"}}],
  "transports": {{
    "docker-daemon": {{"": [{{"type": "insecureAcceptAnything"}}]}},
    "docker": {{
      "quay.io/other": [ {{"type": "insecureAcceptAnything"}} ],
      "{IMAGE}": [{{"type": "insecureAcceptAnything"}}]
    }}
  }}
}}
JSON"#
    ))
    .ok();
    let (signed, unsigned) = signed_and_unsigned(host);
    policy(host, "--write")
        .ok()
        .says("-      \"registry.test:5000/chris/demo\": [{\"type\": \"insecureAcceptAnything\"}]")
        .says("+          \"type\": \"sigstoreSigned\"")
        .says("had a rule that is replaced: it accepts everything")
        .says(
            "link /home/app/.config/containers/registries.d/default.yaml -> /etc/containers/registries.d/default.yaml",
        );
    let text = host.app(&format!("cat {POLICY} {REGISTRIES}/default.yaml")).ok();
    text.says("  \"default\": [{\"type\": \"reject\"}],\n")
        .says("      \"quay.io/other\": [ {\"type\": \"insecureAcceptAnything\"} ],\n")
        .says("    \"docker-daemon\": {\"\": [{\"type\": \"insecureAcceptAnything\"}]},\n")
        .says("lookaside: file:///var/lib/containers/sigstore");
    pull(host, &signed).ok();
    pull(host, &unsigned).exits(125).says(NO_SIGNATURE);
    let other = IMAGE.replace("demo", "other");
    host.app(&format!(
        "podman push --quiet --authfile ~/ci-auth.json localhost/base:1 {other}:1 && podman pull --quiet {other}:1"
    ))
    .exits(125)
    .says("is rejected by policy");
}

fn wrong_key(host: &Host) {
    let bare = bare(host);
    bare.stranger();
    bare.configure("s#cosign-app.pub#stranger.pub#");
    let before = traces(host);
    let ran = policy(host, "--write");
    assert_eq!(before, traces(host));
    ran.exits(1)
        .says("nothing was written")
        .says("Podman refuses the signed image")
        .says("signature verification failed")
        .says("hint: it is signed by another key");
}

fn hole(host: &Host) {
    let _bare = bare(host);
    // A rule for the one tag that the check pulls without a signature.
    let digest = proven(host).replace(':', "-");
    host.app(&format!(
        r#"printf '{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{IMAGE}:{digest}.sig":[{{"type":"insecureAcceptAnything"}}]}}}}}}' >{POLICY}"#
    ))
    .ok();
    let before = traces(host);
    policy(host, "--write")
        .exits(1)
        .says("warning:")
        .says("it accepts everything, signed or not")
        .says("Podman lets registry.test:5000/chris/demo:sha256-")
        .says("nothing was written");
    assert_eq!(before, traces(host));
}

fn unreadable(host: &Host) {
    let _bare = bare(host);
    for (text, words) in [
        ("{", "policy.json"),
        (r#"{"default": []}"#, "empty list"),
        (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, "twice"),
    ] {
        host.app(&format!("printf '%s' '{text}' >{POLICY}")).ok();
        let before = traces(host);
        policy(host, "--write").exits(2).says(words).says("hint:");
        assert_eq!(before, traces(host), "{text}");
    }
    host.app(&format!("rm {POLICY}; mkdir {REGISTRIES}; printf 'docker: [' >{REGISTRIES}/bad.yaml")).ok();
    policy(host, "").exits(2).says("bad.yaml").says("hint:");
    host.app(&format!("rm -r {REGISTRIES}; cp /etc/containers/policy.json {POLICY}; chmod 0444 {POLICY}")).ok();
    let before = traces(host);
    policy(host, "--write").exits(2).says("policy.json is read-only").says("hint:");
    assert_eq!(before, traces(host), "a read-only file");
}

fn several_keys(host: &Host) {
    let bare = bare(host);
    bare.stranger();
    bare.configure("s#keys: .*#keys: [/etc/containers/stranger.pub, /etc/containers/cosign-app.pub]#");
    let ran = policy(host, "--write");
    ran.ok().says("\"keyPaths\"").says("Podman 5.2 or later").says("podman refuses").says("wrote");
}

fn without_sigstore(host: &Host) {
    let bare = bare(host);
    // Debian 12's Podman, word by word, where it is asked to pull.
    let case = "*' pull '*) echo 'Error: Source image rejected: Debian-local change: sigstore disabled' >&2; exit 125";
    let (ran, [before, after]) = bare.with_podman(case, "--write");
    assert_eq!(before, after);
    ran.exits(1).says("nothing was written").says("built without sigstore signatures").says("hint: Debian 12's Podman");
}

/// What is only shown may be copied by hand.
fn doubted(host: &Host) {
    const DOUBT: &str = "may be built without sigstore signatures";
    for (case, said) in [("echo 4.3.1", true), ("echo 4.4.0", false), ("exit 1", false)] {
        let bare = bare(host);
        let (ran, [before, after]) = bare.with_podman(&format!("*' version '*) {case}"), "");
        assert_eq!(before, after);
        let ran = ran.ok().says("\"sigstoreSigned\"").says("nothing was written");
        match said {
            true => ran.says("warning: this is Podman 4.3, which").says(DOUBT).says("hint: Debian 12's Podman"),
            false => ran.never_says(DOUBT).never_says("warning:"),
        };
    }
}

fn untried_and_old(host: &Host) {
    let bare = bare(host);
    let (ran, [before, after]) = bare.with_podman("*' version '*) echo 4.3.1", "--write --no-check");
    assert_eq!(before, after);
    ran.exits(1).says("Podman 4.3 is too old").says("hint: leave out --no-check").never_says("wrote");
}

/// Where a Podman reads the real files: the second check, after the writing.
const WRITTEN: &str = "' /home/app '*' pull '*)";

fn second_check(host: &Host) {
    let bare = bare(host);
    let case = format!("{WRITTEN} echo 'Error: Source image rejected: {NO_SIGNATURE}' >&2; exit 125");
    let (ran, [before, after]) = bare.with_podman(&case, "--write");
    assert_eq!(before, after);
    ran.exits(1)
        .says("podman refuses")
        .says("the check failed after the files were written; all of them are as they were before: Podman finds no")
        .never_says("nothing was written")
        .never_says("wrote");
}

fn meddled(host: &Host) {
    let bare = bare(host);
    let case = format!(
        r#"{WRITTEN} echo '{{"default":[{{"type":"reject"}}]}}' >~/.config/containers/policy.json; exec /usr/bin/podman "$@""#
    );
    let (ran, _) = bare.with_podman(&case, "--write");
    ran.exits(1)
        .says("could not all be put back (/home/app/.config/containers/policy.json: somebody changed it")
        .says("Podman refuses the signed image")
        .says("is rejected by policy")
        .says("hint: put these back by hand");
    // His is left, and with what he wrote nothing is asked of anybody's signature.
    host.app(&format!("cat {POLICY} && test ! -e {REGISTRIES}")).ok().says("reject").never_says("sigstoreSigned");
}

fn left_behind(host: &Host) {
    let bare = bare(host);
    // The store has a directory that its user cannot look into, and Podman does not help to remove it.
    let case = r#"*' unshare '*) exit 1 ;;
*' pull '*) /usr/bin/podman "$@"; code=$?; { mkdir -p "$2/kept/in"; chmod 0 "$2/kept"; } 2>/dev/null; exit $code"#;
    let (ran, _) = bare.with_podman(case, "--write");
    let ran = ran.ok().says_in_order(&[
        "wrote /home/app/.config/containers/policy.json",
        "warning: cannot remove /home/app/.local/share/containers/.tagship-check-",
        "hint: remove it by hand: `podman unshare rm -rf ",
    ]);
    let command = ran.text.rsplit('`').nth(1).unwrap_or_default();
    host.app(&format!("{command} && ls -A ~/.local/share/containers")).ok().never_says(".tagship-check");
}

fn of_root(host: &Host) {
    let _bare = bare(host);
    // Root's own Podman: root's configuration, and the account that the user's Podman has.
    host.root("cp /etc/containers/policy.json /root/policy.saved; mkdir -p /root/.config/tagship /root/.config/containers; cp /home/app/.config/tagship/demo.yaml /root/.config/tagship/; cp /home/app/.config/containers/auth.json /root/.config/containers/").ok();
    let ran = host.root("REGISTRY_AUTH_FILE=/root/.config/containers/auth.json tagship-host policy demo --write");
    let written = host.root("cat /etc/containers/policy.json /etc/containers/registries.d/*; podman images --all; ls -A /var/lib/containers");
    // For the user, who has no files of his own, the system's hold.
    let (signed, unsigned) = signed_and_unsigned(host);
    let (pulled, refused) = (pull(host, &signed), pull(host, &unsigned));
    host.root("cp /root/policy.saved /etc/containers/policy.json; rm -rf /etc/containers/registries.d /root/.config /root/.local /root/policy.saved; podman image prune --all --force").ok();
    ran.ok()
        .says("+++ /etc/containers/policy.json")
        .says("wrote /etc/containers/policy.json and /etc/containers/registries.d/tagship-");
    written.ok().says("sigstoreSigned").says("use-sigstore-attachments").never_says("tagship-check");
    pulled.ok();
    refused.exits(125).says(NO_SIGNATURE);
}

fn of_root_for_a_user(host: &Host) {
    let _bare = bare(host);
    host.app(&format!("cp /etc/containers/policy.json {POLICY}; chmod 600 {POLICY}")).ok();
    let ran = host.root("HOME=/home/app XDG_STATE_HOME=$(mktemp -d) tagship-host policy demo --write --no-check");
    ran.ok().says("wrote /home/app/.config/containers/policy.json");
    host.app(&format!("stat --format '%U %a' {POLICY}; cat {POLICY}")).ok().says("app 600").says("sigstoreSigned");
}

fn before_the_first_release(host: &Host) {
    let bare = bare(host);
    bare.configure("$ a moving-tag: not-yet");
    let forgetful = |flags: &str| host.app(&format!("XDG_STATE_HOME=$(mktemp -d) tagship-host policy demo {flags}"));
    let before = traces(host);
    let checked = forgetful("--write");
    let after = traces(host);
    let unchecked = forgetful("--write --no-check");
    checked.exits(1).says("none was proven here").says("--no-check");
    assert_eq!(before, after);
    unchecked.ok().says("wrote /home/app/.config/containers/policy.json");
    policy(host, "--no-check").exits(2);
}

fn interrupted(host: &Host) {
    let _bare = bare(host);
    let before = traces(host);
    // A registry that takes every connection and never says a word.
    host.root("systemctl kill --signal=STOP nginx.service").ok();
    let ran = host.app(
        "exec 3< <(exec timeout 120 inotifywait --monitor --event create --format %f ~/.local/share/containers 2>&1); watch=$!
         while read -r -u 3 line && [[ $line != 'Watches established.' ]]; do :; done
         timeout --foreground 120 tagship-host policy demo --write & pid=$!
         while read -r -u 3 line && [[ $line != .tagship-check-* ]]; do :; done
         kill -TERM $pid; wait $pid; code=$?
         kill $watch; exit $code",
    );
    ran.exits(1).says("interrupted").within(std::time::Duration::from_secs(30));
    assert_eq!(before, traces(host));
}
