//! Who accepts whose signatures: every cell of the table in `docs/signatures.md`, and the table itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tagship_tests::{Host, IMAGE, Image, Ran, Scenario};

use super::{KEY, LOG_KEY, REFERRERS_IMAGE, URL};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("every_cell_of_the_documented_table", every_cell),
    ("the_host_verifies_as_tagship_does", the_host_verifies_as_tagship_does),
];

/// How many rows are worked on at once: most of their time they wait for each other's programs to start.
const WORKERS: usize = 3;

/// Who signs, and what with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// With these `signature-formats`.
    Tagship(&'static str),
    Cosign2,
    Cosign3,
    /// tagship's `.sig` alone; then somebody else adds a bundle.
    TagshipThenAnother,
}

/// Whether a log records the signature, and whether the verifier asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Recorded,
    Off,
    /// Not recorded, but asked for.
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verifier {
    Tagship,
    Cosign2,
    Cosign3,
    Podman,
}

/// What a verifier is to make of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepts,
    /// For a reason: in the table's words, and in its own.
    Refuses(&'static str, &'static str),
}

use Verdict::{Accepts, Refuses};

/// The signers, and how the table calls them and what they write.
const SIGNERS: [(Signer, &str, &str); 6] = [
    (Signer::Tagship("sig,bundle"), "tagship", "`.sig` and bundle"),
    (Signer::Tagship("sig"), "tagship, `sig` alone", "`.sig`"),
    (Signer::Tagship("bundle"), "tagship, `bundle` alone", "bundle"),
    (Signer::Cosign2, "cosign 2.5", "`.sig`"),
    (Signer::Cosign3, "cosign 3.1", "bundle"),
    (
        Signer::TagshipThenAnother,
        "tagship, `sig` alone; then another key with cosign 3.1",
        "`.sig`, and the other key's bundle",
    ),
];

const VERIFIERS: [(Verifier, &str); 4] = [
    (Verifier::Tagship, "tagship, tagship-host"),
    (Verifier::Cosign2, "cosign 2.5"),
    (Verifier::Cosign3, "cosign 3.1"),
    (Verifier::Podman, "Podman 5.4"),
];

/// The logs of the table's rows.
const LOGS: [(Log, &str); 3] = [(Log::Recorded, "recorded"), (Log::Off, "none"), (Log::Missing, "none, but asked for")];

/// What upstream does, measured: a change of any of it makes the test fail, and the table new.
fn expected(signer: Signer, log: Log, verifier: Verifier) -> Verdict {
    let (sig, bundle) = match signer {
        Signer::Tagship("sig,bundle") => (true, true),
        Signer::Tagship("bundle") | Signer::Cosign3 => (false, true),
        _ => (true, false),
    };
    match verifier {
        Verifier::Cosign2 if !sig => Refuses("finds no signature", "no signatures found"),
        Verifier::Podman if !sig => Refuses("finds no signature", "A signature was required, but no signature exists"),
        // It stops at the first thing that is wrong with the other's bundle, and that depends on the log.
        Verifier::Cosign3 if signer == Signer::TagshipThenAnother => Refuses(
            "sees the other key's bundle alone",
            match log {
                Log::Recorded => "transparency log certificate does not match",
                Log::Off => "accepted signatures do not match threshold, Found: 0, Expected 1",
                Log::Missing => "not enough verified log entries from transparency log: 0 < 1",
            },
        ),
        _ if log != Log::Missing => Accepts,
        Verifier::Tagship => Refuses("not recorded", "the signature has no transparency log entry, which is required"),
        Verifier::Cosign2 => Refuses("not recorded", "no matching signatures: signature not found in transparency log"),
        Verifier::Cosign3 if bundle => {
            Refuses("not recorded", "not enough verified log entries from transparency log: 0 < 1")
        }
        Verifier::Cosign3 => Refuses("not recorded", "no matching signatures: signature not found in transparency log"),
        Verifier::Podman => Refuses("not recorded", "missing dev.sigstore.cosign/bundle annotation"),
    }
}

/// Both registries, every signer, every log, every verifier. All cells are looked at before any is complained about.
fn every_cell(host: &Host) {
    let rows: Vec<_> = [IMAGE, REFERRERS_IMAGE]
        .into_iter()
        .flat_map(|repository| SIGNERS.map(|(signer, ..)| (repository, signer)))
        .flat_map(|(repository, signer)| [Log::Recorded, Log::Off].map(|log| (repository, signer, log)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((repository, signer, log)) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let image = host.unsigned_in(repository);
                    let ran = sign(host, &image, *signer, *log);
                    let found = match ran.code {
                        0 => cells(host, &image, *signer, *log),
                        _ => vec![format!(
                            "{signer:?} cannot sign in {repository}, log {log:?}\n$ {}\n{}",
                            ran.what, ran.text
                        )],
                    };
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} cells are not as documented:\n{}", wrong.len(), wrong.join("\n"));
    documented(&table());
}

/// The cells of one image: each verifier's verdict that is not as expected.
fn cells(host: &Host, image: &Image, signer: Signer, log: Log) -> Vec<String> {
    let asked: &[Log] = if log == Log::Off { &[Log::Off, Log::Missing] } else { &[Log::Recorded] };
    let mut wrong = Vec::new();
    for log in asked {
        for (verifier, _) in VERIFIERS {
            let ran = verify(host, image, *log, verifier);
            let expected = expected(signer, *log, verifier);
            let right = match expected {
                Accepts => ran.code == 0,
                Refuses(_, words) => ran.code != 0 && ran.text.contains(words),
            };
            if !right {
                let repository = &image.repository;
                wrong.push(format!(
                    "{verifier:?} on what {signer:?} signed in {repository}, log {log:?}: expected {expected:?}, but exit code {}\n$ {}\n{}",
                    ran.code, ran.what, ran.text
                ));
            }
        }
    }
    wrong
}

/// A new image with this signature.
pub(super) fn signed(host: &Host, repository: &str, signer: Signer, log: Log) -> Image {
    let image = host.unsigned_in(repository);
    sign(host, &image, signer, log).ok();
    image
}

fn sign(host: &Host, image: &Image, signer: Signer, log: Log) -> Ran {
    host.ci(&match signer {
        Signer::Tagship(formats) => tagship_sign(image, log, formats),
        Signer::Cosign2 => cosign2_sign(image, log, "~/cosign.key"),
        Signer::Cosign3 => cosign3_sign(image, log, "~/cosign.key"),
        Signer::TagshipThenAnother => {
            format!("{}\n{}", tagship_sign(image, log, "sig"), cosign3_sign(image, log, "~/other.key"))
        }
    })
}

pub(super) fn tagship_sign(image: &Image, log: Log, formats: &str) -> String {
    let Image { repository, tag, .. } = image;
    // The registry with the referrers API knows no accounts.
    let login = if repository == IMAGE { "" } else { "unset TAGSHIP_REGISTRY_TOKEN;" };
    let user = if repository == IMAGE { "--registry-user ci" } else { "" };
    let log = match log {
        Log::Recorded => format!("--rekor-url {URL} --rekor-public-key {LOG_KEY}"),
        _ => "--tlog false".to_owned(),
    };
    format!("{login} tagship sign --image {repository} --tag {tag} {user} --signature-formats {formats} {log}")
}

pub(super) fn cosign2_sign(image: &Image, log: Log, key: &str) -> String {
    let log = match log {
        Log::Recorded => format!("--rekor-url {URL}"),
        _ => "--tlog-upload=false".to_owned(),
    };
    let annotations = annotations(image);
    format!("SIGSTORE_REKOR_PUBLIC_KEY={LOG_KEY} cosign sign --yes {log} --key {key} {annotations} {}", image.pinned())
}

pub(super) fn cosign3_sign(image: &Image, log: Log, key: &str) -> String {
    let config = match log {
        Log::Recorded => "~/signing-config.json",
        _ => "~/signing-config-no-log.json",
    };
    let annotations = annotations(image);
    format!(
        "cosign3 sign --yes --signing-config {config} --trusted-root ~/trusted-root.json --key {key} {annotations} {}",
        image.pinned()
    )
}

/// What tagship asks of another signer's signature, where it is to count like its own.
fn annotations(image: &Image) -> String {
    format!("-a tag={} -a repository={}", image.tag, image.repository)
}

/// Verifies an image with the release key, and with the log unless that is off.
pub(super) fn verify(host: &Host, image: &Image, log: Log, verifier: Verifier) -> Ran {
    let (with_log, image_name) = (log != Log::Off, image.pinned());
    match verifier {
        Verifier::Tagship => {
            let log = if with_log { format!("--rekor-public-key {LOG_KEY}") } else { "--tlog false".to_owned() };
            let Image { repository, digest, .. } = image;
            host.app(&format!("tagship verify --image {repository} --digest {digest} --public-key {KEY} {log}"))
        }
        Verifier::Cosign2 => {
            let log = if with_log { format!("--rekor-url {URL}") } else { "--insecure-ignore-tlog".to_owned() };
            host.app(&format!("SIGSTORE_REKOR_PUBLIC_KEY={LOG_KEY} cosign verify {log} --key {KEY} {image_name}"))
        }
        Verifier::Cosign3 => {
            // The log's address matters for a `.sig` without a record alone: cosign then looks for one there.
            let log = if with_log {
                format!("--trusted-root ~/trusted-root.json --rekor-url {URL}")
            } else {
                "--insecure-ignore-tlog".to_owned()
            };
            host.app(&format!("cosign3 verify {log} --key {KEY} {image_name}"))
        }
        Verifier::Podman => {
            let policy = if with_log { "policy-log" } else { "policy" };
            host.app(&format!("podman pull --quiet --signature-policy /etc/containers/{policy}.test.json {image_name}"))
        }
    }
}

// --- The table --------------------------------------------------------------------------------------------------

/// As Markdown. Lines that differ in the log alone are one.
fn table() -> String {
    let mut text = String::from("| signed by | that is | in the log |");
    VERIFIERS.iter().for_each(|(_, name)| write!(text, " {name} |").unwrap());
    text.push_str("\n| --- | --- | --- |");
    VERIFIERS.iter().for_each(|_| text.push_str(" --- |"));
    text.push('\n');
    for (signer, name, writes) in SIGNERS {
        let line = |log| VERIFIERS.map(|(verifier, _)| cell(expected(signer, log, verifier))).join(" | ");
        let mut done = BTreeSet::new();
        for (log, _) in LOGS {
            if !done.insert(line(log)) {
                continue;
            }
            let same = LOGS.iter().filter(|(other, _)| line(*other) == line(log)).map(|(_, name)| *name);
            let logs = same.collect::<Vec<_>>().join("; ");
            writeln!(text, "| {name} | {writes} | {logs} | {} |", line(log)).unwrap();
        }
    }
    text
}

fn cell(verdict: Verdict) -> String {
    match verdict {
        Accepts => "yes".to_owned(),
        Refuses(why, _) => format!("no: {why}"),
    }
}

/// Prints the table, and requires it to be the documented one.
fn documented(table: &str) {
    const BEGIN: &str = "<!-- matrix -->\n";
    const END: &str = "<!-- end -->";
    eprintln!("{table}");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/signatures.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/signatures.md has a place for the table");
    let (held, after) = rest.split_once(END).expect("the table's place has an end");
    if std::env::var_os("TAGSHIP_RENEW_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        held == table,
        "the table in docs/signatures.md is not what was measured; TAGSHIP_RENEW_DOCS=1 tests/run interop puts this one there:\n{table}"
    );
}

// --- The host ---------------------------------------------------------------------------------------------------

/// The app's configuration, put back as it was when this is dropped.
struct Configured<'a>(&'a Host);

impl Drop for Configured<'_> {
    fn drop(&mut self) {
        self.0.app("test ! -e ~/demo.saved || mv ~/demo.saved ~/.config/tagship/demo.yaml");
    }
}

/// tagship-host fetches and judges with the same code. So it is enough to see that its word on each signer is the same:
/// what it accepts is refused for being older than what runs, and for nothing else.
fn the_host_verifies_as_tagship_does(host: &Host) {
    let signed: Vec<_> = [Log::Recorded, Log::Off, Log::Missing]
        .into_iter()
        .flat_map(|log| SIGNERS.map(|(signer, ..)| (log, signer, signed(host, IMAGE, signer, log))))
        .collect();
    host.release().run().ok();
    let before = host.state().healthy();
    let _configured = Configured(host);
    host.app(&format!("cp ~/.config/tagship/demo.yaml ~/demo.saved; sed -i 's#^  rekor: .*#&\\n  rekor-keys: [{LOG_KEY}]#' ~/.config/tagship/demo.yaml")).ok();
    for (log, signer, image) in signed {
        let rule = if log == Log::Off { "\"off\"" } else { "required" };
        host.app(&format!("sed -i 's#^  rekor: .*#  rekor: {rule}#' ~/.config/tagship/demo.yaml")).ok();
        let kind = match expected(signer, log, Verifier::Tagship) {
            Accepts => "downgrade",
            Refuses(..) => "log-missing",
        };
        host.ask(&image.tag, &image.digest).ok().says("Outcome: refused").says(&format!("Kind: {kind}"));
    }
    assert_eq!(before, host.state());
}
