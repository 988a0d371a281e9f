//! Where credentials come from, against real local servers: profiles, programs, web identity, workload identity federation;
//! what is missing or expired is said in one line, at once.

use std::collections::HashSet;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::fake_server::{FakeServer, reply};
use crate::support::garage::{REGION, garage};
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::{moto, moto_bucket};
use crate::support::stores::Place;
use crate::support::{Repo, Sandbox, noise, prepared};

/// A repository with something to push to this URL, and a home of its own.
fn repo(sandbox: &Sandbox, url: &str) -> Repo {
    let repo = sandbox.git_repo("repo");
    repo.model(["init", url]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    repo.env("AWS_EC2_METADATA_DISABLED", "true")
}

/// Writes `~/.aws/config`.
fn aws_config(repo: &Repo, text: &str) {
    repo.write("../home/.aws/config", text);
}

/// An executable script in the sandbox; returns its path.
fn script(repo: &Repo, name: &str, text: &str) -> String {
    repo.write(&format!("../{name}"), format!("#!/bin/sh\n{text}"));
    let path = repo.join(&format!("../{name}"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_profile_says_keys_region_and_endpoint() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, &format!("s3://{}/x", garage().bucket()));
    let server = garage();
    aws_config(
        &repo,
        &format!(
            "[profile models]\nregion = {REGION}\nendpoint_url = {0}\n\
             [profile services]\nregion = {REGION}\nservices = local\nendpoint_url = http://127.0.0.1:9\n\
             [services local]\ns3 =\n  endpoint_url = {0}\n",
            server.endpoint
        ),
    );
    let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", server.key, server.secret);
    repo.write("../home/.aws/credentials", format!("[models]\n{keys}[services]\n{keys}"));
    for profile in ["models", "services"] {
        let here = repo.env("AWS_PROFILE", profile);
        here.model(["remote", "check"]).says("can be read and written").never_says(&server.secret).ok();
        here.model(["remote", "list"]).says(&server.endpoint).ok();
    }
    repo.env("AWS_PROFILE", "models").model(["push"]).says("pushed 1 object").ok();
    // A profile that was chosen for the remote is meant, whatever else the environment holds.
    repo.git(["config", "model.remote.origin.profile", "models"]).ok();
    let other = repo.env("AWS_ACCESS_KEY_ID", "other").env("AWS_SECRET_ACCESS_KEY", "other");
    other.model(["remote", "check"]).says("can be read and written").ok();
}

#[test]
fn an_endpoint_of_a_profile_is_a_custom_one() {
    let server = FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", ""));
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, "s3://bucket/x");
    aws_config(&repo, &format!("[default]\nregion = nowhere\nendpoint_url = {}\n", server.endpoint()));
    let clone = sandbox.clone_of(&repo, "clone");
    let clone = clone.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
    for command in ["fetch", "pull", "push"] {
        clone.model([command]).fails(1, "was not approved here");
    }
    assert_eq!(server.requests(), [""; 0]);
    clone.model(["remote", "trust"]).ok();
    assert_eq!(clone.model(["fetch"]).code, 1);
    assert!(!server.requests().is_empty());
}

#[test]
fn credentials_of_a_program_are_renewed_during_a_transfer() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, &format!("s3://{}/x", garage().bucket()));
    let server = garage();
    let program = script(
        &repo,
        "give",
        &format!(
            "echo call >> \"$(dirname \"$0\")/calls\"\n\
             printf '{{\"Version\":1,\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Expiration\":\"%s\"}}' \
             \"$(date -u -d '+2 seconds' +%Y-%m-%dT%H:%M:%SZ)\"\n",
            server.key, server.secret
        ),
    );
    aws_config(
        &repo,
        &format!(
            "[default]\nregion = {REGION}\nendpoint_url = {}\ncredential_process = {program}\n",
            server.endpoint
        ),
    );
    for number in 0..60 {
        repo.write(&format!("data/{number}"), noise(number, 1 << 20));
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    // Longer than two of their lives, however fast the machine is.
    repo.model(["push", "--jobs", "1", "--limit-rate", "12m"]).never_says(&server.secret).ok();
    let calls = repo.text("../calls").lines().count();
    assert!((2..=20).contains(&calls), "{calls} calls: asked again when there was need, and only then");
    let clone = sandbox.clone_of(&repo, "clone");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    assert_eq!(clone.read("data/7"), repo.read("data/7"));
}

#[test]
fn credentials_that_are_refused_as_expired_are_asked_for_again() {
    let (sandbox, server) = (Sandbox::new(), garage());
    let repo = repo(&sandbox, &format!("s3://{}/x", server.bucket()));
    // It does not say until when they are good.
    let program = script(
        &repo,
        "give",
        &format!(
            "echo call >> \"$(dirname \"$0\")/calls\"\n\
             printf '{{\"Version\":1,\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\"}}'\n",
            server.key, server.secret
        ),
    );
    // So many different requests of a kind are refused, once each; or, below, every time.
    let (due, always) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let expires = |words: [&'static str; 2]| {
        let (due, always, mut refused) = (Arc::clone(&due), Arc::clone(&always), HashSet::new());
        Proxy::start(&server.endpoint, move |line| {
            if !words.iter().all(|word| line.contains(word)) {
                return Fate::Pass;
            }
            let is_due = due.load(Relaxed) > 0 && refused.insert(line.to_owned());
            if is_due {
                due.fetch_sub(1, Relaxed);
            }
            if is_due || always.load(Relaxed) { Fate::Expired } else { Fate::Pass }
        })
    };
    let kinds = [["PUT", "partNumber="], ["GET", "range: "], ["HEAD", "/objects/"], ["GET", "list-type="]]
        .map(expires);
    let profiles = ["up", "down", "head", "list"];
    let config = profiles.iter().zip(&kinds).map(|(name, proxy)| {
        let endpoint = proxy.endpoint();
        format!(
            "[profile {name}]\nregion = {REGION}\nendpoint_url = {endpoint}\ncredential_process = {program}\n"
        )
    });
    aws_config(&repo, &config.collect::<String>());
    repo.commit_artifact("large.bin", noise(1, 70 << 20), "v1");
    let calls = || repo.text("../calls").lines().count();
    due.store(2, Relaxed);
    repo.env("AWS_PROFILE", "up").model(["push"]).ok();
    assert_eq!(due.load(Relaxed), 0, "two were refused");
    assert!((2..=3).contains(&calls()), "{}", calls());
    let before = calls();
    due.store(2, Relaxed);
    let clone = sandbox.clone_of(&repo, "clone").env("AWS_PROFILE", "down");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    assert_eq!(due.load(Relaxed), 0, "two were refused");
    assert!((before + 2..=before + 4).contains(&calls()), "{before}, {}", calls());
    assert!(clone.read("large.bin") == repo.read("large.bin"));
    // Some requests are answered without a body, or one by one.
    for (profile, files) in [("head", 3), ("list", 300)] {
        (0..files)
            .for_each(|number| repo.write(&format!("{profile}/{number}"), format!("{profile}{number}")));
        repo.model(["add", profile]).ok();
        repo.git(["commit", "-q", "-m", profile]).ok();
        due.store(1, Relaxed);
        repo.env("AWS_PROFILE", profile).model(["push"]).ok();
        assert_eq!(due.load(Relaxed), 0, "{profile} was refused");
    }
    // Of so many objects the sizes are listed, so it is the checksums that are asked for one by one.
    due.store(1, Relaxed);
    repo.env("AWS_PROFILE", "head").model(["push", "--repair=checksums"]).ok();
    assert_eq!(due.load(Relaxed), 0, "a checksum was refused");
    // New ones that are refused as well end it.
    repo.commit_artifact("large.bin", noise(2, 70 << 20), "v2");
    always.store(true, Relaxed);
    let error = repo.env("AWS_PROFILE", "up").model(["push"]).fails(1, "ExpiredToken");
    assert!(error.contains("hint: the credentials expired"), "{error}");
}

#[test]
fn a_login_during_a_transfer_is_noticed() {
    let (sandbox, server) = (Sandbox::new(), garage());
    let repo = repo(&sandbox, &format!("s3://{}/x", server.bucket()));
    let credentials = repo.join("../home/.aws/credentials");
    // What the login brings here is no good, so that its use shows.
    let mut expired = false;
    let proxy = Proxy::start(&server.endpoint, move |line| {
        if expired || !line.contains("partNumber=1&") {
            return Fate::Pass;
        }
        expired = true;
        std::fs::write(&credentials, "[default]\naws_access_key_id = GKnew\naws_secret_access_key = new\n")
            .unwrap();
        Fate::Expired
    });
    aws_config(&repo, &format!("[default]\nregion = {REGION}\nendpoint_url = {}\n", proxy.endpoint()));
    let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", server.key, server.secret);
    repo.write("../home/.aws/credentials", format!("[default]\n{keys}aws_session_token = old\n"));
    repo.commit_artifact("large.bin", noise(1, 70 << 20), "v1");
    repo.model(["push"]).never_says(&server.secret).fails(1, "GKnew");
}

#[test]
fn a_web_identity_token_is_exchanged() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, &format!("s3://{}/x", moto_bucket()));
    // moto looks at nothing but the form.
    repo.write("../token", "eyJhbGciOiJub25lIn0.e30.");
    let ci = repo
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ci")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", sandbox.join("token").display().to_string())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL_STS", moto().url());
    ci.env("AWS_ENDPOINT_URL_S3", moto().url()).model(["push"]).says("pushed 1 object").ok();
    // What the token service gave is what requests are signed with.
    let asked = FakeServer::start(|_, stream| reply(stream, "403 Forbidden", "", ""));
    assert_eq!(ci.env("AWS_ENDPOINT_URL_S3", asked.endpoint()).model(["remote", "check"]).code, 1);
    let requests = asked.requests();
    assert!(
        requests.iter().any(|head| head.to_lowercase().contains("x-amz-security-token: ")),
        "{requests:?}"
    );
    // A role that cannot be had.
    ci.env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nothing")
        .model(["remote", "check"])
        .fails(1, "credentials cannot be used");
}

/// Reads a request's body.
fn body(head: &str, stream: &mut TcpStream) -> String {
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut bytes = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A token service of Google's kind: it wants the subject token `subject`, and hands out `federated` and `impersonated`.
fn token_service(head: &str, stream: &mut TcpStream) {
    let sent = body(head, stream);
    let json = "content-type: application/json\r\n";
    let refuse = |stream: &mut TcpStream| {
        reply(
            stream,
            "400 Bad Request",
            json,
            r#"{"error":"invalid_grant","error_description":"the token is not one"}"#,
        );
    };
    match head.split_whitespace().nth(1).unwrap() {
        "/subject" if head.contains("x-ci: yes") => reply(stream, "200 OK", json, r#"{"value":"subject"}"#),
        "/token" if sent.contains("subject_token=subject&") && sent.contains("audience=%2F%2Fiam") => reply(
            stream,
            "200 OK",
            json,
            r#"{"access_token":"federated","issued_token_type":"x","token_type":"Bearer","expires_in":3600}"#,
        ),
        path if path.ends_with(":generateAccessToken") && head.contains("Bearer federated") => {
            reply(
                stream,
                "200 OK",
                json,
                r#"{"accessToken":"impersonated","expireTime":"2999-01-01T00:00:00Z"}"#,
            );
        }
        path if path.starts_with("/store/") || path.starts_with("/bucket") => {
            reply(stream, "404 Not Found", "", "");
        }
        _ => refuse(stream),
    }
}

#[test]
fn workload_identity_is_federated() {
    let server = FakeServer::start(token_service);
    let place = Place::gcs();
    let repo = place.repo("repo").env("GOOGLE_OAUTH_ACCESS_TOKEN", "");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.write("../subject", "subject\n");
    repo.write("../subject.json", r#"{"value": "subject"}"#);
    repo.write("../wrong", "wrong");
    let at = |name: &str| serde_json::json!({ "file": place.sandbox.join(name) });
    let json = serde_json::json!({ "type": "json", "subject_token_field_name": "value" });
    let mut in_json = at("subject.json");
    in_json["format"] = json.clone();
    let by_url = serde_json::json!({ "url": format!("{}/subject", server.endpoint()), "headers": {"x-ci": "yes"}, "format": json });
    let impersonation =
        format!("{}/v1/projects/-/serviceAccounts/ci@acme.example:generateAccessToken", server.endpoint());
    let login = |source: serde_json::Value, impersonate: bool| {
        let mut file = serde_json::json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/ci",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/token", server.endpoint()),
            "credential_source": source,
        });
        if impersonate {
            file["service_account_impersonation_url"] = impersonation.clone().into();
        }
        repo.write("../login.json", file.to_string());
        repo.env("GOOGLE_APPLICATION_CREDENTIALS", place.sandbox.join("login.json").display().to_string())
    };
    login(at("subject"), false).model(["push"]).says("pushed 1 object").ok();
    for (source, impersonate) in
        [(at("subject"), true), (in_json, true), (by_url, true), (at("subject"), false)]
    {
        login(source, impersonate).model(["remote", "check"]).says("can be read and written").ok();
    }
    // Somebody who may act as another account, as gcloud leaves it.
    login(at("subject"), false);
    let own: serde_json::Value = serde_json::from_str(&repo.text("../login.json")).unwrap();
    let acting = serde_json::json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": impersonation,
        "delegates": ["projects/-/serviceAccounts/between@acme.example"],
        "source_credentials": own,
    });
    repo.write("../acting.json", acting.to_string());
    let acts =
        repo.env("GOOGLE_APPLICATION_CREDENTIALS", place.sandbox.join("acting.json").display().to_string());
    acts.model(["remote", "check"]).says("can be read and written").ok();
    assert!(
        server.requests().iter().any(|head| head.contains("Bearer federated")),
        "who acts asks for the other's token"
    );
    // What was handed out is what requests carry.
    let here = login(at("subject"), true);
    here.git(["config", "model.remote.origin.endpoint", &server.endpoint()]).ok();
    assert_eq!(here.model(["remote", "check"]).code, 1);
    let requests = server.requests();
    assert!(
        requests.iter().any(|head| head.starts_with("PUT ") && head.contains("Bearer impersonated")),
        "{requests:?}"
    );
    for (source, reason) in [
        (at("wrong"), "invalid_grant: the token is not one"),
        (at("nothing"), "nothing: cannot read"),
        (
            serde_json::json!({ "executable": {"command": "touch ran federated"} }),
            "wants to run a program: touch",
        ),
        (serde_json::json!({ "certificate": {} }), "is not one of a file, a URL, a program and AWS"),
        (serde_json::json!({ "url": "http://ci.example/token" }), "is not an https URL"),
    ] {
        let error = login(source, true).model(["remote", "check"]).never_says("federated").fails(1, reason);
        assert!(error.contains("hint: ") && error.contains(&place.url), "{error}");
    }
    assert!(!repo.exists("ran"));
}

/// The credentials file of an account that Google knows by another provider's token, with what that provider's form asks for.
fn federated(repo: &Repo, server: &FakeServer, token_type: &str, source: &serde_json::Value) -> Repo {
    let file = serde_json::json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/ci",
        "subject_token_type": token_type,
        "token_url": format!("{}/token", server.endpoint()),
        "credential_source": source,
    });
    repo.write("../login.json", file.to_string());
    repo.env("GOOGLE_APPLICATION_CREDENTIALS", repo.join("../login.json").display().to_string())
}

#[test]
fn a_program_gives_the_token_that_is_federated() {
    let server = FakeServer::start(token_service);
    let place = Place::gcs();
    let repo = place.repo("repo").env("GOOGLE_OAUTH_ACCESS_TOKEN", "");
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let program = script(
        &repo,
        "program",
        "[ \"$GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE\" = 0 ] || exit 9\necho run >> \"$2\"\ncat \"$1\"\nexit \"${3:-0}\"\n",
    );
    let ran = || repo.text("../ran").lines().count();
    let at = |name: &str| repo.join(&format!("../{name}")).display().to_string();
    let command = |more: &str| format!("{program} {} {} {more}", at("answer"), at("ran"));
    let source =
        |more: &str| serde_json::json!({ "executable": {"command": command(more), "timeout_millis": 5000} });
    let allowed = |source| {
        federated(&repo, &server, jwt, &source).env("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    };
    let good = format!(r#"{{"version": 1, "success": true, "token_type": "{jwt}", "id_token": "subject"}}"#);
    repo.write("../answer", &good);
    repo.write("../ran", "");
    federated(&repo, &server, jwt, &source("")).model(["remote", "check"]).fails(1, "wants to run a program");
    assert_eq!(ran(), 0);
    allowed(source("")).model(["remote", "check"]).says("can be read and written").ok();
    assert_eq!(ran(), 1);
    // What it kept for the next time is used while it is good.
    let mut keeping = source("");
    keeping["executable"]["output_file"] = at("kept").into();
    for (expires, runs) in [(4_000_000_000_u64, 1), (1_000_000_000, 2)] {
        repo.write("../kept", good.replace('}', &format!(r#", "expiration_time": {expires}}}"#)));
        allowed(keeping.clone()).model(["remote", "check"]).says("can be read and written").ok();
        assert_eq!(ran(), runs);
    }
    let mut endless = source("");
    endless["executable"]["command"] = "sleep 60".into();
    let mut nobody = source("");
    nobody["executable"]["command"] = at("nobody").into();
    let endless_text = "x".repeat(2 << 20);
    let refused = r#"{"version": 1, "success": false, "code": "401", "message": "log in first"}"#;
    for (answer, source, reason) in [
        (refused, source(""), "401: log in first"),
        (refused, source("3"), "401: log in first"),
        (good.as_str(), source("3"), "failed (exit status: 3)"),
        ("token", source(""), "is not the JSON that AIP-4117 asks for"),
        (endless_text.as_str(), source(""), "printed too much for a token"),
        ("", endless, "gave no token within 5 s"),
        ("", nobody, "cannot be run"),
    ] {
        repo.write("../answer", answer);
        let error = allowed(source).model(["remote", "check"]).never_says("subject").fails(1, reason);
        assert!(error.contains("hint: ") && error.contains(&place.url), "{error}");
    }
}

/// Checks a signed request to AWS's token service with AWS's own library.
const VERIFY: &str = r#"
import datetime, json, sys, urllib.parse
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
request = json.loads(urllib.parse.unquote_plus(sys.argv[1]))
headers = {item["key"].lower(): item["value"] for item in request["headers"]}
said = headers.pop("authorization")
signed = said.split("SignedHeaders=")[1].split(",")[0].split(";")
assert {"host", "x-amz-date", "x-amz-security-token", "x-goog-cloud-target-resource"} <= set(signed), signed
auth = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "session"), "sts", "eu-central-1")
again = AWSRequest(request["method"], request["url"], {name: headers[name] for name in signed}, b"")
again.context["timestamp"] = headers["x-amz-date"]
signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
assert said.endswith("Signature=" + signature), (said, signature)
assert "/eu-central-1/sts/aws4_request" in said, said
print(request["method"], request["url"], headers["x-goog-cloud-target-resource"])
"#;

#[test]
fn the_identity_that_aws_gives_is_federated() {
    static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let server = FakeServer::start(|head, stream| {
        if head.starts_with("POST /token") {
            let sent = body(head, stream);
            let form = url::form_urlencoded::parse(sent.as_bytes());
            let tokens =
                form.filter(|(name, _)| name == "subject_token").map(|(_, value)| value.into_owned());
            ASKED.lock().unwrap().extend(tokens);
            let answer = r#"{"access_token":"federated","token_type":"Bearer","expires_in":3600}"#;
            reply(stream, "200 OK", "content-type: application/json\r\n", answer);
        }
    });
    let place = Place::gcs();
    let repo =
        place.repo("repo").env("GOOGLE_OAUTH_ACCESS_TOKEN", "").env("AWS_EC2_METADATA_DISABLED", "true");
    let source = serde_json::json!({
        "environment_id": "aws1",
        "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
        "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    let repo = federated(&repo, &server, "urn:ietf:params:aws:token-type:aws4_request", &source);
    repo.model(["remote", "check"]).fails(1, "no AWS region was found");
    let placed = repo.env("AWS_REGION", "eu-central-1");
    placed.model(["remote", "check"]).fails(1, "no AWS credentials were found");
    let half = placed.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    half.model(["remote", "check"]).fails(1, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
    // The region may be a profile's.
    aws_config(&repo, "[default]\nregion = eu-central-1\n");
    let known = repo
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_SESSION_TOKEN", "session");
    known.model(["remote", "check"]).says("can be read and written").ok();
    let asked = ASKED.lock().unwrap();
    assert_eq!(asked.len(), 1);
    let python = prepared("moto-5.2.5/bin/python3");
    let output = std::process::Command::new(python).args(["-c", VERIFY, &asked[0]]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.trim(),
        "POST https://sts.eu-central-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15 \
         //iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/ci"
    );
}

#[test]
fn google_credentials_of_other_kinds_are_told_apart() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, "gs://bucket/x");
    let file = sandbox.join("login.json").display().to_string();
    let repo = repo.env("GOOGLE_APPLICATION_CREDENTIALS", &file);
    repo.model(["remote", "check"]).fails(1, "login.json: cannot read");
    for (text, reason) in [
        ("[]", "not a credentials file"),
        (r#"{"type": "external_account_authorized_user"}"#, "of the kind `external_account_authorized_user`"),
        (r#"{"type": "external_account"}"#, "not an external_account that can be used"),
        (
            r#"{"type": "impersonated_service_account"}"#,
            "not an impersonated_service_account that can be used",
        ),
        (
            r#"{"type": "impersonated_service_account", "service_account_impersonation_url": "https://a/b",
                "source_credentials": {"type": "service_account"}}"#,
            "its source_credentials are of a kind that is not supported",
        ),
        (r#"{"type": "service_account", "private_key": "canary"}"#, "gs://bucket/x"),
    ] {
        repo.write("../login.json", text);
        repo.model(["remote", "check"]).never_says("canary").fails(1, reason);
    }
}

/// Runs a command that must end soon.
fn soon(repo: &Repo, command: &[&str]) -> crate::support::Output {
    let started = Instant::now();
    let output = repo.model(command);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {output}", started.elapsed());
    output
}

#[test]
fn a_metadata_server_that_is_silent_is_not_waited_for() {
    let server = FakeServer::start(|_, _| std::thread::sleep(Duration::from_secs(120)));
    for (url, variable, address, reason) in [
        (
            "s3://bucket/x",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            server.endpoint(),
            "no AWS credentials were found",
        ),
        (
            "gs://bucket/x",
            "GCE_METADATA_HOST",
            server.endpoint().replace("http://", ""),
            "no Google Cloud credentials",
        ),
        (
            "az://account/container",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
            server.endpoint(),
            "no Azure credentials",
        ),
    ] {
        let sandbox = Sandbox::new();
        let repo = repo(&sandbox, url).env("AWS_EC2_METADATA_DISABLED", "").env(variable, address);
        let before = server.requests().len();
        let error = soon(&repo, &["push"]).fails(1, reason);
        assert!(error.contains("hint: ") && error.contains(url), "{error}");
        let asked = server.requests().len() - before;
        assert!((1..=2).contains(&asked), "{url}: asked {asked} times");
    }
}

#[test]
fn metadata_servers_give_tokens() {
    let server = FakeServer::start(|head, stream| {
        let json = "content-type: application/json\r\n";
        match head.split_whitespace().nth(1).unwrap() {
            path if path.starts_with("/computeMetadata/") && head.contains("metadata-flavor: Google") => {
                reply(
                    stream,
                    "200 OK",
                    json,
                    r#"{"access_token":"of-google","expires_in":3599,"token_type":"Bearer"}"#,
                );
            }
            path if path.starts_with("/metadata/identity") && head.contains("metadata: true") => {
                reply(
                    stream,
                    "200 OK",
                    json,
                    r#"{"access_token":"of-azure","expires_in":"3599","expires_on":"99999999999"}"#,
                );
            }
            _ => reply(stream, "404 Not Found", "", ""),
        }
    });
    for (url, variable, address, token) in [
        ("gs://bucket/x", "GCE_METADATA_HOST", server.endpoint().replace("http://", ""), "of-google"),
        ("az://account/container", "AZURE_POD_IDENTITY_AUTHORITY_HOST", server.endpoint(), "of-azure"),
    ] {
        let sandbox = Sandbox::new();
        let repo = repo(&sandbox, url).env(variable, address);
        repo.git(["config", "model.remote.origin.endpoint", &server.endpoint()]).ok();
        repo.model(["push"]).never_says(token).fails(1, url);
        let bearer = format!("Bearer {token}");
        assert!(
            server.requests().iter().any(|head| head.contains(&bearer)),
            "{url}: {:?}",
            server.requests()
        );
    }
}

#[test]
fn what_is_missing_or_expired_is_said_with_what_to_run() {
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, "s3://bucket/x");
    let failing = script(&repo, "fail", "echo 'no network' >&2; exit 1\n");
    let expired = script(
        &repo,
        "old",
        "printf '{\"Version\":1,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"canary\",\"Expiration\":\"2020-01-01T00:00:00Z\"}'\n",
    );
    aws_config(
        &repo,
        &format!(
            "[profile region-only]\nregion = eu-west-1\n\
             [profile corp]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\n\
             [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.example/start\n\
             [profile failing]\ncredential_process = {failing}\n[profile old]\ncredential_process = {expired}\n"
        ),
    );
    // A token that was cached by a login, and has expired.
    let cache = r#"{"accessToken":"canary","expiresAt":"2020-01-01T00:00:00Z","region":"us-east-1","startUrl":"https://corp.example/start"}"#;
    let no_cache = repo.env("AWS_PROFILE", "corp");
    let login = "hint: log in again: aws sso login --profile corp";
    soon(&no_cache, &["push"]).says(login).fails(1, "s3://bucket/x: the AWS credentials cannot be used");
    let name = repo.sh("printf corp | sha1sum | cut -c1-40").ok();
    repo.write(&format!("../home/.aws/sso/cache/{}.json", name.trim()), cache);
    soon(&no_cache, &["push"]).says(login).never_says("canary").fails(1, "expired");
    for (profile, reason, hint) in [
        ("region-only", "no AWS credentials were found", "aws configure"),
        ("nothing", "nothing: there is no such AWS profile", "aws configure --profile nothing"),
        ("failing", "no network", "run the credential_process of profile failing by hand"),
        ("old", "expired", "run the credential_process of profile old by hand"),
    ] {
        let error = soon(&repo.env("AWS_PROFILE", profile), &["push"]).never_says("canary").fails(1, reason);
        assert!(error.contains("hint: ") && error.contains(hint), "{error}");
    }
    repo.write("../home/.aws/config", "[profile\n");
    soon(&repo, &["push"]).fails(1, "~/.aws: cannot be read");
}

#[test]
fn azure_keys_go_to_their_own_account_only() {
    let server = FakeServer::start(|_, stream| reply(stream, "403 Forbidden", "", ""));
    let sandbox = Sandbox::new();
    let repo = repo(&sandbox, "az://acme/models/x")
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.endpoint())
        .env("AZURE_STORAGE_SAS_TOKEN", "sv=2021&sig=canary");
    repo.git(["config", "model.remote.origin.endpoint", &server.endpoint()]).ok();
    let error = repo.env("AZURE_STORAGE_ACCOUNT", "other").model(["push"]);
    error.never_says("canary").fails(1, "no Azure credentials were found");
    assert!(server.requests().iter().all(|head| !head.contains("canary")));
    repo.env("AZURE_STORAGE_ACCOUNT", "acme").model(["push"]).never_says("canary").fails(1, "403");
    assert!(server.requests().iter().any(|head| head.contains("sig=canary")));
}

#[test]
fn an_expired_token_and_a_full_bucket_are_explained() {
    let sandbox = Sandbox::new();
    let here = repo(&sandbox, "s3://bucket/x");
    let server = FakeServer::start(|_, stream| {
        let error =
            "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        reply(stream, "400 Bad Request", "content-type: application/xml\r\n", error);
    });
    let error = server.env(&here).model(["push"]).never_says("canary").fails(1, "ExpiredToken");
    assert!(error.contains("hint: the credentials expired"), "{error}");

    let bucket = garage().bucket();
    garage().limit(&bucket, "5MB");
    let sandbox = Sandbox::new();
    let full = garage().env(&repo(&sandbox, &format!("s3://{bucket}/x")));
    full.model(["push"]).ok();
    for size in [6 << 20, 20 << 20] {
        full.commit_artifact("w.bin", noise(1, size), "v2");
        let error = full.model(["push"]).fails(1, "uota");
        assert!(error.contains("hint: the store is full"), "{error}");
    }
}
