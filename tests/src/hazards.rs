//! Holds the tables in docs/hazards.md and docs/threat-model.md to the tests that they name.

use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../../docs/hazards.md");

/// Where scenarios are listed, and the unit tests that show what no host can.
const SOURCES: [&str; 28] = [
    include_str!("../scenarios/hazards/action.rs"),
    include_str!("../scenarios/hazards/answers.rs"),
    include_str!("../scenarios/hazards/burst.rs"),
    include_str!("../scenarios/hazards/companion.rs"),
    include_str!("../scenarios/hazards/directory.rs"),
    include_str!("../scenarios/hazards/durable.rs"),
    include_str!("../scenarios/hazards/health.rs"),
    include_str!("../scenarios/hazards/images.rs"),
    include_str!("../scenarios/hazards/outages.rs"),
    include_str!("../scenarios/hazards/systemd.rs"),
    include_str!("../scenarios/hazards/units.rs"),
    include_str!("../scenarios/hazards/versions.rs"),
    include_str!("../scenarios/crash.rs"),
    include_str!("../scenarios/hazards/amid.rs"),
    include_str!("../scenarios/hazards/faults.rs"),
    include_str!("../scenarios/keys.rs"),
    include_str!("../scenarios/log.rs"),
    include_str!("../scenarios/log_faults.rs"),
    include_str!("../scenarios/operate.rs"),
    include_str!("../scenarios/parties.rs"),
    include_str!("../scenarios/plain.rs"),
    include_str!("../scenarios/refusals.rs"),
    include_str!("../scenarios/release.rs"),
    include_str!("../scenarios/rollback.rs"),
    include_str!("../scenarios/rotation.rs"),
    include_str!("../scenarios/two_users.rs"),
    include_str!("../../core/src/handoff/watch.rs"),
    include_str!("../../host/src/deploy/run/tests.rs"),
];

/// Each test of the table, with the number of its hazard.
fn table() -> BTreeMap<&'static str, u32> {
    let mut tests = BTreeMap::new();
    for row in TABLE.lines().filter_map(|line| line.strip_prefix("| H")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let number = cells[0].parse().unwrap_or_else(|_| panic!("no number: {row}"));
        let names: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "H{number} has no test");
        tests.extend(names.into_iter().map(|name| (name, number)));
    }
    tests
}

/// The hazard that a scenario is named for.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix('h')?.split('_').next()?.parse().ok()
}

#[test]
fn each_test_of_the_table_exists_and_is_named_for_its_hazard() {
    for (name, hazard) in table() {
        let there = |source: &str| source.contains(&format!("\"{name}\",")) || source.contains(&format!("fn {name}("));
        assert!(SOURCES.iter().any(|source| there(source)), "H{hazard}: no test {name}");
        assert!(number(name).is_none_or(|number| number == hazard), "H{hazard} names {name}");
    }
}

/// The threat model names scenarios as well, between back-ticks and with many underscores.
#[test]
fn each_test_of_the_threat_model_exists() {
    let model = include_str!("../../docs/threat-model.md");
    let (_, notes) = model.split_once("- ¹ ").expect("the notes to the table");
    let notes = notes.split("\n### ").next().unwrap_or_default();
    let names: Vec<&str> = notes.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(SOURCES.iter().any(|source| source.contains(&format!("\"{name}\","))), "no test {name}");
    }
}

/// Those that a reader would look for by their number, since they are seen on a host alone.
#[test]
fn each_hazard_has_a_row_and_a_scenario_of_its_number() {
    let table = table();
    let rows: BTreeSet<u32> = table.values().copied().collect();
    assert_eq!(rows, (1..=45).collect());
    let scenario = |name: &str| SOURCES.iter().any(|source| source.contains(&format!("(\"{name}\",")));
    let named: BTreeSet<u32> = table.keys().filter(|name| scenario(name)).filter_map(|name| number(name)).collect();
    let bare: Vec<u32> = (1..=45).filter(|hazard| !named.contains(hazard)).collect();
    assert_eq!(bare, [0; 0], "no scenario is named for these");
}

#[test]
fn each_test_that_is_named_for_a_hazard_is_in_the_table() {
    let table = table();
    for source in SOURCES {
        let names = source.split("(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for name in names.filter(|name| number(name).is_some()) {
            assert!(table.contains_key(name), "{name} is not in docs/hazards.md");
        }
    }
}
