//! The system calls hull makes.
