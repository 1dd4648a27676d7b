//! Every file of the corpus through its target, without an engine: what was found once stays mended.
//!
//! A file is named for what it is. Those whose name begins with `good-` are accepted; all others have a defect, and are
//! not.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tagship_fuzz::TARGETS;

/// All of it together, in bytes: seeds for an engine, not what it made of them.
const MAX_SUM: u64 = 512 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inside(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn only_the_good_are_accepted() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        for path in inside(&corpus().join(target.name)) {
            let good = name(&path).starts_with("good-");
            // A panic names no file.
            println!("{}", path.display());
            if (target.run)(&fs::read(&path).unwrap()) != good {
                wrong.push(format!("{}: {}", path.display(), if good { "refused" } else { "accepted" }));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_target_has_a_corpus_of_good_and_bad() {
    let known: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let directories: Vec<_> = inside(&corpus()).iter().map(|path| name(path)).collect();
    assert_eq!(directories, known, "a directory for each target, both in order");
    for target in known {
        let names: Vec<_> = inside(&corpus().join(&target)).iter().map(|path| name(path)).collect();
        let good = names.iter().filter(|name| name.starts_with("good-")).count();
        assert!(good > 0 && names.len() > 2 * good, "{target}: more bad than good, and one good at least");
    }
    let sum: u64 = TARGETS
        .iter()
        .flat_map(|target| inside(&corpus().join(target.name)))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(sum <= MAX_SUM, "{sum} bytes");
}

#[test]
fn short_and_long_inputs_are_no_trouble() {
    for target in TARGETS {
        for bytes in [&b""[..], b"\0", b"\xff", &[b'['; 300_000], &[b'a'; 300_000], &[0xf0; 70_000]] {
            (target.run)(bytes);
        }
    }
}
