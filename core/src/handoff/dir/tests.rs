//! Every type of file, and everybody at once.
