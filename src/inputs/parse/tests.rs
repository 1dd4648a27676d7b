//! Inputs that are good, and one vector for each way in which they are not.

use tagship_core::explain::Explain as _;

use super::*;
use crate::inputs::raw::testing::action;

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
            "image is “r.test/app:v1”: it is written without a tag",
        ),
        (
            "a digest in the image",
            &[("image", "r.test/app@sha256:0"), ("tag", "v1"), ("key", "PEM")],
            "without a digest",
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
        ("another bad flag", &[("tlog", "1")], "tlog"),
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
fn files_lose_one_line_end() {
    for (content, expected) in [("p", "p"), ("p\n", "p"), ("p\r\n", "p"), ("p\n\n", "p\n"), (" p ", " p "), ("", "")] {
        assert_eq!(without_line_end(content.as_bytes().to_vec()), expected.as_bytes(), "{content:?}");
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
fn a_pipe_is_read_whole_and_bounded() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    for (length, good) in [(1, true), (60_000, true), (64 * 1024, true), (64 * 1024 + 1, false), (0, false)] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let content = vec![b'k'; length];
        // Larger than a pipe holds at once: the reader waits for the rest. One that gives up early breaks the pipe.
        let (sent, expected) = (content.clone(), content);
        let writing = std::thread::spawn(move || writer.write_all(&sent).is_ok());
        let read = read("key-file", &path);
        drop(reader);
        assert!(writing.join().expect("the writer ends") || !good);
        assert_eq!(read.ok(), good.then_some(expected), "{length}");
    }
}

#[test]
fn what_would_be_waited_for_in_vain_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .expect("a FIFO");
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for (path, why) in [(fifo.as_path(), "nobody writes"), (Path::new("/dev/zero"), "neither")] {
        let error = read("key-file", path).expect_err("refused");
        assert!(tagship_core::explain::chain(&error).contains(why), "{error}");
    }
    assert!(read("key-file", &socket).is_err());
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
