//! One place that turns a failure into words and an exit status.

/// What a person reads: `hull: MESSAGE`, and `hint: ADVICE`.
#[derive(Debug)]
pub struct Report {
    message: String,
    hint: Option<String>,
    code: i32,
}

impl Report {
    /// The command was called wrongly.
    pub fn usage(message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { message: message.into(), hint: hint.map(str::to_owned), code: 125 }
    }

    /// The machine refused to do `doing`.
    pub fn host(doing: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self { message: format!("cannot {doing}: {cause}"), hint: None, code: 1 }
    }

    /// The same with another exit status: Docker's 125 is for `run` alone.
    pub fn with_code(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// The same as a part of something larger that failed.
    pub fn within(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// What clap has to say: the help that was asked for, which is told, or a mistake.
    pub fn of_arguments(error: &clap::Error) -> Result<(), Self> {
        if error.exit_code() == 0 {
            // Nobody may be reading any more.
            let _ = error.print();
            return Ok(());
        }
        let text = error.render().to_string();
        Err(Self::usage(text.strip_prefix("error: ").unwrap_or(&text), None))
    }

    /// What is wrong, without advice.
    pub fn message(&self) -> &str {
        self.message.trim_end()
    }

    /// The advice, if there is any.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Writes it to standard error; gives the exit status.
    pub fn tell(&self) -> i32 {
        eprintln!("hull: {}", self.message.trim_end());
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        self.code
    }
}

impl From<hull_image::Error> for Report {
    fn from(error: hull_image::Error) -> Self {
        Self::from(hull_engine::Error::from(error)).with_code(1)
    }
}

impl From<hull_registry::Error> for Report {
    fn from(error: hull_registry::Error) -> Self {
        match error {
            hull_registry::Error::Image(error) => error.into(),
            error => Self { message: error.to_string(), hint: error.hint().map(str::to_owned), code: 1 },
        }
    }
}

impl From<hull_build::Error> for Report {
    fn from(error: hull_build::Error) -> Self {
        Self { message: error.to_string(), hint: error.hint().map(str::to_owned), code: error.exit_code() }
    }
}

impl From<hull_runtime::Error> for Report {
    fn from(error: hull_runtime::Error) -> Self {
        hull_engine::Error::from(error).into()
    }
}

impl From<hull_engine::Error> for Report {
    fn from(error: hull_engine::Error) -> Self {
        Self { message: error.to_string(), hint: error.hint().map(str::to_owned), code: error.exit_code() }
    }
}
