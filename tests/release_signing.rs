//! Signatures of releases, events and approvals, made and verified by real keys.

use crate::support::models::{
    advance, in_stage, next, payload, published_with, remote_tags, remote_url, rule, trusted_clone,
};
use crate::support::{Repo, Sandbox};

const SIGNED: &str = "stages: {staging: {}, prod: {promotes_from: [staging], signed: true}}\n";

/// Makes an SSH key for a person; returns its public part.
fn ssh_key(sandbox: &Sandbox, person: &str) -> String {
    let path = sandbox.join(&format!("{person}.key")).display().to_string();
    sandbox.at("").sh(&format!("ssh-keygen -q -t ed25519 -N '' -C {person} -f {path}")).ok();
    std::fs::read_to_string(format!("{path}.pub")).unwrap()
}

/// Makes one key for each of these people, and lists them as signers that everybody knows.
fn known_signers(sandbox: &Sandbox, people: &[&str]) {
    let line = |person: &&str| format!("{person}@example.com {}", ssh_key(sandbox, person));
    let lines: String = people.iter().map(line).collect();
    std::fs::write(sandbox.join("signers"), lines).unwrap();
}

/// Lets a clone sign with a person's key, in that person's name.
fn signs_as(sandbox: &Sandbox, clone: &Repo, person: &str) {
    let (key, signers) = (sandbox.join(&format!("{person}.key.pub")), sandbox.join("signers"));
    for (name, value) in [
        ("user.name", person),
        ("user.email", &format!("{person}@example.com")),
        ("gpg.format", "ssh"),
        ("user.signingKey", key.to_str().unwrap()),
        ("gpg.ssh.allowedSignersFile", signers.to_str().unwrap()),
    ] {
        clone.git(["config", name, value]).ok();
    }
}

fn is_signed(remote: &Repo, tag: &str) -> bool {
    remote.git(["cat-file", "tag", &format!("refs/tags/{tag}")]).ok().contains("-----BEGIN ")
}

#[test]
fn a_signed_stage_takes_signed_releases_of_known_signers_only() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, SIGNED);
    known_signers(&sandbox, &["ada", "bo"]);
    ssh_key(&sandbox, "mallory");
    signs_as(&sandbox, &repo, "ada");
    let remote = sandbox.at("remote.git");

    // Whoever cannot sign is told what asks for it.
    let stranger = repo.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "user.signingKey");
    let stranger = stranger.env("GIT_CONFIG_VALUE_0", "/no/such/key");
    stranger
        .model(["release", "churn", "1.0.0"])
        .says("--no-sign releases for the others")
        .fails(1, "git tag");
    // Whatever git would do by itself.
    repo.git(["config", "tag.gpgSign", "true"]).ok();
    repo.model(["release", "churn", "1.0.0", "--no-sign"]).ok();
    assert!(!is_signed(&remote, "churn@v1.0.0"));
    let promote = ["promote", "churn@1.0.0", "staging"];
    stranger.model(promote).says("hint: git config tag.gpgSign asks for the signature").fails(1, "git tag");
    repo.git(["config", "--unset", "tag.gpgSign"]).ok();
    repo.model(promote).ok();
    let unsigned = ["promote", "churn@1.0.0", "prod", "--override", "please"];
    repo.model(unsigned).fails(3, "signed: the release is not signed");
    assert!(!is_signed(&remote, "churn#staging#1"));

    advance(&repo, 2.0, r#"{"auc": 0.2}"#, "two");
    // Where a stage asks for it, signing is the default.
    repo.model(["release", "churn", "1.1.0"]).ok();
    assert!(is_signed(&remote, "churn@v1.1.0"));
    repo.git(["verify-tag", "churn@v1.1.0"]).says("Good \"git\" signature for ada@example.com").ok();
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    // The stage's own events are signed, without anybody asking for it.
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    assert!(is_signed(&remote, "churn#prod#1") && !is_signed(&remote, "churn#staging#2"));
    repo.model(["approve", "churn@1.1.0", "prod"]).never_says("does not count").ok();
    assert!(is_signed(&remote, "churn#prod#2"));
    assert_eq!(payload(&remote, "churn@v1.1.0")["version"], "1.1.0");
    let signature = repo.json(["resolve", "churn#prod"])["signature"].clone();
    assert_eq!(signature, serde_json::json!({"state": "good", "said": "ada@example.com"}));

    // A good signature of nobody who is known is none.
    let mallory = trusted_clone(&sandbox, "mallory");
    signs_as(&sandbox, &mallory, "mallory");
    mallory.model(["pull"]).ok();
    advance(&mallory, 3.0, r#"{"auc": 0.3}"#, "three");
    mallory.model(["release", "churn", "1.2.0", "--sign"]).ok();
    repo.model(["promote", "churn@1.2.0", "staging"]).ok();
    repo.model(["promote", "churn@1.2.0", "prod"]).fails(3, "signed: the release's signature is not good");
    assert_eq!(repo.json(["resolve", "churn@1.2.0"])["signature"]["state"], "bad");
    assert_eq!(repo.json(["resolve", "churn@1.0.0"])["signature"]["state"], "none");

    // Whoever cannot sign makes no unsigned event there either, and no tag.
    repo.git(["config", "user.signingKey", "/nowhere.pub"]).ok();
    let before = remote_tags(&repo);
    assert_eq!(repo.model(["rollback", "churn", "prod", "--to", "1.1.0"]).says("nothing to do").code, 0);
    let output = repo.model(["outcome", "churn", "prod", "ok"]);
    output.fails(1, "git tag").contains("hint: git config user.signingKey").then_some(()).unwrap();
    repo.model(["release", "churn", "9.0.0", "--sign", "--commit", "HEAD"]).fails(1, "git tag");
    assert_eq!(remote_tags(&repo), before);
    assert!(!repo.git(["tag"]).ok().contains("9.0.0"));
}

#[test]
fn a_way_back_needs_the_signature_and_nothing_else() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "stages: {prod: {}}\n");
    known_signers(&sandbox, &["ada"]);
    signs_as(&sandbox, &repo, "ada");
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    let strict = "gates: {metrics: [{name: auc, direction: higher, min: 0.9}]}\n\
                  stages: {staging: {}, prod: {promotes_from: [staging], soak: 9d, approvals: 3}}\n";
    rule(&repo, strict);
    repo.model(["rollback", "churn", "prod"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(3, "(and 3 more)");
    rule(&repo, "stages: {prod: {signed: true}}\n");
    repo.model(["rollback", "churn", "prod", "--to", "1.1.0"]).fails(3, "the release is not signed");
    // A stage that nobody declares any more can be left.
    rule(&repo, "stages: {other: {}}\n");
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(2, "declares no such stage");
    repo.model(["rollback", "churn", "prod", "--to", "1.1.0"]).ok();
    repo.model(["retire", "churn", "prod"]).ok();
}

#[test]
fn approvals_are_counted_by_distinct_verified_signers() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "stages: {prod: {approvals: 2}}\n");
    known_signers(&sandbox, &["ada", "bo"]);
    ssh_key(&sandbox, "mallory");
    signs_as(&sandbox, &repo, "ada");
    let [bo, mallory] = ["bo", "mallory"].map(|person| {
        let clone = trusted_clone(&sandbox, person);
        signs_as(&sandbox, &clone, person);
        clone
    });
    repo.model(["release", "churn", "1.0.0"]).ok();
    let approve = ["approve", "churn@1.0.0", "prod"];
    let signed = ["approve", "churn@1.0.0", "prod", "--sign"];
    let refused = |why: &str| repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, why);
    refused("approvals: 0 of 2 by distinct verified signers");
    repo.model(signed).says("v1.0.0 approved").ok();
    repo.model(signed).ok();
    refused("approvals: 1 of 2 by distinct verified signers");
    bo.model(approve).says("does not count").ok();
    mallory.model(signed).ok();
    refused("1 of 2 by distinct verified signers; 2 without a verified signature do not count");
    // One of another version, or for another stage, is none for this.
    next(&repo, 2.0, "0.2", "1.1.0");
    bo.model(["approve", "churn@1.1.0", "prod", "--sign"]).ok();
    refused("approvals: 1 of 2");
    bo.model(signed).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    let history = bo.json(["history", "churn"]);
    assert_eq!(in_stage(&history, "prod")["version"], "1.0.0");
    let approvals =
        history["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "approve");
    assert_eq!(approvals.count(), 6);
    // What was approved before does not fill an empty stage, and none is left over for another version.
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(3, "approvals: 1 of 2");
}

#[test]
fn an_edited_tag_keeps_its_signature_and_is_refused() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, SIGNED);
    known_signers(&sandbox, &["ada"]);
    signs_as(&sandbox, &repo, "ada");
    repo.model(["release", "churn", "1.0.0", "--sign"]).ok();
    let remote = sandbox.at("remote.git");
    let tag = remote.git(["cat-file", "tag", "refs/tags/churn@v1.0.0"]).ok();
    // Still a well-formed payload, with a harmless field of another value.
    std::fs::write(sandbox.join("edited"), tag.replace("\"name\": \"origin\"", "\"name\": \"0rigin\""))
        .unwrap();
    remote.sh("git update-ref refs/tags/churn@v1.0.0 $(git hash-object -t tag -w ../edited)").ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "signed: the release's signature is not good");
    assert_eq!(repo.json(["resolve", "churn@1.0.0"])["signature"]["state"], "bad");
}

#[test]
fn without_a_clone_the_users_own_configuration_says_who_is_known() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, SIGNED);
    known_signers(&sandbox, &["ada"]);
    signs_as(&sandbox, &repo, "ada");
    repo.model(["release", "churn", "1.0.0", "--sign"]).ok();
    let state = |pod: &Repo| {
        pod.json(["resolve", "churn@1.0.0", "--repo", &remote_url(&sandbox)])["signature"]["state"].clone()
    };
    let pod = crate::support::models::pod(&sandbox, "pod");
    assert_eq!(state(&pod), "bad", "nobody is known here");
    let signers = sandbox.join("signers").display().to_string();
    sandbox.at("").git(["config", "--global", "gpg.ssh.allowedSignersFile", &signers]).ok();
    assert_eq!(state(&pod), "good");
    // A repository must not say for itself whom to believe.
    sandbox.at("").git(["config", "--global", "--unset", "gpg.ssh.allowedSignersFile"]).ok();
    sandbox.at("remote.git").git(["config", "gpg.ssh.allowedSignersFile", &signers]).ok();
    assert_eq!(state(&pod), "bad");
}

/// A keyring of its own, whose agent ends with the test.
struct Keyring(Repo);

impl Keyring {
    fn new(repo: &Repo, sandbox: &Sandbox) -> Keyring {
        let dir = sandbox.join("gnupg");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Keyring(repo.env("GNUPGHOME", dir.display().to_string()))
    }

    /// A key without a passphrase; returns its fingerprint.
    fn key(&self, user: &str) -> String {
        let make = format!("gpg --batch --quiet --passphrase '' --quick-gen-key '{user}' ed25519 sign never");
        self.0.sh(&make).ok();
        let listed = self.0.sh(&format!("gpg --batch --with-colons --list-keys '{user}'")).ok();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// A certificate that signs itself and is trusted, with a key without a passphrase; returns its fingerprint.
    fn certificate(&self, name: &str) -> String {
        self.0.write("../gnupg/gpgsm.conf", "disable-crl-checks\n");
        self.0.write("../gnupg/gpg-agent.conf", "allow-loopback-pinentry\n");
        self.0.write(
            "../request",
            format!(
                "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nSerial: random\nName-DN: CN={name}\n\
                 Name-Email: {name}@example.com\nNot-Before: 2020-01-01\nNot-After: 2039-12-31\n"
            ),
        );
        let make = "gpgsm --batch --quiet --pinentry-mode loopback --passphrase '' --generate-key ../request";
        self.0.sh(&format!("{make} > ../certificate && gpgsm --batch --quiet --import ../certificate")).ok();
        let listed = self.0.sh(&format!("gpgsm --batch --with-colons --list-keys {name}@example.com")).ok();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        let fingerprint = line.split(':').nth(9).unwrap().to_owned();
        self.0
            .sh(&format!("echo '{fingerprint} S relax' >> ../gnupg/trustlist.txt; gpgconf --kill gpg-agent"))
            .ok();
        fingerprint
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        drop(self.0.sh("gpgconf --kill all"));
    }
}

/// One of two signers releases; both have to approve, and one of them twice counts once.
fn approved_by_two(repo: &Repo, keys: &[String; 2]) {
    let sign_with = |key: &str| repo.git(["config", "user.signingKey", key]).ok();
    sign_with(&keys[0]);
    repo.model(["release", "churn", "1.0.0", "--sign"]).ok();
    let signature = repo.json(["resolve", "churn@1.0.0"])["signature"].clone();
    assert_eq!(signature, serde_json::json!({"state": "good", "said": keys[0].clone()}));
    let approve = ["approve", "churn@1.0.0", "prod", "--sign"];
    repo.model(approve).ok();
    repo.model(approve).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "approvals: 1 of 2");
    sign_with(&keys[1]);
    repo.model(approve).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
}

#[test]
fn gpg_signs_and_is_verified() {
    if Sandbox::new().at("").sh("gpg --version").code != 0 {
        return crate::support::skip("gpg_signs_and_is_verified", "gpg is not installed");
    }
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "stages: {prod: {signed: true, approvals: 2}}\n");
    let ring = Keyring::new(&repo, &sandbox);
    let repo = &ring.0;
    approved_by_two(repo, &["Ada <ada@example.com>", "Bo <bo@example.com>"].map(|user| ring.key(user)));
    repo.git(["verify-tag", "churn#prod#4"]).says("Good signature from \"Bo <bo@example.com>\"").ok();
    // Where the keys are not known, it cannot be verified.
    let stranger = trusted_clone(&sandbox, "stranger");
    let empty = sandbox.join("home/.gnupg");
    std::fs::create_dir(&empty).unwrap();
    std::fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(stranger.json(["resolve", "churn@1.0.0"])["signature"]["state"], "bad");
    stranger.model(["promote", "churn@1.0.0", "prod", "--traffic", "100"]).says("nothing to do").ok();
    stranger.model(["rollback", "churn", "prod", "--to", "1.0.0"]).says("nothing to do").ok();
}

#[test]
fn x509_signs_and_is_verified() {
    if Sandbox::new().at("").sh("gpgsm --version").code != 0 {
        return crate::support::skip("x509_signs_and_is_verified", "gpgsm is not installed");
    }
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "stages: {prod: {signed: true, approvals: 2}}\n");
    let ring = Keyring::new(&repo, &sandbox);
    let keys = ["Ada", "Bo"].map(|name| ring.certificate(name));
    ring.0.git(["config", "gpg.format", "x509"]).ok();
    approved_by_two(&ring.0, &keys);
}
