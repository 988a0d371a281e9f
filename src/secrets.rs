//! Keeping secrets out of what is written down for ever.

/// What stands where a secret was.
const HIDDEN: &str = "***";
/// Words in the name of an option or variable whose value is a secret.
const NAMES: [&str; 11] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api-key",
    "apikey",
    "access-key",
    "private-key",
    "credential",
    "auth",
];
/// How well-known secrets start.
const STARTS: [&str; 13] = [
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "hf_",
    "sk-",
    "xoxb-",
    "xoxp-",
    "eyJ",
    "AIza",
];
/// Shorter words are no such secrets, whatever they start with.
const SHORTEST: usize = 16;

/// A command line as it may be written down: values of options that are named like secrets, users and passwords in URLs, and
/// words that look like well-known tokens become `***`.
pub fn redact(command: &[String]) -> Vec<String> {
    let mut words = Vec::with_capacity(command.len());
    let mut hide_next = false;
    for word in command {
        if hide_next && !word.starts_with('-') {
            words.push(HIDDEN.to_owned());
            // `Authorization: Bearer …`
            hide_next = matches!(word.as_str(), "Bearer" | "Basic");
            continue;
        }
        match word.split_once('=') {
            // A script, or a header: it has words of its own.
            _ if word.contains(' ') && !word.starts_with('-') => {
                let inner: Vec<String> = word.split(' ').map(str::to_owned).collect();
                words.push(redact(&inner).join(" "));
            }
            Some((name, value)) if is_secret_name(name) && !value.is_empty() => {
                words.push(format!("{name}={HIDDEN}"));
            }
            Some((name, value)) if !name.contains("://") => {
                words.push(format!("{name}={}", redact_value(value)));
            }
            _ => words.push(redact_value(word)),
        }
        let announces = word.starts_with('-') && !word.contains('=') || word.ends_with(':');
        hide_next = announces && is_secret_name(word);
    }
    words
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let words = name.trim_start_matches('-');
    NAMES.iter().any(|secret| words.contains(secret))
        && !words.contains("tokenizer")
        && !words.replace("authorization", "").contains("author")
}

fn redact_value(value: &str) -> String {
    let known = STARTS.iter().any(|start| value.starts_with(start));
    let one_word = value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+=".contains(c));
    if known && one_word && value.len() >= SHORTEST {
        return HIDDEN.to_owned();
    }
    match value.split_once("://") {
        Some((scheme, rest)) => {
            let (place, query) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?***"));
            // A password may hold a slash; whoever has no colon before the `@` has no password.
            let host = match place.rsplit_once('@') {
                Some((user, host)) if user.contains(':') || !user.contains('/') => format!("{HIDDEN}@{host}"),
                _ => place.to_owned(),
            };
            format!("{scheme}://{host}{query}")
        }
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (given, kept) in [
            ("python train.py --lr 0.1", "python train.py --lr 0.1"),
            ("train --token abc --epochs 3", "train --token *** --epochs 3"),
            ("train --api_key=abc", "train --api_key=***"),
            ("env WANDB_API_KEY=abc train", "env WANDB_API_KEY=*** train"),
            ("train --password -x", "train --password -x"),
            ("train --tokenizer bert --author me", "train --tokenizer bert --author me"),
            ("push https://me:pw@host/x?sig=1", "push https://***@host/x?***"),
            ("push --to=s3://bucket/x", "push --to=s3://bucket/x"),
            ("push https://me:p/w@host/x", "push https://***@host/x"),
            ("push s3://bucket/a@v1.bin", "push s3://bucket/a@v1.bin"),
            ("login hf_abcdefghijklmnopqrst", "login ***"),
            ("run sk-learn", "run sk-learn"),
        ] {
            let words: Vec<String> = given.split(' ').map(str::to_owned).collect();
            assert_eq!(redact(&words).join(" "), kept);
        }
    }

    #[test]
    fn scripts_and_headers_are_looked_into() {
        for (given, kept) in [
            ("TOKEN=abc train --lr 1 && push --password p", "TOKEN=*** train --lr 1 && push --password ***"),
            ("Authorization: Bearer abc", "Authorization: *** ***"),
            ("curl -H 'Authorization: Bearer abc'", "curl -H 'Authorization: *** ***"),
            ("x = 1; print(x)", "x = 1; print(x)"),
        ] {
            assert_eq!(redact(&["-c".to_owned(), given.to_owned()]), ["-c", kept]);
        }
    }
}
