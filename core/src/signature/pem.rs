//! PEM (RFC 7468): one labelled block, read strictly and written as OpenSSL and Go write it.
//!
//! Its contents may be a private key: they are only ever held in memory that is wiped when freed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// A key file is below 2 KiB; more is something else.
const MAX_LEN: usize = 64 * 1024;

/// Bytes of base64 text a line (RFC 7468 clause 2).
const LINE: usize = 64;

/// Of UTF-8, and of UTF-16 in both its orders.
const BYTE_ORDER_MARKS: [&[u8]; 3] = [&[0xef, 0xbb, 0xbf], &[0xff, 0xfe], &[0xfe, 0xff]];

/// Why a text is not one PEM block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No `-----BEGIN …-----` line.
    #[error("no PEM block: there is no \"-----BEGIN …-----\" line")]
    NoBlock,
    /// The end line is missing, or of another label.
    #[error("the PEM block has no matching \"-----END …-----\" line")]
    Unterminated,
    /// What some editors and PowerShell begin a file with.
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    /// Several keys, or a chain of certificates.
    #[error("there are {0} PEM blocks, and one is wanted")]
    Several(usize),
    /// What `openssl ecparam` writes before a key.
    #[error("a block of parameters stands before the key")]
    Parameters,
    /// Something other than white space before or after the block.
    #[error("there is text around the PEM block")]
    Surrounded,
    /// The lines between are not base64.
    #[error("the PEM block's contents are not base64")]
    Contents,
    /// Larger than any key.
    #[error("larger than any key file: {0} bytes")]
    TooLarge(usize),
    /// Not text.
    #[error("not text")]
    NotText,
}

impl PemError {
    /// What helps whatever the block is of; nothing where that depends on it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::ByteOrderMark => "save it as plain UTF-8 without a byte order mark",
            Self::Several(_) => "give the one that is meant in a file of its own",
            Self::Surrounded => "remove what stands before -----BEGIN and after the last -----",
            Self::Unterminated | Self::Contents => "it is cut off or damaged: copy the whole file once more",
            Self::NoBlock | Self::Parameters | Self::TooLarge(_) | Self::NotText => return None,
        })
    }
}

/// One PEM block: its label and its contents.
pub struct Block {
    label: String,
    contents: Zeroizing<Vec<u8>>,
}

crate::assert_secret!(Block);

impl Block {
    /// The label: what stands behind `BEGIN`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The decoded contents.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }
}

/// Reads exactly one block. Line ends may be LF or CRLF; white space around the block is ignored.
pub fn decode(bytes: &[u8]) -> Result<Block, PemError> {
    if bytes.len() > MAX_LEN {
        return Err(PemError::TooLarge(bytes.len()));
    }
    if BYTE_ORDER_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(PemError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PemError::NotText)?.trim();
    alone(text)?;
    let mut lines = text.lines().map(str::trim_end);
    let first = lines.next().unwrap_or_default();
    let Some(label) = first.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
        return Err(if text.contains("-----BEGIN ") { PemError::Surrounded } else { PemError::NoBlock });
    };
    // Sized once, so that no smaller copy of a private key is left behind by growing.
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    let mut ended = false;
    for line in lines {
        if ended {
            return Err(PemError::Surrounded);
        }
        match line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) {
            Some(end) if end == label => ended = true,
            Some(_) => return Err(PemError::Unterminated),
            None => encoded.push_str(line),
        }
    }
    if !ended {
        return Err(PemError::Unterminated);
    }
    let mut contents = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
    let len = STANDARD.decode_slice(encoded.as_bytes(), &mut contents).map_err(|_| PemError::Contents)?;
    contents.truncate(len);
    Ok(Block { label: label.to_owned(), contents })
}

/// Refuses several blocks, by what the first one is.
fn alone(text: &str) -> Result<(), PemError> {
    let mut labels = text.lines().filter_map(|line| line.strip_prefix("-----BEGIN "));
    let first = labels.next().unwrap_or_default().trim_end();
    match labels.count() {
        0 => Ok(()),
        _ if first.ends_with(" PARAMETERS-----") => Err(PemError::Parameters),
        more => Err(PemError::Several(more + 1)),
    }
}

/// Writes one block with LF line ends and a final LF: the form that Rekor stores and cosign writes.
pub fn encode(label: &str, contents: &[u8]) -> String {
    let encoded = STANDARD.encode(contents);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: any cut is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_lf_and_crlf() {
        let text = encode("PUBLIC KEY", &[7; 91]);
        for form in [text.clone(), text.replace('\n', "\r\n"), format!("\n{text}\n\n"), text.trim_end().to_owned()] {
            let block = decode(form.as_bytes()).unwrap_or_else(|e| panic!("{e}: {form:?}"));
            assert_eq!((block.label(), block.contents()), ("PUBLIC KEY", &[7u8; 91][..]));
        }
    }

    #[test]
    fn refuses_malformed() {
        let good = encode("PUBLIC KEY", &[7; 91]);
        for (defect, text, error) in [
            ("empty", String::new(), PemError::NoBlock),
            ("no block", "hello".into(), PemError::NoBlock),
            ("no end", good.replace("-----END PUBLIC KEY-----\n", ""), PemError::Unterminated),
            ("other end", good.replace("END PUBLIC", "END PRIVATE"), PemError::Unterminated),
            ("text before", format!("# mine\n{good}"), PemError::Surrounded),
            ("text after", format!("{good}x"), PemError::Surrounded),
            ("two blocks", format!("{good}{good}"), PemError::Several(2)),
            ("three blocks, text between", format!("{good}mine:\n{good}{good}"), PemError::Several(3)),
            ("parameters before", format!("{}{good}", encode("EC PARAMETERS", &[7; 10])), PemError::Parameters),
            ("parameters after", format!("{good}{}", encode("EC PARAMETERS", &[7; 10])), PemError::Several(2)),
            ("byte order mark", format!("\u{feff}{good}"), PemError::ByteOrderMark),
            ("byte order mark alone", "\u{feff}".into(), PemError::ByteOrderMark),
            ("headers", good.replacen('\n', "\nProc-Type: 4\n", 1), PemError::Contents),
            ("padding in the middle", good.replacen("\nBwc", "\nBw=", 1), PemError::Contents),
        ] {
            assert_eq!(decode(text.as_bytes()).err(), Some(error), "{defect}");
        }
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let wide: Vec<_> = format!("\u{feff}{good}").encode_utf16().flat_map(order).collect();
            assert_eq!(decode(&wide).err(), Some(PemError::ByteOrderMark), "UTF-16");
        }
        assert_eq!(decode(&[0xff, 0x00]).err(), Some(PemError::NotText));
        assert_eq!(decode(&[b' '; 70_000]).err(), Some(PemError::TooLarge(70_000)));
    }

    proptest! {
        #[test]
        fn any_contents_come_back(contents in proptest::collection::vec(any::<u8>(), 0..300)) {
            let block = decode(encode("X", &contents).as_bytes()).unwrap();
            prop_assert_eq!(block.contents(), &contents[..]);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
