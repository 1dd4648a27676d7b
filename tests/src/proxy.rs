//! The proxy that makes faults, as a test starts and ends it: a program of this machine in a host's network. It ends
//! when its test does, however that ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use crate::{Fault, Host};

/// A running proxy.
pub struct Proxy {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Proxy {
    /// Puts the proxy before a server of the host, `upstream` being its address and port. The requests whose first line
    /// contains `only` get the faults, one each, in this order; all others pass.
    ///
    /// `program` is `env!("CARGO_BIN_EXE_fault-proxy")`, which only the tests themselves know.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(host: &Host, program: &str, upstream: &str, only: &str, faults: &[Fault]) -> Self {
        Self::with(host, program, &[upstream, only], faults)
    }

    /// The same, with one fault for each of those requests, however many come; there must be one.
    ///
    /// # Panics
    /// As [`Proxy::start`].
    pub fn start_always(host: &Host, program: &str, upstream: &str, only: &str, fault: &Fault) -> Self {
        Self::with(host, program, &["--always", upstream, only], std::slice::from_ref(fault))
    }

    fn with(host: &Host, program: &str, arguments: &[&str], faults: &[Fault]) -> Self {
        let mut command = host.in_network(program);
        command.args(arguments).args(faults.iter().map(Fault::to_string));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starting the proxy");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut address = String::new();
        output.read_line(&mut address).expect("the address of the proxy");
        assert!(address.ends_with('\n'), "the proxy did not start");
        Self { child, output, address: address.trim().to_owned() }
    }

    /// Where it listens in the host.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it, and tells what it saw: a line a request, with what it did to it.
    ///
    /// # Panics
    /// When it could not do what it was asked to, or some fault was never made.
    pub fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("what the proxy saw");
        let status = self.child.wait().expect("the end of the proxy");
        assert!(status.success(), "the proxy ended with {status}\n{text}");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
