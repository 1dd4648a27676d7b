//! Against hosts of every kind.
