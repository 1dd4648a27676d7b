//! Which certificate authorities are trusted, and what a failed handshake means.
//!
//! Every HTTPS connection that we make ourselves starts here, so that a private certificate authority is handed in once.
//! Nothing here knows what is fetched over the connection.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

mod error;

pub use error::RootsError;

/// Where distributions keep all of their authorities in one file: Debian, Alpine and Arch; Fedora; SUSE.
///
/// One file is read rather than the directory beside it, whose hundreds of files cost more than the handshake.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The trusted certificate authorities: the platform's and, if given, private ones. Parsed once, shared by all clients.
pub struct Roots {
    config: ClientConfig,
}

impl Roots {
    /// The platform's authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set, and all
    /// certificates in `ca`: what messages call it, its path for example, and PEM.
    ///
    /// A platform without any is no error: a private authority may be all that is needed.
    pub fn load(ca: Option<(&str, &[u8])>) -> Result<Self, RootsError> {
        let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
        let mut store = RootCertStore::empty();
        if let Some((name, pem)) = ca {
            for certificate in private(name, pem)? {
                store.add(certificate).map_err(|source| RootsError::Certificate { name: name.to_owned(), source })?;
            }
        }
        let named = if set { Some(named()?) } else { None };
        let trust = Trust::new(move || {
            // What cannot be parsed among the platform's is left out: old authorities are often odd.
            store.add_parsable_certificates(named.unwrap_or_else(platform));
            store
        });
        Ok(Self { config: config(trust).map_err(|source| RootsError::Setup { source })? })
    }

    /// A client builder that trusts exactly these.
    pub fn client_builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder().tls_backend_preconfigured(self.config.clone())
    }
}

/// rustls's own judgement of a server's certificate, with authorities that another thread reads meanwhile: for the 150 of
/// a platform that takes as long as to connect, and nobody needs them before the server has answered.
struct Trust {
    algorithms: WebPkiSupportedAlgorithms,
    verifier: LazyLock<Verifier, Box<dyn FnOnce() -> Verifier + Send>>,
}

/// What judges, or why nothing passes: without any authority rustls makes none.
type Verifier = Result<Arc<WebPkiServerVerifier>, VerifierBuilderError>;

impl Trust {
    fn new(roots: impl FnOnce() -> RootCertStore + Send + 'static) -> Arc<Self> {
        let make = || WebPkiServerVerifier::builder_with_provider(Arc::new(roots()), Arc::new(provider())).build();
        let algorithms = provider().signature_verification_algorithms;
        let trust = Arc::new(Self { algorithms, verifier: LazyLock::new(Box::new(make)) });
        let reader = Arc::clone(&trust);
        // Where there is no thread to be had, the first handshake reads them itself.
        let _ = std::thread::Builder::new().spawn(move || LazyLock::force(&reader.verifier).is_ok());
        trust
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match LazyLock::force(&self.verifier) {
            Ok(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            Err(_) => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// TLS 1.3 or 1.2, trusting what `trust` says.
fn config(trust: Arc<Trust>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// AWS-LC with the key exchange in front that servers of today prefer, which also withstands quantum computers
/// (X25519MLKEM768). rustls offers it last by itself, without a share, so that OpenSSL 3.5 asks for a second try
/// (HelloRetryRequest): one more round trip for each connection. A share of X25519 alone goes along with it, for those
/// that do not know the other.
fn provider() -> CryptoProvider {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The server's certificate is from an authority that is not trusted here.
    UnknownAuthority,
    /// The server's certificate is refused for another reason.
    Certificate,
    /// What answers does not speak TLS.
    NotTls,
}

/// What a failed request says about the TLS handshake; `None` when it failed elsewhere.
pub fn handshake_fault(error: &(dyn Error + 'static)) -> Option<HandshakeFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<rustls::Error>() {
            // A bad signature is one by an authority of the same name with another key: a private one made anew.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => return Some(HandshakeFault::UnknownAuthority),
            Some(rustls::Error::InvalidCertificate(_)) => return Some(HandshakeFault::Certificate),
            Some(rustls::Error::InvalidMessage(_)) => return Some(HandshakeFault::NotTls),
            _ => {}
        }
        // `source()` of an io::Error that wraps another error skips that one.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What `SSL_CERT_FILE` and `SSL_CERT_DIR` lead to: somebody means them, so there must be some.
fn named() -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(RootsError::Platform { source: found.errors.into_iter().next() });
    }
    Ok(found.certs)
}

fn platform() -> Vec<CertificateDer<'static>> {
    match BUNDLES.iter().find_map(|bundle| std::fs::read(bundle).ok()) {
        Some(pem) => bundled(&pem),
        None => rustls_native_certs::load_native_certs().certs,
    }
}

/// The certificates of a distribution's bundle; what is none is left out.
///
/// The reader that comes with rustls is made for keys, too, and takes the same time whatever it reads: for 150
/// certificates that all the world knows it took a fifth of a verification's work.
fn bundled(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    let mut base64 = Vec::new();
    let mut inside = false;
    for line in pem.split(|byte| *byte == b'\n') {
        match line.trim_ascii() {
            b"-----BEGIN CERTIFICATE-----" => {
                base64.clear();
                inside = true;
            }
            b"-----END CERTIFICATE-----" if inside => {
                certificates.extend(STANDARD.decode(&base64).map(CertificateDer::from));
                inside = false;
            }
            line if inside => base64.extend_from_slice(line),
            _ => {}
        }
    }
    certificates
}

fn private(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let name = || name.to_owned();
    let labels = labels(pem);
    // Also beside a certificate: whoever reads this file has the key.
    if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return Err(RootsError::Private { name: name() });
    }
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RootsError::Pem { name: name(), why: what_is_wrong(&error) })?;
    match (certificates.is_empty(), labels.first()) {
        (false, _) => Ok(certificates),
        (true, Some(label)) => Err(RootsError::Label { name: name(), label: (*label).to_owned() }),
        (true, None) => Err(RootsError::Empty { name: name() }),
    }
}

/// Of a PEM text that cannot be read. The reader's own words quote a line of it, which may be a key's.
fn what_is_wrong(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a block has no end",
        PemError::IllegalSectionStart { .. } => "a line that should begin a block does not",
        PemError::Base64Decode(_) => "a block is no base64",
        _ => "it is not valid PEM",
    }
}

/// What the blocks of a PEM text are called, their lines told apart as its reader does. What is longer than any label is
/// none.
fn labels(pem: &[u8]) -> Vec<&str> {
    const LONGEST: usize = 64;
    let lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end);
    let labels = lines.filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"));
    labels.filter(|label| label.len() <= LONGEST).filter_map(|label| std::str::from_utf8(label).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Explain as _;

    fn authority() -> String {
        rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn every_block_of_a_private_authority_is_read() {
        let two = authority() + &authority();
        assert_eq!(private("ca", two.as_bytes()).unwrap().len(), 2);
        assert!(Roots::load(Some(("ca", two.as_bytes()))).is_ok());
        assert!(Roots::load(Some(("ca", two.replace('\n', "\r").as_bytes()))).is_ok());
    }

    #[test]
    fn a_bundle_is_read_as_rustls_reads_it() {
        let (one, two) = (authority(), authority());
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let crlf = two.replace('\n', "\r\n");
        let broken = "-----BEGIN CERTIFICATE-----\n@@@@\n-----END CERTIFICATE-----\n";
        let mut bundle = b"# caf\xe9 root\n".to_vec();
        for part in
            [&one, &key, broken, &crlf, "-----END CERTIFICATE-----\n", &one, "-----BEGIN CERTIFICATE-----\nMIIB"]
        {
            bundle.extend_from_slice(part.as_bytes());
        }
        let theirs: Vec<_> = CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok).collect();
        assert_eq!((bundled(&bundle), theirs.len()), (theirs, 3));
        assert!(bundled(b"").is_empty());
    }

    #[test]
    fn the_first_key_exchange_is_the_one_that_servers_prefer() {
        let config = Roots::load(None).unwrap().config;
        let first = config.crypto_provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let cut: String = authority().lines().take(3).map(|line| format!("{line}\n")).collect();
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let broken = key.replace("\nM", "\n@");
        let glued = format!("{}{}\n", authority(), key.replace('\n', ""));
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let endless = format!("-----BEGIN {}-----\n", "A".repeat(1000));
        for (defect, pem, expected) in [
            ("nothing", "", "authority /etc/ca.pem has no CERTIFICATE block"),
            ("text", "git.example.org", "authority /etc/ca.pem has no CERTIFICATE block"),
            ("an endless label", &endless, "authority /etc/ca.pem: a block has no end"),
            ("a certificate and a key", &format!("{}{key}", authority()), "/etc/ca.pem holds a private key"),
            ("a certificate and a key without line ends", &glued, "/etc/ca.pem: a block has no end"),
            ("a key", &key, "/etc/ca.pem holds a private key"),
            ("a broken key", &broken, "/etc/ca.pem holds a private key"),
            ("a public key", public, "/etc/ca.pem holds a \"PUBLIC KEY\""),
            ("half a certificate", &cut, "cannot read the certificate authority /etc/ca.pem"),
            ("no certificate", no_certificate, "authority /etc/ca.pem has a block that is no certificate"),
        ] {
            let error = Roots::load(Some(("/etc/ca.pem", pem.as_bytes()))).err().unwrap();
            assert!(error.to_string().contains(expected), "{defect}: {error}");
            assert!(Error::source(&error).is_none() || defect == "no certificate", "{defect}: {error:?}");
            let hint = error.hint().unwrap();
            assert_eq!(hint.contains("keep the authority's private key"), expected.contains("private key"), "{defect}");
        }
    }

    #[test]
    fn a_handshake_fault_is_found_however_deep_it_is_wrapped() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let wrap = |error: rustls::Error| Outer(std::io::Error::other(std::io::Error::other(error)));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let no_tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(handshake_fault(&wrap(unknown)), Some(HandshakeFault::UnknownAuthority));
        assert_eq!(handshake_fault(&wrap(expired)), Some(HandshakeFault::Certificate));
        assert_eq!(handshake_fault(&wrap(no_tls)), Some(HandshakeFault::NotTls));
        assert_eq!(handshake_fault(&Outer(std::io::ErrorKind::ConnectionRefused.into())), None);
    }
}
