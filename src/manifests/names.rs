//! Names and labels as Kubernetes allows them.

use crate::id::Digest;
use crate::release::{ModelName, StageName};

/// Room for the suffixes that controllers add to a name of 63 characters.
const MAX_NAME: usize = 40;
const MAX_LABEL: usize = 63;

/// The name of a model's objects in a stage: `churn-prod`.
pub(super) fn object_name(model: &ModelName, stage: &StageName) -> String {
    let full = format!("{model}-{stage}");
    let lower = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = full.chars().map(lower).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "m-");
    }
    shortened(name, &full, MAX_NAME)
}

/// Text as the value of a label: what does not fit becomes `_`, what is too long ends in a digest.
pub(super) fn label(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let value: String = text.chars().map(fits).collect();
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    shortened(value.to_owned(), text, MAX_LABEL)
}

/// Part of a name: lower case, digits and `-`.
pub(super) fn part(text: &str) -> String {
    let lower = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    shortened(text.chars().map(lower).collect(), text, MAX_NAME)
}

/// A digest of the whole keeps two long names apart.
fn shortened(text: String, whole: &str, max: usize) -> String {
    const DIGITS: usize = 8;
    if text.len() <= max {
        return text;
    }
    let kept = text[..max - DIGITS - 1].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{kept}-{}", &Digest::of(whole.as_bytes()).to_hex()[..DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_kubernetes() {
        let name = |model: &str| {
            object_name(&ModelName::parse(model).unwrap(), &StageName::parse("Prod_EU").unwrap())
        };
        assert_eq!(name("churn"), "churn-prod-eu");
        assert_eq!(name("Team/churn.v2"), "team-churn-v2-prod-eu");
        assert_eq!(name("2fast"), "m-2fast-prod-eu");
        let long = "a".repeat(150);
        assert_eq!(name(&long).len(), 40);
        assert_ne!(name(&long), name(&format!("{long}b")));
        assert!(name(&format!("{}/b", "a".repeat(30))).len() <= 40);
    }

    #[test]
    fn labels_fit_kubernetes() {
        assert_eq!(label("1.4.0+cu121"), "1.4.0_cu121");
        assert_eq!(label("team/churn"), "team_churn");
        let long = format!("1.0.0-{}", "x.".repeat(60));
        assert!(label(&long).len() <= 63);
        assert!(label(&long).ends_with(|c: char| c.is_ascii_alphanumeric()));
    }
}
