//! What requesters do to an inbox, good and bad.
