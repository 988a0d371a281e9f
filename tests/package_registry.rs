//! Packages on their way to registries: a real one, one that asks who one is, and hostile ones.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::package::released;
use crate::support::docker_registry::DockerRegistry;
use crate::support::fake_server::{FakeServer, reply};
use crate::support::models::{WEIGHTS, record, train};
use crate::support::{Repo, Sandbox, run, sha256};

/// A new version of which only the code differs.
fn next_code(repo: &Repo) {
    repo.write("src/pre.py", "print('two')\n");
    record(repo, "code");
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", "1.1.0"]).ok();
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let Some(registry) = DockerRegistry::start(&sandbox, "registry", None) else { return };
    let place = registry.place("team/churn");
    let push = |args: &[&str]| repo.json([&["package"], args, &["--push", &place]].concat());
    let first = push(&["churn@1.0.0"]);
    let digest = first["digest"].as_str().unwrap();
    assert_eq!(first["pushed"]["image"], format!("{}/team/churn@{digest}", registry.address));
    assert!(first["pushed"]["sent"].as_u64().unwrap() > 5, "{first}");
    // skopeo gets exactly what a layout of ours has.
    repo.model(["package", "churn@1.0.0", "-o", "../mp"]).ok();
    registry.skopeo(&sandbox.at(""), &["docker://{}/team/churn:1.0.0", "oci:back:1.0.0"]).ok();
    repo.sh("diff -r ../mp/blobs ../back/blobs").ok();

    let uploads = registry.requests("\"PUT ");
    let second = push(&["churn@1.0.0"]);
    assert_eq!((&second["pushed"]["up_to_date"], &second["pushed"]["sent"]), (&true.into(), &0.into()));
    assert_eq!(registry.requests("\"PUT "), uploads, "the second push sends nothing");
    repo.model(["package", "churn@1.0.0", "--push", &format!("{place}:other")]).says("sent 0 blobs").ok();
    assert_eq!(registry.requests("\"PUT "), uploads + 1, "only the manifest, under its new tag");

    // A new version sends what is new: code, the two records of it, model-info.json and the configuration.
    next_code(&repo);
    let third = push(&["churn@1.1.0"]);
    assert!(third["pushed"]["sent"].as_u64().unwrap() <= 5, "{third}");
    assert!(third["pushed"]["bytes"].as_u64().unwrap() < 20_000, "{third}");

    // Of an image, the layer with the weights stays.
    let image = registry.place("team/image");
    repo.model(["package", "churn@1.0.0", "--format", "image", "--push", &image]).ok();
    let next = repo.json(["package", "churn@1.1.0", "--format", "image", "--push", &image]);
    assert_eq!((&next["pushed"]["sent"], &next["pushed"]["present"]), (&2.into(), &1.into()));
    // Another repository takes all of it from this one.
    let args = ["package", "churn@1.1.0", "--format", "image", "--push"];
    let mounted = repo.json([&args[..], &[&registry.place("prod/image"), "--mount", "team/image"]].concat());
    assert_eq!((&mounted["pushed"]["sent"], &mounted["pushed"]["mounted"]), (&0.into(), &3.into()));

    // A Dockerfile pins what the tag stands for.
    let dockerfile = repo
        .model(["package", "churn@1.1.0", "--dockerfile", "embed", "--image", &format!("{image}:1.1.0")])
        .ok();
    assert!(dockerfile.contains(&format!("FROM {} AS model", next["pushed"]["image"].as_str().unwrap())));
}

#[test]
fn a_tag_is_not_moved_by_accident() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let Some(registry) = DockerRegistry::start(&sandbox, "registry", None) else { return };
    let place = registry.place("churn:prod");
    repo.model(["package", "churn@1.0.0", "--push", &place]).ok();
    next_code(&repo);
    repo.model(["package", "churn@1.1.0", "--push", &place])
        .fails(3, "prod stands for something else already");
    let moved = repo.json(["package", "churn@1.1.0", "--push", &place, "--force", "-o", "../x"]);
    registry.skopeo(&sandbox.at(""), &["docker://{}/churn:prod", "oci:back:x"]).ok();
    assert!(repo.text("../back/index.json").contains(moved["digest"].as_str().unwrap()));
    repo.model(["package", "HEAD", "--push", &registry.place("churn")]).fails(2, "name a tag");
    let by_digest = registry.place(&format!("churn@sha256:{}", "a".repeat(64)));
    repo.model(["package", "churn@1.0.0", "--push", &by_digest]).fails(2, "name a tag");
    repo.model(["package", "churn@1.0.0", "--format", "tar", "--push", &place]).fails(2, "takes no tar");
    repo.model(["package", "churn@1.0.0", "--offline", "--push", &place]).fails(1, "--offline");
    repo.model(["package", "churn@1.0.0", "--push", "oci://h/x", "--mount", "../up"]).fails(2, "not a place");
    repo.model(["package", "churn@1.0.0", "--push", "oci://me:secret@host/x"])
        .never_says("secret")
        .fails(2, "user or password");
}

#[test]
fn content_that_is_damaged_here_is_not_sent() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let Some(registry) = DockerRegistry::start(&sandbox, "registry", None) else { return };
    let digest = sha256(&repo.join(WEIGHTS));
    let object = repo.join(".git/model/objects").join(&digest[..2]).join(&digest);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[20] ^= 1;
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, bytes).unwrap();
    let place = registry.place("churn");
    repo.model(["package", "churn@1.0.0", "--push", &place]).fails(3, WEIGHTS);
    assert_eq!(registry.requests("\"PUT /v2/churn/manifests"), 0);
    repo.model(["package", "churn@1.0.0", "--push", &place]).ok();
}

#[test]
fn credentials_are_those_of_docker_and_its_helpers() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let mut htpasswd = repo.command("htpasswd");
    htpasswd.args(["-Bbn", "ada", "s3cret"]);
    if DockerRegistry::start(&sandbox, "probe", None).is_none() {
        return;
    }
    let users = run(htpasswd).ok();
    let registry = DockerRegistry::start(&sandbox, "registry", Some(&users)).unwrap();
    let (host, place) = (&registry.address, registry.place("churn"));
    let home = sandbox.join("home").display().to_string();
    let repo = repo.env("HOME", home);
    let push = |repo: &Repo| repo.model(["package", "churn@1.0.0", "--push", &place]);
    push(&repo).says("docker login").fails(1, "no credentials for it were found");
    // YWRhOndyb25n: ada:wrong, YWRhOnMzY3JldA==: ada:s3cret
    repo.write(
        "../home/.docker/config.json",
        format!(r#"{{"auths": {{"{host}": {{"auth": "YWRhOndyb25n"}}}}}}"#),
    );
    push(&repo).says("docker login").never_says("wrong").fails(1, "401");
    repo.write(
        "../home/.docker/config.json",
        format!(r#"{{"auths": {{"{host}": {{"auth": "YWRhOnMzY3JldA=="}}}}}}"#),
    );
    push(&repo).ok();
    // Podman's file comes first, and a named one before all.
    repo.write("../auth.json", format!(r#"{{"auths": {{"{host}/churn": {{"auth": "YWRhOnMzY3JldA=="}}}}}}"#));
    let named = |name: &str| repo.env("REGISTRY_AUTH_FILE", sandbox.join(name).display().to_string());
    push(&named("auth.json")).ok();
    push(&named("nothing.json")).fails(1, "no credentials for it were found");
    // A helper is asked for this host, in its way.
    let helper = format!(
        "#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\": \"{host}\", \"Username\": \"ada\", \"Secret\": \"s3cret\"}}'\n"
    );
    repo.write("../bin/docker-credential-test", helper);
    let program = sandbox.join("bin/docker-credential-test");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", sandbox.join("bin").display());
    let docker = |text: &str| {
        repo.write("../docker/config.json", text);
        repo.env("DOCKER_CONFIG", sandbox.join("docker").display().to_string()).env("PATH", &path)
    };
    push(&docker(&format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#))).ok();
    push(&docker(r#"{"credsStore": "test"}"#)).ok();
    push(&docker(r#"{"credHelpers": {"other.example": "test"}}"#))
        .fails(1, "no credentials for it were found");
    push(&docker(r#"{"credsStore": "absent"}"#)).fails(1, "docker-credential-absent: cannot be run");
    push(&docker("{")).fails(1, "config.json");
}

/// The server that must get no credentials.
static ELSEWHERE: OnceLock<FakeServer> = OnceLock::new();

fn elsewhere() -> &'static FakeServer {
    ELSEWHERE.get_or_init(|| FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", "")))
}

fn hostile(sandbox: &Sandbox, server: &FakeServer) -> (Repo, String) {
    let repo = released(sandbox);
    let host = server.endpoint().replace("http://", "");
    // canary-user:canary-password
    let auth = "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk";
    repo.write("../auth.json", format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#));
    let repo = repo.env("REGISTRY_AUTH_FILE", sandbox.join("auth.json").display().to_string());
    (repo, format!("oci://{host}/churn"))
}

/// Reads the body of a request whose head is known, so that the client is not cut off.
fn drain(head: &str, stream: &mut TcpStream) -> Vec<u8> {
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
    let mut body = Vec::new();
    drop(stream.take(length.unwrap_or(0)).read_to_end(&mut body));
    body
}

#[test]
fn credentials_do_not_follow_a_registry_elsewhere() {
    let sandbox = Sandbox::new();
    let server = FakeServer::start(|head, stream| {
        let there = elsewhere().endpoint();
        drain(head, stream);
        if !head.to_lowercase().contains("authorization: basic") {
            reply(stream, "401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", "");
        } else if head.starts_with("GET ") {
            reply(stream, "404 Not Found", "", "");
        } else if head.starts_with("HEAD ") {
            reply(stream, "307 Temporary Redirect", &format!("location: {there}/blob\r\n"), "");
        } else {
            reply(stream, "202 Accepted", &format!("location: {there}/upload?x=1\r\n"), "");
        }
    });
    let (repo, place) = hostile(&sandbox, &server);
    assert_eq!(repo.model(["package", "churn@1.0.0", "--push", &place]).never_says("canary").code, 1);
    let asked = elsewhere().requests();
    assert!(asked.iter().any(|head| head.starts_with("HEAD /blob")), "{asked:?}");
    assert!(asked.iter().any(|head| head.starts_with("PUT /upload?x=1&digest=")), "{asked:?}");
    assert!(!asked.iter().any(|head| head.to_lowercase().contains("authorization")), "{asked:?}");
}

#[test]
fn a_token_server_elsewhere_is_asked_by_https_only() {
    let sandbox = Sandbox::new();
    let server = FakeServer::start(|head, stream| {
        drain(head, stream);
        // By another name, this machine is another host.
        let there = "http://localhost.localdomain:1/token";
        reply(stream, "401 Unauthorized", &format!("www-authenticate: Bearer realm=\"{there}\"\r\n"), "");
    });
    let (repo, place) = hostile(&sandbox, &server);
    repo.model(["package", "churn@1.0.0", "--push", &place]).fails(3, "no credentials are sent there");
}

#[test]
fn tokens_are_fetched_and_used() {
    let sandbox = Sandbox::new();
    let server = FakeServer::start(|head, stream| {
        drain(head, stream);
        let head = head.to_lowercase();
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().trim().to_owned();
        if head.starts_with("get /token") {
            reply(stream, "200 OK", "", r#"{"token": "the-token"}"#);
        } else if !head.contains("authorization: bearer the-token") {
            let asks = format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"me\"\r\n");
            reply(stream, "401 Unauthorized", &asks, "");
        } else {
            let said = r#"{"errors": [{"code": "DENIED", "message": "not\u001b yours"}]}"#;
            reply(stream, "403 Forbidden", "", said);
        }
    });
    let (repo, place) = hostile(&sandbox, &server);
    // What is on this machine is not asked through a proxy, which would see the password.
    let repo = repo.env("http_proxy", elsewhere().endpoint());
    repo.model(["package", "churn@1.0.0", "--push", &place]).never_says("\u{1b}").fails(1, "DENIED");
    let asked = server.requests();
    let token = asked.iter().find(|head| head.starts_with("GET /token")).unwrap().to_lowercase();
    assert!(
        token.contains("service=me") && token.contains("scope=repository%3achurn%3apull%2cpush"),
        "{token}"
    );
    assert!(token.contains("authorization: basic y2fuyxj5lxvzzxi6y2fuyxj5lxbhc3n3b3jk"), "{token}");
    assert_eq!(asked.len(), 3, "{asked:?}");
}

#[test]
fn a_registry_that_lies_is_noticed() {
    let sandbox = Sandbox::new();
    // It takes everything, and has other manifests than it was given.
    let server = FakeServer::start(|head, stream| {
        drain(head, stream);
        static TAKEN: OnceLock<()> = OnceLock::new();
        let manifest = head.contains("/manifests/");
        match head.split(' ').next().unwrap() {
            "GET" if TAKEN.get().is_none() => reply(stream, "404 Not Found", "", ""),
            "GET" => reply(stream, "200 OK", "", "{}"),
            "PUT" if manifest => {
                TAKEN.get_or_init(|| ());
                reply(stream, "201 Created", "", "");
            }
            "HEAD" => {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"));
            }
            _ => reply(stream, "202 Accepted", "location: /upload\r\n", ""),
        }
    });
    let (repo, place) = hostile(&sandbox, &server);
    repo.model(["package", "churn@1.0.0", "--push", &place]).fails(1, "another manifest");
}

#[test]
fn many_versions_share_one_repository() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let Some(registry) = DockerRegistry::start(&sandbox, "registry", None) else { return };
    train(&repo, 2.0);
    repo.write("m/eval.json", r#"{"auc": 0.3}"#);
    record(&repo, "two");
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", "2.0.0"]).ok();
    let place = registry.place("churn");
    std::thread::scope(|scope| {
        for version in ["1.0.0", "2.0.0", "1.0.0", "2.0.0"] {
            let (repo, place) = (&repo, &place);
            scope.spawn(move || repo.model(["package", &format!("churn@{version}"), "--push", place]).ok());
        }
    });
}

/// What the registry above answers now and then while two push the same: it has every blob, and does not find one for a moment.
#[test]
fn a_manifest_whose_blobs_are_not_found_for_a_moment_is_sent_again() {
    static MANIFEST: OnceLock<String> = OnceLock::new();
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let sandbox = Sandbox::new();
    let server = FakeServer::start(|head, stream| {
        let body = drain(head, stream);
        match (head.split(' ').next().unwrap(), MANIFEST.get()) {
            ("HEAD", _) => drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")),
            ("PUT", _) if REFUSED.fetch_add(1, Ordering::SeqCst) < 2 => {
                let said = r#"{"errors": [{"code": "DIGEST_INVALID"}]}"#;
                reply(stream, "400 Bad Request", "", said);
            }
            ("PUT", _) => {
                MANIFEST.set(String::from_utf8(body).unwrap()).unwrap();
                reply(stream, "201 Created", "", "");
            }
            (_, Some(manifest)) => reply(stream, "200 OK", "", manifest),
            (_, None) => reply(stream, "404 Not Found", "", ""),
        }
    });
    let (repo, place) = hostile(&sandbox, &server);
    repo.model(["package", "churn@1.0.0", "--push", &place]).ok();
    let sent = server.requests().iter().filter(|head| head.starts_with("PUT ")).count();
    assert_eq!(sent, 3);
}
