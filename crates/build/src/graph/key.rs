//! Cache keys: SHA-256 over everything that decides what a step makes.
//!
//! A key begins with its parent's, and the first one with the base image's manifest digest: two images with the same
//! history text never share a step (the fault of CVE-2024-24557). Every field is preceded by its length, so that no two
//! lists of fields read the same.

use sha2::{Digest as _, Sha256};

/// Changes when what a step makes changes without its instruction doing so.
const VERSION: &str = "hull-build/1";

/// The key of a step, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The digits, a safe name for a file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Collects the fields of a key.
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// A key of kind `kind`.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).field(VERSION).field(kind)
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    /// Adds a list of fields, and how many they are.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(self, values: impl ExactSizeIterator<Item = T>) -> Self {
        let counted = self.field((values.len() as u64).to_le_bytes());
        values.fold(counted, |builder, value| builder.field(value))
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(hex(&self.0.finalize()))
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'))
        .collect()
}
