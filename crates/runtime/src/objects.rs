//! JSON whose structures are objects and nothing else.
//!
//! serde's derived types also read a structure from an array of its fields in their order, so that a mistyped
//! `"resources": []` would be limits of which none is given. Here it is an error, at every depth. (What a type reads by
//! way of serde's own buffer, as an untagged one does, is beyond it.)

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::{Result, Value};

/// What `text` says.
///
/// # Errors
/// It is no JSON, or something in it has another type than `T` has there; with line and column.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = T::deserialize(Strict(&mut json))?;
    json.end().map(|()| read)
}

/// What `value` says.
///
/// # Errors
/// Something in it has another type than `T` has there.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(Strict(value))
}

/// One of serde's parts, around everything that comes out of it or goes into it.
struct Strict<T>(T);

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> std::result::Result<V::Value, D::Error> {
            self.0.$method($($name,)* Strict(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    /// A structure is asked for as a map, which no array is.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

macro_rules! pass_on {
    ($($method:ident: $type:ty;)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> std::result::Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    pass_on! {
        visit_bool: bool;
        visit_i64: i64;
        visit_i128: i128;
        visit_u64: u64;
        visit_u128: u128;
        visit_f64: f64;
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    fn visit_none<E: serde::de::Error>(self) -> std::result::Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> std::result::Result<V::Value, D::Error> {
        self.0.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> std::result::Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<V::Value, A::Error> {
        self.0.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> std::result::Result<V::Value, A::Error> {
        self.0.visit_enum(data)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> std::result::Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> std::result::Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> std::result::Result<T::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;
    use serde_json::json;

    /// Each of them is read by serde_json itself.
    #[test]
    fn no_structure_is_read_from_an_array() {
        for part in [
            json!({"process": {"cwd": "/", "user": [5, 6]}}),
            json!({"process": {"cwd": "/", "user": {}, "capabilities": [["CAP_KILL"]]}}),
            json!({"process": {"cwd": "/", "user": {}, "rlimits": [["RLIMIT_NOFILE", 5, 5]]}}),
            json!({"root": ["rootfs", true]}),
            json!({"hooks": []}),
            json!({"hooks": {"prestart": [["/bin/true"]]}}),
            json!({"linux": {"resources": []}}),
            json!({"linux": {"resources": {"devices": [[true]]}}}),
            json!({"linux": {"seccomp": ["SCMP_ACT_ALLOW"]}}),
            json!({"linux": {"timeOffsets": {"monotonic": []}}}),
        ] {
            let mut whole = json!({"ociVersion": "1.3.0"});
            whole.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            serde_json::from_value::<Spec>(whole.clone()).unwrap();
            for error in [from_value::<Spec>(whole.clone()), from_slice(whole.to_string().as_bytes())] {
                let error = error.unwrap_err().to_string();
                assert!(error.contains("invalid type: sequence, expected struct"), "{part}: {error}");
            }
        }
    }

    #[test]
    fn everything_else_is_read_as_by_serde_json() {
        let whole = json!({
            "ociVersion": "1.3.0", "hostname": "a\u{e9}", "annotations": {"a": "b"}, "unknown": [{"x": [null, 1.5]}],
            "process": {"args": ["x"], "cwd": "/", "user": {"uid": 1, "additionalGids": [2]}, "terminal": true,
                "capabilities": {"bounding": ["CAP_KILL"]}, "oomScoreAdj": -5, "noNewPrivileges": null},
            "mounts": [{"destination": "/x", "type": "tmpfs", "options": ["ro"]}],
            "linux": {"namespaces": [{"type": "mount"}], "sysctl": {"net.x": "1"}, "maskedPaths": [],
                "resources": {"memory": {"limit": -1}, "devices": [{"allow": false, "access": "rwm"}]}},
        });
        let wanted: Spec = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(from_slice::<Spec>(whole.to_string().as_bytes()).unwrap(), wanted);
        assert_eq!(from_value::<Spec>(whole.clone()).unwrap(), wanted);
        assert!(from_slice::<Spec>(format!("{whole} x").as_bytes()).is_err());
    }
}
