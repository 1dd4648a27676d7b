//! What is looked for: a release's secrets, in each form in which a program may hold them.
//!
//! Derived here a second time, apart from tagship's own code: a mistake in one of both shows in the control, where the
//! needles must be found.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::AeadInPlace as _;
use crypto_secretbox::{Key, KeyInit as _, Nonce, Tag, XSalsa20Poly1305};

/// What a forge gives to a job.
#[derive(Clone)]
pub struct Secrets {
    /// The encrypted key.
    pub pem: String,
    /// Its password.
    pub password: String,
    /// The registry's user, which is no secret.
    pub user: String,
    /// The user's token.
    pub token: String,
    /// The job's own token, which tagship has no use for.
    pub job: String,
}

/// What a needle tells whoever finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The private key itself.
    Key,
    /// The password, and what scrypt makes of it and the salt.
    Password,
    /// The encrypted key, which a guessed password opens.
    Encrypted,
    /// The registry's token.
    Token,
    /// The job's token.
    Job,
    /// No secret: what must be found by every search that deserves the name.
    Mark,
}

/// One form of one secret.
#[derive(Debug, Clone)]
pub struct Needle {
    /// For messages.
    pub name: String,
    /// What it tells.
    pub kind: Kind,
    /// What is looked for.
    pub bytes: Vec<u8>,
}

/// All that is looked for, at once.
pub struct Needles {
    all: Vec<Needle>,
    search: AhoCorasick,
}

impl Needles {
    /// The forms of these secrets, and a mark.
    ///
    /// # Panics
    /// When the password does not open the key.
    pub fn of(secrets: &Secrets, mark: &str) -> Self {
        let mut all = Vec::new();
        let mut add = |kind, name: &str, bytes: &[u8]| {
            assert!(bytes.len() >= 8, "{name}: what is that short may be anywhere");
            all.push(Needle { name: name.to_owned(), kind, bytes: bytes.to_vec() });
        };
        let envelope = Envelope::parse(&secrets.pem);
        let box_key = envelope.box_key(&secrets.password);
        let pkcs8 = envelope.open(&box_key);
        let scalar = scalar(&pkcs8);
        let reversed: Vec<u8> = scalar.iter().rev().copied().collect();
        for (order, scalar) in [("big-endian", scalar), ("little-endian", &reversed)] {
            add(Kind::Key, &format!("the scalar, {order}"), scalar);
            // A register holds eight bytes: single words may be left where registers were saved.
            for (at, half) in scalar.chunks(16).enumerate() {
                add(Kind::Key, &format!("half {at} of the scalar, {order}"), half);
            }
            for (at, word) in scalar.chunks(8).enumerate() {
                add(Kind::Key, &format!("quarter {at} of the scalar, {order}"), word);
            }
        }
        add(Kind::Key, "the PKCS#8 document", &pkcs8);
        add(Kind::Key, "the ECPrivateKey in it", ec_private_key(&pkcs8));
        add(Kind::Password, "the password in base64", without_tail(&STANDARD.encode(&secrets.password)));
        add(Kind::Password, "the box key", &box_key);
        for (at, half) in box_key.chunks(16).enumerate() {
            add(Kind::Password, &format!("half {at} of the box key"), half);
        }
        add(Kind::Encrypted, "the ciphertext", &envelope.sealed[TAG_LEN..]);
        add(Kind::Encrypted, "the ciphertext in base64", without_tail(&STANDARD.encode(&envelope.sealed)));
        // The first two lines of all keys' PEM are alike: parameters, and where the salt begins.
        let lines: Vec<_> = secrets.pem.lines().filter(|line| !line.starts_with("-----")).skip(2).collect();
        for (at, line) in lines.iter().filter(|line| line.len() >= 32).enumerate() {
            add(Kind::Encrypted, &format!("line {} of the PEM", at + 3), line.as_bytes());
        }
        let words = [
            (Kind::Password, "the password", &secrets.password),
            (Kind::Token, "the token", &secrets.token),
            (Kind::Job, "the job's token", &secrets.job),
        ];
        for (kind, name, word) in words {
            add(kind, name, word.as_bytes());
            // As Go writes JSON, and so the engine.
            let escaped = word.replace('<', r"\u003c").replace('>', r"\u003e").replace('&', r"\u0026");
            if escaped != *word {
                add(kind, &format!("{name} in JSON"), escaped.as_bytes());
            }
        }
        let login = STANDARD.encode(format!("{}:{}", secrets.user, secrets.token));
        add(Kind::Token, "the login's Basic header", without_tail(&login));
        add(Kind::Mark, "the mark", mark.as_bytes());
        Self::searching(all)
    }

    /// Every needle.
    pub fn all(&self) -> &[Needle] {
        &self.all
    }

    /// Those of some kinds.
    pub fn of_kinds<'a>(&'a self, kinds: &'a [Kind]) -> impl Iterator<Item = &'a Needle> {
        self.all.iter().filter(|needle| kinds.contains(&needle.kind))
    }

    /// As many bytes as two pieces of something must have in common, so that nothing is missed at the cut.
    pub fn overlap(&self) -> usize {
        self.all.iter().map(|needle| needle.bytes.len() - 1).max().unwrap_or_default()
    }

    /// Each place where a needle begins; needles in needles are found as well.
    pub fn find<'a>(&'a self, hay: &'a [u8]) -> impl Iterator<Item = (&'a Needle, usize)> {
        self.search.find_overlapping_iter(hay).map(|found| (&self.all[found.pattern().as_usize()], found.start()))
    }

    /// The secrets in a text, by name.
    pub fn in_text<'a>(&'a self, text: &'a str) -> Vec<&'a str> {
        let secrets = self.find(text.as_bytes()).filter(|(needle, _)| needle.kind != Kind::Mark);
        secrets.map(|(needle, _)| needle.name.as_str()).collect()
    }

    /// With the forms of another password for the same key, which does not open it.
    ///
    /// # Panics
    /// Where the key is none.
    pub fn with_password(&self, secrets: &Secrets, other: &str) -> Self {
        let mut all = self.all.clone();
        let forms = [
            ("the other password", other.as_bytes().to_vec()),
            ("its box key", Envelope::parse(&secrets.pem).box_key(other)),
        ];
        all.extend(forms.map(|(name, bytes)| Needle { name: name.to_owned(), kind: Kind::Password, bytes }));
        Self::searching(all)
    }

    fn searching(all: Vec<Needle>) -> Self {
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(all.iter().map(|needle| &needle.bytes))
            .expect("needles");
        Self { all, search }
    }
}

const TAG_LEN: usize = 16;

/// cosign's encrypted key, decoded.
struct Envelope {
    log_n: u8,
    salt: Vec<u8>,
    nonce: [u8; 24],
    sealed: Vec<u8>,
}

impl Envelope {
    fn parse(pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let json: serde_json::Value = serde_json::from_slice(&STANDARD.decode(body).unwrap()).unwrap();
        let bytes = |at: &str| STANDARD.decode(json.pointer(at).and_then(|text| text.as_str()).unwrap()).unwrap();
        let cost = json.pointer("/kdf/params/N").and_then(serde_json::Value::as_u64).unwrap();
        Self {
            log_n: u8::try_from(cost.ilog2()).unwrap(),
            salt: bytes("/kdf/salt"),
            nonce: bytes("/cipher/nonce").try_into().unwrap(),
            sealed: bytes("/ciphertext"),
        }
    }

    fn box_key(&self, password: &str) -> Vec<u8> {
        let mut key = vec![0; 32];
        let params = scrypt::Params::new(self.log_n, 8, 1).unwrap();
        scrypt::scrypt(password.as_bytes(), &self.salt, &params, &mut key).unwrap();
        key
    }

    fn open(&self, box_key: &[u8]) -> Vec<u8> {
        let (tag, encrypted) = self.sealed.split_first_chunk::<TAG_LEN>().unwrap();
        let mut plain = encrypted.to_vec();
        XSalsa20Poly1305::new(Key::from_slice(box_key))
            .decrypt_in_place_detached(&Nonce::from(self.nonce), b"", &mut plain, &Tag::from(*tag))
            .expect("the password opens the key");
        plain
    }
}

/// How an ECPrivateKey of P-256 goes on after its own header: version 1, an octet string of 32 bytes (RFC 5915).
const VERSION_AND_OCTETS: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

fn scalar(pkcs8: &[u8]) -> &[u8] {
    let at = position(pkcs8) + VERSION_AND_OCTETS.len();
    &pkcs8[at..at + 32]
}

/// The document within, with its header of two bytes.
fn ec_private_key(pkcs8: &[u8]) -> &[u8] {
    &pkcs8[position(pkcs8) - 2..]
}

fn position(pkcs8: &[u8]) -> usize {
    pkcs8.windows(VERSION_AND_OCTETS.len()).position(|window| window == VERSION_AND_OCTETS).expect("an EC key")
}

/// Base64 but for its last four characters, which depend on what follows.
fn without_tail(base64: &str) -> &[u8] {
    &base64.as_bytes()[..base64.len() - 4]
}
