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

/// Says nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
