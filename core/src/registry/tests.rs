//! The client against registries that behave, misbehave and attack.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::testing::{Received, Reply, Server};
use super::*;
use crate::credentials::Credential;
use crate::explain::{Explain, chain};
use crate::reference::{Digest, Registry, Repository, Tag};
use crate::tls::Roots;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

/// As patient as by default in all but time, so that no test waits.
fn limits() -> Limits {
    Limits { pause: Duration::from_millis(1), ..Limits::default() }
}

fn registry(server: &Server) -> Registry {
    format!("127.0.0.1:{}", server.port).parse().unwrap()
}

fn repository(server: &Server) -> Repository {
    format!("127.0.0.1:{}/chris/app", server.port).parse().unwrap()
}

fn tag() -> Target {
    Target::Tag("v1".parse().unwrap())
}

fn chris() -> Credential {
    Credential::Basic { user: "chris".into(), secret: "s3cret".to_owned().into() }
}

/// `chris:s3cret` as Basic.
const CHRIS: &str = "Basic Y2hyaXM6czNjcmV0";

fn client(server: &Server, credential: Credential) -> Client {
    Client::with_limits(&registry(server), credential, &Roots::load(None).unwrap(), limits()).unwrap()
}

fn manifest_reply() -> Reply {
    Reply::new(200, MANIFEST).with("Content-Type", OCI_MANIFEST)
}

/// The challenge of a token service at this server, in Forgejo's words.
fn challenge(request: &Received, scope: &str) -> Reply {
    let host = request.header("host").unwrap();
    let value = format!(r#"Bearer realm="http://{host}/v2/token",service="container_registry",scope="{scope}""#);
    Reply::new(401, "").with("WWW-Authenticate", value)
}

/// A registry that behaves as Forgejo does: `chris` may log in and read; whether he may push is `may_push`.
fn forgejo(request: &Received, may_push: bool) -> Reply {
    if request.target.starts_with("/v2/token") {
        return match request.header("authorization") {
            Some(CHRIS) => Reply::new(200, r#"{"token":"t0ken"}"#),
            // The second body after the first, which breaks the stream for whoever reads it.
            _ => Reply::new(401, "unauthorized").stalled(),
        };
    }
    if request.header("authorization") != Some("Bearer t0ken") {
        return challenge(request, "*");
    }
    match (request.method.as_str(), request.target.as_str()) {
        ("GET", "/v2/chris/app/manifests/v1") => manifest_reply(),
        ("GET", _) => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":""}]}"#),
        _ if !may_push => Reply::new(401, "reqPackageAccess").stalled(),
        ("POST", _) => Reply::new(202, "").with("Location", "/v2/chris/app/blobs/uploads/7"),
        ("PUT", target) if target.contains("/uploads/") => Reply::new(201, ""),
        ("PUT", _) => Reply::new(201, ""),
        ("DELETE", "/v2/chris/app/blobs/uploads/7") => Reply::new(204, ""),
        _ => Reply::new(500, "unexpected"),
    }
}

fn kind<T>(result: Result<T, RegistryError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.kind(),
    }
}

#[tokio::test]
async fn one_token_serves_everything() {
    let server = Server::start(|request| forgejo(request, true)).await;
    let (client, repository) = (client(&server, chris()), repository(&server));
    let manifest = client.manifest(&repository, &tag()).await.unwrap().unwrap();
    assert_eq!((&manifest.bytes()[..], manifest.media_type()), (MANIFEST, OCI_MANIFEST));
    let absent = client.manifest(&repository, &Target::Digest(Digest::of(b"x"))).await.unwrap();
    assert_eq!(absent, None);
    client.put_manifest(&repository, &"stable".parse::<Tag>().unwrap().into(), &manifest).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /v2/chris/app/manifests/v1".to_owned(),
            "GET /v2/token?service=container_registry&scope=*".to_owned(),
            "GET /v2/chris/app/manifests/v1".to_owned(),
            format!("GET /v2/chris/app/manifests/{}", Digest::of(b"x")),
            "PUT /v2/chris/app/manifests/stable".to_owned(),
        ]
    );
    let put = server.received().pop().unwrap();
    assert_eq!((put.body.as_slice(), put.header("content-type")), (MANIFEST, Some(OCI_MANIFEST)));
}

#[tokio::test]
async fn two_at_once_fetch_one_token() {
    let server = Server::start(|request| forgejo(request, true)).await;
    let (client, repository, v1) = (client(&server, chris()), repository(&server), "v1".parse().unwrap());
    let (one, two) = tokio::join!(client.resolve(&repository, &v1), client.resolve(&repository, &v1));
    assert_eq!((one.unwrap(), two.unwrap()), (Some(Digest::of(MANIFEST)), Some(Digest::of(MANIFEST))));
    assert_eq!(server.lines().iter().filter(|line| line.contains("/v2/token")).count(), 1);
}

#[tokio::test]
async fn who_may_push_is_proven_by_an_upload_that_is_cancelled() {
    let server = Server::start(|request| forgejo(request, true)).await;
    client(&server, chris()).check_push(&repository(&server)).await.unwrap();
    let last = server.received().pop().unwrap();
    assert_eq!(last.line(), "DELETE /v2/chris/app/blobs/uploads/7");
    assert_eq!(last.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(server.received()[0].header("content-length"), Some("0"));
}

#[tokio::test]
async fn an_upload_that_cannot_be_cancelled_was_allowed_all_the_same() {
    let server = Server::start(|request| match request.method.as_str() {
        "DELETE" => Reply::new(405, ""),
        _ => forgejo(request, true),
    })
    .await;
    client(&server, chris()).check_push(&repository(&server)).await.unwrap();
}

#[tokio::test]
async fn who_may_only_read_is_told_so() {
    let server = Server::start(|request| forgejo(request, false)).await;
    let (client, repository) = (client(&server, chris()), repository(&server));
    assert_eq!(kind(client.manifest(&repository, &tag()).await), "ok");
    let error = client.check_push(&repository).await.unwrap_err();
    assert_eq!(error.kind(), "registry-denied");
    assert!(error.to_string().contains("may not push to"), "{error}");
    assert!(error.hint().unwrap().contains("write:package"));
    assert_eq!(kind(client.put_blob(&repository, b"x").await), "registry-denied");
}

#[tokio::test]
async fn wrong_credentials_are_told_at_once_though_the_answer_never_ends() {
    let server = Server::start(|request| forgejo(request, true)).await;
    let wrong = Credential::Basic { user: "chris".into(), secret: "wrong".to_owned().into() };
    let begun = Instant::now();
    let error = client(&server, wrong).check_push(&repository(&server)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { anonymous: false, .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "the body was waited for");
    assert!(!format!("{error:?}").contains("wrong"));
}

#[tokio::test]
async fn missing_credentials_are_told_from_wrong_ones() {
    let server = Server::start(|request| forgejo(request, true)).await;
    let error = client(&server, Credential::Anonymous).manifest(&repository(&server), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { anonymous: true, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("podman login"));
}

#[tokio::test]
async fn basic_alone_is_enough_and_read_only_is_told_from_wrong_there_too() {
    let basic = |request: &Received| match (request.header("authorization"), request.method.as_str()) {
        (Some(CHRIS), "GET") if request.target == "/v2/" => Reply::new(200, "{}"),
        (Some(CHRIS), "GET") => manifest_reply(),
        _ => Reply::new(401, "").with("WWW-Authenticate", r#"Basic realm="registry""#),
    };
    let server = Server::start(basic).await;
    let repository = repository(&server);
    let right = client(&server, chris());
    assert_eq!(kind(right.manifest(&repository, &tag()).await), "ok");
    assert_eq!(kind(right.check_push(&repository).await), "registry-denied");
    let wrong = Credential::Basic { user: "chris".into(), secret: "wrong".to_owned().into() };
    assert_eq!(kind(client(&server, wrong).manifest(&repository, &tag()).await), "registry-unauthorized");
    assert_eq!(
        kind(client(&server, Credential::Anonymous).manifest(&repository, &tag()).await),
        "registry-unauthorized"
    );
}

#[tokio::test]
async fn a_registry_that_wants_no_credentials_gets_none() {
    let server = Server::start(|_| manifest_reply()).await;
    assert_eq!(kind(client(&server, chris()).manifest(&repository(&server), &tag()).await), "ok");
    let received = server.received();
    assert_eq!((received.len(), received[0].header("authorization")), (1, None));
}

#[tokio::test]
async fn a_token_grows_with_what_the_registry_wants() {
    let server = Server::start(|request| {
        if let Some(query) = request.target.strip_prefix("/v2/token?") {
            let pushing = query.contains("push");
            return Reply::new(200, format!(r#"{{"token":"{}"}}"#, if pushing { "push" } else { "pull" }));
        }
        match (request.header("authorization"), request.method.as_str()) {
            (Some(_), "GET") => manifest_reply(),
            (None, "GET") => challenge(request, "repository:chris/app:pull"),
            (Some("Bearer push"), _) => Reply::new(201, ""),
            _ => challenge(request, "repository:chris/app:pull,push"),
        }
    })
    .await;
    let (client, repository) = (client(&server, chris()), repository(&server));
    let manifest = client.manifest(&repository, &tag()).await.unwrap().unwrap();
    client.put_manifest(&repository, &tag(), &manifest).await.unwrap();
    client.manifest(&repository, &tag()).await.unwrap();
    let tokens: Vec<_> = server.lines().into_iter().filter(|line| line.contains("token")).collect();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[1].contains("app%3Apull&") && tokens[1].ends_with("app%3Apull%2Cpush"), "{tokens:?}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = Server::start(|request| match (request.line().as_str(), request.header("authorization")) {
        ("POST /v2/token", None) => Reply::new(200, r#"{"access_token":"acc"}"#),
        (_, Some("Bearer acc")) => manifest_reply(),
        _ => challenge(request, "*"),
    })
    .await;
    let identity = Credential::IdentityToken { token: "re/fresh".to_owned().into() };
    assert_eq!(kind(client(&server, identity).manifest(&repository(&server), &tag()).await), "ok");
    let form = String::from_utf8(server.received()[1].body.clone()).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=re%2Ffresh"), "{form}");
}

#[tokio::test]
async fn credentials_go_to_no_token_service_without_tls() {
    for realm in ["http://192.0.2.1/token", "http://git.example.test/token", "ftp://127.0.0.1/", "//x", "token"] {
        let value = format!(r#"Bearer realm="{realm}""#);
        let server = Server::start(move |_| Reply::new(401, "").with("WWW-Authenticate", &value)).await;
        let result = client(&server, chris()).manifest(&repository(&server), &tag()).await;
        assert_eq!(kind(result), "registry-protocol", "{realm}");
    }
}

#[tokio::test]
async fn token_services_that_misbehave_are_named() {
    for (reply, expected) in [
        (Reply::new(200, "<html>login</html>"), "registry-protocol"),
        (Reply::new(200, "{}"), "registry-protocol"),
        (Reply::new(200, "").endless(), "registry-too-large"),
        (Reply::new(404, ""), "registry-refused"),
        (Reply::new(403, ""), "registry-unauthorized"),
        (Reply::new(500, ""), "registry-error"),
    ] {
        let answer = reply.clone();
        let server = Server::start(move |request| match request.target.contains("token") {
            true => answer.clone(),
            false => challenge(request, "*"),
        })
        .await;
        let error = client(&server, chris()).manifest(&repository(&server), &tag()).await.unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (expected, true), "{reply:?}");
        assert_eq!(error.hint().unwrap().contains("ROOT_URL"), expected == "registry-refused", "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_refused_without_a_word_has_a_hint_that_fits() {
    for (status, hint) in [
        (302, "sends on"),
        (304, "sends on"),
        (400, "registry's own log"),
        (405, "registry's own log"),
        (413, "longest request"),
        (501, "registry's own log"),
    ] {
        let server = Server::start(move |_| Reply::new(status, "")).await;
        let error = client(&server, chris()).manifest(&repository(&server), &tag()).await.unwrap_err();
        assert_eq!(error.kind(), "registry-refused", "{status}");
        assert!(error.hint().unwrap().contains(hint), "{status}: {:?}", error.hint());
    }
}

#[tokio::test]
async fn a_manifest_that_is_another_is_spoilt_whatever_it_says() {
    for (body, sent, expected) in [
        ("no JSON", OCI_MANIFEST, "registry-corrupt"),
        ("", OCI_MANIFEST, "registry-corrupt"),
        (r#"{"mediaType":"x"}"#, OCI_MANIFEST, "registry-corrupt"),
        ("<html>login</html>", "text/html", "registry-protocol"),
    ] {
        let server = Server::start(move |_| Reply::new(200, body).with("Content-Type", sent)).await;
        let wanted = Target::Digest(Digest::of(MANIFEST));
        let result = client(&server, chris()).manifest(&repository(&server), &wanted).await;
        assert_eq!(kind(result), expected, "{body}");
    }
}

/// How often the server was asked until the client had its `expected`.
async fn asked(expected: &str, reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> usize {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| reply(count.fetch_add(1, Ordering::Relaxed))).await;
    let result = client(&server, Credential::Anonymous).manifest(&repository(&server), &tag()).await;
    assert_eq!(kind(result), expected);
    server.received().len()
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let then_well = |first: Reply| move |n| if n < 2 { first.clone() } else { manifest_reply() };
    assert_eq!(asked("ok", then_well(Reply::new(503, ""))).await, 3);
    assert_eq!(asked("ok", then_well(Reply::new(429, "").with("Retry-After", 0))).await, 3);
    assert_eq!(asked("ok", then_well(Reply::closed())).await, 3);
    assert_eq!(asked("ok", then_well(manifest_reply().cut())).await, 3);
    assert_eq!(asked("registry-error", |_| Reply::new(500, "down")).await, 3);
    assert_eq!(asked("registry-error", |_| Reply::new(429, "").with("Retry-After", 3600)).await, 1);
    assert_eq!(asked("registry-refused", |_| Reply::new(400, "no")).await, 1);
    assert_eq!(asked("registry-refused", |_| Reply::new(501, "no")).await, 1);
    assert_eq!(asked("registry-unauthorized", |_| Reply::new(403, "no")).await, 1);
    assert_eq!(asked("ok", |_| Reply::new(404, "no")).await, 1);
    assert_eq!(asked("registry-interrupted", |_| manifest_reply().cut()).await, 3);
}

#[tokio::test]
async fn a_registry_that_is_down_is_told_at_once() {
    let server = Server::start(|_| manifest_reply()).await;
    let (client, repository) = (client(&server, Credential::Anonymous), repository(&server));
    drop(server);
    // The listener closes when its task ends, which a dropped handle only asks for.
    tokio::task::yield_now().await;
    let error = client.manifest(&repository, &tag()).await.unwrap_err();
    assert_eq!(error.kind(), "registry-unreachable");
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
}

#[tokio::test]
async fn a_registry_that_stalls_ends_in_an_error_and_is_not_tried_again() {
    for reply in [Reply::silent(), manifest_reply().stalled()] {
        let server = Server::start(move |_| reply.clone()).await;
        let limits = Limits { idle: Duration::from_millis(50), ..limits() };
        let roots = Roots::load(None).unwrap();
        let client = Client::with_limits(&registry(&server), chris(), &roots, limits).unwrap();
        assert_eq!(kind(client.manifest(&repository(&server), &tag()).await), "registry-timeout");
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn nothing_is_read_without_limit() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/chris/app/manifests/v1" => Reply::new(200, "").with("Content-Type", OCI_MANIFEST).endless(),
        "/v2/chris/app/manifests/error" => Reply::new(400, "").endless(),
        "/v2/chris/app/manifests/long" => Reply::new(200, vec![b'x'; 4 * 1024 * 1024 + 1]),
        target if target.contains("/blobs/") => Reply::new(200, "12345678"),
        _ => Reply::new(200, "").endless(),
    })
    .await;
    let (client, repository) = (client(&server, Credential::Anonymous), repository(&server));
    let named = |tag: &str| Target::Tag(tag.parse().unwrap());
    assert_eq!(kind(client.manifest(&repository, &tag()).await), "registry-too-large");
    assert_eq!(kind(client.manifest(&repository, &named("long")).await), "registry-too-large");
    assert_eq!(kind(client.manifest(&repository, &named("error")).await), "registry-refused");
    let digest = Digest::of(b"12345678");
    assert_eq!(kind(client.blob(&repository, &digest, 7).await), "registry-too-large");
    assert_eq!(client.blob(&repository, &digest, 8).await.unwrap(), &b"12345678"[..]);
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_names_is_refused() {
    let claim = Digest::of(b"other");
    let server = Server::start(move |request| match request.method.as_str() {
        "GET" if request.target.contains("/blobs/") => Reply::new(200, "other"),
        "GET" if request.target.ends_with("/v1") => manifest_reply().with("Docker-Content-Digest", claim),
        "GET" => manifest_reply(),
        "POST" => Reply::new(201, "").with("Docker-Content-Digest", claim),
        _ => Reply::new(201, "").with("Docker-Content-Digest", claim),
    })
    .await;
    let (client, repository) = (client(&server, Credential::Anonymous), repository(&server));
    let manifest = Manifest::new(OCI_MANIFEST, MANIFEST);
    assert_eq!(kind(client.manifest(&repository, &Target::Digest(claim)).await), "registry-corrupt");
    assert_eq!(kind(client.manifest(&repository, &tag()).await), "registry-corrupt");
    assert_eq!(kind(client.manifest(&repository, &Target::Digest(manifest.digest())).await), "ok");
    assert_eq!(kind(client.blob(&repository, &Digest::of(b"mine"), 100).await), "registry-corrupt");
    assert_eq!(kind(client.put_manifest(&repository, &tag(), &manifest).await), "registry-corrupt");
    assert_eq!(kind(client.put_blob(&repository, b"mine").await), "registry-corrupt");
    // Never sent: Forgejo would answer 201.
    let before = server.received().len();
    assert_eq!(kind(client.put_manifest(&repository, &Target::Digest(claim), &manifest).await), "registry-corrupt");
    assert_eq!(server.received().len(), before);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    for (content_type, body) in [("text/html", "<html>"), (OCI_INDEX, std::str::from_utf8(MANIFEST).unwrap())] {
        let reply = Reply::new(200, body).with("Content-Type", content_type);
        let server = Server::start(move |_| reply.clone()).await;
        let result = client(&server, Credential::Anonymous).manifest(&repository(&server), &tag()).await;
        assert_eq!(kind(result), "registry-protocol");
    }
}

#[tokio::test]
async fn blobs_are_followed_to_their_store_without_the_credentials() {
    let store = Server::start(|request| match request.target.as_str() {
        "/store/good?sig=x" => Reply::new(200, "payload"),
        _ => challenge(request, "*"),
    })
    .await;
    let port = store.port;
    let server = Server::start(move |request| match (request.header("authorization"), request.target.as_str()) {
        (Some("Bearer t0ken"), target) if target.contains("/blobs/") => {
            let name = if target.contains(&Digest::of(b"payload").hex()) { "good" } else { "forbidden" };
            Reply::new(307, "").with("Location", format!("http://127.0.0.1:{port}/store/{name}?sig=x"))
        }
        _ => forgejo(request, true),
    })
    .await;
    let (client, repository) = (client(&server, chris()), repository(&server));
    assert_eq!(client.blob(&repository, &Digest::of(b"payload"), 100).await.unwrap(), &b"payload"[..]);
    let error = client.blob(&repository, &Digest::of(b"else"), 100).await.unwrap_err();
    assert_eq!(error.kind(), "registry-refused");
    assert!(!error.to_string().contains("sig="), "{error}");
    let seen = store.received();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn redirects_that_leave_tls_or_never_end_are_not_followed() {
    for target in ["http://192.0.2.1/x", "http://git.example.test/x", "/v2/chris/app/manifests/v1"] {
        let server = Server::start(move |_| Reply::new(302, "").with("Location", target)).await;
        let result = client(&server, Credential::Anonymous).manifest(&repository(&server), &tag()).await;
        assert_eq!(kind(result), "registry-redirect", "{target}");
        assert!(server.received().len() <= 7);
    }
}

#[tokio::test]
async fn an_upload_elsewhere_gets_no_credentials() {
    let store = Server::start(|_| Reply::new(201, "")).await;
    let location = format!("http://127.0.0.1:{}/upload?state=a", store.port);
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" if request.header("authorization").is_some() => Reply::new(202, "").with("Location", &location),
        _ => forgejo(request, true),
    })
    .await;
    let digest = client(&server, chris()).put_blob(&repository(&server), b"payload").await.unwrap();
    let put = store.received().pop().unwrap();
    assert_eq!(put.target, format!("/upload?state=a&digest=sha256%3A{}", digest.hex()));
    assert_eq!((put.body.as_slice(), put.header("authorization")), (&b"payload"[..], None));
}

#[tokio::test]
async fn a_blob_goes_in_one_request_or_in_two() {
    for (status, requests) in [(201, 1), (202, 2)] {
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => Reply::new(status, "").with("Location", "/v2/chris/app/blobs/uploads/7?_state=a"),
            _ => Reply::new(201, ""),
        })
        .await;
        let digest = client(&server, chris()).put_blob(&repository(&server), b"payload").await.unwrap();
        assert_eq!(digest, Digest::of(b"payload"));
        let received = server.received();
        assert_eq!(received.len(), requests);
        assert!(received.iter().all(|request| request.body == b"payload" && request.target.contains(&digest.hex())));
    }
}

#[tokio::test]
async fn uploads_that_lead_nowhere_are_named() {
    for (reply, expected) in [
        (Reply::new(404, "unknown owner"), "registry-absent"),
        (Reply::new(202, ""), "registry-protocol"),
        (Reply::new(202, "").with("Location", "http://[::"), "registry-protocol"),
        (Reply::new(405, ""), "registry-refused"),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let client = client(&server, Credential::Anonymous);
        assert_eq!(kind(client.check_push(&repository(&server)).await), expected);
    }
    let body = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no\nsuch"}]}"#;
    let server = Server::start(move |_| Reply::new(404, body)).await;
    let manifest = Manifest::new(OCI_MANIFEST, MANIFEST);
    let put = client(&server, Credential::Anonymous).put_manifest(&repository(&server), &tag(), &manifest).await;
    assert!(put.unwrap_err().to_string().ends_with(r"404: BLOB_UNKNOWN (no\nsuch)"));
}

#[tokio::test]
async fn who_wants_more_at_the_same_time_gets_a_token_of_their_own() {
    let port = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&port);
    let server = Server::start(move |request| {
        let may = |right: &str| request.header("authorization").is_some_and(|token| token.contains(right));
        let (scope, right) = if request.method == "POST" { ("b:push", "push") } else { ("a:pull", "pull") };
        let realm = format!("http://127.0.0.1:{}/token", own.load(Ordering::SeqCst));
        match request.target.split('?').next() {
            Some("/token") => {
                let granted = ["pull", "push"].map(|right| if request.target.contains(right) { right } else { "" });
                Reply::new(200, format!(r#"{{"token":"x{}"}}"#, granted.concat()))
            }
            _ if may(right) && right == "push" => Reply::new(201, ""),
            _ if may(right) => Reply::new(200, MANIFEST).with("Content-Type", OCI_MANIFEST),
            _ => Reply::new(401, "")
                .with("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s",scope="{scope}""#)),
        }
    })
    .await;
    port.store(server.port.into(), Ordering::SeqCst);
    let (client, repository) = (client(&server, Credential::Anonymous), repository(&server));
    let wanted = tag();
    let (pulled, pushed) = tokio::join!(client.manifest(&repository, &wanted), client.put_blob(&repository, b"blob"));
    assert!(pulled.unwrap().is_some());
    pushed.unwrap();
}

/// A server certificate for 127.0.0.1 and the PEM of the authority that signed it.
fn authority() -> (rustls::ServerConfig, String) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(parameters, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (config, pem)
}

#[tokio::test]
async fn a_private_authority_must_be_handed_in() {
    let (config, pem) = authority();
    let server = Server::start_tls(config, |_| manifest_reply()).await;
    let fetch = async |roots: Roots, name: &str| {
        let registry = format!("{name}:{}", server.port).parse().unwrap();
        let repository = format!("{registry}/chris/app").parse().unwrap();
        let client = Client::with_limits(&registry, Credential::Anonymous, &roots, limits()).unwrap();
        client.manifest(&repository, &tag()).await
    };
    let error = fetch(Roots::load(None).unwrap(), "127.0.0.1").await.unwrap_err();
    assert_eq!(error.kind(), "registry-unknown-ca");
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"));
    let (_, other) = authority();
    assert_eq!(
        kind(fetch(Roots::load(Some(("ca", other.as_bytes()))).unwrap(), "127.0.0.1").await),
        "registry-unknown-ca"
    );
    assert_eq!(kind(fetch(Roots::load(Some(("ca", pem.as_bytes()))).unwrap(), "127.0.0.1").await), "ok");
    assert_eq!(
        kind(fetch(Roots::load(Some(("ca", pem.as_bytes()))).unwrap(), "localhost").await),
        "registry-certificate"
    );
    assert_eq!(server.received().len(), 1);
}
