//! One value of a JSON file replaced or added by text, in the file's own style: everything else stays byte by byte. Pure.
//!
//! It takes the text for JSON with each key once; whether that is so, and whether the result means what was meant, is
//! for `document` to see.

use std::ops::Range;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::requirement::Requirement;

/// The text with the value at this path replaced or added, in the file's own style.
pub(super) fn splice(text: &str, path: &[&str], requirement: &Requirement) -> Result<String, serde_json::Error> {
    let trimmed = text.trim_end();
    let start = text.len() - text.trim_start().len();
    let mut object = start..trimmed.len();
    let mut unit = "    ".to_owned();
    let mut rest = path;
    loop {
        let slice = text.get(object.clone()).unwrap_or_default();
        let Members(members) = serde_json::from_str(slice)?;
        let place = |value: &RawValue| {
            // Both are parts of one string: the difference of their addresses is the offset.
            let at = value.get().as_ptr() as usize - text.as_ptr() as usize;
            at..at + value.get().len()
        };
        let own = members.last().map(|(_, value)| indent_at(text, place(value).start).to_owned());
        if object.start == start
            && let Some(own) = own.as_deref().filter(|own| !own.is_empty())
        {
            unit = own.to_owned();
        }
        let Some((key, below)) = rest.split_first() else { return Ok(text.to_owned()) };
        match members.iter().find(|(name, _)| name == key) {
            Some((_, value)) if below.is_empty() => {
                let at = place(value);
                let new = indented(&requirement.text(&unit)?, indent_at(text, at.start));
                let new = if slice.contains('\n') { new } else { compact(&requirement.rules()?)? };
                return Ok(replace(text, at, &new));
            }
            Some((_, value)) => {
                object = place(value);
                rest = below;
            }
            None => {
                let hole = Hole { object, last: members.last().map(|(_, value)| place(value).end), indent: own };
                return insert(text, hole, &unit, rest, requirement);
            }
        }
    }
}

/// The members of one object, each with its value's text in the file.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }

        input.deserialize_map(Object)
    }
}

/// Where in an object something is to be added.
struct Hole {
    object: Range<usize>,
    /// The end of its last member, if it has one.
    last: Option<usize>,
    /// How that is indented.
    indent: Option<String>,
}

/// Adds the members that are missing on the way, and the rule, behind an object's last member.
fn insert(
    text: &str,
    hole: Hole,
    unit: &str,
    path: &[&str],
    requirement: &Requirement,
) -> Result<String, serde_json::Error> {
    let Hole { object, last, indent: own } = hole;
    let closing = indent_at(text, object.start).to_owned();
    let indent = own.unwrap_or_else(|| format!("{closing}{unit}"));
    let flat = last.is_some() && !text.get(object.clone()).unwrap_or_default().contains('\n');
    let (at, comma) = match last {
        Some(end) => (end..end, ","),
        None => (object.start + 1..object.end - 1, ""),
    };
    let mut new = String::from(comma);
    if flat {
        let mut value = requirement.rules()?;
        for key in path.iter().skip(1).rev() {
            value = Value::Object([((*key).to_owned(), value)].into_iter().collect());
        }
        let key = path.first().map(|key| compact(&Value::from(*key))).transpose()?.unwrap_or_default();
        new.push_str(&format!("{key}:{}", compact(&value)?));
        return Ok(replace(text, at, &new));
    }
    let mut depth = indent.clone();
    for (position, key) in path.iter().enumerate() {
        new.push_str(&format!("\n{depth}{}: ", compact(&Value::from(*key))?));
        if position + 1 < path.len() {
            new.push('{');
            depth.push_str(unit);
        }
    }
    new.push_str(&indented(&requirement.text(unit)?, &depth));
    for _ in path.iter().skip(1) {
        depth.truncate(depth.len().saturating_sub(unit.len()));
        new.push_str(&format!("\n{depth}}}"));
    }
    if last.is_none() {
        new.push_str(&format!("\n{closing}"));
    }
    Ok(replace(text, at, &new))
}

fn compact(value: &Value) -> Result<String, serde_json::Error> {
    serde_json::to_string(value)
}

fn replace(text: &str, at: Range<usize>, new: &str) -> String {
    let (before, after) = (text.get(..at.start).unwrap_or_default(), text.get(at.end..).unwrap_or_default());
    format!("{before}{new}{after}")
}

/// The white space at the start of the line that this place is in.
fn indent_at(text: &str, at: usize) -> &str {
    let line = text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
    let end = line.len() - line.trim_start().len();
    line.get(..end).unwrap_or_default()
}

/// All lines but the first moved to the right.
fn indented(text: &str, indent: &str) -> String {
    text.replace('\n', &format!("\n{indent}"))
}
