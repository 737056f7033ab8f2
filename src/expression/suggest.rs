//! "Did you mean": the nearest of the known names.

/// Names further away than this are no typing mistake.
const LEAST_SIMILARITY: f64 = 0.6;

/// `did you mean x?` for the nearest name, where one is near.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, known).map(|name| format!("did you mean {name}?"))
}

/// The nearest name. A mere difference of case wins.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let candidate = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&lower, &candidate);
        let longest = lower.chars().count().max(candidate.chars().count()).max(1);
        let similarity = 1.0 - distance as f64 / longest as f64;
        if similarity >= LEAST_SIMILARITY && best.is_none_or(|(other, _)| similarity > other) {
            best = Some((similarity, name));
        }
    }
    best.map(|(_, name)| name)
}
