//! Secret bytes: wiped when dropped, impossible to print, copy or serialise by accident.
//!
//! Where secrets come from and what they open is known elsewhere.

use zeroize::Zeroizing;

/// A password, token or key.
///
/// It has no `Debug`, `Display`, `Clone` or `Serialize` on purpose: whoever needs the bytes asks for them by name, and
/// each such place can be found.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the vector's memory is wiped when the secret is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text; `None` when they are not UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_handed_out_only_when_it_is_text() {
        assert_eq!(Secret::from("pä".to_owned()).expose_str(), Some("pä"));
        assert!(Secret::new(vec![0xff]).expose_str().is_none());
        assert!(Secret::new(Vec::new()).is_empty());
    }
}
