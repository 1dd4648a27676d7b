//! Which certificate authorities are trusted, and what a failed handshake means.
//!
//! Every HTTPS connection that we make ourselves starts here, so that a private certificate authority is handed in once.
//! Nothing here knows what is fetched over the connection.

use std::error::Error;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::{CertificateError, RootCertStore};

use crate::explain::Explain;

/// Where distributions keep all of their authorities in one file: Debian, Alpine and Arch; Fedora; SUSE.
///
/// One file is read rather than the directory beside it, whose hundreds of files cost more than the handshake.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The trusted certificate authorities: the platform's and, if given, private ones.
pub struct Roots {
    certificates: Vec<reqwest::Certificate>,
}

/// Why the certificate authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// SSL_CERT_FILE or SSL_CERT_DIR leads to no certificate.
    #[error("SSL_CERT_FILE or SSL_CERT_DIR leads to no certificate")]
    Platform {
        /// The first thing that went wrong, if anything did.
        source: Option<rustls_native_certs::Error>,
    },

    /// The private authority is no PEM.
    #[error("the private certificate authority is not valid PEM")]
    Pem {
        /// What the PEM parser says.
        source: PemError,
    },

    /// The private authority's PEM has no certificate in it.
    #[error("the private certificate authority has no CERTIFICATE block")]
    Empty,

    /// A block of the private authority's PEM is no certificate.
    #[error("the private certificate authority has a block that is no certificate")]
    Certificate {
        /// What the TLS library says.
        source: rustls::Error,
    },
}

impl Explain for RootsError {
    fn kind(&self) -> &'static str {
        "ca-invalid"
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Platform { .. } => "name a readable PEM file in SSL_CERT_FILE, or unset it",
                _ => "hand in the authority's certificate as PEM, from -----BEGIN CERTIFICATE----- to the end line",
            }
            .to_owned(),
        )
    }
}

impl Roots {
    /// The platform's authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set, and all
    /// certificates in `ca` (PEM).
    ///
    /// A platform without any is no error: a private authority may be all that is needed.
    pub fn load(ca: Option<&[u8]>) -> Result<Self, RootsError> {
        let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
        let mut found: Vec<_> = platform(set)?.into_iter().filter(|der| check(der).is_ok()).collect();
        if let Some(ca) = ca {
            found.extend(private(ca)?);
        }
        // With rustls as its backend reqwest takes any DER here; it has been checked above.
        Ok(Self { certificates: found.iter().filter_map(|der| reqwest::Certificate::from_der(der).ok()).collect() })
    }

    /// A client builder that trusts exactly these.
    pub fn client_builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder().tls_backend_rustls().tls_certs_only(self.certificates.iter().cloned())
    }
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

fn platform(set: bool) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let bundle = BUNDLES.iter().map(Path::new).find(|path| path.is_file());
    let found = match bundle {
        Some(bundle) if !set => rustls_native_certs::load_certs_from_paths(Some(bundle), None),
        _ => rustls_native_certs::load_native_certs(),
    };
    if set && found.certs.is_empty() {
        return Err(RootsError::Platform { source: found.errors.into_iter().next() });
    }
    Ok(found.certs)
}

fn private(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| RootsError::Pem { source })?;
    if certificates.is_empty() {
        return Err(RootsError::Empty);
    }
    for certificate in &certificates {
        check(certificate).map_err(|source| RootsError::Certificate { source })?;
    }
    Ok(certificates)
}

/// One certificate that cannot be parsed would make every client fail: find it where it can be named, or left out.
fn check(certificate: &CertificateDer<'static>) -> Result<(), rustls::Error> {
    RootCertStore::empty().add(certificate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_private_authority_is_added() {
        let without = Roots::load(None).unwrap().certificates.len();
        let two = authority() + &authority();
        assert_eq!(Roots::load(Some(two.as_bytes())).unwrap().certificates.len(), without + 2);
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let cut: String = authority().lines().take(3).map(|line| format!("{line}\n")).collect();
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (pem, defect) in [("", "nothing"), ("git.example.org", "text"), (key.as_str(), "a key")] {
            assert!(matches!(Roots::load(Some(pem.as_bytes())), Err(RootsError::Empty)), "{defect}");
        }
        assert!(matches!(Roots::load(Some(cut.as_bytes())), Err(RootsError::Pem { .. })));
        assert!(matches!(Roots::load(Some(no_certificate.as_bytes())), Err(RootsError::Certificate { .. })));
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
