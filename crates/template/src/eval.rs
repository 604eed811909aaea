//! Filling a template in.
//!
//! Source: the documentation of Go's `text/template`, "Pipelines", "Variables" and "Functions". Docker's data are structures
//! in some places and maps in others: a name that a structure lacks is a mistake, one that a map lacks is `<no value>`.
//! JSON does not say which is which; the names of Docker's maps do ([`MAPS`]).

use serde_json::Value;

use crate::format::{is_true, kind, printed};
use crate::functions::Function;
use crate::parse::{Base, Branch, Command, Node, Operand, Pipeline};
use crate::{Error, Lookups};

/// Where Docker's documents have a map with names of the user's, not a structure.
const MAPS: [&str; 12] = [
    "Annotations",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "LogOpts",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Sysctls",
    "Volumes",
];

/// The most text that is made: a template's loops go over the data, which has an end, but may lie in each other.
const OUTPUT_MAX: usize = 64 << 20;

pub(crate) fn render(
    nodes: &[Node],
    data: &Value,
    lookups: &Lookups,
    functions: &dyn Fn(&str) -> Option<Function>,
) -> Result<String, Error> {
    let variables = vec![(String::new(), data.clone())];
    let mut state = State { lookups, functions, variables, out: String::new() };
    state.nodes(nodes, data)?;
    Ok(state.out)
}

struct State<'a> {
    lookups: &'a Lookups,
    functions: &'a dyn Fn(&str) -> Option<Function>,
    /// Name and value, the innermost last; the unnamed one is the whole data.
    variables: Vec<(String, Value)>,
    out: String,
}

/// How a block was left.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Output(pipeline) => {
                    let value = self.value(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&printed(&value));
                    }
                    Flow::On
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if self.out.len() > OUTPUT_MAX {
                return Err(Error::new(0, "it gives more than 64 MiB of text"));
            }
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// `if` and `with`; what is declared in them ends with them.
    fn branch(&mut self, branch: &Branch, dot: &Value, with: bool) -> Result<Flow, Error> {
        let known = self.variables.len();
        let value = self.value(&branch.pipeline, dot)?;
        let flow = match is_true(&value) {
            true => self.nodes(&branch.then, if with { &value } else { dot })?,
            false => self.nodes(&branch.otherwise, dot)?,
        };
        self.variables.truncate(known);
        Ok(flow)
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Error> {
        let known = self.variables.len();
        let commands = Pipeline { variables: Vec::new(), ..branch.pipeline.clone() };
        let value = self.value(&commands, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Array(list) => list.iter().enumerate().map(|(n, item)| (n.into(), item.clone())).collect(),
            Value::Object(map) => map.iter().map(|(key, item)| (key.as_str().into(), item.clone())).collect(),
            Value::Null => Vec::new(),
            other => {
                let why = format!("range cannot go over {}", kind(other));
                return Err(Error::new(branch.pipeline.at, why));
            }
        };
        if items.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        for (key, item) in items {
            match &branch.pipeline.variables[..] {
                [] => {}
                [one] => self.set(branch.pipeline.at, branch.pipeline.assigns, one, item.clone())?,
                [first, second, ..] => {
                    self.set(branch.pipeline.at, branch.pipeline.assigns, first, key)?;
                    self.set(branch.pipeline.at, branch.pipeline.assigns, second, item.clone())?;
                }
            }
            let flow = self.nodes(&branch.then, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, at: usize, assigns: bool, name: &str, value: Value) -> Result<(), Error> {
        if !assigns {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        let (_, slot) = known.ok_or_else(|| Error::new(at, format!("the variable ${name} is not declared")))?;
        *slot = value;
        Ok(())
    }

    fn value(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or_default();
        for name in &pipeline.variables {
            self.set(pipeline.at, pipeline.assigns, name, value.clone())?;
        }
        Ok(value)
    }

    /// `last` is what the command before it gave, its last argument.
    fn command(&mut self, command: &Command, dot: &Value, last: Option<Value>) -> Result<Value, Error> {
        let Some((first, arguments)) = command.operands.split_first() else { return Ok(Value::Null) };
        if let Base::Function(name) = &first.base {
            let value = self.call(first.at, name, arguments, dot, last)?;
            return fields(first.at, value, &first.fields, None);
        }
        if let (Base::Dot | Base::Variable(_), Some((name, before))) = (&first.base, first.fields.split_last())
            && let Some(lookup) = self.lookups.get(name.as_str()).filter(|_| before.is_empty())
        {
            let mut given = self.operands(arguments, dot)?;
            given.extend(last);
            return match &given[..] {
                [Value::String(key)] => Ok(lookup.get(key).map_or("", String::as_str).into()),
                _ => Err(Error::new(first.at, format!(".{name} wants one text"))),
            };
        }
        let extra = arguments.first().map(|argument| argument.at).or(last.map(|_| first.at));
        if let Some(at) = extra {
            return Err(Error::new(at, "a value takes no arguments; only functions do"));
        }
        self.operand(first, dot)
    }

    fn operands(&mut self, operands: &[Operand], dot: &Value) -> Result<Vec<Value>, Error> {
        operands.iter().map(|operand| self.operand(operand, dot)).collect()
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        let (value, held) = match &operand.base {
            Base::Dot => (dot.clone(), None),
            Base::Literal(value) => (value.clone(), None),
            Base::Pipeline(pipeline) => (self.value(pipeline, dot)?, last_field(pipeline)),
            Base::Function(name) => (self.call(operand.at, name, &[], dot, None)?, None),
            Base::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let missing = || Error::new(operand.at, format!("the variable ${name} is not declared"));
                (known.ok_or_else(missing)?.1.clone(), None)
            }
        };
        fields(operand.at, value, &operand.fields, held)
    }

    fn call(
        &mut self,
        at: usize,
        name: &str,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Error> {
        if let "and" | "or" = name {
            return self.logic(at, name == "and", arguments, dot, last);
        }
        let function =
            (self.functions)(name).ok_or_else(|| Error::new(at, format!("the function {name:?} is not known")))?;
        let mut given = self.operands(arguments, dot)?;
        given.extend(last);
        function(&given).map_err(|why| Error::new(at, format!("{name}: {why}")))
    }

    /// `and` and `or` stop at the value that decides, and give it.
    fn logic(
        &mut self,
        at: usize,
        and: bool,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Error> {
        let mut value = None;
        for argument in arguments {
            let next = self.operand(argument, dot)?;
            if is_true(&next) != and {
                return Ok(next);
            }
            value = Some(next);
        }
        last.or(value).ok_or_else(|| Error::new(at, format!("{} wants a value", if and { "and" } else { "or" })))
    }
}

/// The field that a pipeline of one value gives, for `(.Config.Labels).x`.
fn last_field(pipeline: &Pipeline) -> Option<&str> {
    match &pipeline.commands[..] {
        [Command { operands, .. }] => operands.last()?.fields.last().map(String::as_str),
        _ => None,
    }
}

/// Takes the fields one of the other; `held` is the name of the field that the value is of.
fn fields(at: usize, mut value: Value, names: &[String], held: Option<&str>) -> Result<Value, Error> {
    let mut held = held;
    for name in names {
        let next = match &mut value {
            Value::Object(map) => match map.get_mut(name) {
                Some(next) => next.take(),
                // Go's name of a field and the document's differ in this only.
                None => match map.iter_mut().find(|(key, _)| key.replace("ID", "Id") == name.replace("ID", "Id")) {
                    Some((_, next)) => next.take(),
                    None if held.is_some_and(|held| MAPS.contains(&held)) => Value::Null,
                    None => return Err(Error::new(at, format!("there is no field {name:?}"))),
                },
            },
            Value::Null => return Err(Error::new(at, format!("there is no field {name:?}: nothing has it"))),
            other => return Err(Error::new(at, format!("there is no field {name:?} in {}", kind(other)))),
        };
        value = next;
        held = Some(name);
    }
    Ok(value)
}
