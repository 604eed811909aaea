//! GVariant's text form, as an annotation has a property's value: `uint64 5`, `'text'`, `true`, `['a', 'b']`, `('x', 1)`.
//!
//! Source: GLib, "GVariant Text Format". A number without a type is an `int32`, with a point a `double`. Dictionaries,
//! maybes and byte strings have no place in a unit's properties and are refused.

use zvariant::{Array, ObjectPath, Signature, StructureBuilder, Value};

/// The value that `text` is.
///
/// # Errors
/// It is none, in words.
pub(super) fn parse(text: &str) -> Result<Value<'static>, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None)?;
    reader.blank();
    match reader.rest {
        "" => Ok(value),
        rest => Err(format!("{rest:?} is too much")),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: char) -> bool {
        self.blank();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> &'a str {
        self.blank();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !plain(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value, of the type `kind` if one was said before it.
    fn value(&mut self, kind: Option<&str>) -> Result<Value<'static>, String> {
        self.blank();
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some('@') => {
                self.take('@');
                let kind = self.rest.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
                self.rest = &self.rest[kind.len()..];
                self.value(Some(kind))
            }
            Some(quote @ ('\'' | '"')) => {
                let text = self.string(quote)?;
                match kind {
                    None | Some("s" | "string") => Ok(Value::from(text)),
                    Some("o" | "objectpath") => {
                        ObjectPath::try_from(text).map(Value::from).map_err(|error| error.to_string())
                    }
                    Some(kind) => Err(format!("{text:?} is no {kind}")),
                }
            }
            Some('[') => self.array(kind),
            Some('(') => {
                let mut fields = StructureBuilder::new();
                for value in self.list('(', ')', None)? {
                    fields = fields.append_field(value);
                }
                fields.build().map(Value::from).map_err(|error| error.to_string())
            }
            Some('<') => {
                self.take('<');
                let value = self.value(None)?;
                if self.take('>') { Ok(Value::Value(Box::new(value))) } else { Err("\">\" is missing".to_owned()) }
            }
            Some(_) => self.plain(kind),
        }
    }

    /// A number, a truth value, or the name of a type with its value.
    fn plain(&mut self, kind: Option<&str>) -> Result<Value<'static>, String> {
        const TYPES: [&str; 11] = [
            "boolean",
            "byte",
            "int16",
            "uint16",
            "int32",
            "uint32",
            "int64",
            "uint64",
            "double",
            "string",
            "objectpath",
        ];
        let word = self.word();
        if kind.is_none() && TYPES.contains(&word) {
            return self.value(Some(word));
        }
        let wrong = || format!("{word:?} is no {}", kind.unwrap_or("value"));
        let integer = || {
            let (sign, digits) = word.strip_prefix('-').map_or(("", word), |digits| ("-", digits));
            let (digits, base) = match digits.strip_prefix("0x") {
                Some(digits) => (digits, 16),
                None => (digits, 10),
            };
            i128::from_str_radix(&format!("{sign}{digits}"), base).map_err(|_| wrong())
        };
        macro_rules! number {
            ($kind:ty) => {
                <$kind>::try_from(integer()?).map(Value::from).map_err(|_| wrong())
            };
        }
        match kind {
            None | Some("b" | "boolean") if matches!(word, "true" | "false") => Ok(Value::from(word == "true")),
            Some("d" | "double") => word.parse::<f64>().map(Value::from).map_err(|_| wrong()),
            None if word.contains('.') => word.parse::<f64>().map(Value::from).map_err(|_| wrong()),
            None | Some("i" | "int32") => number!(i32),
            Some("y" | "byte") => number!(u8),
            Some("n" | "int16") => number!(i16),
            Some("q" | "uint16") => number!(u16),
            Some("u" | "uint32") => number!(u32),
            Some("x" | "int64") => number!(i64),
            Some("t" | "uint64") => number!(u64),
            Some(_) => Err(wrong()),
        }
    }

    fn array(&mut self, kind: Option<&str>) -> Result<Value<'static>, String> {
        let inner = kind.map(|kind| kind.strip_prefix('a').ok_or(format!("an array is no {kind}"))).transpose()?;
        let values = self.list('[', ']', inner)?;
        let signature = match (inner, values.first()) {
            (Some(inner), _) => Signature::try_from(inner).map_err(|error| error.to_string())?,
            (None, Some(first)) => first.value_signature().clone(),
            (None, None) => return Err("the type of an empty array is not known: @as []".to_owned()),
        };
        let mut array = Array::new(&signature);
        for value in values {
            array.append(value).map_err(|error| error.to_string())?;
        }
        Ok(Value::from(array))
    }

    fn list(&mut self, open: char, close: char, kind: Option<&str>) -> Result<Vec<Value<'static>>, String> {
        self.take(open);
        let mut values = Vec::new();
        while !self.take(close) {
            if !values.is_empty() && !self.take(',') {
                return Err(format!("\"{close}\" is missing"));
            }
            if open == '(' && self.take(close) {
                break;
            }
            // The first of an array says the type of all.
            let value = self.value(kind)?;
            values.push(value);
        }
        Ok(values)
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        self.take(quote);
        let mut text = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                letter if letter == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match letters.next().map(|(_, letter)| letter) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(letter @ ('\\' | '\'' | '"')) => text.push(letter),
                    other => return Err(format!("the escape \\{} is not known", other.unwrap_or(' '))),
                },
                letter => text.push(letter),
            }
        }
        Err("the string does not end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_type_that_its_text_says() {
        for (text, expected) in [
            ("uint64 123456789", Value::from(123_456_789u64)),
            ("@t 5", Value::from(5u64)),
            (" -7 ", Value::from(-7i32)),
            ("0x10", Value::from(16i32)),
            ("byte 255", Value::from(255u8)),
            ("1.5", Value::from(1.5f64)),
            ("double 2", Value::from(2f64)),
            ("true", Value::from(true)),
            ("'inactive-or-failed'", Value::from("inactive-or-failed")),
            (r#""a\"b""#, Value::from("a\"b")),
            ("['a', 'b']", Value::from(vec!["a", "b"])),
            ("@as []", Value::from(Vec::<String>::new())),
            ("@au [1, 2]", Value::from(vec![1u32, 2])),
            ("('x', uint32 3)", Value::from(("x", 3u32))),
            ("[('x', uint64 3)]", Value::from(vec![("x", 3u64)])),
            ("<'v'>", Value::Value(Box::new(Value::from("v")))),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        for text in [
            "",
            "uint8",
            "byte 256",
            "uint64 -1",
            "'open",
            "[]",
            "['a', 1]",
            "(1",
            "1 2",
            "words",
            "uint64 'x'",
            "{'a': 1}",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }
}
