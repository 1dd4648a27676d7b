//! References that are, and more that are not.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn registries_that_are() {
    for (text, host, loopback) in [
        ("git.example.org", "git.example.org", false),
        ("git.example.org:3000", "git.example.org", false),
        ("localhost", "localhost", true),
        ("localhost:5000", "localhost", true),
        ("registry:5000", "registry", false),
        ("127.0.0.1:5000", "127.0.0.1", true),
        ("127.8.8.8", "127.8.8.8", true),
        ("[::1]:5000", "::1", true),
        ("[2001:db8::1]", "2001:db8::1", false),
        ("xn--nxasmq6b.test", "xn--nxasmq6b.test", false),
        ("127.0.0.1.evil.test", "127.0.0.1.evil.test", false),
        ("localhost.evil.test", "localhost.evil.test", false),
    ] {
        let registry: Registry = text.parse().unwrap();
        assert_eq!((registry.as_str(), registry.host(), registry.is_loopback()), (text, host, loopback));
    }
}

#[test]
fn registries_that_are_not() {
    for (text, defect) in [
        ("", "empty"),
        ("registry", "no dot and no port"),
        ("Git.example.org", "upper case"),
        ("git.example.org:", "empty port"),
        ("git.example.org:0", "port 0"),
        ("git.example.org:+80", "port with a sign"),
        ("git.example.org:65536", "port too large"),
        ("git.example.org:80:80", "two ports"),
        ("git..example.org", "empty label"),
        (".example.org", "leading dot"),
        ("example.org.", "trailing dot"),
        ("-git.example.org", "leading dash"),
        ("git-.example.org", "trailing dash"),
        ("git_x.example.org", "underscore"),
        ("gït.example.org", "not ASCII"),
        ("user@git.example.org", "user"),
        ("https://git.example.org", "URL"),
        ("git.example.org/x", "path"),
        ("git.example.org\n", "line feed"),
        ("::1", "IPv6 without brackets"),
        ("[::1", "unclosed bracket"),
        ("[::1]5000", "port without a colon"),
        ("[git.example.org]", "name in brackets"),
        ("[::FFFF]", "upper-case IPv6"),
        ("[fe80::1%eth0]", "IPv6 zone"),
    ] {
        assert!(text.parse::<Registry>().is_err(), "{defect}: {text}");
    }
}

#[test]
fn repositories_that_are() {
    for text in [
        "git.example.org/chris/mastosum",
        "localhost/mastosum-web",
        "localhost:5000/a",
        "git.example.org/a/b/c/d",
        "git.example.org/a.b_c__d-e---f",
        "[::1]:5000/a",
        "git.example.org/0",
    ] {
        let repository: Repository = text.parse().unwrap();
        assert_eq!(repository.to_string(), text);
        assert_eq!(format!("{}/{}", repository.registry(), repository.path()), text);
    }
}

#[test]
fn repositories_that_are_not() {
    let long = format!("git.example.org/{}", "a".repeat(240));
    for (text, defect) in [
        ("mastosum", "no registry"),
        ("chris/mastosum", "no registry but an owner"),
        ("git.example.org", "no path"),
        ("git.example.org/", "empty path"),
        ("git.example.org//a", "empty component"),
        ("git.example.org/a/", "trailing slash"),
        ("git.example.org/A", "upper case"),
        ("git.example.org/a..b", "two dots"),
        ("git.example.org/a___b", "three underscores"),
        ("git.example.org/a._b", "mixed separators"),
        ("git.example.org/.a", "leading dot"),
        ("git.example.org/a-", "trailing dash"),
        ("git.example.org/../a", "parent"),
        ("git.example.org/a:v1", "tag"),
        ("git.example.org/a@sha256:00", "digest"),
        ("git.example.org/a b", "space"),
        ("git.example.org/a%2fb", "escape"),
        ("git.example.org/a?x", "query"),
        ("git.example.org/ä", "not ASCII"),
        ("https://git.example.org/a", "URL"),
        (&long, "too long"),
    ] {
        assert!(text.parse::<Repository>().is_err(), "{defect}: {text}");
    }
}

#[test]
fn tags_that_are_and_are_not() {
    let longest = "x".repeat(128);
    for text in ["v0.2.9", "latest", "_x", "V1", "1", "a-b_c.d", &longest] {
        assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
    }
    let too_long = "x".repeat(129);
    for (text, defect) in [
        ("", "empty"),
        (".a", "leading dot"),
        ("-a", "leading dash"),
        ("a b", "space"),
        ("a\nb", "line feed"),
        ("a:b", "colon"),
        ("a/b", "slash"),
        ("ä", "not ASCII"),
        ("a+b", "plus, as semantic versions have it"),
        (&too_long, "too long"),
    ] {
        assert!(text.parse::<Tag>().is_err(), "{defect}");
    }
}

#[test]
fn digests_that_are_and_are_not() {
    let digest = Digest::of(b"");
    assert_eq!(digest.to_string(), format!("sha256:{HEX}"));
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!(digest.signature_tag().as_str(), format!("sha256-{HEX}.sig"));
    let upper = format!("sha256:{}", HEX.to_uppercase());
    for (text, defect) in [
        ("", "empty"),
        (HEX, "no algorithm"),
        (&format!("SHA256:{HEX}"), "upper-case algorithm"),
        (&upper, "upper-case digits"),
        (&format!("sha256:{HEX}0"), "a digit more"),
        (&format!("sha256:{}", &HEX[1..]), "a digit less"),
        (&format!("sha256:g{}", &HEX[1..]), "no hexadecimal digit"),
        (&format!("sha256:é{}", &HEX[2..]), "a character of two bytes"),
        (&format!("sha512:{HEX}{HEX}"), "another algorithm"),
        (&format!("sha256:{HEX}\n"), "line feed"),
    ] {
        assert!(text.parse::<Digest>().is_err(), "{defect}: {text}");
    }
}

#[test]
fn references_are_taken_apart() {
    let name = "localhost:5000/a/b";
    let digest = format!("sha256:{HEX}");
    for (text, tag, pinned) in [
        (name.to_owned(), None, false),
        (format!("{name}:v1"), Some("v1"), false),
        (format!("{name}@{digest}"), None, true),
        (format!("{name}:v1@{digest}"), Some("v1"), true),
    ] {
        let image: ImageRef = text.parse().unwrap();
        assert_eq!(image.to_string(), text);
        assert_eq!(image.repository.to_string(), name);
        assert_eq!((image.tag.as_ref().map(Tag::as_str), image.digest.is_some()), (tag, pinned));
    }
    for text in
        ["localhost:5000", "git.test/a:", "git.test/a::v1", "git.test/a:v:1", "git.test/a@", "git.test/a@x@y", "@", ":"]
    {
        assert!(text.parse::<ImageRef>().is_err(), "{text}");
    }
}

#[test]
fn in_json_each_is_its_text() {
    let image: ImageRef = serde_json::from_str("\"git.test/a:v1\"").unwrap();
    assert_eq!(serde_json::to_string(&image).unwrap(), "\"git.test/a:v1\"");
    assert!(serde_json::from_str::<Tag>("\"a b\"").is_err());
    assert!(serde_json::from_str::<Digest>("7").is_err());
}

proptest! {
    #[test]
    fn what_parses_is_shown_as_it_was_written(text in "[a-z0-9.:\\[\\]-]{1,20}/[a-z0-9._/-]{1,20}(:[A-Za-z0-9._-]{1,9})?") {
        if let Ok(image) = text.parse::<ImageRef>() {
            prop_assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}") {
        let _ = text.parse::<ImageRef>();
        let _ = text.parse::<Registry>();
        let _ = text.parse::<Digest>();
    }

    #[test]
    fn every_digest_survives_its_text(bytes in any::<Vec<u8>>()) {
        let digest = Digest::of(&bytes);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        prop_assert_eq!(digest.hex().len(), 64);
    }
}
