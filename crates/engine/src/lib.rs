//! Containers as people know them.

#![forbid(unsafe_code)]
