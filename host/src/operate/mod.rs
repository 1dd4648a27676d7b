//! The operator's commands. Each returns what is to be printed; printing is `report`'s.

pub mod guard;
pub mod history;
pub mod mark;
pub mod policy;
pub mod recover;
pub mod retry;
pub mod rollback;
pub mod status;
mod table;
