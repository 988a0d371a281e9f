//! Servers that are down, refuse, lie or stall, and users whose credentials are wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::fake_server::{FakeServer, reply};
use crate::support::garage::garage;
use crate::support::proxy::{Fate, Proxy};
use crate::support::stores::{Place, key_of};
use crate::support::{BINARY, Repo, Sandbox, sha256};

/// A repository with something to push to `s3://bucket/x`.
fn repo(sandbox: &Sandbox) -> Repo {
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    repo
}

/// Pushes to a server that does this with every request.
fn push_to(answer: fn(&str, &mut TcpStream)) -> (FakeServer, crate::support::Output) {
    let sandbox = Sandbox::new();
    let server = FakeServer::start(answer);
    let output = server.env(&repo(&sandbox)).model(["push"]).never_says("canary-secret");
    (server, output)
}

#[test]
fn no_credentials_is_an_error_at_once() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox).env("AWS_EC2_METADATA_DISABLED", "true");
    let started = Instant::now();
    for command in ["push", "remote"] {
        let args = [command, "check"];
        let args = if command == "push" { &args[..1] } else { &args[..] };
        let error = repo.model(args).fails(1, "no AWS credentials were found");
        assert!(error.contains("hint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn half_of_the_credentials_is_an_error_at_once() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox);
    let server = FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", ""));
    let repo = repo.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint());
    for half in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ] {
        repo.env(half, "/canary").model(["push"]).fails(1, "credentials");
    }
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn wrong_credentials_are_one_line_and_no_secret() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    for (variable, value) in [("AWS_SECRET_ACCESS_KEY", "canary-secret"), ("AWS_ACCESS_KEY_ID", "GK0123")] {
        let wrong = repo.env(variable, value);
        for command in [&["push"][..], &["push", "--dry-run"], &["remote", "check"], &["push", "--json"]] {
            let output = wrong.model(command).never_says("canary-secret").never_says(&garage().secret);
            let error = output.fails(1, &place.url);
            assert!(error.contains("hint: check that the credentials"), "{error}");
        }
    }
    assert_eq!(place.keys(), [""; 0]);
}

#[test]
fn no_output_holds_a_secret() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    for command in [
        &["push"][..],
        &["push", "--json"],
        &["remote", "list"],
        &["remote", "check", "--json"],
        &["status"],
        &["fetch"],
    ] {
        repo.model(command).never_says(&garage().secret).never_says(&garage().key).ok();
    }
    let kept = repo.sh(&format!("grep -rl {} . ../home ../gitconfig", garage().secret));
    assert_eq!(kept.stdout, "", "no secret is written down");
}

#[test]
fn a_servers_answer_is_not_repeated_with_secrets() {
    // S3 answers a wrong signature with the canonical request, which holds the header of the session token.
    let (_server, output) = push_to(|head, stream| {
        let body = format!(
            "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>{head}</CanonicalRequest></Error>"
        );
        reply(stream, "403 Forbidden", "content-type: application/xml\r\n", &body);
    });
    output.never_says("canary-token").fails(1, "SignatureDoesNotMatch");
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    static ELSEWHERE: std::sync::OnceLock<FakeServer> = std::sync::OnceLock::new();
    let elsewhere =
        ELSEWHERE.get_or_init(|| FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", "")));
    let (_server, output) = push_to(|_, stream| {
        let to = format!("location: {}/x\r\n", ELSEWHERE.get().unwrap().endpoint());
        reply(stream, "307 Temporary Redirect", &to, "");
    });
    assert_eq!(output.code, 1);
    assert_eq!(elsewhere.requests(), [""; 0]);
}

#[test]
fn a_servers_words_cannot_paint_the_terminal() {
    let (_server, output) = push_to(|_, stream| {
        reply(
            stream,
            "400 Bad Request",
            "",
            "<Error><Message>\x1b]0;title\x07\r\nerror: forged</Message></Error>",
        );
    });
    output.never_says("\x1b").never_says("\x07").fails(1, "s3://bucket/x");
}

#[test]
fn a_server_that_is_down_is_given_up_soon() {
    let place = Place::garage();
    let repo = place.repo("repo").env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    repo.commit_artifact("w.bin", "w", "v1");
    let started = Instant::now();
    repo.model(["push"]).fails(1, &place.url);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_server_that_is_down_is_named_with_reason_and_hint() {
    let place = Place::garage();
    let repo = place.repo("repo").env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    repo.commit_artifact("w.bin", "w", "v1");
    let error = repo.model(["push"]).fails(1, "refused");
    assert!(error.contains("hint: check the endpoint"), "{error}");
}

#[test]
fn a_server_that_stays_busy_is_given_up_soon() {
    let started = Instant::now();
    let (server, output) = push_to(|_, stream| reply(stream, "503 Slow Down", "", ""));
    output.fails(1, "503");
    assert!(server.requests().len() > 1, "it was tried again");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_server_that_accepts_and_forgets_is_found_out() {
    let (_server, output) = push_to(|head, stream| match head.starts_with("PUT ") {
        true => reply(stream, "200 OK", "etag: \"x\"\r\n", ""),
        false => reply(stream, "404 Not Found", "", ""),
    });
    output.never_says("pushed").fails(1, "does not have");
}

#[test]
fn a_huge_format_json_is_refused() {
    let place = Place::folder();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    repo.sh("rm -r .git/model/pushed && truncate -s 6G '../the store/format.json'").ok();
    repo.sh("ulimit -v 4000000; git-model push").fails(1, "format.json");
}

#[test]
fn an_interrupt_ends_a_push_to_a_server_that_stalls() {
    let sandbox = Sandbox::new();
    let server = FakeServer::start(|_, _| std::thread::sleep(Duration::from_secs(300)));
    let push = server.env(&repo(&sandbox)).command(BINARY).arg("push").spawn().unwrap();
    wait_until(|| !server.requests().is_empty());
    interrupt(push);
}

#[test]
fn an_interrupt_ends_what_waits_for_a_program_or_a_pipe() {
    let place = Place::folder();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    let object = key_of(&sha256(&repo.join("w.bin")));
    repo.sh(&format!("rm '../the store/{object}' && mkfifo '../the store/{object}'")).ok();
    let fetch = clone.command(BINARY).arg("fetch").spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    interrupt(fetch);

    repo.write("bin/az", "#!/bin/sh\n: > ../az-runs\nexec sleep 300\n");
    repo.sh("chmod +x bin/az && mkdir ../home/.azure && : > ../home/.azure/azureProfile.json").ok();
    repo.model(["remote", "add", "cloud", "az://account/container"]).ok();
    let path = format!("{}:{}", repo.join("bin").display(), std::env::var("PATH").unwrap());
    let push = repo.env("PATH", path).command(BINARY).args(["push", "--remote", "cloud"]).spawn().unwrap();
    wait_until(|| repo.exists("../az-runs"));
    interrupt(push);
}

fn wait_until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(10), "it did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Interrupts a command, which must end soon.
#[track_caller]
fn interrupt(mut command: Child) {
    let signalled = Instant::now();
    let pid = command.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    while command.try_wait().unwrap().is_none() && signalled.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = command.try_wait().unwrap();
    if ended.is_none() {
        command.kill().unwrap();
        command.wait().unwrap();
    }
    assert!(ended.is_some(), "still running after 10 s");
}

#[test]
fn a_failure_that_is_final_ends_what_gets_no_answer() {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    let sandbox = Sandbox::new();
    let server =
        FakeServer::start(|head, stream| match head.starts_with("PUT ") && head.contains("/objects/") {
            true if REFUSED.swap(true, Ordering::Relaxed) => std::thread::sleep(Duration::from_secs(300)),
            true => {
                // Not before the others are on their way, and its body was read.
                std::thread::sleep(Duration::from_secs(1));
                drop(stream.read(&mut [0; 1024]));
                reply(stream, "403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>");
            }
            false if head.starts_with("PUT ") => reply(stream, "200 OK", "etag: \"x\"\r\n", ""),
            false => reply(stream, "404 Not Found", "", ""),
        });
    let repo = repo(&sandbox);
    for number in 0..100 {
        repo.write(&format!("data/{number}"), number.to_string());
    }
    repo.model(["add", "data"]).ok();
    let started = Instant::now();
    server.env(&repo).model(["push"]).fails(1, "AccessDenied");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

const NO_CONDITIONS: Fate =
    Fate::Refused("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>");

#[test]
fn a_store_without_conditional_writes_can_be_pushed_to() {
    let proxy = Proxy::start(&garage().endpoint, |line| match line.contains("if-none-match") {
        true => NO_CONDITIONS,
        false => Fate::Pass,
    });
    let place = Place::garage();
    let repo = place.repo("repo").env("AWS_ENDPOINT_URL", proxy.endpoint());
    repo.commit_artifact("w.bin", "w", "v1");
    let checked = &repo.json(["remote", "check"])["check"];
    assert_eq!((&checked["writable"], &checked["conditional_writes"]), (&true.into(), &false.into()));
    repo.model(["push"]).says("pushed 1 object").ok();
    place.verify();
    let denied = Proxy::start(&garage().endpoint, |line| match line.contains("if-none-match") {
        true => Fate::Denied,
        false => Fate::Pass,
    });
    repo.env("AWS_ENDPOINT_URL", denied.endpoint()).model(["remote", "check"]).fails(1, "AccessDenied");
}

#[test]
fn a_first_push_beside_another_one_waits_for_what_becomes_of_it() {
    let mut left = 2;
    let proxy = Proxy::start(&garage().endpoint, move |line| {
        if left == 0 || !line.contains("if-none-match") {
            return Fate::Pass;
        }
        left -= 1;
        Fate::Refused("409 Conflict", "<Error><Code>ConditionalRequestConflict</Code></Error>")
    });
    let place = Place::garage();
    let repo = place.repo("repo").env("AWS_ENDPOINT_URL", proxy.endpoint());
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).says("pushed 1 object").ok();
}

#[test]
fn a_check_that_fails_leaves_nothing_and_says_what_is_not_allowed() {
    let place = Place::garage();
    let repo = place.repo("repo");
    let unreadable = Proxy::start(&garage().endpoint, |line| match line.starts_with("GET") {
        true => Fate::Denied,
        false => Fate::Pass,
    });
    repo.env("AWS_ENDPOINT_URL", unreadable.endpoint()).model(["remote", "check"]).fails(1, "AccessDenied");
    assert_eq!(place.keys(), [""; 0]);
    // As S3 answers whoever may not list the bucket.
    let unlisted = Proxy::start(&garage().endpoint, |line| match line.starts_with("HEAD") {
        true => Fate::Denied,
        false => Fate::Pass,
    });
    let error = repo
        .env("AWS_ENDPOINT_URL", unlisted.endpoint())
        .model(["remote", "check"])
        .fails(1, "403 Forbidden");
    assert!(error.contains("allow s3:ListBucket"), "{error}");
    assert_eq!(place.keys(), [""; 0]);
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let (_server, output) = push_to(|_, stream| {
        let body = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        reply(stream, "403 Forbidden", "content-type: application/xml\r\n", body);
    });
    let error = output.fails(1, "RequestTimeTooSkewed");
    assert!(error.contains("clock") && !error.contains("credentials"), "{error}");
}

/// Answers without end.
fn endless(stream: &mut TcpStream, status: &str) {
    let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let mut sent = stream.write_all(head.as_bytes());
    while sent.is_ok() {
        sent = stream.write_all(chunk.as_bytes());
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox);
    for number in 0..300 {
        repo.write(&format!("data/{number}"), number.to_string());
    }
    repo.model(["add", "data"]).ok();
    let push = "ulimit -v 4000000; git-model push";
    let absent = FakeServer::start(|_, stream| endless(stream, "404 Not Found"));
    absent.env(&repo).sh(push).fails(1, "too long");
    let listing = FakeServer::start(|head, stream| match head.contains("list-type") {
        true => endless(stream, "200 OK"),
        false => {
            let id = r#"{"format": "git-model-store", "version": 1, "id": "6f1c0c0e-58b5-4bd1-9a4e-0b8e6a1f3f6d"}"#;
            let headers = "etag: \"x\"\r\nlast-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n";
            reply(stream, "200 OK", headers, id);
        }
    });
    listing.env(&repo).sh(push).fails(1, "too long");
}

#[test]
fn odd_settings_are_errors_not_panics() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    for (variable, value) in [
        ("AWS_ENDPOINT_URL", "foo"),
        ("AWS_ENDPOINT_URL", "http://"),
        ("AWS_ACCESS_KEY_ID", "id\n"),
        ("AWS_SESSION_TOKEN", "token\n"),
        ("AWS_REGION", "a b"),
    ] {
        let output = repo.env(variable, value).model(["push"]);
        assert!(output.code == 1 || output.code == 2, "{variable}={value:?} {output}");
        output.never_says("panicked").fails(1, "");
    }
}

#[test]
fn a_wrong_region_is_explained_by_the_server() {
    let place = Place::garage();
    let repo = place.repo("repo").env("AWS_REGION", "us-east-1");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).says("expected").fails(1, "us-east-1");
}

#[test]
fn a_bucket_that_does_not_exist_is_said_so() {
    let sandbox = Sandbox::new();
    let repo = garage().env(&repo(&sandbox));
    repo.model(["push"]).fails(1, "NoSuchBucket");
}

#[test]
fn another_endpoint_is_another_store() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    let server = FakeServer::start(|_, stream| reply(stream, "403 Forbidden", "", ""));
    let moved = repo.env("AWS_ENDPOINT_URL", server.endpoint());
    moved.model(["push"]).never_says("has everything").fails(1, &place.url);
}

#[test]
fn a_damaged_note_of_what_was_pushed_does_not_matter() {
    let place = Place::folder();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    repo.sh("for note in .git/model/pushed/*; do printf '\\377\\376' > $note; done").ok();
    repo.model(["push"]).ok();
}

#[test]
fn keys_are_as_documented_whatever_the_prefix() {
    let bucket = garage().bucket();
    let sandbox = Sandbox::new();
    let repo = garage().env(&sandbox.git_repo("repo"));
    for prefix in ["~alice", "a b", "[x]", "ünï"] {
        repo.model(["init"]).ok();
        repo.model(["remote", "add", "--force", "origin", &format!("s3://{bucket}/{prefix}")]).ok();
        repo.commit_artifact("w.bin", prefix, "v1");
        repo.model(["push"]).ok();
        let listing = garage().s5cmd(&["ls", &format!("s3://{bucket}/*")]).unwrap();
        let listing = String::from_utf8(listing).unwrap();
        assert!(listing.contains(&format!(" {prefix}/format.json")), "{listing}");
    }
}
