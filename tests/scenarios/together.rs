//! Several signers sign one image at the same moment, on real registries.

use std::fmt::Write as _;

use tagship_tests::{Host, IMAGE, Image, Scenario};

use super::REFERRERS_IMAGE;
use super::matrix::{Log, cosign2_sign, cosign3_sign, tagship_sign};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("what_was_reported_as_signed_is_there", what_was_reported_as_signed_is_there),
    ("what_cosign_undid_is_mended_by_another_run", what_cosign_undid_is_mended_by_another_run),
];

/// Images that all of them sign.
const ROUNDS: usize = 5;

/// The keys of the jobs that sign with tagship at once.
const KEYS: [&str; 4] = ["first", "second", "third", "fourth"];

/// Registries have no compare-and-swap; yet of jobs that sign with tagship at once none loses what another reported.
fn what_was_reported_as_signed_is_there(host: &Host) {
    make_keys(host);
    let mut lost = String::new();
    for repository in [IMAGE, REFERRERS_IMAGE] {
        for round in 1..=ROUNDS {
            let image = host.unsigned_in(repository);
            let reported = all_sign(host, KEYS.map(|key| (key, as_key(key, &tagship_sign(&image, Log::Off, FORMATS)))));
            for key in KEYS {
                // A job that gives up says so, which is as good; but four jobs are few enough for none to have to.
                if !reported.contains(&key) {
                    let said = host.app(&format!("cat {key}.log")).text;
                    writeln!(lost, "{repository}, round {round}: {key} did not sign\n{said}").unwrap();
                }
            }
            for missing in missing(host, &image, &reported) {
                writeln!(lost, "{repository}, round {round}: {missing} was reported, and is not there").unwrap();
            }
        }
    }
    assert!(lost.is_empty(), "{lost}");
}

/// cosign puts what it read a moment ago with its own signature added, and does not look again: whoever signed
/// meanwhile is undone. Another run of the job adds what is missing, and takes nothing away.
fn what_cosign_undid_is_mended_by_another_run(host: &Host) {
    make_keys(host);
    let image = host.unsigned();
    let ours = |key| as_key(key, &tagship_sign(&image, Log::Off, FORMATS));
    all_sign(
        host,
        [
            ("first", ours("first")),
            ("second", ours("second")),
            ("cosign2", cosign2_sign(&image, Log::Off, "~/cosign.key")),
            ("cosign3", cosign3_sign(&image, Log::Off, "~/other.key")),
        ],
    );
    let theirs = |host| [there(host, &image, "cosign2", "cosign"), there(host, &image, "cosign3", "other")];
    let before = theirs(host);
    for key in ["first", "second"] {
        host.ci(&ours(key)).ok();
    }
    assert_eq!(missing(host, &image, &["first", "second"]), Vec::<String>::new());
    assert_eq!(theirs(host), before, "a signature of cosign's was lost");
}

/// What tagship writes here: each format has a list of its own to be lost from.
const FORMATS: &str = "sig,bundle";

fn make_keys(host: &Host) {
    host.ci(&format!(
        "for key in {}; do [ -e $key.key ] || TAGSHIP_KEY_PASSWORD=correct-horse tagship keygen --output $key; done",
        KEYS.join(" ")
    ))
    .ok();
}

/// The same command with another key than the release's.
fn as_key(key: &str, command: &str) -> String {
    format!("export TAGSHIP_KEY=\"$(cat ~/{key}.key)\" TAGSHIP_KEY_PASSWORD=correct-horse; {command}")
}

/// Starts all commands at once; gives the names of those that ended well. Each one's output is in NAME.log.
fn all_sign<const N: usize>(host: &Host, signers: [(&'static str, String); N]) -> Vec<&'static str> {
    let mut script = String::new();
    for (name, command) in &signers {
        writeln!(script, "( {{ {command}; }} >{name}.log 2>&1; echo \"{name} $?\" ) &").unwrap();
    }
    let ran = host.ci(&format!("{script}wait")).ok();
    signers.map(|(name, _)| name).into_iter().filter(|name| ran.text.contains(&format!("{name} 0\n"))).collect()
}

/// Of these keys, the signatures that are not there.
fn missing(host: &Host, image: &Image, keys: &[&str]) -> Vec<String> {
    let wanted = keys.iter().flat_map(|key| [("cosign", *key), ("cosign3", *key)]);
    wanted
        .filter(|(program, key)| !there(host, image, program, key))
        .map(|(program, key)| format!("{key}'s for {program}"))
        .collect()
}

/// Whether cosign 2 finds a `.sig` by a key, or cosign 3 a bundle.
fn there(host: &Host, image: &Image, program: &str, key: &str) -> bool {
    let program = program.trim_end_matches("2");
    host.app(&format!("{program} verify --insecure-ignore-tlog --key ~/{key}.pub {}", image.pinned())).code == 0
}
