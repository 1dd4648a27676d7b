//! Proof that action.yml declares exactly the inputs of the table, and that docs/action.md tells of them.

use super::table::{Given, INPUTS};

const ACTION: &str = include_str!("../../action.yml");

/// The `inputs:` section as the table would have it.
fn inputs_section() -> String {
    let mut text = "inputs:\n".to_owned();
    for input in INPUTS.iter().filter(|input| input.given != Given::NotYet) {
        let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        text.push_str(&format!("  {}:\n    description: {}\n", input.name, quoted(input.help)));
        if input.name == "image" {
            text.push_str("    required: true\n");
        }
        if let Some(default) = input.default {
            text.push_str(&format!("    default: {}\n", quoted(default)));
        }
    }
    text
}

#[test]
fn it_declares_the_inputs_of_the_table() {
    let section = inputs_section();
    assert!(ACTION.contains(&format!("\n{section}\noutputs:\n")), "action.yml should have this section:\n\n{section}");
}

#[test]
fn it_starts_the_program_by_its_whole_path() {
    // The job's PATH may replace the image's.
    assert!(ACTION.contains("  entrypoint: /tagship\n  args:\n    - action\n"));
    assert!(include_str!("../../Containerfile").contains("/tagship\n"));
}

#[test]
fn the_manual_tells_of_every_input_and_output() {
    let manual = include_str!("../../docs/action.md");
    for input in INPUTS.iter().filter(|input| input.given != Given::NotYet) {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{}` |", input.name)));
        let default = input.default.map(|default| format!("| `{default}` |"));
        assert!(row.is_some_and(|row| default.is_none_or(|default| row.contains(&default))), "{}", input.name);
    }
    let (_, outputs) = ACTION.split_once("\noutputs:\n").expect("outputs");
    for name in outputs.lines().take_while(|line| line.starts_with(' ')).filter_map(|line| line.strip_prefix("  ")) {
        let Some(name) = name.strip_suffix(':').filter(|name| !name.starts_with(' ')) else { continue };
        assert!(manual.contains(&format!("`{name}`")), "{name}");
    }
}
