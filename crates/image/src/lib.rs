//! Images.

#![forbid(unsafe_code)]
