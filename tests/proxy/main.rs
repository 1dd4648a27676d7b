//! fault-proxy: stands before an HTTP server and makes what goes wrong between a client and a server.
//!
//! ```text
//! fault-proxy [--always] UPSTREAM ONLY FAULT…
//! ```
//!
//! Listens on a free port of the loopback and prints its address; then a line a request: what it did, and the request's
//! first line. A request whose first line contains ONLY gets the next fault; when there is none left, and for all other
//! requests, it passes; with `--always` the last fault is made again and again. It ends when its standard input does, with
//! exit code 0 if every fault was made.
//!
//! One request a connection, bodies in memory: for tests, not for traffic.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing)]

mod http;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Message;
use tagship_tests::Fault;

/// A test is over long before.
const PATIENCE: Duration = Duration::from_secs(60);

struct Proxy {
    upstream: String,
    only: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    /// The fault that is made when no other is left.
    always: Option<Fault>,
    /// What could not be done.
    failed: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let always = arguments.next_if(|word| word == "--always").is_some();
    let (Some(upstream), Some(only)) = (arguments.next(), arguments.next()) else {
        eprintln!("fault-proxy [--always] UPSTREAM ONLY FAULT…");
        return ExitCode::from(2);
    };
    let faults: VecDeque<Fault> = match arguments.map(|word| word.parse()).collect() {
        Ok(faults) => faults,
        Err(error) => {
            eprintln!("fault-proxy: {error}");
            return ExitCode::from(2);
        }
    };
    let proxy = Arc::new(Proxy {
        upstream,
        only,
        state: Mutex::new(State { always: faults.back().filter(|_| always).cloned(), faults, failed: false }),
    });
    if let Err(error) = listen(&proxy) {
        eprintln!("fault-proxy: {error}");
        return ExitCode::FAILURE;
    }
    // The caller closes it, or is gone.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let state = proxy.state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fault) = state.faults.front() {
        say(&format!("never made: {fault}"));
    }
    if state.failed || !state.faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Serves in the background for as long as the process lives.
fn listen(proxy: &Arc<Proxy>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&listener.local_addr()?.to_string());
    let proxy = Arc::clone(proxy);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let proxy = Arc::clone(&proxy);
            std::thread::spawn(move || {
                if let Err(error) = proxy.serve(client) {
                    say(&format!("failed: {error}"));
                    proxy.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
                }
            });
        }
    });
    Ok(())
}

impl Proxy {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        // A client may open a connection and use another.
        let Some(request) = Message::read(&mut client, None)? else { return Ok(()) };
        let fault = self.next(request.first_line());
        say(&format!("{fault}\t{}", request.first_line()));
        let answer = match fault {
            Fault::DropRequest => return Ok(()),
            Fault::Stall => {
                // Until the client has had enough.
                let _ = client.read_to_end(&mut Vec::new());
                return Ok(());
            }
            Fault::Status(status) => Message::made_up(status),
            _ => self.forward(&request)?,
        };
        match fault {
            Fault::LoseAnswer => Ok(()),
            Fault::CutAnswer => client.write_all(&answer.cut()),
            Fault::Alter { after, at } => {
                let body = Fault::altered(&after, at, answer.body())
                    .ok_or_else(|| io::Error::other(format!("no character {at} behind {after} in the answer")))?;
                client.write_all(&answer.with(body).bytes())
            }
            Fault::Pass | Fault::DropRequest | Fault::Stall | Fault::Status(_) => client.write_all(&answer.bytes()),
        }
    }

    fn next(&self, first_line: &str) -> Fault {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !first_line.contains(&self.only) {
            return Fault::Pass;
        }
        let next = state.faults.pop_front().or_else(|| state.always.clone());
        next.unwrap_or(Fault::Pass)
    }

    fn forward(&self, request: &Message) -> io::Result<Message> {
        let mut server = TcpStream::connect(&self.upstream)?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.write_all(&request.bytes())?;
        Message::read(&mut server, Some(request))?.ok_or_else(|| io::Error::other("the server did not answer"))
    }
}

/// One line, at once.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody listens any more: then it ends soon, too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
