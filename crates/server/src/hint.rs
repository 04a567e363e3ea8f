//! Guesses what the caller probably meant, like PostgREST.
//!
//! PostgREST uses a fuzzy set: the candidates are those that share a trigram with the given text
//! or, if none of them is close enough, a bigram. The closest one by Levenshtein distance wins if
//! it reaches a minimum score. The score is 1 minus the distance divided by the longer text's
//! length.

/// The minimum score for the name of an operation.
pub(crate) const FUNCTION_SCORE_MIN: f64 = 0.75;

/// The minimum score for a list of arguments.
pub(crate) const ARGUMENTS_SCORE_MIN: f64 = 0.33;

/// Returns the candidate that is closest to the given text, if any is close enough.
pub(crate) fn nearest<'a>(given: &str, candidates: &[&'a str], score_min: f64) -> Option<&'a str> {
    let key = given.to_lowercase();
    let haystack = enclosed(&key);
    [3, 2].into_iter().find_map(|gram_chars| {
        candidates
            .iter()
            .filter(|candidate| share_gram(&haystack, candidate, gram_chars))
            // The distance is at least the difference in length, which keeps long input cheap.
            .filter(|candidate| reach(candidate, &key) >= score_min)
            .map(|&candidate| (strsim::normalized_levenshtein(&key, candidate), candidate))
            .filter(|&(score, _)| score >= score_min)
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, candidate)| candidate)
    })
}

/// Returns the best score that texts of these lengths can have.
#[expect(
    clippy::cast_precision_loss,
    reason = "lengths of texts that a body can hold are exact in f64"
)]
fn reach(candidate: &str, key: &str) -> f64 {
    let (shorter, longer) = (candidate.chars().count(), key.chars().count());
    shorter.min(longer) as f64 / shorter.max(longer).max(1) as f64
}

/// Keeps letters, digits, spaces and commas, between hyphens that mark the ends.
fn enclosed(text: &str) -> String {
    let kept = |each: &char| each.is_alphanumeric() || each.is_whitespace() || *each == ',';
    let mut enclosed = String::from("-");
    enclosed.extend(text.chars().filter(kept));
    enclosed.push('-');
    enclosed
}

fn share_gram(haystack: &str, candidate: &str, gram_chars: usize) -> bool {
    let candidate: Vec<char> = enclosed(candidate).chars().collect();
    candidate
        .windows(gram_chars)
        .any(|gram| haystack.contains(&String::from_iter(gram)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: [&str; 4] = [
        "add_widget",
        "remove_widget",
        "associate_widgets",
        "remove_association",
    ];

    fn function(given: &str) -> Option<&'static str> {
        nearest(given, &FUNCTIONS, FUNCTION_SCORE_MIN)
    }

    fn arguments(given: &str, known: &'static str) -> bool {
        nearest(given, &[known], ARGUMENTS_SCORE_MIN).is_some()
    }

    #[test]
    fn similar_function_names_are_suggested_as_by_postgrest() {
        assert_eq!(function("add_widgets"), Some("add_widget"));
        assert_eq!(function("addWidget"), Some("add_widget"));
        assert_eq!(function("ADD_WIDGET"), Some("add_widget"));
        assert_eq!(function("associate_widget"), Some("associate_widgets"));
        assert_eq!(function("delete_widget"), None);
        assert_eq!(function(""), None);
        assert_eq!(function(&"add_widget".repeat(10_000)), None);
    }

    #[test]
    fn argument_lists_are_similar_if_they_share_several_names() {
        let add = "(slots, widget_name, widget_sn)";
        assert!(arguments("(slots, widget_sn)", add));
        assert!(arguments("(widget_name, widget_sn)", add));
        assert!(!arguments("(slots)", add));
        let pair = "(port, widget1_sn, widget2_sn)";
        assert!(arguments("(widget1_sn, widget2_sn)", pair));
        assert!(!arguments("(port)", pair));
        assert!(!arguments("()", pair));
    }
}
