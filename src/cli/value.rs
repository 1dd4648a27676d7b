//! Values that may begin with dashes, and are not the next flag where theirs was forgotten.
//!
//! Clap takes the next word for the value, whatever it is, and complains of the one after it. So this comes first.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use super::DASHES;
use crate::inputs::table::{Given, INPUTS};

/// What is wrong with a command line in which such a flag is followed by another one.
pub(super) fn forgotten(mut command: Command, line: &[OsString]) -> Option<Error> {
    let name = line.iter().zip(line.iter().skip(1)).find_map(|(flag, next)| {
        let flag = flag.to_str()?.strip_prefix("--").filter(|name| DASHES.contains(name))?;
        names_a_flag(next.to_str()?).then_some(flag)
    })?;
    command.build();
    let command = command.find_subcommand(line.get(1)?)?;
    let flag = command.get_arguments().find(|flag| flag.get_long() == Some(name))?;
    // As clap itself says that a value is missing: by an empty one.
    let mut error = Error::new(ErrorKind::InvalidValue).with_cmd(command);
    error.insert(ContextKind::InvalidArg, ContextValue::String(flag.to_string()));
    error.insert(ContextKind::InvalidValue, ContextValue::String(String::new()));
    Some(error)
}

/// Whether it is a flag, with a value or without.
fn names_a_flag(text: &str) -> bool {
    let Some(name) = text.strip_prefix("--") else { return text == "-h" };
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    name == "help" || INPUTS.iter().any(|input| input.given == Given::Anywhere && input.name == name)
}
