//! Harness of the scenarios that run on a real host.
