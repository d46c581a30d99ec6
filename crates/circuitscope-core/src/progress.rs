/// Name of the stage in which a dictionary is trained.
pub const TRAINING: &str = "training the dictionary";

/// What long work tells its caller, and asks of it.
///
/// Libraries call it; only a program decides whether to draw anything. Methods take `&self` so that
/// one value can be shared by the stages of a run.
pub trait Progress: Sync {
    /// A stage named `stage` of `total` steps begins. Stages may nest.
    fn begin(&self, stage: &str, total: u64) {
        let _ = (stage, total);
    }

    /// As [`begin`](Progress::begin), of a stage whose steps are bytes.
    fn begin_bytes(&self, stage: &str, total: u64) {
        self.begin(stage, total);
    }

    /// What the innermost stage is at, in a few words.
    fn at(&self, what: &str) {
        let _ = what;
    }

    /// `steps` further steps of the innermost stage are done.
    fn advance(&self, steps: u64) {
        let _ = steps;
    }

    /// The innermost stage is over.
    fn end(&self) {}

    /// Whether the work should stop at the next safe point. Work that stops so returns its
    /// crate's `Cancelled` error and leaves finished parts in place.
    fn cancelled(&self) -> bool {
        false
    }
}

impl dyn Progress + '_ {
    /// A stage named `name` of `total` steps begins; it is over once what is returned is dropped.
    ///
    /// ```
    /// use circuitscope_core::{NoProgress, Progress};
    ///
    /// fn work(progress: &dyn Progress) -> Result<(), std::num::ParseIntError> {
    ///     let _stage = progress.stage("reading", 2);
    ///     for text in ["1", "2"] {
    ///         // Ends the stage, too, if it fails.
    ///         text.parse::<u8>()?;
    ///         progress.advance(1);
    ///     }
    ///     Ok(())
    /// }
    /// assert_eq!(work(&NoProgress), Ok(()));
    /// ```
    pub fn stage(&self, name: &str, total: u64) -> Stage<'_> {
        self.begin(name, total);
        Stage(self)
    }

    /// As `stage`, of a stage whose steps are bytes.
    pub fn stage_of_bytes(&self, name: &str, total: u64) -> Stage<'_> {
        self.begin_bytes(name, total);
        Stage(self)
    }
}

/// A stage of a [`Progress`] that is over once this is dropped: however the work ends.
#[must_use = "the stage is over once this is dropped"]
pub struct Stage<'p>(&'p dyn Progress);

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl core::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Stage")
    }
}

/// Says nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn begin(&self, stage: &str, total: u64) {
            self.0.lock().unwrap().push(format!("{stage} {total}"));
        }

        fn end(&self) {
            self.0.lock().unwrap().push("end".to_owned());
        }
    }

    #[test]
    fn a_stage_ends_whatever_happens_in_it() {
        let heard = Heard::default();
        let fails = |progress: &dyn Progress| {
            let _outer = progress.stage("outer", 1);
            let inner = progress.stage_of_bytes("inner", 2);
            "x".parse::<u8>()?;
            drop(inner);
            Ok::<_, core::num::ParseIntError>(())
        };
        assert!(fails(&heard).is_err());
        let heard = heard.0.into_inner().unwrap();
        assert_eq!(heard, ["outer 1", "inner 2", "end", "end"]);
    }
}
