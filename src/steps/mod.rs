//! The steps of a release. Each takes what it needs and returns what it learned; none reaches into another.
