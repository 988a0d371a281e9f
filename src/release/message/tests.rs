use super::super::fixture::*;
use super::super::{Override, Version};
use super::*;

const SSH: &str = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n";

fn reason(message: &str) -> String {
    match parse(message) {
        Parsed::Damaged(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_text_of_a_release() {
    let text = format_release(&release_payload("1.4.0")).unwrap();
    let digest = Digest::of(b"1.4.0");
    let start = "Release churn v1.4.0\n\n{\n  \"schema\": \"git-model/release/v1\",\n  \"name\": \"churn\",\n  \"version\": \"1.4.0\",\n";
    assert!(text.starts_with(start), "{text}");
    let end = format!("\n}}\n\nModel-Name: churn\nModel-Version: 1.4.0\nModel-Digest: {digest}\n");
    assert!(text.ends_with(&end), "{text}");
    assert!(text.contains("\"source\": \"default-branch\"") && !text.contains("null"), "{text}");
    let survives = |line: &str| !line.starts_with('#') && !line.ends_with(' ');
    assert!(text.lines().all(survives) && !text.contains("\n\n\n"), "git's clean-up would change it: {text}");
}

#[test]
fn subjects() {
    for (what, subject) in [
        ("promote 1.4.0", "Promote churn v1.4.0 to prod"),
        ("canary 1.4.0 10", "Canary churn v1.4.0 in prod at 10%"),
        ("rollback 1.3.2", "Roll back churn in prod to v1.3.2"),
        ("retire", "Retire churn from prod"),
        ("approve 1.4.0", "Approve churn v1.4.0 for prod"),
        ("outcome 1.4.0 ok", "Outcome of churn v1.4.0 in prod: ok"),
        ("outcome 1.4.0 aborted", "Outcome of churn v1.4.0 in prod: aborted"),
        ("hold\nme 1.4.0", "Event 7 of churn in prod"),
    ] {
        let text = format_event(&event_payload(7, what)).unwrap();
        assert_eq!(text.lines().next(), Some(subject));
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut release = release_payload("1.4.0");
    release.previous = Some(version("1.3.0"));
    release.overrides = vec![Override { gate: "auc".to_owned(), reason: "agreed".to_owned() }];
    release.remote = None;
    let text = format_release(&release).unwrap();
    assert_eq!(parse(&text), Parsed::Release(release));
    for what in ["promote 1.4.0", "canary 1.4.0 100", "retire", "outcome 1.4.0 ok", "freeze 1.4.0", "thaw"] {
        let mut event = event_payload(7, what);
        event.reason =
            Some("line\n\n}\n-----BEGIN SSH SIGNATURE-----\nModel-Name: x\n\"git-model/\" \u{1b}".to_owned());
        let text = format_event(&event).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("Model-")).count() % 2, 1, "{text}");
        assert_eq!(parse(&text), Parsed::Event(event), "{text}");
    }
}

#[test]
fn signatures_are_cut_off() {
    let payload = release_payload("1.4.0");
    let text = format_release(&payload).unwrap();
    for signature in [
        SSH,
        "-----BEGIN PGP SIGNATURE-----\n\niQEz\n-----END PGP SIGNATURE-----\n",
        "-----BEGIN PGP MESSAGE-----\n\niQEz\n-----END PGP MESSAGE-----\n",
        "-----BEGIN SIGNED MESSAGE-----\nMIIC\n-----END SIGNED MESSAGE-----\n",
    ] {
        assert_eq!(parse(&format!("{text}{signature}")), Parsed::Release(payload.clone()));
    }
    // Git verifies what stands before the last signature, so the first one is part of what was signed.
    assert!(reason(&format!("{text}{SSH}{SSH}")).contains("no trailer"));
}

#[test]
fn other_tags_are_plain() {
    for text in [
        "",
        "Registering artifact churn version v1.0.0\n",
        "v1.0.0\n\n{\"ci\": true}\n",
        "Release churn v1.4.0\n",
        SSH,
    ] {
        assert_eq!(parse(text), Parsed::Plain, "{text}");
    }
}

#[test]
fn newer_fields_and_trailers_are_tolerated() {
    let payload = release_payload("1.4.0");
    let text = format_release(&payload).unwrap();
    let more = text.replacen("  \"name\"", "  \"new\": {\"deep\": [[1], null]},\n  \"name\"", 1)
        + "Signed-off-by: Ada <ada@example.org>\n";
    assert_eq!(parse(&more), Parsed::Release(payload));
}

#[test]
fn damage_is_named() {
    let release = format_release(&release_payload("1.4.0")).unwrap();
    let event = format_event(&event_payload(7, "canary 1.4.0 10")).unwrap();
    let digest = Digest::of(b"1.4.0").to_hex();
    let trailers = release.split_once("\n}\n\n").unwrap().1;
    let cases = [
        (release.replace("release/v1", "release/v2"), "newer git-model (schema git-model/release/v2)"),
        (release.replace("release/v1", "recall/v1"), "newer git-model"),
        (release.replace("git-model/release/v1", "elsewhere/v1"), "another schema"),
        (release.replace("Model-Version: 1.4.0\n", ""), "Model-Version disagrees"),
        (release.replace("Model-Version: 1.4.0", "Model-Version: 1.5.0"), "Model-Version disagrees"),
        (release.clone() + "Model-Version: 1.5.0\n", "Model-Version disagrees"),
        (release.clone() + "model-version: 1.5.0\n", "Model-Version disagrees"),
        (release.replace("Model-Name: churn", "Model-Name: other"), "Model-Name disagrees"),
        (release.replace(&format!("Model-Digest: {digest}"), "Model-Digest: 00"), "Model-Digest disagrees"),
        (release.replace("\"version\": \"1.4.0\"", "\"version\": \"1.5.0\""), "Model-Version disagrees"),
        (release.replace("\"version\": \"1.4.0\"", "\"version\": \"v1.4.0\""), "not a version"),
        (release.replace("\"name\": \"churn\"", "\"name\": \"../x\""), "not a model name"),
        (release.replace("models/churn", "../churn"), "not a usable path"),
        (release.replace(&oid("main"), "main"), "not a git object id"),
        (release.replace(&digest, &digest.to_uppercase()), "64 lowercase hex"),
        (release.replace("default-branch", "a-friend"), "unknown variant"),
        (release.replace("\"lineage\"", "\"lines\""), "missing field `lineage`"),
        (release.replace("  \"name\"", "  \"name\": \"a\",\n  \"name\""), "duplicate field `name`"),
        (release.replace("\n}\n", "\n"), "cannot be read"),
        (release.replace("\n\n", "\n"), "no payload"),
        (format!("Release\n\n{trailers}"), "cannot be read"),
        (release.clone() + "And then some\n", "no trailer"),
        (
            release.replacen("  \"name\"", &format!("  \"x\": {},\n  \"name\"", "[".repeat(9000)), 1),
            "cannot be read",
        ),
        (release.replace("churn\",", &format!("churn\",\n\"x\":\"{}\",", "x".repeat(MAX_MESSAGE))), "64 KiB"),
        (event.replace("\"n\": 7", "\"n\": 0"), "out of range"),
        (event.replace("\"n\": 7", "\"n\": 9007199254740992"), "out of range"),
        (event.replace("\"n\": 7", "\"n\": -1"), "invalid value"),
        (event.replace("\"traffic\": 10", "\"traffic\": 0"), "1 to 100"),
        (event.replace("\"traffic\": 10", "\"traffic\": 101"), "1 to 100"),
        (event.replace("  \"traffic\": 10,\n", ""), "belongs to `canary`"),
        (event.replace("\"canary\"", "\"promote\""), "belongs to `canary`"),
        (event.replace("\"canary\"", "\"retire\""), "names no version"),
        (event.replace("\"traffic\": 10", "\"traffic\": 10,\n\"outcome\": \"ok\""), "action `outcome`"),
        (event.replace("\"release_tag\"", "\"unknown\""), "are needed"),
        (event.replace("\"stage\": \"prod\"", "\"stage\": \"v1\""), "not a stage name"),
    ];
    for (text, expected) in cases {
        let reason = reason(&text);
        assert!(reason.contains(expected) && reason.lines().count() == 1, "{expected}: {reason}\n{text}");
    }
}

#[test]
fn damage_is_safe_for_a_terminal() {
    let text = format_release(&release_payload("1.4.0")).unwrap();
    let reason = reason(&text.replace("release/v1", "release/v9\\u001b[2J\\n"));
    assert!(!reason.contains(['\u{1b}', '\n']), "{reason}");
}

#[test]
fn a_cut_message_is_never_taken_for_something_else() {
    let text = format_event(&event_payload(7, "promote 1.4.0")).unwrap();
    let end_of_trailers = text.len() - 1;
    for end in text.find("\"git-model/").unwrap() + "\"git-model/".len()..end_of_trailers {
        assert!(matches!(parse(&text[..end]), Parsed::Damaged(_)), "{}", &text[..end]);
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut event = event_payload(7, "promote 1.4.0");
    event.reason = Some("x".repeat(MAX_MESSAGE));
    assert!(format_event(&event).unwrap_err().one_line().contains("64 KiB"));
    for event in [
        EventPayload { traffic: Some(5), ..event_payload(7, "promote 1.4.0") },
        EventPayload { digest: None, ..event_payload(7, "rollback 1.4.0") },
        EventPayload { version: None::<Version>, ..event_payload(7, "approve 1.4.0") },
        EventPayload { outcome: None, ..event_payload(7, "outcome 1.4.0 ok") },
        EventPayload { n: 0, ..event_payload(1, "retire") },
        EventPayload { action: Action::Unassign, ..event_payload(7, "promote 1.4.0") },
    ] {
        assert!(format_event(&event).is_err(), "{event:?}");
    }
    let word = event_payload(7, "unassign 1.4.0").action;
    assert_eq!(word, Action::Other("unassign".to_owned()), "a payload cannot pose as GTO's undo");
}
