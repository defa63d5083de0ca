//! Variables that decide how a deployment is scheduled.
//!
//! A variable can have scopes, so it can say for one environment, role or step what a process says for all. Each name is
//! also taken with the prefix `Octopus.`, as processes that come from there write it.

use windlass_model::{template::is_truthy, variables::Context};

use crate::error::EngineError;

/// Steps at once, and machines at once in each step.
pub const MAX_PARALLELISM: &str = "Action.MaxParallelism";
/// Machines that are sent packages at once.
pub const MAX_ACQUISITIONS: &str = "Acquire.MaxParallelism";
/// Runs at once in all.
pub const MAX_RUNS: &str = "Deployment.MaxRuns";
/// At most one deployment with this text runs at a time.
pub const CONCURRENCY_TAG: &str = "Task.ConcurrencyTag";
/// Whether steps share their machines with those of others.
pub const BYPASS: &str = "BypassDeploymentMutex";

/// What a variable says, under its name or that with the prefix.
///
/// # Errors
/// When there is a value that cannot be told, or that is a secret.
pub fn text(context: &Context, name: &str) -> Result<Option<String>, EngineError> {
    // `OctopusBypassDeploymentMutex` is written without a dot.
    for name in [name.to_owned(), format!("Octopus.{name}"), format!("Octopus{name}")] {
        let found = context.value(&name).map_err(|error| {
            EngineError::invalid("setting", error.to_string()).fix(format!("correct {name}, then create a new release"))
        })?;
        match found {
            Some(value) if value.secrets_used => {
                return Err(EngineError::invalid(
                    "setting",
                    format!("{name} is a secret, and everybody sees its effect"),
                )
                .fix(format!("write value instead of secret for {name}, then create a new release")));
            }
            Some(value) => return Ok(Some(value.text)),
            None => {}
        }
    }
    Ok(None)
}

/// A number of at least 1 that a variable says, else what the process says.
///
/// # Errors
/// When it is none.
pub fn number(context: &Context, name: &str, otherwise: Option<u32>) -> Result<Option<u32>, EngineError> {
    let Some(text) = text(context, name)? else {
        return Ok(otherwise);
    };
    match text.trim().parse() {
        Ok(number @ 1..) => Ok(Some(number)),
        _ => Err(EngineError::invalid("setting", format!("{name} is {text:?}, and must be a whole number from 1"))
            .fix(format!("correct {name}, then create a new release"))),
    }
}

/// Whether a variable is true, if there is one.
///
/// # Errors
/// As [`text`].
pub fn flag(context: &Context, name: &str) -> Result<Option<bool>, EngineError> {
    let Some(text) = text(context, name)? else {
        return Ok(None);
    };
    Ok(Some(is_truthy(&text)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_model::{
        Variable, VariableValue,
        variables::{Place, VariableSet},
    };

    use super::*;

    fn context(variables: &[(&str, &str)]) -> Context {
        let variable = |(name, value): &(&str, &str)| Variable {
            name: (*name).to_owned(),
            value: VariableValue::Text((*value).to_owned()),
            scope: Default::default(),
        };
        Context::new(Arc::new(VariableSet::new(variables.iter().map(variable))), Place::default())
    }

    #[test]
    fn a_variable_wins_over_the_process_under_each_of_its_names() {
        for name in ["Action.MaxParallelism", "octopus.action.maxparallelism"] {
            assert_eq!(number(&context(&[(name, " 3 ")]), MAX_PARALLELISM, Some(7)).unwrap(), Some(3), "{name}");
        }
        assert_eq!(number(&context(&[]), MAX_PARALLELISM, Some(7)).unwrap(), Some(7));
        for wrong in ["0", "-1", "many", "", "1.5"] {
            let error = number(&context(&[("Action.MaxParallelism", wrong)]), MAX_PARALLELISM, None).unwrap_err();
            assert!(error.message.contains("must be a whole number from 1"), "{error}");
        }
    }

    #[test]
    fn a_flag_is_true_unless_it_is_nothing_zero_no_or_false() {
        let table =
            [("True", true), ("1", true), ("on", true), ("False", false), ("no", false), ("0", false), ("", false)];
        for (text, is) in table {
            for name in ["BypassDeploymentMutex", "OctopusBypassDeploymentMutex"] {
                assert_eq!(flag(&context(&[(name, text)]), BYPASS).unwrap(), Some(is), "{text:?}");
            }
        }
        assert_eq!(flag(&context(&[]), BYPASS).unwrap(), None);
    }
}
