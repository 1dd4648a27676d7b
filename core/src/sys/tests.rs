//! What is wiped is gone, and what is in use stays.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn a_writer_is_seen_until_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trigger");
    let mut writer = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    assert!(!no_writer(&reader).unwrap());
    writer.write_all(b"v1").unwrap();
    assert!(!no_writer(&reader).unwrap());
    drop(writer);
    assert!(no_writer(&reader).unwrap());
    // The lease was given back: a writer gets in without waiting.
    let writer = File::options().append(true).open(&path).unwrap();
    assert!(!no_writer(&reader).unwrap());
    drop(writer);
    assert!(no_writer(&reader).unwrap());
}

#[test]
fn a_descriptor_for_writing_never_passes_for_quiet() {
    let file = tempfile::tempfile().unwrap();
    assert!(!no_writer(&file).unwrap_or(false));
}

#[test]
fn wiping_leaves_only_zeros_and_only_there() {
    let mut bytes = [0xa5_u8; 64];
    // SAFETY: a part of our own array.
    unsafe { wipe(bytes.as_mut_ptr().add(1), 62) };
    assert_eq!((bytes[0], bytes[63]), (0xa5, 0xa5));
    assert_eq!(bytes[1..63], [0; 62]);
}

/// Counts what is left in the blocks that it gets back.
#[derive(Default)]
struct Inspecting {
    freed: AtomicUsize,
    left: AtomicUsize,
}

// SAFETY: all of it is the system's.
unsafe impl GlobalAlloc for Inspecting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises; the block was written whole.
        let left = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        self.left.fetch_add(left.iter().filter(|byte| **byte != 0).count(), Ordering::Relaxed);
        self.freed.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) };
    }
}

#[test]
fn nothing_is_left_in_what_is_freed() {
    let allocator = WipingAllocator(Inspecting::default());
    let layout = Layout::array::<u8>(64).unwrap();
    // SAFETY: blocks of our own, each written whole and given back as it was got.
    unsafe {
        let block = allocator.alloc(layout);
        block.write_bytes(0xa5, 64);
        let larger = allocator.realloc(block, layout, 4096);
        assert_eq!(allocator.0.freed.load(Ordering::Relaxed), 64, "the place that it grew out of");
        larger.write_bytes(0xa5, 4096);
        allocator.dealloc(larger, Layout::array::<u8>(4096).unwrap());
    }
    assert_eq!(allocator.0.freed.into_inner(), 64 + 4096);
    assert_eq!(allocator.0.left.into_inner(), 0);
}

#[test]
fn a_block_that_grows_keeps_its_bytes() {
    let layout = Layout::array::<u8>(64).unwrap();
    // SAFETY: a block of our own; the grown one is read in its place.
    unsafe {
        let block = WipingAllocator::new().alloc(layout);
        block.write_bytes(0xa5, 64);
        let larger = WipingAllocator::new().realloc(block, layout, 4096);
        assert_eq!(std::slice::from_raw_parts(larger, 64), [0xa5; 64]);
        WipingAllocator::new().dealloc(larger, Layout::array::<u8>(4096).unwrap());
    }
}

#[test]
fn a_large_block_is_zero_whatever_was_there() {
    let layout = Layout::array::<u8>(4 * LARGE).unwrap();
    for _ in 0..4 {
        // SAFETY: blocks of our own, which are given back as they were got.
        let zeros = unsafe {
            // Left unwiped for whoever is next: glibc keeps such a block once one of its size was given back.
            let dirty = System.alloc(layout);
            dirty.write_bytes(0xa5, layout.size());
            System.dealloc(dirty, layout);
            let block = WipingAllocator::new().alloc_zeroed(layout);
            let zeros = std::slice::from_raw_parts(block, layout.size()).iter().all(|byte| *byte == 0);
            WipingAllocator::new().dealloc(block, layout);
            zeros
        };
        assert!(zeros);
    }
}

/// What is left on a stack, to be looked for: whole words, since an address may well have such a byte.
const LEFT: u64 = 0xa5a5_a5a5_a5a5_a5a5;
const WORDS: usize = 512;

/// How many of these words are at an address.
fn left(at: usize) -> usize {
    let word = |index: usize| (at + index * size_of::<u64>()) as *const u64;
    // SAFETY: mapped memory of this thread's stack, read word by word as it is.
    (0..WORDS).filter(|index| unsafe { std::ptr::read_volatile(word(*index)) } == LEFT).count()
}

#[test]
fn the_stack_is_scrubbed_after_work() {
    /// Fills a part of the stack, and tells where.
    #[inline(never)]
    fn leave() -> usize {
        let mut stack = [LEFT; WORDS];
        std::hint::black_box(&mut stack).as_ptr() as usize
    }
    assert!(left(leave()) > WORDS / 2, "without scrubbing it is there");
    assert_eq!(left(then_scrub(65536, leave)), 0);
}

#[test]
fn the_whole_depth_is_scrubbed() {
    /// Leaves something far down, and tells where.
    #[inline(never)]
    fn leave(depth: usize) -> usize {
        let mut stack = [LEFT; WORDS];
        let place = std::hint::black_box(&mut stack).as_ptr() as usize;
        let deepest = if depth > 0 { leave(depth - 1) } else { place };
        std::hint::black_box(&mut stack);
        deepest
    }
    assert_eq!(left(then_scrub(512 * 1024, || leave(100))), 0);
}

#[test]
fn where_there_is_no_memory_is_known() {
    let mut here = 0;
    assert!(is_mapped(&raw mut here));
    assert!(!is_mapped(std::ptr::null_mut()));
}

#[test]
fn names_match_whole() {
    assert!(is_entry_of(b"INPUT_KEY-PASSWORD=x", "INPUT_KEY-PASSWORD"));
    assert!(is_entry_of(b"A=", "A"));
    assert!(!is_entry_of(b"INPUT_KEY-PASSWORD=x", "INPUT_KEY"));
    assert!(!is_entry_of(b"A", "A"));
}

/// Forks, because the environment can be emptied only where there is one thread: the child has just one.
#[test]
fn a_taken_variable_is_gone_from_the_initial_environment() {
    let before = std::env::var("PATH").unwrap();
    // SAFETY: the child allocates and reads a file, which the C library allows after fork, and never returns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let taken = take_from_environment(&["PATH", "NOT_SET", "PAT"]).unwrap_or_default();
        let returned =
            taken.len() == 1 && taken.iter().all(|(name, value)| name == "PATH" && **value == *before.as_bytes());
        let shown = std::fs::read("/proc/self/environ").unwrap_or_default();
        let gone = !shown.windows(before.len()).any(|window| window == before.as_bytes());
        let code = i32::from(!(returned && gone && std::env::var_os("PATH").is_none()));
        // SAFETY: ends the child at once, without the test runner's cleaning up.
        unsafe { libc::_exit(code) };
    }
    let mut status = -1;
    // SAFETY: waits for our own child and writes one integer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(std::env::var("PATH").unwrap(), before, "the parent keeps its own");
}

#[test]
fn the_environment_is_left_alone_once_there_are_threads() {
    // The test runner has at least one beside this.
    assert!(matches!(take_from_environment(&["PATH"]), Err(SysError::Threads)));
    assert!(std::env::var_os("PATH").is_some());
}
