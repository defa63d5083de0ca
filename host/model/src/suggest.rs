//! "Did you mean": the nearest of the names there are.

/// The name nearest to what was written, if any is near enough to be meant.
#[must_use]
pub fn nearest<S: AsRef<str>>(written: &str, names: impl IntoIterator<Item = S>) -> Option<String> {
    // A long text costs its length times that of every name, and is no slip of the finger.
    if written.chars().count() > 128 {
        return None;
    }
    let lower = written.to_lowercase();
    let allowed = (lower.chars().count() / 3).clamp(1, 4);
    names
        .into_iter()
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&lower, &name.as_ref().to_lowercase());
            (distance, name)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.as_ref().cmp(y.as_ref())))
        .map(|(_, name)| name.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_near_name_is_suggested() {
        let names = ["rolling", "role", "steps", "Database.Url"];
        for (written, near) in [
            ("roling", Some("rolling")),
            ("step", Some("steps")),
            ("database.ulr", Some("Database.Url")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names).as_deref(), near, "{written}");
        }
    }
}
