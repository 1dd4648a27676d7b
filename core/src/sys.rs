//! The only unsafe code: what the system offers that safe Rust cannot say. Memory that is wiped when freed, secrets taken
//! out of the process's environment, memory kept out of dumps and swap, and the question whether a file has a writer.
//! Beside it the stack's wiping, which belongs to the same guarantee.
//!
//! Policy (which variables, when to harden) does not live here.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use dlmalloc::GlobalDlmalloc;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::{Zeroize, Zeroizing};

/// A global allocator that overwrites memory with zeros before it is freed, so that copies of a secret which libraries
/// made and dropped are gone, too. The memory is another allocator's: dlmalloc's but in tests, since musl's asks the kernel
/// for nearly every block, six hundred times in a verification. A block of 128 KiB or more is the system's, which gets it
/// from the kernel, zeros already and not touched yet, and gives it back when it is freed.
pub struct WipingAllocator<A = GlobalDlmalloc>(A);

impl WipingAllocator {
    /// Of dlmalloc's memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(GlobalDlmalloc)
    }
}

impl Default for WipingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every block comes from the inner allocator, or by its size from the system's, with the caller's layout, and goes
// back to the same with the same layout; only bytes inside a block that is about to be freed are written, and both uphold
// the rest of the contract.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are exactly those that the inner `alloc` asks for.
        unsafe { if is_large(layout) { System.alloc(layout) } else { self.0.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_large(layout) { System.alloc_zeroed(layout) } else { self.0.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of `layout.size()` bytes that nobody else uses any more; it came with this
        // layout, by which the same allocator is chosen as then.
        unsafe {
            wipe(block, layout.size());
            if is_large(layout) { System.dealloc(block, layout) } else { self.0.dealloc(block, layout) }
        }
    }

    // `realloc` is left to the trait's own: a new block, a copy, then `dealloc` above. The inner one could move the contents
    // and free the old place unwiped.
}

/// Overwrites memory with zeros, as fast as the machine can: `zeroize` writes byte by byte, which costs a millisecond in
/// each run of the program, and twenty in one that has opened a key.
///
/// # Safety
/// The block must have this many bytes that may be written, and nobody else may use it meanwhile.
unsafe fn wipe(block: *mut u8, len: usize) {
    // SAFETY: the caller's promise. The empty assembly may, for all that the compiler knows, read what the pointer leads
    // to: so the zeros have to be there, and cannot be dropped as a dead store.
    unsafe {
        block.write_bytes(0, len);
        std::arch::asm!("/* {} */", in(reg) block, options(nostack, preserves_flags));
    }
}

/// From this size on musl's allocator has a mapping of its own for each block.
const LARGE: usize = 128 * 1024;

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE
}

/// Why the process could not be prepared for secrets.
#[derive(Debug, thiserror::Error)]
pub enum SysError {
    /// Called too late.
    #[error("the environment can be emptied only before threads start")]
    Threads,
    /// The system refused.
    #[error("cannot {operation}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// A variable's name, and the value that it had.
pub type Taken = (String, Zeroizing<Vec<u8>>);

/// Takes variables out of the environment: their values are returned, and wiped where they lay, which is also what
/// `/proc/PID/environ` shows. `std::env::remove_var` alone leaves them there. Order and repetition of names do not
/// matter; absent ones are left out.
///
/// Refused once a second thread exists, which might be reading the environment.
pub fn take_from_environment(names: &[&str]) -> Result<Vec<Taken>, SysError> {
    if threads()? != 1 {
        return Err(SysError::Threads);
    }
    let mut taken: Vec<Taken> = Vec::new();
    // SAFETY: this is the only thread, so nobody reads or changes the environment meanwhile. `environ` is null or an
    // array of pointers that ends with a null one, each to a string that ends with a zero byte. The strings are in
    // writable memory: the kernel puts them on the stack, and setenv on the heap.
    unsafe {
        let mut place = environ;
        while !place.is_null() && !(*place).is_null() {
            let entry = *place;
            place = place.add(1);
            let text = CStr::from_ptr(entry).to_bytes();
            let Some(name) = names.iter().find(|name| is_entry_of(text, name)) else { continue };
            let value = text.get(name.len() + 1..).unwrap_or_default();
            // The first of two equal names is the one that getenv would have found; both are wiped.
            if !taken.iter().any(|(known, _)| known == name) {
                taken.push(((*name).to_owned(), Zeroizing::new(value.to_vec())));
            }
            let (start, len) = (entry.add(name.len() + 1).cast::<u8>(), value.len());
            std::slice::from_raw_parts_mut(start, len).zeroize();
        }
        for (name, _) in &taken {
            std::env::remove_var(name);
        }
    }
    Ok(taken)
}

/// Keeps this process's memory to itself: no core dump, and no other process of the same user may read it.
pub fn harden() -> Result<(), SysError> {
    let refused = |operation| move |source: rustix::io::Errno| SysError::Refused { operation, source: source.into() };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused("forbid core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("keep other processes out of memory"))
}

/// Runs `work`, which handles secrets, and then overwrites the stack below this call, at most `depth` bytes of it:
/// libraries leave copies there, which no allocator wipes. What `work` returns should hold no secret itself, but point to
/// it.
///
/// `depth` must be more than `work` uses, and less than is left of the thread's stack. Where the main thread's stack has
/// not grown so far, its end is enough.
pub fn then_scrub<T>(depth: usize, work: impl FnOnce() -> T) -> T {
    // Neither may become part of its caller: both have to begin where this one's own frame ends.
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let outcome = apart(work);
    scrub(depth);
    outcome
}

/// How much of the stack is overwritten by one call.
const STEP: usize = 32 * 1024;

#[inline(never)]
fn scrub(depth: usize) {
    let mut stack = [0_u8; STEP];
    let place = std::hint::black_box(&mut stack).as_mut_ptr();
    // Deeper, until the whole depth is done or there is nothing: touching what was never used would only make pages.
    if depth > STEP && is_mapped(place.wrapping_sub(STEP)) {
        scrub(depth - STEP);
    }
    // Used once more, so that the call above is made from within this frame and not in its place.
    std::hint::black_box(&mut stack);
}

/// Whether there is memory at an address (mincore(2) refuses where there is none).
fn is_mapped(address: *mut u8) -> bool {
    const PAGE: usize = 4096;
    let mut resident = 0_u8;
    let page = address.wrapping_sub(address.addr() % PAGE);
    // SAFETY: mincore reads no memory at the address, and writes one byte for the one page.
    unsafe { libc::mincore(page.cast(), PAGE, &raw mut resident) == 0 }
}

/// Asks the system to keep these bytes out of swap until the process ends. Where its limit on locked memory is used up
/// nothing happens: the bytes are wiped soon anyway.
pub fn keep_out_of_swap(bytes: &[u8]) {
    // SAFETY: mlock changes no memory; the range is that of a live slice.
    unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) };
}

/// Whether nobody has this file open for writing, in this process or another. `file` must be open for reading only, and
/// be owned by this process's user (else: permission denied).
///
/// Measured by a read lease (fcntl_locking(2)), which the kernel grants only where there is no writer; it is given back
/// at once.
pub fn no_writer(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // Whoever opens the file for writing while the lease lasts makes the kernel signal us: by default with SIGIO, which
    // ends a process, so SIGURG is chosen, which is ignored by default.
    // SAFETY: fcntl with integer arguments on a descriptor that `file` keeps open.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } == -1 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(true)
}

/// `F_SETSIG` of asm-generic/fcntl.h, which the libc crate lacks.
const F_SETSIG: libc::c_int = 10;

unsafe extern "C" {
    /// The environment as the C library keeps it (environ(7)).
    static mut environ: *mut *mut c_char;
}

fn is_entry_of(entry: &[u8], name: &str) -> bool {
    entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
}

fn threads() -> Result<usize, SysError> {
    let refused = |source| SysError::Refused { operation: "count this process's threads", source };
    // The environment is emptied before anything else runs, so this is no read of an adapter's file.
    #[allow(clippy::disallowed_methods)]
    std::fs::read_dir("/proc/self/task").map(Iterator::count).map_err(refused)
}

#[cfg(test)]
mod tests;
