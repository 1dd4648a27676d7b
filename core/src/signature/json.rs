//! Strict JSON: what every parser of signed or logged bytes starts with.
//!
//! serde_json alone keeps the last of two equal keys; Go's parser, the registry's and ours could then read different
//! things from the same signed bytes. Here a second key is an error, as are trailing data, deep nesting and size, and a
//! list where an object belongs, which serde takes for the object's members in their order.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
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
    read(value).map_err(JsonError::Malformed)
}

/// Reads a value that was parsed already, as [`parse`] does.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(Shaped(value))
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

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
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

/// Gives a [`Value`] to what is made of it, and objects alone to what has named members.
struct Shaped(Value);

impl<'de> Deserializer<'de> for Shaped {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Shaped))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, Shaped(value)))))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(Self::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Shaped {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
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
    fn a_list_is_no_object() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Outer {
            inner: Option<Inner>,
            list: Vec<Inner>,
            #[serde(default)]
            any: Value,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Inner {
            text: String,
        }
        let outer = |text: &str| parse::<Outer>(text.as_bytes(), 4096);
        let inner = || Inner { text: "x".to_owned() };
        assert_eq!(
            outer(r#"{"inner":{"text":"x"},"list":[{"text":"x"}],"any":{"a":[1.5,null]}}"#).unwrap(),
            Outer { inner: Some(inner()), list: vec![inner()], any: serde_json::json!({ "a": [1.5, null] }) }
        );
        assert!(outer(r#"{"inner":null,"list":[]}"#).is_ok());
        for text in
            [r#"[null,[]]"#, r#"{"inner":["x"],"list":[]}"#, r#"{"list":[["x"]]}"#, r#"{"list":{"0":{"text":"x"}}}"#]
        {
            assert!(outer(text).is_err(), "{text}");
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
