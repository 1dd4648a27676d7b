//! A process's whole memory, read from outside while the process is held.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::{Kind, Needle, Needles};

/// As much as is read at once, in bytes.
const PIECE: usize = 4 * 1024 * 1024;

/// Mappings of the kernel's own, which it lets nobody read, and in which a program cannot write.
const KERNELS: [&str; 3] = ["[vvar]", "[vvar_vclock]", "[vsyscall]"];

/// A needle in memory.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The needle's name.
    pub name: String,
    /// The needle's kind.
    pub kind: Kind,
    /// Where: the mapping as /proc/PID/maps has it.
    pub mapping: String,
    /// And the address.
    pub address: u64,
}

/// What a search of a process's memory came to.
pub struct Memory {
    /// All that was found.
    pub hits: Vec<Hit>,
    /// As much as was searched, in bytes.
    pub bytes: u64,
    /// The mappings that were searched.
    pub mappings: Vec<String>,
}

impl Memory {
    /// Searches every mapping: what can be read or written, and what cannot, the guard pages of stacks included.
    ///
    /// # Panics
    /// When a mapping that the process itself could read cannot be read.
    pub fn of(pid: i32, needles: &Needles) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut found = Self { hits: Vec::new(), bytes: 0, mappings: Vec::new() };
        for mapping in maps.lines().filter(|line| !KERNELS.iter().any(|name| line.ends_with(name))) {
            let mut words = mapping.split_whitespace();
            let (range, modes) = (words.next().unwrap(), words.next().unwrap());
            let (start, end) = range.split_once('-').unwrap();
            let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            let readable = found.search(&memory, start..end, mapping, needles);
            assert!(readable || modes.starts_with("---"), "cannot read {mapping}");
            found.mappings.push(mapping.to_owned());
        }
        found
    }

    /// The needles of some kinds that were found.
    pub fn of_kinds<'a>(&'a self, kinds: &'a [Kind]) -> impl Iterator<Item = &'a Hit> {
        self.hits.iter().filter(|hit| kinds.contains(&hit.kind))
    }

    /// Where a needle is.
    pub fn places(&self, needle: &Needle) -> Vec<&str> {
        self.hits.iter().filter(|hit| hit.name == needle.name).map(|hit| hit.mapping.as_str()).collect()
    }

    /// Requires that nothing of some kinds was found by a search that saw the mark, and the stack beside it.
    pub fn has_none(&self, kinds: &[Kind]) {
        assert!(self.hits.iter().any(|hit| hit.kind == Kind::Mark), "the search missed the mark: {self:#?}");
        assert!(self.mappings.iter().any(|mapping| mapping.ends_with("[stack]")), "no stack: {self:#?}");
        let left: Vec<_> = self.of_kinds(kinds).collect();
        assert!(left.is_empty(), "left in memory: {left:#?}\n{self:#?}");
    }

    fn search(&mut self, memory: &File, range: std::ops::Range<u64>, mapping: &str, needles: &Needles) -> bool {
        let (mut piece, mut kept) = (vec![0; PIECE], 0);
        let mut at = range.start;
        while at < range.end {
            let want = usize::try_from(range.end - at).unwrap().min(PIECE - kept);
            if memory.read_exact_at(&mut piece[kept..kept + want], at).is_err() {
                return false;
            }
            let (filled, first) = (kept + want, at - kept as u64);
            for (needle, start) in needles.find(&piece[..filled]) {
                let hit = Hit {
                    name: needle.name.clone(),
                    kind: needle.kind,
                    mapping: mapping.to_owned(),
                    address: first + start as u64,
                };
                // Found again in what two pieces have in common.
                if !self.hits.iter().any(|known| known.address == hit.address && known.name == hit.name) {
                    self.hits.push(hit);
                }
            }
            kept = needles.overlap().min(filled);
            piece.copy_within(filled - kept..filled, 0);
            at += want as u64;
            self.bytes += want as u64;
        }
        true
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} bytes searched", self.bytes)?;
        self.hits.iter().try_for_each(|hit| writeln!(f, "{:#x} {} in {}", hit.address, hit.name, hit.mapping))?;
        self.mappings.iter().try_for_each(|mapping| writeln!(f, "{mapping}"))
    }
}
