//! The companion: what `tagship-host` does on the host, module by module.
//!
//! A library only so that its parsers can be fuzzed and its documentation read; the program beside it is the sole user.

pub mod answer;
pub mod cli;
pub mod commands;
pub mod config;
pub mod deploy;
pub mod deploy_command;
pub mod desk;
mod engine;
pub mod health;
pub mod history;
pub mod images;
pub mod inbox;
pub mod journal;
pub mod journald;
pub mod operate;
pub mod report;
pub mod requests;
pub mod services;
pub mod state_dir;
pub mod stop;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod trust;
pub mod verify;
