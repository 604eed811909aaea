//! The tree of a template.
//!
//! ```text
//! action  := pipeline | if pipeline | else [if|with pipeline] | end | range [vars :=] pipeline | with pipeline | break | continue
//! pipeline := [$var :=|=] command { | command }
//! command := operand { operand }
//! operand := (. | $var | literal | function | ( pipeline )) {.Field}
//! ```

use serde_json::Value;

use crate::Error;
use crate::lex::{Kind, Piece, Word};

/// The deepest nesting of parentheses and blocks.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(String),
    /// A pipeline whose value is printed, unless it sets a variable.
    Output(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// What is done with a pipeline's value, and without one.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub pipeline: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub at: usize,
    /// The variables that get its value; two only for a `range`.
    pub variables: Vec<String>,
    /// They are set, not declared.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// A function or a field with its arguments, or one value.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub at: usize,
    pub base: Base,
    /// The fields that are taken, one of the other.
    pub fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Pipeline(Box<Pipeline>),
}

pub(crate) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Error> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0, loops: 0 };
    match parser.block()? {
        (nodes, Stop::End) => Ok(nodes),
        (_, Stop::Close(at)) => Err(Error::new(at, "there is nothing that {{end}} could end")),
        (_, Stop::Else(at, _)) => Err(Error::new(at, "there is nothing that {{else}} could belong to")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
    loops: usize,
}

/// What ended a block.
enum Stop {
    End,
    Close(usize),
    /// `else`, and the words behind it.
    Else(usize, Vec<Word>),
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, mut words) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(at, words) => (at, words),
            };
            let keyword = match words.first().map(|word| &word.kind) {
                None => return Err(Error::new(at, "the action is empty")),
                Some(Kind::Name(name)) => name.clone(),
                Some(_) => String::new(),
            };
            let rest = |words: &mut Vec<Word>| words.split_off(1);
            match keyword.as_str() {
                "end" => return nothing(&rest(&mut words)).map(|()| (nodes, Stop::Close(at))),
                "else" => return Ok((nodes, Stop::Else(at, rest(&mut words)))),
                "if" | "with" | "range" => nodes.push(self.branch(at, &keyword, &rest(&mut words))?),
                "break" | "continue" => {
                    nothing(&rest(&mut words))?;
                    if self.loops == 0 {
                        return Err(Error::new(at, format!("{keyword} is in no range")));
                    }
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(Error::new(at, format!("{keyword} is not supported")));
                }
                _ => nodes.push(Node::Output(self.pipeline(at, &words, 1)?)),
            }
        }
        Ok((nodes, Stop::End))
    }

    fn branch(&mut self, at: usize, keyword: &str, words: &[Word]) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::new(at, "it is nested too deep"));
        }
        let pipeline = self.pipeline(at, words, if keyword == "range" { 2 } else { 1 })?;
        if pipeline.commands.is_empty() {
            return Err(Error::new(at, format!("{keyword} has no value")));
        }
        self.loops += usize::from(keyword == "range");
        let (then, stop) = self.block()?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match stop {
            Stop::End => return Err(Error::new(at, format!("{keyword} has no {{{{end}}}}"))),
            Stop::Close(_) => Vec::new(),
            Stop::Else(place, words) => self.otherwise(place, keyword, &words)?,
        };
        self.depth -= 1;
        let branch = Branch { pipeline, then, otherwise };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    /// What follows an `else`: a block, or for `else if` and `else with` another branch, which takes the `end`.
    fn otherwise(&mut self, at: usize, keyword: &str, words: &[Word]) -> Result<Vec<Node>, Error> {
        if let Some(Kind::Name(name)) = words.first().map(|word| &word.kind) {
            if name == keyword && name != "range" {
                return Ok(vec![self.branch(at, keyword, &words[1..])?]);
            }
        }
        nothing(words)?;
        match self.block()? {
            (nodes, Stop::Close(_)) => Ok(nodes),
            (_, Stop::Else(at, _)) => Err(Error::new(at, "there is one else too many")),
            (_, Stop::End) => Err(Error::new(at, format!("{keyword} has no {{{{end}}}}"))),
        }
    }

    fn pipeline(&mut self, at: usize, words: &[Word], variables_max: usize) -> Result<Pipeline, Error> {
        let mut words = Words { words, next: 0, end: at };
        let pipeline = self.words(&mut words, variables_max)?;
        match words.peek() {
            None => Ok(pipeline),
            Some(word) => Err(Error::new(word.at, "this does not belong here")),
        }
    }

    /// A pipeline as far as it goes: to the end, or to a closing parenthesis.
    fn words(&mut self, words: &mut Words<'_>, variables_max: usize) -> Result<Pipeline, Error> {
        let at = words.peek().map_or(words.end, |word| word.at);
        let (variables, assigns) = words.variables();
        if variables.len() > variables_max {
            return Err(Error::new(at, "there are too many variables"));
        }
        let mut pipeline = Pipeline { at, variables, assigns, commands: Vec::new() };
        loop {
            pipeline.commands.push(self.command(words)?);
            match words.peek().map(|word| &word.kind) {
                Some(Kind::Pipe) => words.next += 1,
                _ => return Ok(pipeline),
            }
        }
    }

    fn command(&mut self, words: &mut Words<'_>) -> Result<Command, Error> {
        let at = words.peek().map_or(words.end, |word| word.at);
        let mut operands: Vec<Operand> = Vec::new();
        while let Some(word) = words.peek().cloned() {
            if matches!(word.kind, Kind::Pipe | Kind::Close) {
                break;
            }
            words.next += 1;
            if let (Kind::Field(name), false, Some(last)) = (&word.kind, word.spaced, operands.last_mut()) {
                last.fields.push(name.clone());
                continue;
            }
            if !word.spaced && !operands.is_empty() {
                return Err(Error::new(word.at, "a space is missing before this"));
            }
            operands.push(self.operand(word, words)?);
        }
        if operands.is_empty() {
            return Err(Error::new(at, "a value is missing here"));
        }
        match &operands[0] {
            Operand { base: Base::Literal(Value::Null), at, .. } => Err(Error::new(*at, "nil alone is no value")),
            _ => Ok(Command { operands }),
        }
    }

    fn operand(&mut self, word: Word, words: &mut Words<'_>) -> Result<Operand, Error> {
        let at = word.at;
        let (base, fields) = match word.kind {
            Kind::Dot => (Base::Dot, Vec::new()),
            Kind::Field(name) => (Base::Dot, vec![name]),
            Kind::Variable(name) => (Base::Variable(name), Vec::new()),
            Kind::Literal(value) => (Base::Literal(value), Vec::new()),
            Kind::Name(name) => (Base::Function(name), Vec::new()),
            Kind::Open => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Error::new(at, "it is nested too deep"));
                }
                let inner = self.words(words, 0)?;
                self.depth -= 1;
                match words.peek().map(|word| &word.kind) {
                    Some(Kind::Close) => words.next += 1,
                    _ => return Err(Error::new(at, "a parenthesis is not closed")),
                }
                (Base::Pipeline(Box::new(inner)), Vec::new())
            }
            Kind::Pipe | Kind::Close | Kind::Comma | Kind::Declare | Kind::Assign => {
                return Err(Error::new(at, "this does not belong here"));
            }
        };
        Ok(Operand { at, base, fields })
    }
}

struct Words<'a> {
    words: &'a [Word],
    next: usize,
    /// Where the action begins, for what is missing at its end.
    end: usize,
}

impl Words<'_> {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.next)
    }

    /// `$a :=`, `$a =` or `$a, $b :=` at the beginning.
    fn variables(&mut self) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let mut at = 0;
        while let Some(Kind::Variable(name)) = self.words.get(self.next + at).map(|word| &word.kind) {
            names.push(name.clone());
            at += 1;
            match self.words.get(self.next + at).map(|word| &word.kind) {
                Some(Kind::Comma) => at += 1,
                Some(sign @ (Kind::Declare | Kind::Assign)) => {
                    self.next += at + 1;
                    return (names, *sign == Kind::Assign);
                }
                _ => break,
            }
        }
        (Vec::new(), false)
    }
}

fn nothing(words: &[Word]) -> Result<(), Error> {
    match words.first() {
        None => Ok(()),
        Some(word) => Err(Error::new(word.at, "this does not belong here")),
    }
}
