//! Answering a registry's challenge: one token, fetched when the registry first asks for it, used throughout.
//!
//! The scheme is that of the Docker registry token specification, which Forgejo, GitLab, GHCR, Docker Hub and
//! `distribution` all speak, with plain Basic (RFC 7617) for registries without a token service. Forgejo takes Basic on
//! every request, too, but each check of a password costs it 130 ms where a token costs 12 ms.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::error::RegistryError;
use super::wire::{Request, Wire, shown};
use crate::credentials::Credential;
use crate::reference::Registry;

/// The longest answer of a token service; GitLab's tokens run to some kilobytes.
const TOKEN_MAX: usize = 64 * 1024;

/// The credentials of one registry, and what they were exchanged for.
pub(super) struct Authorizer {
    registry: Registry,
    credential: Arc<Credential>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    header: Option<HeaderValue>,
    /// How often the header was made anew.
    generation: u64,
    /// What the token was asked to allow; grows when the registry wants more.
    scopes: BTreeSet<String>,
    standing: Standing,
}

/// What is known about the credentials.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was asked yet, or they were sent as Basic and not yet accepted.
    #[default]
    Unknown,
    /// There are none.
    Anonymous,
    /// The token service accepted them.
    Accepted,
}

/// What a challenge asks for.
enum Challenge {
    Bearer { realm: String, service: Option<String>, scopes: Vec<String> },
    Basic,
}

impl Authorizer {
    pub(super) fn new(registry: &Registry, credential: Arc<Credential>) -> Self {
        let standing = match *credential {
            Credential::Anonymous => Standing::Anonymous,
            _ => Standing::Unknown,
        };
        let held = Mutex::new(Held { standing, ..Held::default() });
        Self { registry: registry.clone(), credential, held }
    }

    /// The Authorization header to send now, and its generation.
    pub(super) async fn current(&self) -> (u64, Option<HeaderValue>) {
        let held = self.held.lock().await;
        (held.generation, held.header.clone())
    }

    pub(super) async fn standing(&self) -> Standing {
        self.held.lock().await.standing
    }

    /// Answers the challenge of a 401 to a request that was sent with the header of generation `seen`. False when there
    /// is nothing further to offer.
    pub(super) async fn renew(&self, seen: u64, headers: &HeaderMap, wire: &Wire) -> Result<bool, RegistryError> {
        // Held while the token is fetched: whoever else needs one waits for this one.
        let mut held = self.held.lock().await;
        let challenge = challenge(headers);
        let is_covered = match &challenge {
            Some(Challenge::Bearer { scopes, .. }) => scopes.iter().all(|scope| held.scopes.contains(scope)),
            _ => true,
        };
        // Somebody else renewed it meanwhile, for what they wanted.
        if held.generation != seen && is_covered {
            return Ok(true);
        }
        let header = match challenge {
            Some(Challenge::Bearer { realm, service, scopes }) => {
                held.scopes.extend(scopes);
                let token = self.fetch(wire, &realm, service.as_deref(), &held.scopes).await?;
                if held.standing != Standing::Anonymous {
                    held.standing = Standing::Accepted;
                }
                token
            }
            Some(Challenge::Basic) if held.header.is_none() => match self.basic()? {
                Some(header) => header,
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        held.header = Some(header);
        held.generation += 1;
        Ok(true)
    }

    async fn fetch(
        &self,
        wire: &Wire,
        realm: &str,
        service: Option<&str>,
        scopes: &BTreeSet<String>,
    ) -> Result<HeaderValue, RegistryError> {
        let protocol = |why: &str| RegistryError::Protocol { url: self.registry.to_string(), why: why.to_owned() };
        let realm = Url::parse(realm).map_err(|_| protocol("its token service's address is no URL"))?;
        if !wire.is_safe(&realm) {
            return Err(protocol("it wants the credentials sent to a token service without TLS"));
        }
        let mut request = Request::new(Method::GET, realm, TOKEN_MAX);
        let mut authorization = None;
        if let Credential::IdentityToken { token } = &*self.credential {
            let token = token.expose_str().ok_or_else(|| protocol("the identity token for it is no text"))?;
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            let mut form = request.url.clone();
            form.set_query(None);
            form.query_pairs_mut()
                .extend_pairs(service.map(|service| ("service", service)))
                .extend_pairs([("grant_type", "refresh_token"), ("client_id", "tagship"), ("refresh_token", token)])
                .append_pair("scope", &scopes.join(" "));
            request.method = Method::POST;
            request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            request.body = Bytes::copy_from_slice(form.query().unwrap_or_default().as_bytes());
        } else {
            authorization = self.basic()?;
            let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
            request
                .url
                .query_pairs_mut()
                .extend_pairs(service.map(|service| ("service", service)))
                .extend_pairs(scopes);
        }
        let answer = wire.exchange(&request, authorization.as_ref()).await?;
        match answer.status {
            status if status.is_success() => bearer(&answer.body).ok_or_else(|| RegistryError::Protocol {
                url: shown(&answer.url),
                why: "it answers no token".to_owned(),
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused()),
            // OAuth 2 says so for a refresh token that is not valid (RFC 6749, section 5.2).
            StatusCode::BAD_REQUEST if request.method == Method::POST => Err(self.refused()),
            status => Err(RegistryError::NoToken {
                registry: self.registry.clone(),
                url: shown(&answer.url),
                status: status.as_u16(),
                message: answer.message(),
            }),
        }
    }

    /// The error for credentials that are wrong or missing.
    pub(super) fn refused(&self) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.registry.clone(),
            anonymous: matches!(*self.credential, Credential::Anonymous),
        }
    }

    fn basic(&self) -> Result<Option<HeaderValue>, RegistryError> {
        let Credential::Basic { user, secret } = &*self.credential else { return Ok(None) };
        let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + secret.expose().len()));
        pair.extend_from_slice(user.as_bytes());
        pair.push(b':');
        pair.extend_from_slice(secret.expose());
        let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
        sensitive(&text).map(Some).ok_or_else(|| self.refused())
    }
}

/// The token in a token service's answer; the two names mean the same.
fn bearer(body: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Token = serde_json::from_slice(body).ok()?;
    let token = Zeroizing::new(answer.token.or(answer.access_token).filter(|token| !token.is_empty())?);
    sensitive(&Zeroizing::new(format!("Bearer {}", *token)))
}

/// A header value that no debug output shows.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The strongest challenge that we can answer. A registry may send several, in one header or in more.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        for challenge in ChallengeParser::new(value.to_str().unwrap_or_default()).map_while(Result::ok) {
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter(&challenge, "realm")
            {
                let scopes = parameter(&challenge, "scope").unwrap_or_default();
                let scopes = scopes.split_ascii_whitespace().map(str::to_owned).collect();
                return Some(Challenge::Bearer { realm, service: parameter(&challenge, "service"), scopes });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer_of(values: &[&str]) -> Option<(String, Option<String>, Vec<String>)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        match challenge(&headers) {
            Some(Challenge::Bearer { realm, service, scopes }) => Some((realm, service, scopes)),
            _ => None,
        }
    }

    #[test]
    fn challenges_of_registries_in_use_are_understood() {
        let forgejo = r#"Bearer realm="https://git.test/v2/token",service="container_registry",scope="*""#;
        let known = |realm: &str, service: &str, scopes: &[&str]| {
            Some((realm.to_owned(), Some(service.to_owned()), scopes.iter().map(|s| (*s).to_owned()).collect()))
        };
        assert_eq!(bearer_of(&[forgejo]), known("https://git.test/v2/token", "container_registry", &["*"]));
        let pushing = r#"Bearer realm="https://a.test/t",service="a.test",scope="repository:a/b:pull,push",error="insufficient_scope""#;
        assert_eq!(bearer_of(&[pushing]), known("https://a.test/t", "a.test", &["repository:a/b:pull,push"]));
        assert_eq!(bearer_of(&[r#"Basic realm="x""#, forgejo]).map(|b| b.0), Some("https://git.test/v2/token".into()));
        assert_eq!(
            bearer_of(&[r#"Basic realm="x", bearer realm="https://b.test/""#]).map(|b| b.0),
            Some("https://b.test/".into())
        );
    }

    #[test]
    fn challenges_without_use_are_none() {
        for value in ["", "Bearer", "Bearer service=x", "Negotiate", "Bearer realm=\"unterminated", "\u{7f}"] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(WWW_AUTHENTICATE, value);
            }
            assert!(challenge(&headers).is_none(), "{value:?}");
        }
    }

    #[test]
    fn tokens_are_found_or_not() {
        let shown = |body: &str| bearer(body.as_bytes()).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(shown(r#"{"token":"a.b"}"#).as_deref(), Some("Bearer a.b"));
        assert_eq!(shown(r#"{"access_token":"c","expires_in":60}"#).as_deref(), Some("Bearer c"));
        for body in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":7}"#, r#"{"token":"a\r\nX-Evil: b"}"#] {
            assert_eq!(shown(body), None, "{body}");
        }
        assert!(bearer(br#"{"token":"secret"}"#).is_some_and(|value| !format!("{value:?}").contains("secret")));
    }

    proptest! {
        #[test]
        fn no_challenge_can_panic(value in "(Bearer|Basic|, |realm=|\"|scope=|[ -~]){0,12}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
            }
        }
    }
}
