use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use crate::{Error, Result};

/// A part of the work: number `index`, counted from 0, of `count`.
///
/// ```
/// use circuitscope_sweep::Shard;
///
/// let shard: Shard = "1/3".parse()?;
/// assert_eq!(shard.of(10), 3..6);
/// assert!("3/3".parse::<Shard>().is_err());
/// # Ok::<(), circuitscope_sweep::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Where a [`Shard`] was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheduler {
    /// An array of jobs of SLURM.
    Slurm,
    /// An indexed job of Kubernetes.
    Kubernetes,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slurm => "an array of SLURM",
            Self::Kubernetes => "an indexed job of Kubernetes",
        })
    }
}

/// Variables of the environment that [`Shard::from_environment`] reads.
pub const SHARD_VARIABLES: [&str; 6] = [
    SLURM_ID,
    SLURM_COUNT,
    SLURM_MIN,
    SLURM_STEP,
    KUBERNETES_INDEX,
    KUBERNETES_COUNT,
];
const SLURM_ID: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_MIN: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_STEP: &str = "SLURM_ARRAY_TASK_STEP";
const KUBERNETES_INDEX: &str = "JOB_COMPLETION_INDEX";
const KUBERNETES_COUNT: &str = "JOB_COMPLETIONS";

impl Shard {
    /// A part.
    ///
    /// # Errors
    /// [`Error::Share`] unless `index` is below `count`.
    pub fn new(what: &str, index: usize, count: usize) -> Result<Self> {
        if index < count {
            return Ok(Self { index, count });
        }
        Err(Error::Share {
            what: what.to_owned(),
            found: format!("{index}/{count}"),
            expected: "I/N, the number of a part, counted from 0, and how many there are"
                .to_owned(),
        })
    }

    /// Which part a scheduler gave to this process, by its environment, which `variable` reads; `None` where it says nothing.
    ///
    /// `SLURM_ARRAY_TASK_ID` of `SLURM_ARRAY_TASK_COUNT` (from `_MIN` on, in steps of `_STEP`); else `JOB_COMPLETION_INDEX` of
    /// `JOB_COMPLETIONS`, which Kubernetes does not set: the file of the job has to. `count`, where it is given, counts
    /// before either, and the number of the part is then the scheduler's as it stands, counted from 0, unless the array has just so
    /// many.
    ///
    /// # Errors
    /// [`Error::Share`] where a variable is missing or no number, for an array with gaps, and where both schedulers speak.
    ///
    /// ```
    /// use circuitscope_sweep::Shard;
    ///
    /// let slurm = |name: &str| match name {
    ///     "SLURM_ARRAY_TASK_ID" => Some("3".to_owned()),
    ///     "SLURM_ARRAY_TASK_COUNT" => Some("4".to_owned()),
    ///     "SLURM_ARRAY_TASK_MIN" => Some("1".to_owned()),
    ///     _ => None,
    /// };
    /// let (shard, _) = Shard::from_environment(None, slurm)?.unwrap();
    /// assert_eq!(shard.to_string(), "2/4");
    /// # Ok::<(), circuitscope_sweep::Error>(())
    /// ```
    pub fn from_environment(
        count: Option<usize>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(Self, Scheduler)>> {
        let read = |name: &'static str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else {
                return Ok(None);
            };
            let number = text.trim().parse().ok();
            let number = number.ok_or_else(|| Error::Share {
                what: name.to_owned(),
                found: format!("{text:?}"),
                expected: "a whole number".to_owned(),
            });
            number.map(Some)
        };
        let (slurm, kubernetes) = (read(SLURM_ID)?, read(KUBERNETES_INDEX)?);
        let missing = |index: &str, name: &str, hint: &str| Error::Share {
            what: name.to_owned(),
            found: format!("nothing, but {index}"),
            expected: format!("how many parts there are{hint}"),
        };
        match (slurm, kubernetes) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Error::Share {
                what: format!("{SLURM_ID} and {KUBERNETES_INDEX}"),
                found: "both".to_owned(),
                expected: "one of them, or --shard I/N".to_owned(),
            }),
            (Some(id), None) => {
                let all = read(SLURM_COUNT)?;
                // Of the whole array its own numbers say which part this is.
                if let Some(count) = count.filter(|count| Some(*count) != all) {
                    let shard = Self::new(&format!("{SLURM_ID} of --shards"), id, count)?;
                    return Ok(Some((shard, Scheduler::Slurm)));
                }
                let count = all.ok_or_else(|| missing(SLURM_ID, SLURM_COUNT, ", or --shards N"))?;
                let (least, step) = (
                    read(SLURM_MIN)?.unwrap_or(0),
                    read(SLURM_STEP)?.unwrap_or(1),
                );
                let index = id.checked_sub(least).filter(|from| from % step.max(1) == 0);
                let index = index.map(|from| from / step.max(1));
                let shard = index.and_then(|index| Self::new(SLURM_ID, index, count).ok());
                let shard = shard.ok_or_else(|| Error::Share {
                    what: SLURM_ID.to_owned(),
                    found: format!("{id} in an array of {count} from {least} on"),
                    expected: format!(
                        "ids without gaps, as of --array=0-{}, or --shard I/N",
                        count.saturating_sub(1)
                    ),
                })?;
                Ok(Some((shard, Scheduler::Slurm)))
            }
            (None, Some(index)) => {
                let count = match count {
                    Some(count) => count,
                    None => read(KUBERNETES_COUNT)?.ok_or_else(|| {
                        let hint = " (set it in the file of the job to what `completions` says, or use --shards N)";
                        missing(KUBERNETES_INDEX, KUBERNETES_COUNT, hint)
                    })?,
                };
                let shard = Self::new(KUBERNETES_INDEX, index, count)?;
                Ok(Some((shard, Scheduler::Kubernetes)))
            }
        }
    }

    /// Its part of `all` things in a row. Parts are as equal as can be, and hold neighbours: of a model, one worker does
    /// as much as possible.
    #[must_use]
    pub fn of(self, all: usize) -> Range<usize> {
        // Of more than 2^64 products nobody asks.
        let at = |part: usize| (part as u128 * all as u128 / self.count as u128) as usize;
        at(self.index)..at(self.index + 1)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/');
        let parts =
            parts.and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let shard = parts.and_then(|(index, count)| Self::new("", index, count).ok());
        shard.ok_or_else(|| Error::Share {
            what: "part".to_owned(),
            found: format!("{text:?}"),
            expected: "I/N, I from 0 to N-1, such as 0/4".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn parts_cover_everything_once() {
        for (all, count) in [(10, 3), (2, 5), (0, 2), (7, 7), (1000, 1)] {
            let mut next = 0;
            for index in 0..count {
                let part = Shard::new("", index, count).unwrap().of(all);
                assert_eq!(part.start, next);
                assert!(part.len() <= all.div_ceil(count));
                next = part.end;
            }
            assert_eq!(next, all);
        }
    }

    #[test]
    fn schedulers_say_which_part() {
        let shard = |count, pairs| Shard::from_environment(count, environment(pairs));
        assert_eq!(shard(None, &[]).unwrap(), None);
        let of = |count, pairs| shard(count, pairs).unwrap().unwrap().0.to_string();
        assert_eq!(
            of(
                None,
                &[(SLURM_ID, "1"), (SLURM_COUNT, "2"), (SLURM_MIN, "0")]
            ),
            "1/2"
        );
        let stepped = &[
            (SLURM_ID, "6"),
            (SLURM_COUNT, "4"),
            (SLURM_MIN, "0"),
            (SLURM_STEP, "2"),
        ];
        assert_eq!(of(None, stepped), "3/4");
        assert_eq!(
            of(
                Some(10),
                &[(SLURM_ID, "5"), (SLURM_COUNT, "1"), (SLURM_MIN, "5")]
            ),
            "5/10"
        );
        let from_one = &[(SLURM_ID, "4"), (SLURM_COUNT, "4"), (SLURM_MIN, "1")];
        assert_eq!(of(Some(4), from_one), "3/4");
        assert_eq!(of(Some(8), from_one), "4/8");
        assert_eq!(
            of(None, &[(KUBERNETES_INDEX, "2"), (KUBERNETES_COUNT, "3")]),
            "2/3"
        );
        assert_eq!(of(Some(3), &[(KUBERNETES_INDEX, "2")]), "2/3");
        let error = |pairs| shard(None, pairs).unwrap_err().to_string();
        assert!(
            error(&[(KUBERNETES_INDEX, "2")])
                .starts_with("JOB_COMPLETIONS: found nothing, but JOB_COMPLETION_INDEX")
        );
        assert!(error(&[(SLURM_ID, "1")]).starts_with("SLURM_ARRAY_TASK_COUNT: found nothing"));
        let gaps = error(&[(SLURM_ID, "7"), (SLURM_COUNT, "3"), (SLURM_MIN, "0")]);
        assert!(
            gaps.contains("expected ids without gaps, as of --array=0-2"),
            "{gaps}"
        );
        assert!(error(&[(SLURM_ID, "x"), (SLURM_COUNT, "3")]).contains("expected a whole number"));
        assert!(
            error(&[(SLURM_ID, "0"), (SLURM_COUNT, "3"), (KUBERNETES_INDEX, "0")])
                .contains("found both")
        );
    }
}
