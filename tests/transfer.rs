//! Transfers that are killed, cut off, refused or slowed down, with a real S3 server behind a proxy that counts.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::fake_server::{Answer, FakeServer, reply};
use crate::support::garage::garage;
use crate::support::models::{WEIGHTS, bare, churn, connect, record, safetensors};
use crate::support::proxy::{Fate, Proxy};
use crate::support::stores::Place;
use crate::support::{BINARY, Repo, Sandbox, noise, run, sha256, skip};

const MIB: u64 = 1 << 20;
const PART: u64 = 16 * MIB;

/// Size and speed of what is killed on its way. `GIT_MODEL_KILL_MIB=2048 GIT_MODEL_KILL_RATE=0` is the full measure, and as fast as
/// it goes.
fn killed() -> (u64, Vec<String>) {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number of MiB"))
    };
    let rate = match number("GIT_MODEL_KILL_RATE", 32) {
        0 => Vec::new(),
        rate => vec!["--limit-rate".to_owned(), format!("{rate}m")],
    };
    (number("GIT_MODEL_KILL_MIB", 256) * MIB, rate)
}

fn passing() -> Proxy {
    Proxy::start(&garage().endpoint, |_| Fate::Pass)
}

fn through(repo: &Repo, proxy: &Proxy) -> Repo {
    repo.env("AWS_ENDPOINT_URL", proxy.endpoint())
}

/// Commits the directory `data` with so many files of so many bytes.
fn commit_files(repo: &Repo, count: u64, size: usize) {
    for number in 0..count {
        repo.write(&format!("data/{number}"), noise(number, size));
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
}

/// Runs git-model until `moved` has grown by so many bytes, then sends it this signal. `false` when it was done before.
fn stop_after(repo: &Repo, args: &[&str], signal: &str, bytes: u64, moved: impl Fn() -> u64) -> bool {
    let start = moved();
    let mut child = repo
        .command(BINARY)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::from(std::fs::File::create(repo.join("../stderr")).unwrap()))
        .spawn()
        .unwrap();
    while moved() - start < bytes {
        if let Some(status) = child.try_wait().unwrap() {
            let told = std::fs::read_to_string(repo.join("../stderr")).unwrap();
            assert!(status.success(), "{told}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    child.wait().unwrap();
    true
}

/// The unfinished files in a clone's cache.
fn partial(repo: &Repo) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repo.join(".git/model/partial")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_push_killed_ten_times_sends_at_most_two_parts_again_each_time() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = through(&place.repo("repo"), &proxy);
    let (size, rate) = killed();
    repo.commit_artifact("large.bin", noise(1, size as usize), "v1");
    let push: Vec<&str> = std::iter::once("push").chain(rate.iter().map(String::as_str)).collect();
    let mut kills = 0;
    for share in [20, 40, 28, 36, 44, 24, 40, 52, 20, 36] {
        // What is sent again counts, too: two parts each time.
        let moved = share * (size + 20 * PART) / 576;
        kills += usize::from(stop_after(&repo, &push, "-KILL", moved, || proxy.up()));
        assert!(place.objects().is_empty(), "nothing is visible before it is complete");
    }
    assert_eq!(kills, 10);
    repo.model(["push"]).says("pushed 1 object").ok();
    let parts = (size / PART) as usize;
    let sent = proxy.count(&["PUT", "partNumber="]);
    assert!(sent <= parts + 2 * kills, "{sent} parts for {parts} and {kills} kills");
    assert_eq!(proxy.count(&["POST", "?uploads"]), 1, "one upload was gone on with");
    place.verify();
    assert_eq!(std::fs::read_dir(repo.join(".git/model/uploads")).unwrap().count(), 1);
    assert_eq!(repo.sh("find .git/model/uploads -type f").stdout, "");
}

#[test]
fn a_fetch_killed_ten_times_brings_at_most_two_parts_again_each_time() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = place.repo("repo");
    let (size, rate) = killed();
    repo.commit_artifact("large.bin", noise(1, size as usize), "v1");
    repo.model(["push"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    let fetch: Vec<&str> = std::iter::once("fetch").chain(rate.iter().map(String::as_str)).collect();
    let mut kills = 0;
    for share in [20, 30, 16, 24, 17, 25, 18, 20, 22, 26] {
        kills += u64::from(stop_after(&clone, &fetch, "-KILL", share * size / 256, || proxy.down()));
        assert_eq!(partial(&clone).len(), 1);
    }
    assert_eq!(kills, 10);
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
    let most = size + kills * 2 * PART;
    assert!(proxy.down() <= most, "{} MiB came, at most {} MiB", proxy.down() / MIB, most / MIB);
    assert!(partial(&clone).is_empty());
}

#[test]
fn a_killed_get_by_presigned_urls_goes_on_where_it_was() {
    let (sandbox, proxy) = (Sandbox::new(), passing());
    bare(&sandbox);
    let repo = through(&garage().env(&sandbox.git_repo("repo")), &proxy);
    repo.model(["init", &format!("s3://{}/models", garage().bucket())]).ok();
    let values: Vec<f32> = (0..24 << 20).map(|at| at as f32).collect();
    let repo = churn(repo);
    repo.write(WEIGHTS, safetensors(&[("body", &values)]));
    repo.model(["add", WEIGHTS]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    record(&repo, "large");
    connect(&sandbox, &repo);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.json(["resolve", "churn@1.0.0", "--presign", "10m", "--lock", "../lock.json"]);
    std::fs::create_dir(sandbox.join("pod")).unwrap();
    let pod = sandbox.at("pod").env("HOME", "/nonexistent");
    let get = ["get", "--locked", "../lock.json", "-o", "model", "--limit-rate", "32m"];
    let before = proxy.down();
    let mut kills = 0;
    for _ in 0..3 {
        kills += u64::from(stop_after(&pod, &get, "-KILL", 26 * MIB, || proxy.down()));
        assert!(!pod.exists("model/model-info.json"));
    }
    assert_eq!(kills, 3);
    let started = Instant::now();
    pod.model(get).ok();
    assert_eq!(pod.read(&format!("model/{WEIGHTS}")), repo.read(WEIGHTS));
    let (came, size) = (proxy.down() - before, 96 * MIB);
    assert!(came <= size + kills * 2 * PART + MIB, "{} MiB came", came / MIB);
    assert!(proxy.count(&["GET", "X-Amz-Signature="]) > 6, "it came in parts");
    // The last run had at least a third left to bring, at 32 MiB a second.
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
}

#[test]
fn memory_does_not_grow_with_files() {
    const MOST: u64 = 200 * MIB;
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.write("large.bin", noise(1, 400 << 20));
    let added = repo.peak_memory(&["add", "large.bin"]);
    repo.git(["commit", "-q", "-m", "large"]).ok();
    let pushed = repo.peak_memory(&["push"]);
    let clone = place.clone_of(&repo, "clone");
    let pulled = clone.peak_memory(&["pull"]);
    std::fs::remove_file(clone.join("large.bin")).unwrap();
    let synced = clone.peak_memory(&["sync"]);
    for (what, peak) in [("add", added), ("push", pushed), ("pull", pulled), ("sync", synced)] {
        assert!(peak < MOST, "{what} used {} MiB", peak / MIB);
    }
}

#[test]
fn a_damaged_partial_file_is_noticed() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 64 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    let fetch = ["fetch", "--limit-rate", "32m"];
    assert!(stop_after(&clone, &fetch, "-KILL", 40 * MIB, || proxy.down()));
    let file = std::fs::OpenOptions::new().write(true).open(&partial(&clone)[0]).unwrap();
    // Nobody knows which parts came first; of those that did not come, this is overwritten.
    for part in 0..4 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"damage", part * PART + 100_000).unwrap();
    }
    let before = proxy.down();
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
    assert!(proxy.down() - before > 64 * MIB, "all of it came again");
    clone.model(["verify"]).ok();
}

#[test]
fn wrong_bytes_of_the_right_size_are_refused_and_leave_nothing() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 40 << 20), "v1");
    repo.model(["push"]).ok();
    let key = place.objects().remove(0);
    place.put(&key, &noise(2, 40 << 20));
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).fails(1, "not the right ones");
    assert!(partial(&clone).is_empty());
    place.put(&key, &noise(2, 36 << 20));
    clone.model(["pull"]).fails(1, "the store has 37748736 bytes under its name");
    assert!(partial(&clone).is_empty());
    repo.model(["push", "--repair"]).ok();
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
}

#[test]
fn two_fetches_at_once_agree() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 80 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    let fetch = || clone.command(BINARY).args(["fetch", "--limit-rate", "48m"]).spawn().unwrap();
    let mut both = [fetch(), fetch()];
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    assert!(partial(&clone).is_empty());
    clone.model(["verify"]).ok();
    clone.model(["pull", "--offline"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
}

#[test]
fn an_upload_that_the_store_ended_is_begun_again() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 80 << 20), "v1");
    assert!(stop_after(&repo, &["push", "--limit-rate", "32m"], "-KILL", 40 * MIB, || proxy.up()));
    garage().end_uploads(place.url.split('/').nth(2).unwrap());
    repo.model(["push"]).says("pushed 1 object").ok();
    assert_eq!(proxy.count(&["POST", "?uploads"]), 2);
    place.verify();
}

#[test]
fn content_that_changed_since_a_killed_push_is_sent_whole() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 80 << 20), "v1");
    let hex = sha256(&repo.join("large.bin"));
    let object = repo.join(&format!(".git/model/objects/{}/{hex}", &hex[..2]));
    // The first run sends damaged bytes, which it would have noticed at the end.
    let damage = |bytes: &[u8]| {
        run({
            let mut command = std::process::Command::new("chmod");
            command.arg("644").arg(&object);
            command
        })
        .ok();
        let file = std::fs::OpenOptions::new().write(true).open(&object).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, 100).unwrap();
    };
    damage(b"damage");
    assert!(stop_after(&repo, &["push", "--limit-rate", "32m"], "-KILL", 50 * MIB, || proxy.up()));
    damage(&noise(1, 200)[100..106]);
    repo.model(["push"]).says("pushed 1 object").ok();
    assert_eq!(place.verify(), 1);
}

#[test]
fn a_busy_store_is_asked_again() {
    let mut seen = HashSet::new();
    // Whatever it is asked, the first time it has no time.
    let proxy = Proxy::start(&garage().endpoint, move |line| match seen.insert(line.to_owned()) {
        true => Fate::Busy,
        false => Fate::Pass,
    });
    let place = Place::garage();
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 40 << 20), "v1");
    for number in 0..40 {
        repo.write(&format!("data/{number}"), noise(number + 10, 5_000));
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    repo.model(["push"]).says("pushed 42 objects").ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    clone.model(["pull"]).ok();
    run({
        let mut command = std::process::Command::new("diff");
        command.arg("-r").arg(repo.join("data")).arg(clone.join("data"));
        command
    })
    .ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
}

#[test]
fn a_body_that_came_too_slowly_is_sent_again() {
    let mut seen = HashSet::new();
    // Whatever is sent to it, the first time it waited in vain.
    let proxy = Proxy::start(&garage().endpoint, move |line| match seen.insert(line.to_owned()) {
        true if !line.starts_with("GET") && !line.starts_with("HEAD") => {
            Fate::Refused("400 Bad Request", "<Error><Code>RequestTimeout</Code></Error>")
        }
        _ => Fate::Pass,
    });
    let place = Place::garage();
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 20 << 20), "v1");
    repo.commit_artifact("small.bin", "small", "v2");
    repo.model(["push"]).says("pushed 2 objects").ok();
    assert_eq!(proxy.count(&["POST", "?uploads"]), 2, "the upload itself was gone on with");
    place.verify();
}

#[test]
fn an_upload_that_the_store_will_not_complete_is_ended() {
    let phase = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&phase);
    let proxy = Proxy::start(&garage().endpoint, move |line| match seen.load(Ordering::Relaxed) {
        0 if line.contains("partNumber=2") => Fate::Denied,
        1 if line.starts_with("POST") && line.contains("uploadId") => {
            seen.store(2, Ordering::Relaxed);
            Fate::Refused("400 Bad Request", "<Error><Code>InvalidPart</Code></Error>")
        }
        _ => Fate::Pass,
    });
    let place = Place::garage();
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 36 << 20), "v1");
    repo.model(["push", "--jobs", "1"]).fails(1, "AccessDenied");
    phase.store(1, Ordering::Relaxed);
    repo.model(["push"]).says("pushed 1 object").ok();
    assert_eq!(proxy.count(&["POST", "?uploads"]), 2);
    assert_eq!(proxy.count(&["DELETE", "uploadId"]), 1);
    place.verify();
}

#[test]
fn an_upload_beside_another_one_is_noted_too() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = through(&place.repo("repo"), &proxy);
    repo.commit_artifact("large.bin", noise(1, 40 << 20), "v1");
    let noted = || repo.sh("find .git/model/uploads -type f -size +0").stdout.lines().count();
    let push = |count: usize| {
        let child = repo.command(BINARY).args(["push", "--limit-rate", "1m"]).spawn().unwrap();
        let started = Instant::now();
        while noted() < count && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    };
    let mut pushes = [push(1), push(2)];
    let both = noted();
    for push in &mut pushes {
        push.kill().unwrap();
        push.wait().unwrap();
    }
    assert_eq!((both, noted()), (2, 2), "a later push can end them");
    repo.sh("find .git/model/uploads -type f -exec touch -d '8 days ago' {} +").ok();
    repo.model(["push"]).says("pushed 1 object").ok();
    assert_eq!((noted(), proxy.count(&["DELETE", "uploadId"])), (0, 2));
}

#[test]
fn a_store_that_serves_few_at_once_gets_fewer() {
    let proxy = Proxy::with_room(&garage().endpoint, 24);
    let place = Place::garage();
    let repo = through(&place.repo("repo"), &proxy);
    commit_files(&repo, 600, 3_000);
    repo.model(["push"]).says("pushed 601 objects").ok();
    let asked = proxy.count(&["PUT"]);
    assert!((603..2 * 602).contains(&asked), "{asked} requests: some were refused, but not for long");
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    clone.model(["pull"]).says("fetched 601 objects").ok();
}

#[test]
fn a_slow_link_is_not_asked_for_more_than_it_carries() {
    let place = Place::garage();
    let repo = place.repo("repo");
    commit_files(&repo, 80, 8_000);
    // So many would rest long enough for a server to give them up.
    let proxy = Proxy::with_room(&garage().endpoint, 16);
    through(&repo, &proxy).model(["push", "--limit-rate", "256k"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    clone.model(["fetch", "--limit-rate", "256k"]).ok();
    assert!(proxy.count(&["PUT", "/objects/"]) >= 81 && proxy.count(&["GET", "/objects/"]) >= 81);
    assert_eq!(proxy.refused(), 0, "requests at once for which there was no room");
}

#[test]
fn more_files_are_opened_than_the_shell_began_with() {
    let place = Place::garage();
    let repo = place.repo("repo");
    commit_files(&repo, 300, 100_000);
    let few = format!("ulimit -Sn 64; {BINARY}");
    repo.sh(&format!("{few} push")).says("pushed 301 objects").ok();
    let clone = place.clone_of(&repo, "clone");
    clone.sh(&format!("{few} fetch")).says("fetched 301 objects").ok();
}

#[test]
fn a_device_that_fails_is_not_blamed_on_the_store() {
    let place = Place::garage();
    let repo = place.repo("repo");
    // One waits in memory, the other one in a file.
    for (name, size) in [("small", 60_000), ("middle", 300_000)] {
        repo.write(name, noise(size as u64, size));
        repo.model(["add", name]).ok();
    }
    repo.git(["commit", "-q", "-m", "data"]).ok();
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    for name in ["small", "middle"] {
        // Files cannot grow larger than 32 KiB.
        let fetch = format!("trap '' XFSZ; ulimit -f 64; {BINARY} pull {name}");
        clone.sh(&fetch).never_says("push --repair").fails(1, "File too large");
    }
    clone.model(["pull"]).says("fetched 2 objects").ok();
}

#[test]
fn objects_of_some_size_do_not_crowd_the_link() {
    let place = Place::garage();
    let repo = place.repo("repo");
    commit_files(&repo, 90, 1_000_000);
    // 16 MiB are on their way at once.
    let proxy = Proxy::with_room(&garage().endpoint, 40);
    through(&repo, &proxy).model(["push"]).says("pushed 91 objects").ok();
    assert_eq!(proxy.refused(), 0, "requests at once for which there was no room");
}

#[test]
fn little_is_on_its_way_until_the_first_answer() {
    let sandbox = Sandbox::new();
    let server =
        FakeServer::start(|head, stream| match head.starts_with("PUT ") && head.contains("/objects/") {
            true => std::thread::sleep(Duration::from_secs(300)),
            false if head.starts_with("PUT ") => reply(stream, "200 OK", "etag: \"x\"\r\n", ""),
            false => reply(stream, "404 Not Found", "", ""),
        });
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    commit_files(&repo, 100, 61_000);
    let mut push = server.env(&repo).command(BINARY).arg("push").spawn().unwrap();
    let sent = || {
        server.requests().iter().filter(|head| head.contains("/objects/") && head.starts_with("PUT ")).count()
    };
    while sent() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    push.kill().unwrap();
    push.wait().unwrap();
    // 2 MiB: what a slow link carries in half a minute. They would count as stalled in a whole one.
    assert!((20..=34).contains(&sent()), "{}", sent());
}

#[test]
fn a_link_that_always_breaks_is_gone_on_with_while_something_comes() {
    let proxy = Proxy::start(&garage().endpoint, |line| {
        let is_object = line.starts_with("GET") && line.contains("/objects/");
        if is_object { Fate::Cut(3 * MIB / 2) } else { Fate::Pass }
    });
    let place = Place::garage();
    let repo = place.repo("repo");
    // In pieces, and as a stream: more breaks of each than a request is repeated.
    repo.commit_artifact("large.bin", noise(1, 34 << 20), "v1");
    repo.commit_artifact("middle.bin", noise(2, 10 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    clone.model(["pull"]).ok();
    assert!(proxy.down() < 60 * MIB, "{}", proxy.down());
    for name in ["large.bin", "middle.bin"] {
        assert_eq!(sha256(&clone.join(name)), sha256(&repo.join(name)), "{name}");
    }
}

#[test]
fn a_link_that_breaks_is_gone_on_with() {
    let mut seen = HashSet::new();
    let proxy = Proxy::start(&garage().endpoint, move |line| {
        let is_object = line.starts_with("GET") && line.contains("/objects/");
        // The first answer to everything breaks after 3 MiB.
        if is_object && seen.insert(line.to_owned()) { Fate::Cut(3 * MIB) } else { Fate::Pass }
    });
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 50 << 20), "v1");
    repo.commit_artifact("middle.bin", noise(2, 10 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
    assert_eq!(sha256(&clone.join("middle.bin")), sha256(&repo.join("middle.bin")));
}

#[test]
fn an_interrupt_says_that_the_same_command_goes_on() {
    let (place, proxy) = (Place::garage(), passing());
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 80 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = through(&place.clone_of(&repo, "clone"), &proxy);
    assert!(stop_after(&clone, &["fetch", "--limit-rate", "20m"], "-INT", 40 * MIB, || proxy.down()));
    let told = std::fs::read_to_string(clone.join("../stderr")).unwrap();
    assert!(told.contains("error: interrupted"), "{told}");
    assert!(told.contains("hint: run the same command again to go on where it stopped"), "{told}");
    clone.model(["fetch"]).ok();
    assert!(proxy.down() < 80 * MIB + 2 * PART, "{}", proxy.down());
}

#[test]
fn the_rate_is_kept_in_both_directions() {
    for place in [Place::garage(), Place::folder()] {
        let repo = place.repo("repo");
        repo.commit_artifact("large.bin", noise(1, 40 << 20), "v1");
        repo.commit_artifact("small.bin", noise(2, 1 << 20), "v1");
        let timed = |repo: &Repo, args: &[&str]| {
            let started = Instant::now();
            repo.model(args).ok();
            started.elapsed()
        };
        assert!(timed(&repo, &["push", "--limit-rate", "20m"]) > Duration::from_millis(1500));
        let clone = place.clone_of(&repo, "clone");
        assert!(timed(&clone, &["fetch", "--limit-rate", "20m"]) > Duration::from_millis(1500));
        repo.model(["push", "--limit-rate", "fast"]).fails(2, "a rate looks like 10m");
    }
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let sandbox = Sandbox::new();
    let proxy = FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", ""));
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.git(["config", "model.remote.origin.allowHttp", "true"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let repo =
        proxy.env(&repo).env("AWS_ENDPOINT_URL", "http://store.invalid").env("HTTP_PROXY", proxy.endpoint());
    repo.model(["push", "--dry-run"]).says("would push 1 object").never_says("canary").ok();
    assert!(proxy.requests()[0].starts_with("GET http://store.invalid/bucket/x/format.json"));
    let seen = proxy.requests().len();
    repo.env("NO_PROXY", "store.invalid").model(["push", "--dry-run"]).fails(1, "s3://bucket/x");
    assert_eq!(proxy.requests().len(), seen);
}

#[test]
fn a_store_on_this_machine_is_not_asked_through_a_proxy() {
    let sandbox = Sandbox::new();
    let not_found: Answer = |_, stream| reply(stream, "404 Not Found", "", "");
    let (store, proxy) = (FakeServer::start(not_found), FakeServer::start(not_found));
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let repo = store.env(&repo).env("http_proxy", proxy.endpoint());
    for endpoint in [store.endpoint(), store.endpoint().replace("127.0.0.1", "localhost")] {
        let seen = store.requests().len();
        repo.env("AWS_ENDPOINT_URL", endpoint).model(["push", "--dry-run"]).says("would push 1 object").ok();
        assert!(store.requests().len() > seen);
    }
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn a_private_certificate_authority_of_the_environment_is_trusted() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    let made = repo.sh(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=Test &&
         openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request -subj /CN=localhost &&
         printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >extensions &&
         openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem",
    );
    if made.code != 0 {
        return skip("a_private_certificate_authority_of_the_environment_is_trusted", "no openssl");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let accept = ["s_server", "-cert", "cert.pem", "-key", "key.pem", "-www", "-quiet", "-accept"];
    let mut server = repo.command("openssl").args(accept).arg(port.to_string()).spawn().unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let repo = repo
        .env("AWS_ENDPOINT_URL", format!("https://localhost:{port}"))
        .env("AWS_REGION", "nowhere")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    let untrusted = repo.model(["push"]);
    let authority = repo.join("ca.pem").display().to_string();
    // It is no store, but it is listened to.
    let trusted = repo.env("SSL_CERT_FILE", authority).model(["push"]);
    server.kill().unwrap();
    server.wait().unwrap();
    untrusted.fails(1, "UnknownIssuer");
    trusted.never_says("certificate").fails(1, "s3://bucket/x");
}

#[test]
fn a_killed_get_goes_on() {
    let (place, proxy) = (Place::garage(), passing());
    place.sandbox.at("").git(["init", "-q", "--bare", "remote.git"]).ok();
    let repo = churn(place.repo("repo"));
    repo.write(WEIGHTS, safetensors(&[("large", &vec![0.5; 18 << 20])]));
    repo.model(["add", WEIGHTS]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    record(&repo, "large");
    repo.git(["remote", "add", "origin", "../remote.git"]).ok();
    repo.git(["push", "-q", "-u", "origin", "main"]).ok();
    place.sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["resolve", "churn@1.0.0", "--lock", "../lock.json"]).ok();
    std::fs::create_dir(place.sandbox.join("pod")).unwrap();
    let pod = through(&repo, &proxy).at("../pod");
    let get = ["get", "--locked", "../lock.json", "-o", "model", "--limit-rate", "32m"];
    assert!(stop_after(&pod, &get, "-KILL", 50 * MIB, || proxy.down()));
    assert!(!pod.exists("model"), "it is complete or not there");
    pod.model(["get", "--locked", "../lock.json", "-o", "model"]).ok();
    assert_eq!(sha256(&pod.join("model").join(WEIGHTS)), sha256(&repo.join(WEIGHTS)));
    assert!(proxy.down() < 72 * MIB + 2 * PART, "{} MiB", proxy.down() / MIB);
    assert_eq!(pod.sh("find . -name '*pieces*' -o -name '*.new-*'").stdout, "");
}
