//! Every command but `deploy`: the operator's, and `recover` and `guard`, which units call. Most return what is to be
//! printed; those that take long tell `report` as they go.

pub mod guard;
pub mod history;
pub mod mark;
pub mod policy;
pub mod recover;
pub mod retry;
pub mod rollback;
pub mod status;
mod table;
