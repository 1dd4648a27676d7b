//! Requests, most of them with a defect.

use proptest::prelude::*;

use super::*;

const GOOD: &str = "v0.2.9\n\
    Request: 01D39ZY06FGSCTVN4T2V9PKHFZ\n\
    Image: git.example.org/chris/app\n\
    Digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
    Commit: 0123456789abcdef0123456789abcdef01234567\n\
    Run: https://git.example.org/chris/app/actions/runs/7\n\
    Not-After: 2026-02-03T04:05:06Z\n\
    Boot: 0a0a0a0a-0000-4000-8000-00000000000f\n";

const SIGNATURE_LINE: &str = "Signature: MEUCIQ==\n";

/// The good request without the line of one key.
fn without(key: &str) -> String {
    GOOD.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{key}: "))).collect()
}

/// The good request with another value for one key.
fn with(key: &str, value: &str) -> String {
    without(key) + &format!("{key}: {value}\n")
}

fn parse(text: &str) -> Result<Received, RequestError> {
    Received::parse(text.as_bytes())
}

#[test]
fn a_good_request_says_what_it_says() {
    let received = parse(GOOD).unwrap();
    assert_eq!(received.request.tag.to_string(), "v0.2.9");
    assert_eq!(received.request.id.to_string(), "01D39ZY06FGSCTVN4T2V9PKHFZ");
    assert!(!received.request.rollback);
    assert_eq!(received.signature(), None);
    assert_eq!(received.request.encode(), GOOD.as_bytes());
}

#[test]
fn optional_keys_may_be_absent() {
    let received = parse(&without("Commit")).unwrap();
    assert_eq!(received.request.commit, None);
    assert_eq!(parse(&without("Run")).unwrap().request.run, None);
    assert!(parse(&with("Rollback", "true")).unwrap().request.rollback);
    assert!(!parse(&with("Rollback", "false")).unwrap().request.rollback);
}

#[test]
fn a_signature_covers_all_bytes_before_its_line() {
    let request = parse(GOOD).unwrap().request;
    let signed = request
        .encode_signed(|message| {
            assert_eq!(message, GOOD.as_bytes());
            Ok::<_, ()>(vec![1, 2, 3])
        })
        .unwrap();
    let received = Received::parse(&signed).unwrap();
    let signature = received.signature().unwrap();
    assert_eq!(signature.message, GOOD.as_bytes());
    assert_eq!(signature.bytes, [1, 2, 3]);
    // Also with an order and spelling of lines that this program would not choose itself.
    let other = with("Image", "git.example.org/chris/app");
    let received = parse(&(other.clone() + SIGNATURE_LINE)).unwrap();
    assert_eq!(received.signature().unwrap().message, other.as_bytes());
}

#[test]
fn a_failure_to_sign_is_passed_on() {
    let request = parse(GOOD).unwrap().request;
    assert_eq!(request.encode_signed(|_| Err("no key")), Err("no key"));
}

#[test]
fn requests_with_a_defect_are_refused() {
    let good = GOOD.to_owned();
    let vectors: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("only a line's end", "\n".to_owned()),
        ("only a tag", "v0.2.9\n".to_owned()),
        ("no tag", without("no such key").replacen("v0.2.9\n", "", 1)),
        ("an empty tag", good.replacen("v0.2.9", "", 1)),
        ("a tag with a space", good.replacen("v0.2.9", "v0.2.9 ", 1)),
        ("a tag with a slash", good.replacen("v0.2.9", "a/b", 1)),
        ("a tag that starts with a dash", good.replacen("v0.2.9", "-v", 1)),
        ("a tag of 129 bytes", good.replacen("v0.2.9", &"v".repeat(129), 1)),
        ("an answer's first line", good.replacen("v0.2.9", "ok v0.2.9", 1)),
        ("half a file", good.trim_end().to_owned()),
        ("half a line", good.get(..good.len() - 7).unwrap().to_owned()),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("a NUL", good.replacen("chris", "chris\0", 1)),
        ("an escape sequence", good.replacen("chris", "\u{1b}[2J", 1)),
        ("a C1 control character", good.replacen("runs/7", "runs/\u{85}", 1)),
        ("a tab after the colon", good.replacen("Image: ", "Image:\t", 1)),
        ("no space after the colon", good.replacen("Image: ", "Image:", 1)),
        ("two spaces after the colon", good.replacen("Image: ", "Image:  ", 1)),
        ("a space before the colon", good.replacen("Image: ", "Image : ", 1)),
        ("an empty line", good.replacen("Image", "\nImage", 1)),
        ("an empty line at the end", good.clone() + "\n"),
        ("a key without a value", with("Commit", "")),
        ("a value without a key", good.clone() + ": value\n"),
        ("an unknown key", good.clone() + "Services: web\n"),
        ("a key in lower case", good.replacen("Image", "image", 1)),
        ("a key twice", good.clone() + "Boot: 0a0a0a0a-0000-4000-8000-00000000000f\n"),
        ("a key twice, with another value", good.clone() + "Request: 01D39ZY06FGSCTVN4T2V9PKHFX\n"),
        ("no Request", without("Request")),
        ("no Image", without("Image")),
        ("no Digest", without("Digest")),
        ("no Not-After", without("Not-After")),
        ("no Boot", without("Boot")),
        ("a Request in lower case", with("Request", "01d39zy06fgsctvn4t2v9pkhfz")),
        ("a Request that is a path", with("Request", "../../../.ssh/authorized_k")),
        ("an Image with a tag", with("Image", "git.example.org/chris/app:stable")),
        ("an Image in upper case", with("Image", "git.example.org/Chris/app")),
        ("an Image without a registry", with("Image", "app")),
        ("a Digest of another algorithm", with("Digest", "md5:d41d8cd98f00b204e9800998ecf8427e")),
        ("a Digest that is too short", with("Digest", "sha256:e3b0c442")),
        ("a Digest in upper case", with("Digest", &format!("sha256:{}", "A".repeat(64)))),
        ("a Commit that is abbreviated", with("Commit", "0123456")),
        ("a Run of another scheme", with("Run", "file:///etc/passwd")),
        ("a Not-After in another zone", with("Not-After", "2026-02-03T04:05:06+02:00")),
        ("a Not-After that is no time", with("Not-After", "never")),
        ("a Boot that is none", with("Boot", "now")),
        ("a Rollback that is neither", with("Rollback", "yes")),
        ("a Signature that is not base64", good.clone() + "Signature: !!!!\n"),
        ("a Signature without padding", good.clone() + "Signature: MEUCIQ\n"),
        ("a Signature with bits that stand for nothing", good.clone() + "Signature: MEUCIR==\n"),
        ("an empty Signature", good.clone() + "Signature: \n"),
        ("a Signature that is too long", good.clone() + &format!("Signature: {}\n", "AAAA".repeat(100))),
        ("a Signature twice", good.clone() + SIGNATURE_LINE + SIGNATURE_LINE),
        ("a key after the Signature", good.clone() + SIGNATURE_LINE + "Rollback: true\n"),
        ("more than 4,096 bytes", with("Run", &format!("https://{}", "a".repeat(4096)))),
    ];
    for (defect, text) in &vectors {
        let result = parse(text);
        assert!(result.is_err(), "{defect}: {result:?}");
    }
    let binary = [GOOD.as_bytes(), b"Commit: \xff\xfe\n"].concat();
    assert_eq!(Received::parse(&binary), Err(RequestError::Form(FormError::NotText)));
}

#[test]
fn the_error_says_what_is_wrong() {
    assert_eq!(parse(&without("Boot")), Err(RequestError::Missing("Boot")));
    assert_eq!(parse(&(GOOD.to_owned() + "Boot: x\n")), Err(RequestError::Twice("Boot")));
    assert_eq!(parse(&(GOOD.to_owned() + SIGNATURE_LINE + "Boot: x\n")), Err(RequestError::AfterSignature));
    let error = parse(&(GOOD.to_owned() + "Services: web\n")).unwrap_err();
    assert_eq!(error.to_string(), "the request has the unknown key Services");
    assert!(error.hint().unwrap().contains("update tagship-host"));
    assert_eq!(Received::parse(&[b'a'; LIMIT + 1]), Err(RequestError::Form(FormError::TooLarge(LIMIT))));
}

#[test]
fn what_can_be_salvaged_is() {
    let id: RequestId = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap();
    let tag: Tag = "v0.2.9".parse().unwrap();
    let both = Salvaged { tag: Some(tag.clone()), id: Some(id) };
    assert_eq!(salvage(GOOD.as_bytes()), both);
    assert_eq!(salvage((GOOD.to_owned() + "Unknown: x\n").as_bytes()), both);
    assert_eq!(salvage(&[GOOD.as_bytes(), b"\xff\xff\n"].concat()), both);
    assert_eq!(salvage(&[GOOD.as_bytes(), &[b'x'; 10_000]].concat()), both);
    assert_eq!(salvage(b"bad tag\nRequest: 01D39ZY06FGSCTVN4T2V9PKHFZ"), Salvaged { tag: None, id: Some(id) });
    assert_eq!(salvage(b"v0.2.9\nRequest: ../x\n"), Salvaged { tag: Some(tag), id: None });
    assert_eq!(salvage(b""), Salvaged::default());
    // The first line is the tag's, whatever it says.
    assert_eq!(salvage(b"Request: 01D39ZY06FGSCTVN4T2V9PKHFZ\n").id, None);
}

prop_compose! {
    fn any_request()(
        tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
        random in any::<u128>(),
        path in "[a-z0-9]{1,20}(/[a-z0-9]{1,20}){0,3}",
        content in any::<Vec<u8>>(),
        commit in proptest::option::of("[0-9a-f]{40}|[0-9a-f]{64}"),
        run in proptest::option::of("https://[!-~]{1,1000}"),
        seconds in 0i64..4_000_000_000,
        boot in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        rollback in any::<bool>(),
    ) -> Request {
        Request {
            tag: tag.parse().unwrap(),
            id: ulid::Ulid(random).to_string().parse().unwrap(),
            image: format!("registry.test/{path}").parse().unwrap(),
            digest: Digest::of(&content),
            commit: commit.map(|commit| commit.parse().unwrap()),
            run: run.map(|run| run.parse().unwrap()),
            not_after: Timestamp::from_second(seconds).unwrap(),
            boot: boot.parse().unwrap(),
            rollback,
        }
    }
}

proptest! {
    #[test]
    fn every_request_comes_back(request in any_request(), signature in proptest::collection::vec(any::<u8>(), 1..=72)) {
        let plain = request.encode();
        prop_assert_eq!(&Received::parse(&plain).unwrap().request, &request);
        let signed = request.encode_signed(|_| Ok::<_, ()>(signature.clone())).unwrap();
        prop_assert!(signed.len() <= LIMIT);
        let received = Received::parse(&signed).unwrap();
        prop_assert_eq!(&received.signature().unwrap().message, &plain);
        prop_assert_eq!(&received.signature().unwrap().bytes, &signature);
        prop_assert_eq!(received.request, request);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in any::<Vec<u8>>()) {
        let _ = Received::parse(&bytes);
        let _ = salvage(&bytes);
    }

    #[test]
    fn no_change_of_a_good_request_is_a_panic(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len()) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = Received::parse(&bytes);
        let _ = salvage(&bytes);
        // A prefix lacks its last line, or the end of it.
        prop_assert!(Received::parse(&GOOD.as_bytes()[..cut]).is_err());
    }
}
