//! Inputs that are good, and one vector for each way in which they are not.

use tagship_core::{explain::Explain as _, signature::PublicKey};

use std::path::Path;

use super::*;
use crate::inputs::{Pem, raw::testing::action};

const MINIMUM: &[(&str, &str)] = &[("image", "registry.test/chris/app"), ("tag", "v1.2.3"), ("key", "PEM")];

fn parse(inputs: &[(&str, &str)]) -> Result<Inputs, InputError> {
    Inputs::parse(action(inputs)?, None, Origin::default())
}

fn with(more: &[(&str, &str)]) -> Result<Inputs, InputError> {
    parse(&[MINIMUM, more].concat())
}

#[test]
fn the_minimum() {
    let inputs = with(&[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(inputs.steps, Step::ALL);
    assert_eq!(inputs.moving_tag.as_ref().map(|tag| tag.as_str()), Some("stable"));
    assert_eq!(inputs.build.context, Path::new("."));
    assert_eq!(inputs.handoff.directory, Path::new("/data"));
    assert_eq!((inputs.handoff.form, inputs.handoff.timeout), (Form::Full, None));
    assert_eq!(inputs.log.map(|log| log.url.to_string()).as_deref(), Some("https://rekor.sigstore.dev/"));
    assert!(inputs.access.login.is_none() && !inputs.force && inputs.digest.is_none());
}

#[test]
fn a_rollback_makes_nothing_and_is_signed() {
    let inputs = with(&[("rollback", "true")]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((inputs.rollback, inputs.steps.as_slice()), (true, &[Step::Deploy, Step::Promote][..]));
    assert!(with(&[("rollback", "true"), ("steps", "deploy")]).is_ok());
    let public = PublicKey::public_log().to_pem();
    let unsigned = [("image", "r.test/app"), ("tag", "v1"), ("public-key", public.as_str()), ("rollback", "true")];
    let error = parse(&unsigned).err().expect("nothing would sign it");
    assert!(matches!(error, InputError::Missing { name: "key", .. }), "{error}");
}

#[test]
fn the_tag_comes_from_the_push() {
    let raw = || action(&[("image", "registry.test/app"), ("key", "PEM")]);
    let origin = Origin { git_tag: Some("v9".to_owned()), ..Origin::default() };
    let inputs = Inputs::parse(raw().expect("known"), None, origin).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(inputs.tag.as_str(), "v9");
    let error = Inputs::parse(raw().expect("known"), None, Origin::default()).err().expect("no tag");
    assert!(matches!(error, InputError::Missing { name: "tag", .. }), "{error}");
}

#[test]
fn a_git_tag_that_no_registry_takes_is_named() {
    let origin = Origin { git_tag: Some("release/1".to_owned()), ..Origin::default() };
    let raw = action(&[("image", "registry.test/app"), ("key", "PEM")]).expect("known");
    let error = Inputs::parse(raw, None, origin).err().expect("no tag");
    assert!(matches!(error, InputError::Invalid { name: "tag", .. }), "{error}");
}

/// The defect, the inputs, and what the message names.
type Vector<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn contradictions_and_gaps_are_named() {
    let digest = Digest::of(b"x").to_string();
    let vectors: &[Vector<'_>] = &[
        ("no image", &[("tag", "v1"), ("key", "PEM")], "image"),
        ("no registry", &[("image", "app"), ("tag", "v1"), ("key", "PEM")], "image"),
        (
            "a tag in the image",
            &[("image", "r.test/app:v1"), ("tag", "v1"), ("key", "PEM")],
            "image is “r.test/app:v1”: it has a tag, and is written without one",
        ),
        (
            "a digest in the image",
            &[("image", "r.test/app@sha256:0"), ("tag", "v1"), ("key", "PEM")],
            "it has a digest",
        ),
        ("upper case", &[("image", "r.test/App"), ("tag", "v1"), ("key", "PEM")], "image"),
        ("no key", &[("image", "r.test/app"), ("tag", "v1")], "key"),
        ("a password alone", &[("image", "r.test/app"), ("tag", "v1"), ("key-password", "x")], "key"),
        ("no key to verify", &[("image", "r.test/app"), ("tag", "v1"), ("steps", "deploy")], "public-key"),
    ];
    for (name, inputs, expected) in vectors {
        let error = parse(inputs).err().unwrap_or_else(|| panic!("{name} was taken")).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let digest = digest.as_str();
    let more: &[Vector<'_>] = &[
        ("a bad tag", &[("tag", "v1 2")], "tag"),
        ("a bad moving tag", &[("moving-tag", "-x")], "moving-tag"),
        ("one tag twice", &[("moving-tag", "v1.2.3")], "tag and moving-tag"),
        ("a bad digest", &[("steps", "sign"), ("digest", "sha256:0")], "digest"),
        ("a digest to push", &[("digest", digest)], "digest and steps"),
        ("an unknown step", &[("steps", "build,test")], "steps"),
        ("a step twice", &[("steps", "build,push,build")], "steps"),
        ("no step", &[("steps", ", ,")], "steps"),
        ("built and not pushed", &[("steps", "build,sign")], "steps"),
        ("pushed and not signed", &[("steps", "push,deploy")], "steps"),
        ("pushed and promoted unsigned", &[("steps", "build,push,promote")], "steps"),
        ("nothing to force", &[("steps", "sign"), ("force", "true")], "force and steps"),
        ("nowhere to promote", &[("steps", "promote"), ("moving-tag", "")], "steps and moving-tag"),
        ("a bad flag", &[("force", "yes")], "force"),
        ("a bad flag", &[("rollback", "yes")], "rollback"),
        ("a rollback that builds", &[("rollback", "true"), ("steps", "build,push,sign,deploy")], "rollback and steps"),
        ("a rollback that signs", &[("rollback", "true"), ("steps", "sign,deploy")], "rollback and steps"),
        ("a rollback of nothing", &[("rollback", "true"), ("steps", "promote")], "rollback and steps"),
        ("a rollback, forced", &[("rollback", "true"), ("force", "true")], "force and steps"),
        ("a rollback by a script", &[("rollback", "true"), ("handoff-form", "plain")], "rollback and handoff-form"),
        ("another bad flag", &[("tlog", "1")], "tlog"),
        ("a log's key and no log", &[("tlog", "false"), ("rekor-public-key", "x")], "tlog and rekor-public-key"),
        ("a log's address and no log", &[("tlog", "false"), ("rekor-url", "x")], "tlog and rekor-url"),
        ("several platforms", &[("platforms", "linux/amd64,linux/arm64")], "platforms"),
        ("half a platform", &[("platforms", "arm64")], "platforms"),
        ("no format", &[("signature-formats", ", ")], "signature-formats"),
        ("another format", &[("signature-formats", "pgp")], "signature-formats"),
        ("a user alone", &[("registry-user", "ci")], "registry-token"),
        ("a token alone", &[("registry-token", "t")], "registry-user"),
        ("two tokens", &[("registry-token", "t"), ("registry-token-file", "/dev/null")], "registry-token-file"),
        ("two keys", &[("key-file", "/dev/null")], "key and key-file"),
        ("two passwords", &[("key-password", "p"), ("key-password-file", "x")], "key-password-file"),
        ("no such key file", &[("key-password-file", "/nowhere/at/all")], "key-password-file"),
        ("a directory as a file", &[("ca", "/")], "ca"),
        ("no such authority", &[("ca", "/nowhere/ca.pem")], "/nowhere/ca.pem"),
        ("our annotation", &[("annotations", "commit=x")], "annotations"),
        ("a bad label", &[("labels", "a=1\nb")], "labels, line 2"),
        ("a bad argument", &[("build-args", "A")], "build-args, line 1"),
        ("another form", &[("handoff-form", "json")], "handoff-form"),
        ("no address", &[("rekor-url", "rekor")], "rekor-url"),
        ("another scheme", &[("rekor-url", "file:///etc/passwd")], "rekor-url"),
        ("a password in the address", &[("rekor-url", "https://a:b@rekor.test")], "rekor-url"),
        ("no time", &[("timeout", "0")], "timeout"),
        ("no unit", &[("timeout", "ten")], "timeout"),
        ("before now", &[("timeout", "-5s")], "timeout"),
        ("more seconds than a clock can add", &[("timeout", "2000000000000000h")], "timeout"),
        ("a century", &[("timeout", "4000000000")], "timeout"),
    ];
    for (name, inputs, expected) in more {
        // A later input of the same name wins in the table's map, as in the runner's environment.
        let error = with(inputs).err().unwrap_or_else(|| panic!("{name} was taken")).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn no_error_shows_a_secret() {
    let secret = "hunter22-very-secret";
    for inputs in [
        &[("registry-token", secret)][..],
        &[("key-password", secret), ("key-password-file", "x")],
        &[("key", secret), ("key-file", "x")],
        &[("registry-token-file", &format!("{secret}\n{secret}"))],
        &[("key-password-file", &format!("-----BEGIN {secret}"))],
        &[("key-password-file", secret)],
        &[("registry-token-file", secret)],
        &[("registry-token-file", &format!("{secret}/a+b/c=="))],
        &[("key-password-file", &format!("/{secret}"))],
        &[("key-password-file", &format!("{secret}.1"))],
        &[("key-password-file", &secret.repeat(100))],
    ] {
        let error = with(inputs).err().expect("refused");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
}

#[test]
fn no_error_shows_what_may_be_a_password_in_an_address() {
    for url in
        ["http://user:pw22@host/", "https://pw22@rekor.test", "ftp://a:pw22@b", "a:pw22@b", "https://u:pw22@ho st/"]
    {
        let error = with(&[("rekor-url", url)]).err().expect("refused");
        assert!(!format!("{error} {error:?}").contains("pw22"), "{url}: {error}");
    }
}

#[test]
fn no_secret_is_published() {
    let secrets = [("registry-user", "ci"), ("registry-token", "t0ken-of-ci"), ("key-password", "hunter22")];
    for (name, value, secret) in [
        ("annotations", "x=hunter22", "key-password"),
        ("annotations", "a=1\nx=before t0ken-of-ci after", "registry-token"),
        ("annotations", "hunter22=1", "key-password"),
        ("labels", "x=hunter22", "key-password"),
        ("tag", "v1-hunter22", "key-password"),
        ("moving-tag", "hunter22", "key-password"),
        ("image", "registry.test/t0ken-of-ci", "registry-token"),
    ] {
        let error = with(&[&secrets[..], &[(name, value)]].concat()).err().expect("refused");
        assert!(
            matches!(error, InputError::Published { name: of, secret: by } if (of, by) == (name, secret)),
            "{name}: {error}"
        );
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter22"));
    }
    assert!(with(&[&secrets[..], &[("annotations", "x=hunter2"), ("labels", "user=ci")]].concat()).is_ok());
}

#[test]
fn times() {
    for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("1h 30m", 5400), (" 5m ", 300)] {
        assert_eq!(duration(text).expect(text), Duration::from_secs(seconds), "{text}");
    }
}

#[test]
fn steps_in_any_order_and_writing() {
    for text in ["deploy,sign", "sign deploy", "sign\ndeploy\n", " deploy , sign,"] {
        assert_eq!(parse_steps(Some(text)).expect(text), [Step::Sign, Step::Deploy], "{text:?}");
    }
}

#[test]
fn every_secret_is_hidden_with_its_header() {
    let inputs = with(&[("registry-user", "ci"), ("registry-token", "t0ken"), ("key-password", "pass")]);
    let mut hidden = Vec::new();
    inputs.unwrap_or_else(|error| panic!("{error}")).each_secret(|secret| hidden.push(secret.to_owned()));
    assert_eq!(hidden, ["t0ken", "ci:t0ken", "PEM", "pass"]);
}

#[test]
fn what_a_releasing_shell_has_in_its_environment_is_enough_to_verify() {
    let check = |more: &[(&str, &str)]| {
        Check::parse(action(&[&[("image", "r.test/app"), ("tag", "v1")], more].concat()).expect("known"))
    };
    let own = check(&[("key", "PEM"), ("key-password", "p"), ("registry-token", "t")]);
    let own = own.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(own.key, CheckKey::Private(_)) && own.access.login.is_none());
    let text = "-----BEGIN PUBLIC KEY-----";
    let given = check(&[("key", "PEM"), ("public-key", text), ("registry-token", "t"), ("registry-user", "ci")]);
    let given = given.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(given.key, CheckKey::Public(_)) && given.access.login.is_some());
    for (inputs, expected) in [
        (&[][..], "public-key"),
        (&[("key-password", "p")], "public-key"),
        (&[("key", "PEM"), ("registry-user", "ci")], "registry-token"),
        (&[("key", "PEM"), ("registry-token-file", "/etc/hostname")], "registry-user"),
    ] {
        let error = check(inputs).err().expect("refused").to_string();
        assert_eq!(error, format!("{expected} is missing"));
    }
    let unlogged = [("key", "PEM"), ("tlog", "false")];
    // A runner hands over the defaults, too.
    for more in [&[][..], &[("rekor-url", "https://rekor.sigstore.dev"), ("rekor-public-key", "")]] {
        assert!(check(&[&unlogged[..], more].concat()).is_ok_and(|check| check.log.is_none()), "{more:?}");
    }
    let error = check(&[&unlogged[..], &[("rekor-public-key", "x")]].concat()).err().expect("refused").to_string();
    assert!(error.starts_with("tlog and rekor-public-key contradict"), "{error}");
}

#[test]
fn pem_is_called_by_its_file_or_by_its_input() {
    let text = "-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("a path");
    let named = |name: &str, text: String| Some(Pem { name: name.to_owned(), bytes: text.into_bytes() });
    assert_eq!(pem("ca", Some(path)).expect("a file"), named(path, text.to_owned()));
    for given in [text, &format!("\u{feff}{text}"), &format!("# mine\n{text}")] {
        assert_eq!(pem("ca", Some(given)).expect("text"), named("ca", format!("{given}\n")), "{given:?}");
    }
    assert_eq!(pem("ca", Some(" ")).expect("nothing"), None);
    assert!(pem("ca", Some("/nowhere/app.pub")).is_err(), "a file that is not there");
}
