//! Holds the table in docs/hazards.md to the tests that it names.

use std::collections::BTreeMap;

const TABLE: &str = include_str!("../../docs/hazards.md");

/// Where scenarios are listed, and the unit tests that show what no host can.
const SOURCES: [&str; 19] = [
    include_str!("../scenarios/hazards/action.rs"),
    include_str!("../scenarios/hazards/answers.rs"),
    include_str!("../scenarios/hazards/burst.rs"),
    include_str!("../scenarios/hazards/companion.rs"),
    include_str!("../scenarios/hazards/directory.rs"),
    include_str!("../scenarios/hazards/health.rs"),
    include_str!("../scenarios/hazards/images.rs"),
    include_str!("../scenarios/hazards/outages.rs"),
    include_str!("../scenarios/hazards/systemd.rs"),
    include_str!("../scenarios/hazards/units.rs"),
    include_str!("../scenarios/crash.rs"),
    include_str!("../scenarios/log.rs"),
    include_str!("../scenarios/operate.rs"),
    include_str!("../scenarios/plain.rs"),
    include_str!("../scenarios/refusals.rs"),
    include_str!("../scenarios/release.rs"),
    include_str!("../scenarios/rollback.rs"),
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
