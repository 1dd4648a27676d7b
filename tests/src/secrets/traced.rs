//! Holds a process at a moment that is told by what it does, never by time: when it has just begun, before it writes a
//! line, before it ends.
//!
//! Only the process's first thread is traced: that one begins, writes the log and ends. The others go on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use libc::SYS_write;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process that does not get where it is expected is ended after this time.
const LONGEST: Duration = Duration::from_secs(300);

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with an exit code.
    Exited(i32),
    /// By a signal, and whether the kernel wrote a core dump.
    Killed(Signal, bool),
}

/// A traced process. Dropping it ends the process.
pub struct Traced {
    pid: Pid,
    end: Option<End>,
    // Dropped with this: the watch is over.
    _watched: Sender<()>,
}

impl Traced {
    /// Takes hold of a running process, without stopping it.
    ///
    /// # Panics
    /// When there is none.
    pub fn seize(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        let options = Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEEXIT
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).expect("a process to trace");
        let (watched, watch) = mpsc::channel();
        std::thread::spawn(move || {
            if watch.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { pid, end: None, _watched: watched }
    }

    /// The process's id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits until it has become another program, and holds it before that program's first instruction. The process must
    /// be running.
    ///
    /// # Panics
    /// When it ends before.
    pub fn until_exec(&mut self) {
        self.wait(libc::PTRACE_EVENT_EXEC);
    }

    /// Lets it go on until its first thread is about to write these words in one piece, and holds it there.
    ///
    /// # Panics
    /// When it ends before.
    pub fn until_writes(&mut self, words: &str) {
        loop {
            ptrace::syscall(self.pid, None).expect("a held process");
            loop {
                match waitpid(self.pid, Some(WaitPidFlag::__WALL)).expect("a traced process") {
                    WaitStatus::PtraceSyscall(_) => break,
                    WaitStatus::Stopped(_, signal) => ptrace::syscall(self.pid, signal).expect("a held process"),
                    WaitStatus::PtraceEvent(_, _, event) if event != libc::PTRACE_EVENT_EXIT => {
                        ptrace::syscall(self.pid, None).expect("a held process");
                    }
                    other => panic!("it did not write {words:?}: {other:?}"),
                }
            }
            if self.writes().is_some_and(|text| text.contains(words)) {
                return;
            }
        }
    }

    /// Lets it go on until it ends, and holds it there: it will not run any further, and all its memory is still there.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn until_exit(&mut self) {
        ptrace::cont(self.pid, None).expect("a held process");
        self.wait(libc::PTRACE_EVENT_EXIT);
    }

    /// Sends it a signal, which it gets once it goes on.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn send(&self, signal: Signal) {
        kill(self.pid, signal).expect("a held process");
    }

    /// Lets it go on to its end.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn end(mut self) -> End {
        loop {
            match ptrace::cont(self.pid, None) {
                // By SIGKILL even what is held is gone at once.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => panic!("cannot let {} go on: {error}", self.pid),
            }
            loop {
                match self.next() {
                    Some(WaitStatus::Stopped(_, signal)) => ptrace::cont(self.pid, signal).expect("a held process"),
                    Some(_) => break,
                    None => return self.end.take().expect("an end"),
                }
            }
        }
    }

    /// Waits for a held moment of this kind.
    fn wait(&mut self, wanted: i32) {
        loop {
            match self.next() {
                Some(WaitStatus::PtraceEvent(_, _, event)) if event == wanted => return,
                Some(WaitStatus::Stopped(_, signal)) => ptrace::cont(self.pid, signal).expect("a held process"),
                Some(_) => ptrace::cont(self.pid, None).expect("a held process"),
                None => panic!("it ended too early: {:?}", self.end),
            }
        }
    }

    /// The next stop; `None` at the end.
    fn next(&mut self) -> Option<WaitStatus> {
        match waitpid(self.pid, Some(WaitPidFlag::__WALL)).expect("a traced process") {
            WaitStatus::Exited(_, code) => self.end = Some(End::Exited(code)),
            WaitStatus::Signaled(_, signal, core) => self.end = Some(End::Killed(signal, core)),
            stop => return Some(stop),
        }
        None
    }

    /// What it is about to write, if that is why it was stopped.
    fn writes(&self) -> Option<String> {
        let registers = ptrace::getregs(self.pid).ok()?;
        let call = i64::try_from(registers.orig_rax).ok()?;
        // At a call's end, too, which has another result than this one (ptrace(2)).
        if registers.rax.cast_signed() != -i64::from(libc::ENOSYS) || call != SYS_write {
            return None;
        }
        let mut text = vec![0; usize::try_from(registers.rdx).ok()?.min(64 * 1024)];
        File::open(format!("/proc/{}/mem", self.pid)).ok()?.read_exact_at(&mut text, registers.rsi).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.end.is_some() || kill(self.pid, Signal::SIGKILL).is_err() {
            return;
        }
        // Where it is held at its end, no signal reaches it any more: it has to be let go.
        loop {
            let _ = ptrace::cont(self.pid, None);
            match waitpid(self.pid, Some(WaitPidFlag::__WALL)) {
                Err(_) | Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return,
                Ok(_) => {}
            }
        }
    }
}
