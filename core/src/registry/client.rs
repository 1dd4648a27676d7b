//! The operations on a registry: what is asked, and what a status means for it.
//!
//! How bytes travel is known in `wire`, how credentials are presented in `auth`. What manifests say is nobody's
//! business here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::auth::{Authorizer, Standing};
use super::link;
use super::manifest::{self, Manifest, Target};
use super::wire::{Answer, Request, Wire, shown};
use super::{Limits, RegistryError};
use crate::credentials::Credential;
use crate::failpoint;
use crate::reference::{Digest, Registry, Repository, Tag};
use crate::tls::Roots;

/// The longest manifest that is taken, 4 MiB: what the OCI distribution specification asks registries to accept.
const MANIFEST_MAX: usize = 4 * 1024 * 1024;

/// The longest answer that is read where none is wanted.
const ANSWER_MAX: usize = 1024 * 1024;

/// The most pages of a list of referrers that are read, of 1 MiB (`ANSWER_MAX`) each.
const PAGES: usize = 8;

/// Where a registry names the digest of what it sends or stored.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How a registry says that it has taken note of what a manifest refers to.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// A connection to one registry, with one set of credentials. It keeps its connections and its token; share it by
/// reference.
pub struct Client {
    registry: Registry,
    wire: Wire,
    auth: Authorizer,
    /// Whether it has said that it has no referrers API.
    lists_none: AtomicBool,
}

/// What an operation needs to be allowed to do.
#[derive(Clone, Copy)]
enum Right {
    Pull,
    Push,
}

impl Client {
    /// Prepares a client; nothing is sent before the first operation.
    ///
    /// A registry on this very machine (`localhost`, a loopback address) may speak plain HTTP, as with Docker; TLS is
    /// tried first there. Any other is spoken to over TLS alone.
    pub fn new(
        registry: &Registry,
        credential: impl Into<Arc<Credential>>,
        roots: &Roots,
    ) -> Result<Self, RegistryError> {
        Self::with_limits(registry, credential, roots, Limits::default())
    }

    /// As [`Client::new`], more or less patient.
    pub(crate) fn with_limits(
        registry: &Registry,
        credential: impl Into<Arc<Credential>>,
        roots: &Roots,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            registry: registry.clone(),
            wire: Wire::new(registry, roots, limits)?,
            auth: Authorizer::new(registry, credential.into()),
            lists_none: AtomicBool::new(false),
        })
    }

    /// The digest that a tag names now; `None` when there is no such tag, repository or owner.
    ///
    /// The manifest itself is fetched and hashed: a digest that a registry only claims decides nothing here.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let manifest = self.manifest(repository, &Target::Tag(tag.clone())).await?;
        Ok(manifest.map(|manifest| manifest.digest()))
    }

    /// A manifest of at most 4 MiB; `None` when there is none. One that was asked for by digest has that digest.
    pub async fn manifest(&self, repository: &Repository, target: &Target) -> Result<Option<Manifest>, RegistryError> {
        let url = self.wire.url(&format!("v2/{}/manifests/{target}", repository.path()))?;
        let mut request = Request::new(Method::GET, url, MANIFEST_MAX);
        request.headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPTED));
        let answer = self.call(request, Right::Pull).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let manifest = match target {
            Target::Digest(expected) => parsed(&answer, Some(*expected))?,
            Target::Tag(_) => parsed(&answer, None)?,
        };
        claimed(&answer, manifest.digest())?;
        Ok(Some(manifest))
    }

    /// What refers to a manifest, as the registry's own index of it, page by page; `None` where the registry has no
    /// referrers API (OCI distribution specification, "Listing Referrers"). The registry may leave out what is not of the
    /// artifact type. One that has no such API is not asked again.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Option<Vec<Manifest>>, RegistryError> {
        if self.lists_none.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut url = self.wire.url(&format!("v2/{}/referrers/{digest}", repository.path()))?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        let mut pages = Vec::new();
        loop {
            let page = shown(&url);
            let long = |limit, unit| RegistryError::LongList { url: page.clone(), limit, unit };
            let mut request = Request::new(Method::GET, url, ANSWER_MAX);
            request.headers.insert(ACCEPT, HeaderValue::from_static(manifest::OCI_INDEX));
            let answer = match self.call(request, Right::Pull).await {
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => break,
                // Registries from before the API answer an unknown path in ways of their own.
                Err(RegistryError::Refused { status: 400 | 405 | 406, .. }) => break,
                // The page itself, and not what gives the token for it.
                Err(RegistryError::TooLarge { url, limit }) if url == page => {
                    return Err(long(limit, "bytes of a page"));
                }
                other => other?,
            };
            match parsed(&answer, None) {
                Ok(index) if index.media_type() == manifest::OCI_INDEX => pages.push(index),
                _ => break,
            }
            let Some(next) = link::next_page(&answer.headers) else { return Ok(Some(pages)) };
            if pages.len() == PAGES {
                return Err(long(PAGES, "pages"));
            }
            url = self.wire.join(&answer.url, next)?;
            if !self.wire.is_own(&url) {
                let why = "the next page of its list of referrers lies on another server".to_owned();
                return Err(RegistryError::Protocol { url: shown(&answer.url), why });
            }
        }
        // Half a list is none to go by.
        match pages.len() {
            0 => {
                self.lists_none.store(true, Ordering::Relaxed);
                Ok(None)
            }
            _ => Err(RegistryError::Protocol {
                url: shown(&self.wire.url("v2/")?),
                why: "it does not give the next page of its list of referrers".to_owned(),
            }),
        }
    }

    /// Puts a manifest's exact bytes under a tag or under its own digest.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        self.put(repository, target, manifest).await.map(|_| ())
    }

    /// Puts a manifest that refers to another one, under its own digest. Returns whether the registry has taken it into
    /// its index of referrers; otherwise that is the caller's to do (OCI distribution specification, "Pushing Manifests
    /// with Subject").
    pub async fn put_referrer(&self, repository: &Repository, manifest: &Manifest) -> Result<bool, RegistryError> {
        let answer = self.put(repository, &Target::Digest(manifest.digest()), manifest).await?;
        let listed = answer.headers.contains_key(OCI_SUBJECT);
        if listed {
            self.lists_none.store(false, Ordering::Relaxed);
        }
        Ok(listed)
    }

    async fn put(
        &self,
        repository: &Repository,
        target: &Target,
        manifest: &Manifest,
    ) -> Result<Answer, RegistryError> {
        let url = self.wire.url(&format!("v2/{}/manifests/{target}", repository.path()))?;
        if let Target::Digest(expected) = target {
            // Forgejo answers 201 here and stores the content under its true digest.
            same(&url, *expected, manifest.digest())?;
        }
        let media_type = HeaderValue::from_str(manifest.media_type()).map_err(|_| RegistryError::Protocol {
            url: shown(&url),
            why: "the manifest's media type fits in no header".to_owned(),
        })?;
        failpoint::pass("puts", url.path());
        let mut request = Request::new(Method::PUT, url, ANSWER_MAX);
        request.headers.insert(CONTENT_TYPE, media_type);
        request.body = manifest.bytes().clone();
        let answer = self.call(request, Right::Push).await?;
        stored(&answer, manifest.digest())?;
        Ok(answer)
    }

    /// A blob of at most `limit` bytes; its bytes have the digest.
    pub async fn blob(&self, repository: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, RegistryError> {
        let url = self.wire.url(&format!("v2/{}/blobs/{digest}", repository.path()))?;
        let answer = self.call(Request::new(Method::GET, url, limit), Right::Pull).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(RegistryError::Absent { url: shown(&answer.url) });
        }
        same(&answer.url, *digest, Digest::of(&answer.body))?;
        Ok(answer.body)
    }

    /// Uploads a blob of a few kilobytes, such as a signature's payload.
    ///
    /// Whether it is there already is not asked first: at this size the question costs as much as the upload, and
    /// uploading what is there changes nothing. It goes in one request where the registry can do that, else in two (OCI
    /// distribution specification, "Pushing a blob monolithically").
    pub async fn put_blob(&self, repository: &Repository, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let body = Bytes::copy_from_slice(bytes);
        let octets = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        let mut url = self.uploads(repository)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let start =
            Request { headers: octets.clone(), body: body.clone(), ..Request::new(Method::POST, url, ANSWER_MAX) };
        let answer = present(self.call(start, Right::Push).await?)?;
        if answer.status != StatusCode::ACCEPTED {
            stored(&answer, digest)?;
            return Ok(digest);
        }
        let mut location = self.location(&answer)?;
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let finish = Request { headers: octets, body, ..Request::new(Method::PUT, location, ANSWER_MAX) };
        stored(&self.call(finish, Right::Push).await?, digest)?;
        Ok(digest)
    }

    /// Proves that the credentials may push to the repository: starts an upload and cancels it.
    ///
    /// A login proves nothing: Forgejo gives a token to whoever may read, and refuses only the upload.
    pub async fn check_push(&self, repository: &Repository) -> Result<(), RegistryError> {
        let start = Request::new(Method::POST, self.uploads(repository)?, ANSWER_MAX);
        let answer = present(self.call(start, Right::Push).await?)?;
        let location = self.location(&answer)?;
        // Whatever this answers, the upload was allowed; one that is not cancelled expires by itself.
        let _ = self.call(Request::new(Method::DELETE, location, ANSWER_MAX), Right::Push).await;
        Ok(())
    }

    fn uploads(&self, repository: &Repository) -> Result<Url, RegistryError> {
        self.wire.url(&format!("v2/{}/blobs/uploads/", repository.path()))
    }

    /// Where an upload that was begun goes on; Forgejo names it relative to its host.
    fn location(&self, answer: &Answer) -> Result<Url, RegistryError> {
        match answer.headers.get(LOCATION).map(HeaderValue::to_str) {
            Some(Ok(location)) => self.wire.join(&answer.url, location),
            _ => Err(RegistryError::Protocol {
                url: shown(&answer.url),
                why: "it begins an upload without a Location".to_owned(),
            }),
        }
    }

    /// Sends a request with what credentials the registry wants. The answer is a success or 404.
    async fn call(&self, request: Request, right: Right) -> Result<Answer, RegistryError> {
        let own = self.wire.is_own(&request.url);
        let mut renewed = false;
        loop {
            let (generation, header) = self.auth.current().await;
            let answer = self.wire.exchange(&request, header.as_ref().filter(|_| own)).await?;
            match answer.status {
                status if status.is_success() || status == StatusCode::NOT_FOUND => return Ok(answer),
                // A blob store that a redirect led to has no say about the registry's credentials.
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !self.wire.is_own(&answer.url) => {
                    return Err(refused(&answer));
                }
                StatusCode::UNAUTHORIZED if !renewed => {
                    renewed = true;
                    if !self.auth.renew(generation, &answer.headers, &self.wire).await? {
                        return Err(self.unauthorized(&answer, right).await);
                    }
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.unauthorized(&answer, right).await);
                }
                _ => return Err(refused(&answer)),
            }
        }
    }

    /// Tells credentials that are wrong or missing from those that are right but not enough. The status alone does
    /// not: Forgejo answers 401 to both.
    async fn unauthorized(&self, answer: &Answer, right: Right) -> RegistryError {
        let accepted = match self.auth.standing().await {
            Standing::Anonymous => false,
            Standing::Accepted => true,
            Standing::Unknown => answer.status == StatusCode::FORBIDDEN || self.basic_is_accepted().await,
        };
        if !accepted {
            return self.auth.refused();
        }
        let operation = match right {
            Right::Pull => "read",
            Right::Push => "push to",
        };
        RegistryError::Denied { registry: self.registry.clone(), operation, url: shown(&answer.url) }
    }

    /// Asks for nothing but an opinion on the credentials (OCI distribution specification, "Determining support").
    async fn basic_is_accepted(&self) -> bool {
        let (_, header) = self.auth.current().await;
        match self.wire.url("v2/") {
            Ok(url) => {
                let probe = Request::new(Method::GET, url, ANSWER_MAX);
                self.wire.exchange(&probe, header.as_ref()).await.is_ok_and(|answer| answer.status.is_success())
            }
            Err(_) => false,
        }
    }
}

/// The manifest in an answer. One that was sent as a manifest, and is not the one that was asked for, is spoilt, whatever
/// else is wrong with it.
fn parsed(answer: &Answer, expected: Option<Digest>) -> Result<Manifest, RegistryError> {
    let protocol = |why| RegistryError::Protocol { url: shown(&answer.url), why };
    let media_type = manifest::media_type(&answer.headers).map_err(protocol)?;
    let manifest = Manifest::new(media_type, answer.body.clone());
    if let Some(expected) = expected {
        same(&answer.url, expected, manifest.digest())?;
    }
    manifest::agrees(media_type, &answer.body).map_err(protocol)?;
    Ok(manifest)
}

/// Compares a digest that was asked for with the one of what came.
fn same(url: &Url, expected: Digest, found: Digest) -> Result<(), RegistryError> {
    if expected == found { Ok(()) } else { Err(corrupt(url, expected, found.to_string())) }
}

/// Compares the registry's own word, if it gives one in SHA-256, with the digest computed here.
fn claimed(answer: &Answer, computed: Digest) -> Result<(), RegistryError> {
    match answer.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()).map(str::parse::<Digest>) {
        Some(Ok(claim)) if claim != computed => Err(corrupt(&answer.url, claim, computed.to_string())),
        _ => Ok(()),
    }
}

fn corrupt(url: &Url, expected: Digest, found: String) -> RegistryError {
    RegistryError::Corrupt { url: shown(url), expected, found }
}

/// What was put is stored, and as what it is.
fn stored(answer: &Answer, digest: Digest) -> Result<(), RegistryError> {
    if answer.status == StatusCode::NOT_FOUND {
        // Such as a manifest that names a blob which is not there.
        return Err(refused(answer));
    }
    claimed(answer, digest)
}

/// An upload that cannot begin because there is nowhere to put it.
fn present(answer: Answer) -> Result<Answer, RegistryError> {
    if answer.status == StatusCode::NOT_FOUND {
        return Err(RegistryError::Absent { url: shown(&answer.url) });
    }
    Ok(answer)
}

fn refused(answer: &Answer) -> RegistryError {
    RegistryError::Refused { url: shown(&answer.url), status: answer.status.as_u16(), message: answer.message() }
}
