//! Strict JSON: what every parser of signed or logged bytes starts with.
//!
//! serde_json alone keeps the last of two equal keys; Go's parser, the registry's and ours could then read different
//! things from the same signed bytes. Here a second key is an error, as are trailing data, deep nesting and size.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Nesting that no document of ours comes near: a payload has 3 levels, a log entry's body 5.
const MAX_DEPTH: usize = 32;

/// Why bytes are not the JSON that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Longer than its kind may be.
    #[error("{size} bytes are more than the {limit} allowed")]
    TooLarge {
        /// Bytes there are.
        size: usize,
        /// Bytes there may be.
        limit: usize,
    },
    /// Not JSON, a key twice, nested too deep, data after the end, or not of the expected shape.
    #[error("not the expected JSON")]
    Malformed(#[source] serde_json::Error),
}

/// Parses at most `limit` bytes of JSON into `T`. Duplicate keys at any level are refused, known to `T` or not.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, JsonError> {
    if bytes.len() > limit {
        return Err(JsonError::TooLarge { size: bytes.len(), limit });
    }
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut input).map_err(JsonError::Malformed)?;
    input.end().map_err(JsonError::Malformed)?;
    serde_json::from_value(value).map_err(JsonError::Malformed)
}

/// Builds a [`Value`] and refuses what `Value` itself would silently accept.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.insert(key, value).is_some() {
                // The key itself is untrusted text: it does not go into the message.
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Value, JsonError> {
        parse(text.as_bytes(), 4096)
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in ["null", "[]", r#"{"a":[1,-2,3.5,true,"x"],"b":{"c":null}}"#, " 1 \n"] {
            assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn refuses_malformed() {
        let deep = "[".repeat(40) + &"]".repeat(40);
        for (defect, text) in [
            ("empty", ""),
            ("key twice", r#"{"a":1,"a":1}"#),
            ("key twice through an escape", r#"{"a":1,"\u0061":2}"#),
            ("key twice, nested", r#"{"x":[{"a":1,"a":2}]}"#),
            ("trailing data", "{}{}"),
            ("trailing garbage", "{} x"),
            ("truncated", r#"{"a":"#),
            ("nested too deep", deep.as_str()),
            ("raw control character", "\"a\nb\""),
            ("lone surrogate", r#""\ud800""#),
        ] {
            assert!(read(text).is_err(), "{defect}");
        }
        assert!(parse::<Value>(b"\"\xff\"", 10).is_err(), "not UTF-8");
        assert!(matches!(parse::<Value>(b"[1,2]", 4), Err(JsonError::TooLarge { size: 5, limit: 4 })));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse::<Value>(&bytes, 400);
        }
    }
}
