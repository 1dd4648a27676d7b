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

/// Requires of types that hold secrets that nobody can print, copy or serialise one by accident: else it does not compile.
///
/// ```
/// tagship_core::assert_secret!(tagship_core::secret::Secret, Vec<tagship_core::secret::Secret>);
/// ```
///
/// ```compile_fail
/// tagship_core::assert_secret!(String);
/// ```
///
/// ```compile_fail
/// #[derive(Debug)]
/// struct Shown(u8);
/// tagship_core::assert_secret!(Shown);
/// ```
///
/// ```compile_fail
/// #[derive(Clone)]
/// struct Copied(u8);
/// tagship_core::assert_secret!(Copied);
/// ```
#[macro_export]
macro_rules! assert_secret {
    ($($type:ty),+ $(,)?) => {
        $($crate::assert_secret!(@ $type, [::std::fmt::Debug] [::std::fmt::Display] [::std::clone::Clone] [::serde::Serialize]);)+
    };
    (@ $type:ty, $([$trait:path])+) => {
        $(const _: fn() = || {
            // Of a type that has the trait, both implementations could be meant: an error.
            trait Lacks<Which> {
                fn it() {}
            }
            #[allow(dead_code)]
            struct Has;
            impl<T: ?Sized> Lacks<()> for T {}
            impl<T: ?Sized + $trait> Lacks<Has> for T {}
            let _ = <$type as Lacks<_>>::it;
        };)+
    };
}

assert_secret!(Secret);

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
