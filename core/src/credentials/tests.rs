//! Auth files as users have them, and as they should not be.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

/// A file with this content, and the credentials it gives for an image: `user:secret`, `token:secret` or `-`.
async fn found(content: &str, image: &str) -> Result<String, CredentialError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    std::fs::write(&path, content).unwrap();
    Ok(told(&AuthFiles::only(path).lookup(&image.parse().unwrap()).await?))
}

fn told(credential: &Credential) -> String {
    match credential {
        Credential::Anonymous => "-".to_owned(),
        Credential::Basic { user, secret } => format!("{user}:{}", secret.expose_str().unwrap()),
        Credential::IdentityToken { token } => format!("token:{}", token.expose_str().unwrap()),
    }
}

fn auth(pair: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(pair))
}

#[tokio::test]
async fn the_longest_matching_key_wins() {
    let file = format!(
        r#"{{"auths":{{"git.test":{},"git.test/chris":{},"git.test/chris/app":{},"git.test/chris/ap":{},"other.test":{}}}}}"#,
        auth("r:1"),
        auth("o:2"),
        auth("n:3"),
        auth("p:4"),
        auth("x:5")
    );
    for (image, expected) in [
        ("git.test/chris/app", "n:3"),
        ("git.test/chris/app/web", "n:3"),
        ("git.test/chris/apple", "o:2"),
        ("git.test/eve/app", "r:1"),
        ("git.test:5000/chris/app", "-"),
        ("other.test/a", "x:5"),
    ] {
        assert_eq!(found(&file, image).await.unwrap(), expected, "{image}");
    }
}

#[tokio::test]
async fn all_forms_of_an_entry_are_understood() {
    for (entry, expected) in [
        (auth("u:a:b?>~"), "u:a:b?>~"),
        (auth("u:pad\0\0"), "u:pad"),
        (auth("u:"), "u:"),
        (r#"{"username":"u","password":"p"}"#.into(), "u:p"),
        (r#"{"auth":"dTo=","identitytoken":"t"}"#.into(), "token:t"),
        ("{}".into(), "-"),
        (r#"{"auth":""}"#.into(), "-"),
        (r#"{"email":"e","auth":"dTpw"}"#.into(), "u:p"),
    ] {
        let file = format!(r#"{{"auths":{{"git.test":{entry}}}}}"#);
        assert_eq!(found(&file, "git.test/a").await.unwrap(), expected, "{entry}");
    }
}

/// As in Docker's own tools.
#[tokio::test]
async fn an_empty_helper_is_none() {
    let entry = auth("u:p");
    let file = format!(r#"{{"auths":{{"git.test":{entry}}},"credHelpers":{{"git.test":""}},"credsStore":""}}"#);
    assert_eq!(found(&file, "git.test/a").await.unwrap(), "u:p");
    assert_eq!(found(&file, "other.test/a").await.unwrap(), "-");
}

#[tokio::test]
async fn urls_as_docker_writes_them_are_registries() {
    for (key, image) in [
        ("https://git.test", "git.test/a"),
        ("https://git.test/v2/", "git.test/a"),
        ("http://localhost:5000/v1/", "localhost:5000/a"),
        ("https://index.docker.io/v1/", "docker.io/library/a"),
        ("docker.io", "docker.io/library/a"),
    ] {
        let file = format!(r#"{{"auths":{{"{key}":{}}}}}"#, auth("u:p"));
        assert_eq!(found(&file, image).await.unwrap(), "u:p", "{key}");
    }
}

#[tokio::test]
async fn malformed_files_are_named_and_never_quoted() {
    for (content, defect) in [
        ("hunter2", "no JSON"),
        (r#"{"auths":{"git.test":{"auth":"#, "cut off"),
        (r#"{"auths":"hunter2"}"#, "auths is text"),
        (r#"{"auths":["hunter2"]}"#, "auths is a list"),
        (r#"{"auths":{"git.test":"hunter2"}}"#, "an entry is text"),
        (r#"{"auths":{"git.test":{"auth":7}}}"#, "auth is a number"),
        (r#"{"auths":{"git.test":{"auth":"hunter2!"}}}"#, "auth is not base64"),
        (r#"{"auths":{"git.test":{"auth":"aHVudGVyMg=="}}}"#, "auth has no colon"),
        (r#"{"auths":{"git.test":{"auth":"//86cA=="}}}"#, "the user is not UTF-8"),
        (r#"{"credHelpers":{"git.test":7}}"#, "a helper is a number"),
        (r#"{"credHelpers":{"git.test":"../../bin/hunter2"}}"#, "a helper is a path"),
        (r#"{"credHelpers":{"git.test":"hunter2\u001b"}}"#, "a helper has a control character"),
        (r#"{"credsStore":"hunter2 x"}"#, "a store's name has a space"),
    ] {
        let error = found(content, "git.test/a").await.unwrap_err();
        let text = crate::explain::chain(&error);
        assert_eq!(error.kind(), "credentials-malformed", "{defect}");
        assert!(text.contains("auth.json") && !text.contains("hunter2"), "{defect}: {text}");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("mend the file")), "{defect}");
    }
    let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(1024 * 1024));
    assert_eq!(found(&long, "git.test/a").await.unwrap_err().kind(), "credentials-malformed");
}

#[tokio::test]
async fn a_named_file_must_exist_and_a_usual_one_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let image = "git.test/a".parse().unwrap();
    let named = AuthFiles::only(dir.path().join("none")).lookup(&image).await;
    assert_eq!(named.err().map(|error| error.kind()), Some("credentials-unreadable"));
    let usual = AuthFiles::standard_in(7, |name| (name != "REGISTRY_AUTH_FILE").then(|| dir.path().join(name)));
    assert_eq!(told(&usual.lookup(&image).await.unwrap()), "-");
    assert_eq!(found("\n", "git.test/a").await.unwrap(), "-");
}

#[tokio::test]
async fn what_is_no_file_is_named_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let image = "git.test/a".parse().unwrap();
    for (path, what) in [(fifo.as_path(), "a pipe"), (dir.path(), "a directory"), (Path::new("/dev/zero"), "a device")]
    {
        for named in [true, false] {
            let error = AuthFiles { files: vec![path.to_owned()], named }.lookup(&image).await.err().unwrap();
            assert_eq!(error.kind(), "credentials-unreadable");
            assert!(error.to_string().contains(&format!("{}: it is {what}", path.display())), "{error}");
        }
    }
    let none = AuthFiles::only("/dev/null").lookup(&image).await.unwrap();
    assert_eq!(told(&none), "-", "that there is no login");
}

#[test]
fn the_usual_files_are_podmans_then_dockers() {
    let files = |set: &[(&str, &str)]| {
        let files = AuthFiles::standard_in(7, |name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        });
        files.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>()
    };
    let at_home = ["/run/containers/7/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"];
    assert_eq!(files(&[("HOME", "/h")]), at_home);
    assert_eq!(
        files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")]),
        ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"]
    );
    assert_eq!(files(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/f")]), ["/f"]);
    assert_eq!(files(&[]), ["/run/containers/7/auth.json"]);
}

#[tokio::test]
async fn the_earlier_file_wins_and_the_later_one_fills_in() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| dir.path().join(name));
    std::fs::write(&files[0], format!(r#"{{"auths":{{"git.test":{}}}}}"#, auth("u:1"))).unwrap();
    let second = format!(r#"{{"auths":{{"git.test":{},"https://b.test/v2/":{}}}}}"#, auth("u:2"), auth("u:3"));
    std::fs::write(&files[1], second).unwrap();
    let files = AuthFiles { files: files.to_vec(), named: false };
    assert_eq!(told(&files.lookup(&"git.test/a".parse().unwrap()).await.unwrap()), "u:1");
    assert_eq!(told(&files.lookup(&"b.test/a".parse().unwrap()).await.unwrap()), "u:3");
    let all: Vec<_> = files.all().await.unwrap().iter().map(|(key, found)| format!("{key} {}", told(found))).collect();
    assert_eq!(all, ["b.test u:3", "git.test u:1"]);
}

/// A helper that runs this shell text.
fn helper(dir: &Path, script: &str) -> String {
    let path = dir.join("docker-credential-test");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn helpers_are_asked_for_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let asked = async |script: &str| {
        let program = helper(dir.path(), script);
        helper::ask(&program, "git.test", Path::new("/auth.json")).await
    };
    let echo = r#"read key || :; printf '{"ServerURL":"%s","Username":"%s","Secret":"s"}' "$key" "$1-$key""#;
    assert_eq!(told(&asked(echo).await.unwrap().unwrap()), "get-git.test:s");
    let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
    assert_eq!(told(&asked(token).await.unwrap().unwrap()), "token:t");
    let none = "echo 'credentials not found in native keychain'; exit 1";
    assert!(asked(none).await.unwrap().is_none());
    for (script, defect) in [("exit 1", "failed"), ("echo hunter2", "no JSON"), ("echo '{}'", "empty"), (":", "silent")]
    {
        let error = asked(script).await.err().unwrap();
        assert_eq!(error.kind(), "credentials-helper", "{defect}");
        assert!(!crate::explain::chain(&error).contains("hunter2"));
    }
}

#[tokio::test]
async fn no_hint_has_a_shell_run_what_a_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let program = helper(dir.path(), "exit 1");
    for (key, by_hand) in [("git.test:5000/a", "echo git.test:5000/a |"), ("$(rm x)", "get`"), ("a\nb", "get`")] {
        let hint = helper::ask(&program, key, Path::new("/auth.json")).await.err().unwrap().hint().unwrap();
        assert!(hint.contains(by_hand) && (by_hand != "get`" || !hint.contains(key)), "{hint}");
    }
}

#[tokio::test]
async fn helpers_that_cannot_be_run_are_named() {
    for content in [r#"{"credHelpers":{"git.test":"no-such-helper-here"}}"#, r#"{"credsStore":"no-such-helper-here"}"#]
    {
        let error = found(content, "git.test/a").await.unwrap_err();
        assert_eq!(error.kind(), "credentials-helper", "{content}");
    }
    // A helper for another registry is left alone, and an entry goes before the general store.
    let file = format!(
        r#"{{"credHelpers":{{"b.test":"no-such"}},"credsStore":"no-such","auths":{{"git.test":{}}}}}"#,
        auth("u:p")
    );
    assert_eq!(found(&file, "git.test/a").await.unwrap(), "u:p");
}

proptest! {
    #[test]
    fn every_pair_survives_its_encoding(user in "[^:\0]{0,20}", secret in "[^\0]{0,40}") {
        let (found, held) = decode(&STANDARD.encode(format!("{user}:{secret}"))).unwrap();
        prop_assert_eq!(found, user);
        prop_assert_eq!(held.expose(), secret.as_bytes());
    }

    #[test]
    fn no_text_makes_it_panic(auth in ".*") {
        decode(&auth);
        plain_key(&auth);
    }
}
