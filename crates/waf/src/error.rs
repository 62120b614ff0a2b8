//! Why rules cannot be loaded.

/// A rule set that cannot be loaded. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file is not SecLang.
    #[error("{file}:{line}: {what}")]
    Syntax {
        /// File.
        file: String,
        /// Line.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A directive, variable, operator, transformation or action that the engine does not have.
    #[error("{file}:{line}: {feature} is not supported")]
    Unsupported {
        /// File.
        file: String,
        /// Line.
        line: usize,
        /// The feature, as written.
        feature: String,
    },
    /// A file that a rule names cannot be read.
    #[error("{file}:{line}: {why}")]
    File {
        /// File that names it.
        file: String,
        /// Line.
        line: usize,
        /// Why.
        why: String,
    },
    /// There is not one rule.
    #[error("there are no rules")]
    Empty,
}

/// Where something stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: std::sync::Arc<str>,
    pub(crate) line: usize,
}

impl Place {
    pub(crate) fn syntax(&self, what: impl Into<String>) -> LoadError {
        LoadError::Syntax { file: self.file.to_string(), line: self.line, what: what.into() }
    }
    pub(crate) fn unsupported(&self, feature: impl Into<String>) -> LoadError {
        LoadError::Unsupported { file: self.file.to_string(), line: self.line, feature: feature.into() }
    }
    pub(crate) fn file(&self, why: impl Into<String>) -> LoadError {
        LoadError::File { file: self.file.to_string(), line: self.line, why: why.into() }
    }
}
