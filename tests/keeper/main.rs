//! The control of the search for secrets: keeps all that `KEEP` lists, in hexadecimal with commas between, until its end,
//! in the three places where a program may have it: on its heap, on its first thread's stack, on another thread's. A
//! search that does not find all of it there is none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::mpsc;

/// More than all secrets take, in bytes.
const ROOM: usize = 16 * 1024;

fn main() {
    let kept = std::env::var("KEEP").expect("KEEP");
    let secrets: Vec<Vec<u8>> = kept.split(',').map(decoded).collect();
    let heap: &'static [Vec<u8>] = black_box(Vec::leak(secrets.clone()));
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let stack = laid_out(heap);
        black_box(&stack);
        ready.send(()).expect("the first thread waits");
        loop {
            std::thread::park();
            black_box(&stack);
        }
    });
    is_ready.recv().expect("the other thread has its copy");
    let stack = laid_out(heap);
    black_box(&stack);
    println!("kept {} secrets", heap.len());
    // From here, where the stack is still in use.
    std::process::exit(i32::from(black_box(&stack).is_empty()));
}

/// One after another in an array.
#[inline(always)]
fn laid_out(secrets: &[Vec<u8>]) -> [u8; ROOM] {
    let (mut stack, mut at) = ([0; ROOM], 0);
    for secret in secrets {
        stack[at..at + secret.len()].copy_from_slice(secret);
        at += secret.len() + 1;
    }
    stack
}

fn decoded(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}
