//! The trusted keys of a host: in whose hands they must be, under the units that are shipped, and which ones count.

use tagship_tests::{Host, IMAGE, Ran, Scenario, Version};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_key_in_anybody_elses_hands_is_refused_until_its_hint_is_followed", hands),
    ("a_key_on_the_way_through_a_home_is_refused", through_a_home),
    ("an_administrators_file_in_the_users_hands_is_refused", administrators_file),
    ("every_key_that_cosign_takes_counts", other_algorithms),
    ("a_key_that_does_not_count_is_named", keys_that_do_not_count),
];

const CONFIG: &str = "~/.config/tagship/demo.yaml";
const KEY: &str = "/etc/containers/cosign-app.pub";
/// A directory that the scenarios use, and remove.
const DIR: &str = "/etc/containers/trial";

/// Puts the host's own key back, whatever became of the scenario.
struct Mended<'a>(&'a Host);

impl Drop for Mended<'_> {
    fn drop(&mut self) {
        trust(self.0, KEY);
        self.0.app(&format!("sed -i '/^  rekor-keys: /d' {CONFIG}"));
        self.0.root(&format!(
            "rm -rf {DIR} /etc/tagship /home/app/keys /tmp/key.pub; chown root:root /etc/containers; chmod go-w /etc/containers"
        ));
    }
}

/// Makes one key the only trusted one.
fn trust(host: &Host, path: &str) {
    host.app(&format!("sed -i 's#^  keys: .*#  keys: [{path}]#' {CONFIG}"));
}

/// Asks for what runs already: an answer without a deploy.
fn ask(host: &Host, tag: &str) -> Ran {
    host.ask(tag, &host.digest(tag).unwrap())
}

/// A command between back-ticks of the answer's hint, as root types it.
fn command(answer: &Ran, at: usize) -> String {
    let reason = answer.text.lines().find(|line| line.starts_with("Reason: ")).unwrap_or_default();
    let hint = reason.split("; hint: ").nth(1).unwrap_or_else(|| panic!("no hint\n{}", answer.text));
    let command = hint.split('`').nth(2 * at + 1).unwrap_or_else(|| panic!("no command in {hint:?}"));
    command.replace("sudo ", "")
}

/// Whoever can write a key, or replace it, decides what runs here.
fn hands(host: &Host) {
    let (release, _mended) = (host.release(), Mended(host));
    let tag = release.tag();
    release.run().ok();
    let before = host.state().healthy();
    // The key of a log is trusted as much.
    let file = format!("{DIR}/rekor.pub");
    host.root(&format!("install -D -m 644 {KEY} {file}; chown app {file}")).ok();
    host.app(&format!("sed -i 's#^  keys: .*#&\\n  rekor-keys: [{file}]#' {CONFIG}")).ok();
    ask(host, &tag)
        .says("Outcome: refused")
        .says("Kind: not-root-owned")
        .says("`verify.rekor-keys`")
        .says(&format!("the file {file} belongs to uid 1000"));
    host.root(&format!("chown root:root {file}")).ok();
    ask(host, &tag).says("Outcome: unchanged");
    host.app(&format!("sed -i '/^  rekor-keys: /d' {CONFIG}")).ok();
    // A list that lets the user write one more file shows in its mode: struct posix_acl_xattr of linux/posix_acl_xattr.h,
    // by setxattr(2).
    let list = r#"perl -e '
        my ($any, $acl) = (0xffffffff, pack("V", 2));
        $acl .= pack("vvV", @$_) for [1, 6, $any], [2, 6, 1000], [4, 4, $any], [16, 6, $any], [32, 4, $any];
        my $call = `uname -m` =~ /x86_64/ ? 188 : 5;
        my ($file, $name) = ($ARGV[0], "system.posix_acl_access");
        syscall($call, $file, $name, $acl, length $acl, 0) == 0 or die "setxattr: $!"'"#;
    // Which of the hint's commands is followed: for a directory the first would have the key elsewhere.
    for (defect, spoil, says, at, hint) in [
        (
            "the user's file",
            "chown app FILE".to_owned(),
            "the file FILE belongs to uid 1000",
            0,
            "sudo chown root:root FILE",
        ),
        (
            "the user's file, for all to write",
            "chown app FILE; chmod 666 FILE".to_owned(),
            "the file FILE belongs to uid 1000",
            0,
            "sudo chown root:root FILE && sudo chmod go-w FILE",
        ),
        ("a file that the group may write", "chmod 664 FILE".to_owned(), "mode 0664", 0, "sudo chmod go-w FILE"),
        ("a file with an access control list", format!("{list} FILE"), "mode 0664", 0, "sudo chmod go-w FILE"),
        (
            "the user's directory",
            "chown app DIR".to_owned(),
            "the directory DIR belongs to",
            1,
            "sudo chown root:root DIR",
        ),
        ("a directory for all to write", "chmod 777 DIR".to_owned(), "the directory DIR can", 0, "sudo chmod go-w DIR"),
        (
            "the user's directory further up",
            "chown app DIR/..".to_owned(),
            "the directory /etc/containers belongs to",
            1,
            "sudo chown root:root /etc/containers",
        ),
        (
            "the user's link",
            "ln -sf key.pub DIR/link; chown -h app DIR/link".to_owned(),
            "the link DIR/link belongs to uid 1000",
            0,
            "sudo chown -h root:root DIR/link",
        ),
    ] {
        let file = format!("{DIR}/key.pub");
        let named = |text: &str| text.replace("FILE", &file).replace("DIR", DIR);
        host.root(&format!("rm -rf {DIR}; install -D -m 644 {KEY} {file}; {}", named(&spoil))).ok();
        trust(host, &if spoil.contains("link") { format!("{DIR}/link") } else { file.clone() });
        let refused = ask(host, &tag).says("Outcome: refused").says("Kind: not-root-owned").says(&named(says));
        assert_eq!(command(&refused, at), named(hint).replace("sudo ", ""), "{defect}");
        host.root(&command(&refused, at)).ok();
        ask(host, &tag).says("Outcome: unchanged");
        if defect.contains("access control list") {
            host.app(&format!("echo more >>{file}")).exits(1).says("Permission denied");
        }
    }
    assert_eq!(before, host.state());
}

/// A home stays its user's: the hint is to have the key elsewhere.
fn through_a_home(host: &Host) {
    let (release, _mended) = (host.release(), Mended(host));
    let tag = release.tag();
    release.run().ok();
    for (place, made) in [
        ("/home/app/keys/key.pub", format!("install -D -m 644 {KEY} /home/app/keys/key.pub")),
        // Root's own link, to root's own file.
        (
            "/etc/containers/trial/key.pub",
            format!(
                "install -D -m 644 {KEY} /home/app/keys/key.pub; mkdir {DIR}; ln -s /home/app/keys/key.pub {DIR}/key.pub"
            ),
        ),
        ("/tmp/key.pub", format!("install -m 644 {KEY} /tmp/key.pub")),
    ] {
        host.root(&format!("rm -rf {DIR} /etc/tagship; {made}")).ok();
        trust(host, place);
        let refused = ask(host, &tag).says("Kind: not-root-owned").never_says("chown");
        host.root(&command(&refused, 0)).ok();
        trust(host, "/etc/tagship/keys/key.pub");
        ask(host, &tag).says("Outcome: unchanged");
    }
}

/// To skip such a file would be to lift what it says.
fn administrators_file(host: &Host) {
    let (release, _mended) = (host.release(), Mended(host));
    let tag = release.tag();
    release.run().ok();
    host.root("install -d -o app /etc/tagship").ok();
    // Also where the user has taken it away: nothing then tells it from what never was there.
    let file = format!("printf 'image: {IMAGE}\\nfloor: v0.0.1\\n' >/etc/tagship/demo.yaml");
    for file in [&file, "rm /etc/tagship/demo.yaml"] {
        host.root(&format!("{file}; chown app /etc/tagship")).ok();
        let refused =
            ask(host, &tag).says("Kind: not-root-owned").says("the directory /etc/tagship belongs to uid 1000");
        assert_eq!(command(&refused, 0), "chown root:root /etc/tagship");
        host.root(&command(&refused, 0)).ok();
        ask(host, &tag).says("Outcome: unchanged");
    }
}

/// Makes a key pair with OpenSSL and has root install its public half.
fn key(host: &Host, name: &str, options: &str) -> String {
    host.root(&format!(
        "mkdir -p {DIR}; openssl genpkey {options} -out {DIR}/{name}.pem; chmod 644 {DIR}/{name}.pem
         openssl pkey -in {DIR}/{name}.pem -pubout -out {DIR}/{name}.pub"
    ))
    .ok();
    format!("{DIR}/{name}.pub")
}

/// Pushes a new version and signs it with OpenSSL and cosign, as a key of any kind can be used.
fn signed(host: &Host, key: &str, sign: &str) -> (String, String) {
    let Version { tag, digest } = host.release().unsigned();
    host.app(&format!(
        "set -e; cd $(mktemp -d); export DOCKER_CONFIG=$PWD; cp ~/ci-auth.json config.json
         cosign generate -a tag={tag} -a repository={IMAGE} {IMAGE}@{digest} >payload
         openssl {sign}; base64 -w0 signature >signature.txt
         cosign attach signature --payload payload --signature signature.txt {IMAGE}@{digest}",
        sign = sign.replace("KEY", &key.replace(".pub", ".pem"))
    ))
    .ok();
    (tag, digest)
}

const P384: &str = "-algorithm ec -pkeyopt ec_paramgen_curve:P-384";

fn other_algorithms(host: &Host) {
    host.baseline();
    let _mended = Mended(host);
    for (name, options, sign, flags) in [
        ("p384", P384, "dgst -sha256 -sign KEY -out signature payload", ""),
        ("p384", P384, "dgst -sha384 -sign KEY -out signature payload", "--signature-digest-algorithm sha384"),
        ("ed25519", "-algorithm ed25519", "pkeyutl -sign -rawin -inkey KEY -in payload -out signature", ""),
    ] {
        let key = key(host, name, options);
        let (tag, digest) = signed(host, &key, sign);
        host.app(&format!("cosign verify --insecure-ignore-tlog=true {flags} --key {key} {IMAGE}@{digest}")).ok();
        trust(host, KEY);
        host.ask(&tag, &digest).says("Outcome: refused").says("Kind: foreign-signature");
        trust(host, &key);
        host.ask(&tag, &digest).says("Outcome: deployed");
        host.state().healthy();
    }
    // What runs must be signed by a key that counts again afterwards.
    trust(host, KEY);
    host.release().run().ok();
}

fn keys_that_do_not_count(host: &Host) {
    let before = host.baseline();
    let _mended = Mended(host);
    for (name, options, says) in [
        ("rsa", "-algorithm rsa -pkeyopt rsa_keygen_bits:2048", "rsa.pub holds an RSA key"),
        ("p521", "-algorithm ec -pkeyopt ec_paramgen_curve:P-521", "p521.pub holds an ECDSA key on the curve P-521"),
        ("ed448", "-algorithm ed448", "ed448.pub holds an Ed448 key"),
        ("spelt-out", "-algorithm ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "not named"),
    ] {
        trust(host, &key(host, name, options));
        host.ask("v9.9.9", &format!("sha256:{}", "0".repeat(64)))
            .says("Outcome: refused")
            .says("Kind: bad-public-key")
            .says(says)
            .says("; hint: ");
        // Nobody need release anything to find out.
        host.app("tagship-host status demo").exits(2).says(says).says("hint: ");
    }
    let compressed = key(host, "compressed", P384);
    host.root(&format!("openssl pkey -pubin -in {compressed} -pubout -ec_conv_form compressed -out {compressed}")).ok();
    trust(host, &compressed);
    let refused = host
        .ask("v9.9.9", &format!("sha256:{}", "0".repeat(64)))
        .says("Kind: bad-public-key")
        .says("its point is compressed");
    let mended = host.root(&command(&refused, 0)).ok().text;
    host.root(&format!("echo '{mended}' >{compressed}")).ok();
    host.ask("v9.9.9", &format!("sha256:{}", "0".repeat(64))).never_says("bad-public-key");
    assert_eq!(before, host.state());
}
