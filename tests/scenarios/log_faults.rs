//! A log that loses answers, stumbles, refuses and lies: a proxy before the real one makes each fault.

use std::time::Duration;

use tagship_tests::{Fault, Host, Image, Proxy, Ran, Scenario};

use super::{KEY, URL};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("an_entry_whose_answer_was_lost_is_found", an_entry_whose_answer_was_lost_is_found),
    ("an_answer_that_breaks_off_is_asked_for_again", an_answer_that_breaks_off_is_asked_for_again),
    ("a_log_that_stumbles_is_asked_again", a_log_that_stumbles_is_asked_again),
    ("a_refusal_is_not_asked_again", a_refusal_is_not_asked_again),
    ("a_log_that_stays_down_is_named", a_log_that_stays_down_is_named),
    ("an_answer_that_was_altered_is_named_and_nothing_is_pushed", an_answer_that_was_altered_is_named),
];

/// This machine's program that makes the faults.
const PROXY: &str = env!("CARGO_BIN_EXE_fault-proxy");

/// What a log is given to recover between four tries: 0.5, 1 and 3 s.
const PAUSES: Duration = Duration::from_millis(500 + 1000 + 3000);

/// What a signature is recorded by.
const POST: &str = "POST /api/v1/log/entries HTTP/1.1";

/// Signs a new image with `.sig`, and these faults between tagship and the log; gives what the proxy saw, too.
fn sign(host: &Host, faults: &[Fault]) -> (Image, Ran, Vec<String>) {
    sign_as("sig", host, faults)
}

fn sign_as(format: &str, host: &Host, faults: &[Fault]) -> (Image, Ran, Vec<String>) {
    let image = host.unsigned();
    let upstream = URL.trim_start_matches("http://");
    let proxy = Proxy::start(host, PROXY, upstream, "/api/v1/log/entries", faults);
    let Image { repository, tag, .. } = &image;
    let ran = host.ci(&format!(
        "tagship sign --image {repository} --tag {tag} --registry-user ci --signature-formats {format} --rekor-url http://{} --rekor-public-key {KEY}",
        proxy.address()
    ));
    (image, ran, proxy.end())
}

/// Requires that the signature is there and counts, its log entry included.
fn signed(host: &Host, image: &Image, ran: Ran) {
    ran.ok().says("recorded in the transparency log").says("read back");
    host.app(&format!(
        "tagship verify --image {} --digest {} --public-key /etc/containers/cosign-app.pub --rekor-public-key {KEY}",
        image.repository, image.digest
    ))
    .ok()
    .says("log        entry");
}

/// Requires that nothing was pushed: the image is as unsigned as it was.
fn unsigned(host: &Host, image: &Image) {
    for ending in [".sig", ""] {
        assert!(!host.has(&image.repository, &image.signature_tag(ending)), "something was pushed");
    }
}

/// How the proxy tells of a request.
fn line(fault: &Fault, request: &str) -> String {
    format!("{fault}\t{request}")
}

/// After a fault the same entry is sent again, and the log answers where it has it already.
fn found_again(host: &Host, fault: &Fault) {
    for format in ["sig", "bundle"] {
        let (image, ran, seen) = sign_as(format, host, std::slice::from_ref(fault));
        signed(host, &image, ran);
        let (existing, posts) = seen.split_last().unwrap();
        assert_eq!(posts, [line(fault, POST), line(&Fault::Pass, POST)]);
        assert!(existing.starts_with("pass\tGET /api/v1/log/entries/"), "{seen:?}");
    }
}

fn an_entry_whose_answer_was_lost_is_found(host: &Host) {
    found_again(host, &Fault::LoseAnswer);
}

fn an_answer_that_breaks_off_is_asked_for_again(host: &Host) {
    found_again(host, &Fault::CutAnswer);
}

fn a_log_that_stumbles_is_asked_again(host: &Host) {
    for fault in [Fault::Status(503), Fault::DropRequest] {
        let (image, ran, seen) = sign(host, &[fault.clone(), fault.clone()]);
        signed(host, &image, ran);
        assert_eq!(seen, [line(&fault, POST), line(&fault, POST), line(&Fault::Pass, POST)]);
    }
}

fn a_refusal_is_not_asked_again(host: &Host) {
    for status in [400, 401, 422] {
        let fault = Fault::Status(status);
        let (image, ran, seen) = sign(host, std::slice::from_ref(&fault));
        ran.exits(5)
            .says(&format!("refused the entry with {status}: made up by the proxy"))
            .says("http://127.0.0.1:")
            .says("hint:");
        assert_eq!(seen, [line(&fault, POST)]);
        unsigned(host, &image);
    }
}

fn a_log_that_stays_down_is_named(host: &Host) {
    let (image, ran, seen) = sign(host, &vec![Fault::Status(502); 4]);
    let ran = ran.exits(5).says("the transparency log http://127.0.0.1:").says("answered 502").says("hint:");
    assert!(ran.took >= PAUSES, "asked again without a pause: {:?}", ran.took);
    assert_eq!(seen, vec![line(&Fault::Status(502), POST); 4]);
    unsigned(host, &image);
}

/// One character of the log's word, each part of it in turn.
fn an_answer_that_was_altered_is_named(host: &Host) {
    // The only entry of a tree has no proof to alter.
    let (image, ran, _) = sign(host, &[]);
    signed(host, &image, ran);
    for (format, member, at, named) in [
        ("sig", "signedEntryTimestamp", 30, "the log's signed timestamp does not verify"),
        ("sig", "integratedTime", 9, "the log's signed timestamp does not verify"),
        ("sig", "logID", 20, "whose key is not trusted"),
        ("sig", "body", 100, "does not prove that the signature is recorded"),
        ("sig", "checkpoint", 3, "the log's inclusion proof does not verify"),
        ("sig", "rootHash", 5, "the log's inclusion proof does not verify"),
        ("sig", "hashes", 5, "the log's inclusion proof does not verify"),
        ("sig", "treeSize", 0, "the log's inclusion proof does not verify"),
        ("bundle", "signedEntryTimestamp", 30, "the log's signed timestamp does not verify"),
        ("bundle", "checkpoint", 3, "the log's inclusion proof does not verify"),
        ("bundle", "hashes", 5, "the log's inclusion proof does not verify"),
    ] {
        let fault = Fault::alter(member, at);
        let (image, ran, seen) = sign_as(format, host, std::slice::from_ref(&fault));
        ran.exits(5)
            .says("does not prove that the signature is recorded")
            .says(named)
            .says("http://127.0.0.1:")
            .says("no signature was pushed");
        assert_eq!(seen, [line(&fault, POST)], "{member}");
        unsigned(host, &image);
    }
}
