//! Users' directories with files in them, and what is made of these.

use std::os::unix::fs::PermissionsExt as _;

use tagship_core::explain::Explain;

use super::*;

/// A user's directories, with these files.
struct User {
    temp: tempfile::TempDir,
}

/// A key where root's files are; tests cannot make any.
fn read(path: &Path) -> Result<RootFile, OwnershipError> {
    let text = match path.file_name().and_then(|name| name.to_str()) {
        Some("good.pub") => PublicKey::public_log().to_pem(),
        Some("private.pub") => {
            "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
                .to_owned()
        }
        Some("p384.pub") => crate::testing::P384.to_owned(),
        Some("empty.pub") => String::new(),
        _ => return RootFile::read(path),
    };
    Ok(RootFile::for_test(&path.display().to_string(), text.as_bytes()))
}

impl User {
    fn with(files: &[(&str, &str)]) -> Self {
        let user = Self { temp: tempfile::tempdir().unwrap() };
        fs::create_dir(user.temp.path().join("config")).unwrap();
        for (name, text) in files {
            fs::write(user.temp.path().join("config").join(name), text).unwrap();
        }
        user
    }

    fn places(&self) -> Places {
        let home = self.temp.path().to_owned();
        Places { user: home.join("config"), admin: home.join("etc"), home, trusted: read }
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        self.places().load(&"app".parse().unwrap())
    }

    fn handoff(&self) -> PathBuf {
        self.places().handoff(&"app".parse().unwrap())
    }
}

/// A configuration that can be followed.
const GOOD: &str =
    "image: git.example.org/chris/app\nverify: {keys: [/keys/good.pub]}\nservices: [web, [worker, beat]]\n";

fn fault(text: &str) -> String {
    User::with(&[("app.yaml", text)]).load().unwrap_err().to_string()
}

#[test]
fn a_good_file_is_followed() {
    let user = User::with(&[("app.yaml", &format!("{GOOD}before: [migrate]\nlocal-image: localhost/app\n"))]);
    let settings = user.load().unwrap();
    assert_eq!(settings.handoff, user.temp.path().join("tagship/app"));
    assert_eq!(settings.all_services().map(ServiceName::as_str).collect::<Vec<_>>(), ["web", "worker", "beat"]);
    assert_eq!(settings.verify.floor, None);
    assert_eq!(user.handoff(), settings.handoff);
}

#[test]
fn contradictions_are_named() {
    for (text, words) in [
        ("verify: {keys: [/keys/good.pub]}\nservices: [web]", "`image` is missing"),
        ("image: a.example/b\nverify: {keys: [/keys/good.pub]}", "`services` is missing"),
        ("image: a.example/b\nservices: [web]", "`verify.keys` is missing"),
        ("image: a.example/b\nservices: [web]\nverify: {}", "`verify.keys` is missing"),
        (&format!("{GOOD}before: [web]"), "web is in `services`, too"),
        (&format!("{GOOD}moving-tag: ''"), "`moving-tag`"),
        (&format!("{GOOD}keep-images: 1"), "`keep-images`"),
        (&format!("{GOOD}health: {{timeout: 1ms}}"), "`health.timeout`"),
        (&format!("{GOOD}health: {{settle: 1h}}"), "`health.settle`"),
        (&format!("{GOOD}budget: 60s"), "`budget`"),
        (&format!("{GOOD}handoff: data"), "`handoff`"),
        (&format!("{GOOD}handoff: ~/../other"), "`handoff`"),
        ("image: a.example/b\nservices: [web]\nverify: {keys: [a.pub]}", "`verify.keys` names a file"),
        ("image: a.example/b\nservices: [web]\nverify: {keys: [/keys/good.pub], formats: []}", "`verify.formats`"),
        ("image: a.example/b\nservices: [web]\nverify: {keys: [/keys/good.pub], formats: [pgp]}", "pgp"),
    ] {
        let fault = fault(text);
        assert!(fault.contains(words), "{text}: {fault}");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_of_the_configuration() {
    let with = |verify: &str| {
        let text = format!("image: a.example/b\nservices: [web]\nverify: {{{verify}}}");
        User::with(&[("app.yaml", &text)]).load()
    };
    assert!(with("keys: [/k/good.pub, /k/p384.pub], rekor-keys: [/k/good.pub]").is_ok());
    for (verify, words) in [
        ("keys: [/k/empty.pub]", "`verify.keys` names a key that cannot be used"),
        ("keys: [/k/good.pub, /k/private.pub]", "`verify.keys` names a key that cannot be used"),
        ("keys: [/k/good.pub], rekor-keys: [/k/empty.pub]", "`verify.rekor-keys` names a key"),
        ("keys: [/k/good.pub], rekor-keys: [/k/p384.pub]", "`verify.rekor-keys` names a key"),
    ] {
        let error = with(verify).unwrap_err();
        assert_eq!(error.kind(), "bad-public-key", "{verify}");
        assert!(error.to_string().contains(words) && error.hint().is_some(), "{error}");
    }
}

/// The files are judged as they are: tests make none that only root could have written.
#[test]
fn a_key_that_others_can_write_is_named_with_its_place_in_the_configuration() {
    let user = User::with(&[("own.pub", &PublicKey::public_log().to_pem())]);
    let own = user.temp.path().join("config/own.pub");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o666)).unwrap();
    for (key, verify) in [
        ("verify.keys", format!("keys: [{}]", own.display())),
        ("verify.rekor-keys", format!("keys: [/k/good.pub], rekor-keys: [{}]", own.display())),
    ] {
        let text = format!("image: a.example/b\nservices: [web]\nverify: {{{verify}}}");
        fs::write(user.temp.path().join("config/app.yaml"), text).unwrap();
        let error = user.load().unwrap_err();
        assert_eq!(error.kind(), "not-root-owned", "{key}");
        assert!(error.to_string().contains(&format!("`{key}`")) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_names_the_others() {
    let error = User::with(&[("demo.yaml", GOOD), ("note.txt", ""), (".hidden.yaml", "")]).load().unwrap_err();
    assert_eq!(error.kind(), "config-missing");
    assert!(error.hint().unwrap().ends_with("name one of: demo"), "{:?}", error.hint());
}

#[test]
fn what_belongs_to_two_apps_is_refused() {
    let other = "image: a.example/b\nservices: [other]\nunknown: key\n";
    assert!(User::with(&[("app.yaml", GOOD), ("other.yaml", other)]).load().is_ok());
    for (theirs, what) in [
        ("services: [beat]", "service beat"),
        ("before: [web]", "service web"),
        ("handoff: ~/tagship/app", "hand-off directory"),
    ] {
        let error = User::with(&[("app.yaml", GOOD), ("other.yaml", theirs)]).load().unwrap_err();
        assert_eq!(error.kind(), "config-shared");
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(User::with(&[("app.yaml", GOOD), ("other.yaml", "services: [")]).load().is_ok(), "its own trouble");
}

#[test]
fn answers_find_their_directory_although_the_rest_is_wrong() {
    let user = User::with(&[("app.yaml", "handoff: ~/elsewhere\nservices: [[]]\nunknown: 1\n")]);
    assert_eq!(user.handoff(), user.temp.path().join("elsewhere"));
    for text in ["handoff: [", "handoff: relative", "services: web"] {
        let user = User::with(&[("app.yaml", text)]);
        assert_eq!(user.handoff(), user.temp.path().join("tagship/app"), "{text}");
    }
}

#[test]
fn what_units_run_is_known_although_the_rest_is_wrong() {
    let units = |text: &str| User::with(&[("app.yaml", text)]).places().units(&"app".parse().unwrap());
    let good = units(&format!("{GOOD}before: [migrate]\nlocal-image: localhost/app\nbudget: 1s\nunknown: 1\n"));
    let AppUnits { services, before, moving_tag, .. } = good.unwrap();
    let names = |names: Vec<ServiceName>| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!((names(services), names(before)), ("web worker beat".into(), "migrate".into()));
    assert_eq!(moving_tag.unwrap().as_str(), "stable");
    for (text, kind) in [
        ("", "config-invalid"),
        ("services: [web]", "config-invalid"),
        ("image: a.example/b\nservices: [", "config-invalid"),
        ("image: a.example/b\nservices: [web@1]", "config-invalid"),
        ("image: not an image\nservices: [web]", "config-invalid"),
        ("image: a.example/b\nlocal-image: '!'\nservices: [web]", "config-invalid"),
    ] {
        assert_eq!(units(text).unwrap_err().kind(), kind, "{text}");
    }
    let missing = User::with(&[]).places().units(&"app".parse().unwrap());
    assert_eq!(missing.unwrap_err().kind(), "config-missing");
}

#[test]
fn an_administrators_file_in_the_wrong_hands_stops_everything() {
    let user = User::with(&[("app.yaml", GOOD)]);
    fs::create_dir(user.temp.path().join("etc")).unwrap();
    fs::write(user.temp.path().join("etc/any.yaml"), "image: c.example/d\nfloor: v1.0.0\n").unwrap();
    assert_eq!(user.load().unwrap_err().kind(), "not-root-owned");
}

#[test]
fn an_endless_file_is_refused() {
    let user = User::with(&[("app.yaml", &"# filler\n".repeat(10_000))]);
    assert!(matches!(user.load(), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_revoked_key_counts_no_more() {
    let (good, p384) = (PublicKey::public_log(), PublicKey::from_pem("p384", crate::testing::P384.as_bytes()).unwrap());
    let with = |revoked_keys: &[&PublicKey]| {
        let block = serde_yaml::from_str("keys: [/keys/good.pub, /keys/p384.pub]").unwrap();
        let above = AdminsLimits { floor: None, revoked_keys: revoked_keys.iter().map(|&key| key.clone()).collect() };
        User::with(&[]).places().verification(Path::new("app.yaml"), block, above)
    };
    let names = |settings: &VerifySettings| settings.keys.iter().map(|key| key.path().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&with(&[]).unwrap()), [Path::new("/keys/good.pub"), Path::new("/keys/p384.pub")]);
    let settings = with(&[&good]).unwrap();
    assert_eq!((names(&settings), settings.revoked_keys), (vec![PathBuf::from("/keys/p384.pub")], vec![good.clone()]));
    let error = with(&[&p384, &good]).unwrap_err().to_string();
    assert!(error.contains("`revoked-keys` in /etc/tagship) has all of them"), "{error}");
}
