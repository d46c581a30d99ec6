/// The candidate most like `name`, for "did you mean" in errors; `None` where nothing is close.
///
/// Likeness is the Damerau-Levenshtein distance, at most a third of the longer string
/// (and at least 2). The first of equally near candidates wins.
///
/// ```
/// use circuitscope_core::nearest;
/// assert_eq!(nearest("greater_than", ["ioi", "greater-than"]), Some("greater-than"));
/// assert_eq!(nearest("zebra", ["ioi", "greater-than"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        let distance = strsim::damerau_levenshtein(name, candidate);
        let limit = (name.len().max(candidate.len()) / 3).max(2);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The hint that ends an error's account of a wrong name: ` (did you mean `…`?)` with its leading
/// space, or nothing where no candidate is close.
///
/// ```
/// use circuitscope_core::{did_you_mean, nearest};
///
/// let hint = did_you_mean(nearest("iio", ["ioi", "greater-than"]));
/// assert_eq!(format!("unknown task `iio`{hint}"), "unknown task `iio` (did you mean `ioi`?)");
/// assert_eq!(did_you_mean(nearest("zebra", ["ioi"])), "");
/// ```
#[must_use]
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}
