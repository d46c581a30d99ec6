//! The tasks that this crate brings.

use circuitscope_core::nearest;

use crate::error::list;
use crate::generate::{DOCSTRING, GREATER_THAN, INDUCTION, IOI};
use crate::{Error, Result, TaskSpec};

/// The tasks that this crate brings, in the order of every table. Command lines, help texts, error
/// messages and tables read this slice and nothing else.
pub static TASKS: &[&TaskSpec] = &[&IOI, &GREATER_THAN, &DOCSTRING, &INDUCTION];

/// The task of [`TASKS`] that has this name.
///
/// # Errors
/// [`Error::UnknownTask`].
pub fn task(name: &str) -> Result<&'static TaskSpec> {
    let names = || TASKS.iter().map(|task| task.name.as_ref());
    let found = TASKS.iter().copied().find(|task| task.name == name);
    found.ok_or_else(|| Error::UnknownTask {
        found: name.to_owned(),
        nearest: nearest(name, names()),
        known: list(&names().collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_task_is_found_by_its_name() {
        for spec in TASKS {
            assert_eq!(task(&spec.name).unwrap().name, spec.name);
            assert!(!spec.summary.is_empty() && !spec.summary.ends_with('.'));
        }
        let names: BTreeSet<_> = TASKS.iter().map(|task| &task.name).collect();
        assert_eq!(names.len(), TASKS.len());
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        assert_eq!(
            task("greater_than").unwrap_err().to_string(),
            "unknown task \"greater_than\" (did you mean `greater-than`?): expected \"ioi\", \
             \"greater-than\", \"docstring\" or \"induction\", or the folder of a task of your own"
        );
    }
}
