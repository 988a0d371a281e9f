//! Credentials for registries as Docker, Podman and their helpers keep them (`config.json`, `auth.json`).

use std::collections::BTreeMap;

use base64::Engine;
use serde::Deserialize;

use super::Reference;

/// How Docker Hub is called in these files.
const DOCKER_HUB: [&str; 4] =
    ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"];

/// What lets somebody into a registry. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        secret: String,
    },
    /// A token that is exchanged for others.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// A file of credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthFile {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl AuthFile {
    /// Parses such a file.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<AuthFile> {
        serde_json::from_slice(bytes)
    }

    /// The helper program that knows about this registry, by the end of its name, and how the registry is called there.
    pub fn helper(&self, place: &Reference) -> Option<(&str, String)> {
        let names = host_names(&place.registry);
        let own = names.iter().find_map(|name| Some((self.helpers.get(name)?.as_str(), name.clone())));
        own.or_else(|| Some((self.store.as_deref()?, names[0].clone())))
            .filter(|(helper, _)| is_helper_name(helper))
    }

    /// The credentials in the file itself: those for the repository before those for a namespace, and these before the registry's.
    pub fn credentials(&self, place: &Reference) -> Option<Credentials> {
        let mut scope = format!("{}/{}", place.registry, place.repository);
        while let Some((above, _)) = scope.rsplit_once('/') {
            if let Some(found) = self.auths.get(&scope).and_then(Entry::credentials) {
                return Some(found);
            }
            scope = above.to_owned();
        }
        let names = host_names(&place.registry);
        let matching =
            self.auths.iter().filter(|(key, _)| names.iter().any(|name| name == *key || name == bare(key)));
        matching.map(|(_, entry)| entry).find_map(Entry::credentials)
    }
}

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            return Some(Credentials::Password {
                user: self.username.clone(),
                secret: self.password.clone(),
            });
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, secret) = text.split_once(':')?;
        let secret = secret.trim_end_matches('\0').to_owned();
        (!user.is_empty()).then(|| Credentials::Password { user: user.to_owned(), secret })
    }
}

/// What a helper answered. A user of `<token>` stands for an identity token.
pub fn parse_helper_answer(bytes: &[u8]) -> Option<Credentials> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Username")]
        user: String,
        #[serde(rename = "Secret")]
        secret: String,
    }
    let Answer { user, secret } = serde_json::from_slice(bytes).ok()?;
    Some(match user.as_str() {
        "<token>" => Credentials::Identity(secret),
        _ => Credentials::Password { user, secret },
    })
}

/// The names of a registry in these files, the one for helpers first.
fn host_names(registry: &str) -> Vec<String> {
    match DOCKER_HUB.contains(&registry) {
        true => DOCKER_HUB.map(str::to_owned).to_vec(),
        false => vec![registry.to_owned()],
    }
}

/// A key as older versions of Docker wrote it, without scheme and path.
fn bare(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split_once('/') {
        Some((host, "" | "v1" | "v1/" | "v2" | "v2/")) => host,
        _ => rest,
    }
}

/// It becomes part of a program's name.
fn is_helper_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, place: &str) -> Option<Credentials> {
        AuthFile::parse(text.as_bytes()).unwrap().credentials(&Reference::parse(place).unwrap())
    }

    fn password(user: &str, secret: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), secret: secret.into() })
    }

    #[test]
    fn every_way_of_writing_them_is_read() {
        // me:pw:x
        let auth = r#"{"auths": {"KEY": {"auth": "bWU6cHc6eA=="}}}"#;
        for (key, place) in [
            ("h.example", "h.example/x"),
            ("https://h.example/v1/", "h.example/x"),
            ("h.example:5000", "h.example:5000/x"),
            ("https://index.docker.io/v1/", "docker.io/x"),
            ("h.example/team", "h.example/team/x"),
        ] {
            assert_eq!(find(&auth.replace("KEY", key), place), password("me", "pw:x"), "{key}");
        }
        for (key, place) in
            [("h.example", "h.example:5000/x"), ("h.example/team", "h.example/other"), ("h", "h.example/x")]
        {
            assert_eq!(find(&auth.replace("KEY", key), place), None, "{key}");
        }
        let both = r#"{"auths": {"h": {"username": "a", "password": "b"}, "h/t": {"identitytoken": "i"}}}"#;
        assert_eq!(find(both, "h/t/x"), Some(Credentials::Identity("i".into())));
        assert_eq!(find(both, "h/u/x"), password("a", "b"));
        assert_eq!(find("{}", "h/x"), None);
        assert_eq!(find(r#"{"auths": {"h": {"auth": "!"}}}"#, "h/x"), None);
    }

    #[test]
    fn helpers_are_named_by_host_and_never_by_path() {
        let file = AuthFile::parse(br#"{"credHelpers": {"h": "one"}, "credsStore": "all"}"#).unwrap();
        assert_eq!(file.helper(&Reference::parse("h/x").unwrap()), Some(("one", "h".into())));
        assert_eq!(file.helper(&Reference::parse("g/x").unwrap()), Some(("all", "g".into())));
        let hub = file.helper(&Reference::parse("docker.io/x").unwrap());
        assert_eq!(hub, Some(("all", "https://index.docker.io/v1/".into())));
        let file = AuthFile::parse(br#"{"credsStore": "../evil"}"#).unwrap();
        assert_eq!(file.helper(&Reference::parse("h/x").unwrap()), None);
        assert_eq!(
            parse_helper_answer(br#"{"Username": "<token>", "Secret": "t"}"#),
            Some(Credentials::Identity("t".into()))
        );
    }
}
