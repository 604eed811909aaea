//! One logical line -> one instruction.

use std::ops::Range;

use super::error::{Span, SyntaxError, did_you_mean};
use super::lines::{Logical, Source};
use super::{Command, Copy, CopySource, Instruction, Kind, Word, words};

const SUPPORTED: [&str; 11] =
    ["FROM", "ARG", "ENV", "LABEL", "WORKDIR", "USER", "COPY", "RUN", "CMD", "ENTRYPOINT", "EXPOSE"];
const NOT_YET: [&str; 7] = ["ADD", "VOLUME", "SHELL", "HEALTHCHECK", "ONBUILD", "STOPSIGNAL", "MAINTAINER"];

type Result<T> = std::result::Result<T, SyntaxError>;

/// The line being read: what is left of it begins at `rest`.
struct Line<'a, 'b> {
    source: &'a mut Source<'b>,
    logical: &'a Logical,
    keyword: String,
    span: Span,
    rest: usize,
}

pub(super) fn read(source: &mut Source<'_>, logical: &Logical) -> Result<Instruction> {
    let text = &logical.text;
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let keyword = text[..end].to_ascii_uppercase();
    let span = source.span(logical, 0, end);
    if !SUPPORTED.contains(&&*keyword) {
        return Err(unknown(source, span, &text[..end], &keyword));
    }
    let rest = end + text[end..].len() - text[end..].trim_start().len();
    let canonical = format!("{keyword} {}", &text[rest..]).trim_end().to_owned();
    let mut line = Line { source, logical, keyword, span, rest };
    let kind = line.kind()?;
    Ok(Instruction { span, text: canonical, kind })
}

fn unknown(source: &Source<'_>, span: Span, written: &str, keyword: &str) -> SyntaxError {
    if NOT_YET.contains(&keyword) {
        let mut error = source.error(span, format!("{keyword} is not supported yet"));
        error.hint = match keyword {
            "ADD" => Some("COPY does what ADD does with files and folders of the build context".into()),
            "MAINTAINER" => Some("use LABEL org.opencontainers.image.authors=…".into()),
            _ => None,
        };
        return error;
    }
    let mut error = source.error(span, format!("unknown instruction {written:?}"));
    error.hint = did_you_mean(keyword, SUPPORTED).map(|near| format!("did you mean {near}?"));
    error
}

impl Line<'_, '_> {
    fn kind(&mut self) -> Result<Kind> {
        Ok(match &*self.keyword {
            "FROM" => self.from()?,
            "ARG" => self.arg()?,
            "ENV" => Kind::Env(self.pairs()?),
            "LABEL" => Kind::Label(self.pairs()?),
            "WORKDIR" => Kind::Workdir(self.single()?),
            "USER" => Kind::User(self.single()?),
            "COPY" => self.copy()?,
            "RUN" => self.run()?,
            "CMD" => Kind::Cmd(self.command()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command()?),
            _ => Kind::Expose(self.some(words::plain(self.text()))?),
        })
    }

    fn text(&self) -> &str {
        &self.logical.text[self.rest..]
    }

    /// A range of [`Line::text`] as a word.
    fn word(&self, range: Range<usize>) -> Word {
        let text = self.text()[range.clone()].to_owned();
        Word { text, span: self.source.span(self.logical, self.rest + range.start, self.rest + range.end) }
    }

    fn error_at(&self, range: Range<usize>, message: impl Into<String>) -> SyntaxError {
        let span = self.source.span(self.logical, self.rest + range.start, self.rest + range.end);
        self.source.error(span, message)
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        self.source.error(self.span, message)
    }

    /// Takes the flags off the line: `known` are supported, `later` are the language's but not ours yet.
    fn flags(&mut self, known: &[&str], later: &[&str]) -> Result<Vec<Option<Word>>> {
        let mut values = vec![None; known.len()];
        let (found, rest) = words::flags(self.text(), self.source.escape);
        for range in found {
            let text = &self.text()[range.clone()];
            let (name, value) =
                text[2..].split_once('=').map_or((&text[2..], None), |(name, value)| (name, Some(value)));
            let Some(place) = known.iter().position(|flag| *flag == name) else {
                return Err(self.unknown_flag(range.clone(), name, known, later));
            };
            let Some(value) = value else {
                return Err(self.error_at(range, format!("--{name} needs a value: --{name}=VALUE")));
            };
            if values[place].is_some() {
                return Err(self.error_at(range, format!("--{name} is given twice")));
            }
            values[place] = Some(self.word(range.end - value.len()..range.end));
        }
        self.rest += rest;
        self.rest += self.text().len() - self.text().trim_start().len();
        Ok(values)
    }

    fn unknown_flag(&self, range: Range<usize>, name: &str, known: &[&str], later: &[&str]) -> SyntaxError {
        let name_end = range.start + 2 + name.len();
        if later.contains(&name) {
            return self.error_at(range.start..name_end, format!("{} --{name} is not supported yet", self.keyword));
        }
        let mut error = self.error_at(range.start..name_end, format!("{} has no flag --{name}", self.keyword));
        error.hint = did_you_mean(name, known.iter().copied()).map(|near| format!("did you mean --{near}?"));
        error
    }

    fn no_flags(&mut self) -> Result<()> {
        self.flags(&[], &[]).map(drop)
    }

    fn some(&mut self, ranges: Vec<Range<usize>>) -> Result<Vec<Word>> {
        let words: Vec<Word> = ranges.into_iter().map(|range| self.word(range)).collect();
        match words.first() {
            None => Err(self.error(format!("{} needs at least one argument", self.keyword))),
            Some(first) if first.text.starts_with("--") => {
                self.no_flags()?;
                Ok(words)
            }
            Some(_) => Ok(words),
        }
    }

    /// All that is left, as one word.
    fn single(&mut self) -> Result<Word> {
        self.no_flags()?;
        match self.text().len() {
            0 => Err(self.error(format!("{} needs exactly one argument", self.keyword))),
            length => Ok(self.word(0..length)),
        }
    }

    fn from(&mut self) -> Result<Kind> {
        let mut flags = self.flags(&["platform"], &[])?.into_iter();
        let platform = flags.next().flatten();
        let ranges = words::plain(self.text());
        let list: Vec<Word> = ranges.into_iter().map(|range| self.word(range)).collect();
        match &*list {
            [image] => Ok(Kind::From { platform, image: image.clone(), name: None }),
            [image, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                let mut name = name.clone();
                name.text.make_ascii_lowercase();
                let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
                if !name.text.starts_with(|c: char| c.is_ascii_lowercase()) || !name.text.chars().all(tail) {
                    let message =
                        format!("{:?} is no name for a stage: a letter, then letters, digits, - _ .", name.text);
                    return Err(self.source.error(name.span, message));
                }
                Ok(Kind::From { platform, image: image.clone(), name: Some(name) })
            }
            [] => Err(self.error("FROM needs an image")),
            [_, second, ..] => Err(self.source.error(second.span, "FROM takes one image, or IMAGE AS NAME")),
        }
    }

    fn arg(&mut self) -> Result<Kind> {
        let list = self.some(words::quoted(self.text(), self.source.escape))?;
        let mut args = Vec::new();
        for word in list {
            args.push(match split_pair(&word) {
                Some((name, _)) if name.text.is_empty() => {
                    return Err(self.source.error(word.span, "an ARG needs a name before the ="));
                }
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            });
        }
        Ok(Kind::Arg(args))
    }

    /// `NAME=VALUE…`, or the old form `NAME the rest of the line`.
    fn pairs(&mut self) -> Result<Vec<(Word, Word)>> {
        let list = self.some(words::quoted(self.text(), self.source.escape))?;
        if !list[0].text.contains('=') {
            let name = words::plain(self.text()).swap_remove(0);
            let value = name.end + self.text()[name.end..].len() - self.text()[name.end..].trim_start().len();
            if value == self.text().len() {
                let message = format!("{} needs a value: {0} NAME=VALUE", self.keyword);
                return Err(self.error_at(name, message));
            }
            return Ok(vec![(self.word(name), self.word(value..self.text().len()))]);
        }
        let mut pairs = Vec::new();
        for word in list {
            match split_pair(&word) {
                Some((name, _)) if name.text.is_empty() => {
                    return Err(self.source.error(word.span, format!("{} needs a name before the =", self.keyword)));
                }
                Some(pair) => pairs.push(pair),
                None => {
                    let message = format!("{:?} has no =: {} NAME=VALUE", word.text, self.keyword);
                    return Err(self.source.error(word.span, message));
                }
            }
        }
        Ok(pairs)
    }

    fn command(&mut self) -> Result<Command> {
        self.no_flags()?;
        match words::json(self.text()) {
            Some(list) => Ok(Command::Exec(list)),
            None if self.text().is_empty() => Err(self.error(format!("{} needs a command", self.keyword))),
            None => Ok(Command::Shell(self.text().to_owned())),
        }
    }

    fn run(&mut self) -> Result<Kind> {
        self.flags(&[], &["mount", "network", "security", "device"])?;
        let command = self.command()?;
        let Command::Shell(line) = command else {
            return match command {
                Command::Exec(list) if list.is_empty() => Err(self.error("RUN needs a command")),
                command => Ok(Kind::Run(command)),
            };
        };
        let openings = words::heredocs(&line, self.source.escape);
        let mut script = line.clone();
        for opening in &openings {
            let body = self.heredoc(opening)?;
            if opening.at == (0..line.len()) {
                // A heredoc alone is the script itself, so that shells without heredocs can run it as well.
                if body.starts_with("#!") {
                    let message = "a RUN heredoc with an interpreter line (#!) is not supported yet";
                    return Err(self.error_at(opening.at.clone(), message));
                }
                script = body;
            } else {
                script = format!("{script}\n{body}{}", opening.delimiter);
            }
        }
        Ok(Kind::Run(Command::Shell(script)))
    }

    fn heredoc(&mut self, opening: &words::Opening) -> Result<String> {
        let body = self.source.heredoc(&opening.delimiter, opening.chomp);
        body.ok_or_else(|| {
            let message = format!("this heredoc has no end: no line is just {:?}", opening.delimiter);
            self.error_at(opening.at.clone(), message)
        })
    }

    fn copy(&mut self) -> Result<Kind> {
        let flags = self.flags(&["from", "chown", "chmod"], &["link", "parents", "exclude"])?;
        let [from, chown, chmod] = <[Option<Word>; 3]>::try_from(flags).unwrap_or_default();
        let whole = 0..self.text().len();
        let json = words::json(self.text());
        let openings = if json.is_some() { Vec::new() } else { words::heredocs(self.text(), self.source.escape) };
        let mut list: Vec<Word> = match json {
            Some(list) => {
                let span = self.word(whole).span;
                list.into_iter().map(|text| Word { text, span }).collect()
            }
            None => words::plain(self.text()).into_iter().map(|range| self.word(range)).collect(),
        };
        let dest = list.pop().filter(|_| !list.is_empty());
        let Some(dest) = dest else {
            return Err(self.error("COPY needs at least one source and a destination"));
        };
        let mut sources = Vec::new();
        let mut openings = openings.into_iter().peekable();
        for word in list {
            let here = openings.next_if(|opening| self.text()[opening.at.clone()] == word.text);
            let Some(opening) = here else {
                sources.push(CopySource::Path(word));
                continue;
            };
            if from.is_some() {
                return Err(self.source.error(word.span, "COPY --from takes no heredoc"));
            }
            let body = self.heredoc(&opening)?;
            let name = Word { text: opening.delimiter, span: word.span };
            sources.push(CopySource::Inline { name, body, expand: opening.expand });
        }
        Ok(Kind::Copy(Copy { from, chown, chmod, sources, dest }))
    }
}

/// `NAME=VALUE` at the first `=`.
fn split_pair(word: &Word) -> Option<(Word, Word)> {
    let (name, value) = word.text.split_once('=')?;
    let name_width = name.chars().count() as u32;
    let value_column = word.span.column + name_width + 1;
    let name_span = Span { width: name_width.max(1), ..word.span };
    let width = (value.chars().count() as u32).clamp(1, word.span.width.saturating_sub(name_width + 1).max(1));
    let value_span = Span { column: value_column, width, ..word.span };
    Some((Word { text: name.to_owned(), span: name_span }, Word { text: value.to_owned(), span: value_span }))
}
