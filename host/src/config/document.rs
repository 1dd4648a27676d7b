//! Proof that `docs/host.md` names every key there is, and that its examples, and the example to start from, can be
//! followed.

use std::path::Path;

use super::{
    ConfigError, admin,
    file::{self, AppFile},
};

const DOCUMENT: &str = include_str!("../../../docs/host.md");
const EXAMPLE: &str = include_str!("../../../examples/host/demo.yaml");

/// The document's block of this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

fn app(text: &str) -> Result<AppFile, ConfigError> {
    file::parse(Path::new("demo.yaml"), text)
}

#[test]
fn the_examples_can_be_followed() {
    let full = app(block("yaml")).unwrap();
    assert_eq!(full.services.len(), 2);
    let example = app(EXAMPLE).unwrap();
    assert_eq!((example.image, example.local_image), (full.image, full.local_image));
    admin::parse(Path::new("/etc/tagship/demo.yaml"), block("yaml-admin").as_bytes()).unwrap();
}

#[test]
fn every_key_is_documented() {
    for (text, above) in
        [("nonsense: 1", ""), ("verify: {nonsense: 1}", "verify."), ("health: {nonsense: 1}", "health.")]
    {
        let Err(ConfigError::UnknownKey { known, .. }) = app(text) else { panic!("{text}") };
        for key in known {
            let named = DOCUMENT.contains(&format!("\n| `{above}{key}` |"));
            // The two blocks are told key by key.
            assert!(named || DOCUMENT.contains(&format!("\n| `{key}.")), "{above}{key}");
        }
    }
    let nonsense = admin::parse(Path::new("/etc/tagship/demo.yaml"), b"nonsense: 1");
    let Err(ConfigError::UnknownKey { known, .. }) = nonsense else { panic!("{nonsense:?}") };
    let (_, section) = DOCUMENT.split_once("\n## The administrator's word\n").unwrap();
    for key in known {
        assert!(section.contains(&format!("`{key}`")), "{key}");
    }
}
