//! The order of system calls: bytes are on the device before a name shows them, and the name before anything refers to it.

use crate::support::{BINARY, Repo, Sandbox, noise, run, skip};

/// The completed calls that matter, in order, each with its arguments; one worker keeps them in order.
fn calls(repo: &Repo, args: &[&str]) -> Vec<String> {
    let log = repo.join(".git/strace.log");
    let mut command = repo.command("strace");
    let trace = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";
    command
        .args(["-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-e", "signal=none", "-e", trace, "-o"])
        .arg(&log);
    command.env("RAYON_NUM_THREADS", "1").arg(BINARY).args(args);
    run(command).ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let mut begun: std::collections::HashMap<&str, &str> = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        if let Some(start) = call.trim().strip_suffix("<unfinished ...>") {
            begun.insert(pid, start);
        } else if call.contains(" resumed>") {
            calls.push(begun[pid].to_owned());
        } else if !call.contains(" = -1 ") {
            calls.push(call.trim().to_owned());
        }
    }
    calls
}

/// Where the first call at or after `from` is that holds all of these texts.
fn find(calls: &[String], from: usize, texts: &[&str]) -> Option<usize> {
    (from..calls.len()).find(|&at| texts.iter().all(|text| calls[at].contains(text)))
}

#[track_caller]
fn must(calls: &[String], from: usize, texts: &[&str]) -> usize {
    find(calls, from, texts)
        .unwrap_or_else(|| panic!("no call with {texts:?} from {from} on:\n{}", calls.join("\n")))
}

/// Source and target of every rename or link to an object.
fn published(calls: &[String]) -> Vec<(usize, String, String)> {
    let quoted =
        |call: &str| -> Vec<String> { call.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
    let of_object = |target: &String| {
        let name = target.rsplit('/').next().unwrap();
        name.len() == 64 && target.contains("objects/") && !target.contains(".git/objects/")
    };
    let names = |at: usize, call: &String| {
        let names = quoted(call);
        (names.len() == 2 && of_object(&names[1])).then(|| (at, names[0].clone(), names[1].clone()))
    };
    calls.iter().enumerate().filter_map(|(at, call)| names(at, call)).collect()
}

/// Every object is synced before it gets its name, and the directory of the name before call number `referrer`.
#[track_caller]
fn objects_are_durable_before(calls: &[String], referrer: usize, count: usize) {
    let objects = published(calls);
    assert_eq!(objects.len(), count, "{}", calls.join("\n"));
    for (at, temp, target) in objects {
        let temp_synced = must(calls, 0, &["sync(", &format!("<{temp}>")]);
        assert!(temp_synced < at, "{target}: synced too late");
        let dir = format!("<{}>", target.rsplit_once('/').unwrap().0);
        let dir_synced = must(calls, at, &["fsync(", &dir]);
        assert!(dir_synced < referrer, "{target}: its directory is synced too late");
    }
}

fn prepared(test: &str) -> Option<(Sandbox, Repo)> {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        skip(test, "strace is missing");
        return None;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w.bin", noise(1, 9_000));
    repo.write("d/x/y", noise(2, 9_000));
    Some((sandbox, repo))
}

#[test]
fn add_syncs_objects_before_pointers() {
    let Some((_sandbox, repo)) = prepared("add_syncs_objects_before_pointers") else { return };
    let calls = calls(&repo, &["add", "w.bin", "d"]);
    let pointer =
        must(&calls, 0, &["rename", "d.pointer\""]).min(must(&calls, 0, &["rename", "w.bin.pointer\""]));
    objects_are_durable_before(&calls, pointer, 4);
    let staged = calls[pointer].split('"').nth(1).unwrap().to_owned();
    assert!(must(&calls, 0, &["sync(", &format!("<{staged}>")]) < pointer);
    must(&calls, pointer, &["fsync(", &format!("<{}>", repo.path.display())]);
}

#[test]
fn sync_syncs_content_before_the_journal_and_the_places_before_the_journal_goes() {
    let Some((_sandbox, repo)) = prepared("sync_syncs_content_before_the_journal") else { return };
    repo.model(["add", "w.bin", "d"]).ok();
    repo.sh("rm -r w.bin d").ok();
    let calls = calls(&repo, &["sync"]);
    let journal = must(&calls, 0, &["rename", "model/journal-"]);
    for staged in ["/0/x/y>", "/1>"] {
        assert!(must(&calls, 0, &["fdatasync(", "/staging/", staged]) < journal);
    }
    let journal_durable = must(&calls, journal, &["fsync(", "/.git/model>"]);
    let placed = must(&calls, journal, &["rename", "\"w.bin\""]);
    assert!(journal_durable < placed && journal_durable < must(&calls, journal, &["rename", "\"d\""]));
    let places_durable = must(&calls, placed, &["fsync(", &format!("<{}>", repo.path.display())]);
    assert!(places_durable < must(&calls, 0, &["unlink", "model/journal-"]));
}

#[test]
fn sync_makes_the_names_of_staged_files_durable_before_the_journal() {
    let Some((_sandbox, repo)) = prepared("sync_makes_the_names_of_staged_files_durable") else { return };
    repo.model(["add", "w.bin", "d"]).ok();
    repo.sh("rm -r w.bin d").ok();
    let calls = calls(&repo, &["sync"]);
    let journal = must(&calls, 0, &["rename", "model/journal-"]);
    let staged = calls[must(&calls, journal, &["rename", "\"w.bin\""])].split('"').nth(1).unwrap().to_owned();
    let area = staged.rsplit_once('/').unwrap().0;
    for dir in [area, area.rsplit_once('/').unwrap().0] {
        assert!(must(&calls, 0, &["fsync(", &format!("<{dir}>")]) < journal);
    }
}

#[test]
fn push_to_a_folder_syncs_every_object() {
    let Some((_sandbox, repo)) = prepared("push_to_a_folder_syncs_every_object") else { return };
    repo.model(["add", "w.bin", "d"]).ok();
    let calls = calls(&repo, &["push", "--jobs", "1"]);
    // First that nothing is known of this store.
    let met = must(&calls, 0, &["rename", "/model/pushed/"]);
    let remembered = must(&calls, met + 1, &["rename", "/model/pushed/"]);
    objects_are_durable_before(&calls, remembered, 4);
    let last = published(&calls).pop().unwrap().2;
    assert!(
        repo.text("d.pointer").contains(last.rsplit('/').next().unwrap()),
        "the root of a tree goes last"
    );
}

#[test]
fn fetch_syncs_objects_before_it_remembers_them() {
    let Some((_sandbox, repo)) = prepared("fetch_syncs_objects_before_it_remembers_them") else { return };
    repo.model(["add", "w.bin", "d"]).ok();
    repo.model(["push"]).ok();
    repo.sh("rm -rf .git/model/objects .git/model/pushed").ok();
    let calls = calls(&repo, &["fetch", "--jobs", "1"]);
    objects_are_durable_before(&calls, must(&calls, 0, &["rename", "/model/pushed/"]), 4);
}

#[test]
fn without_fsync_nothing_is_synced_and_renames_stay() {
    let Some((_sandbox, repo)) = prepared("without_fsync_nothing_is_synced_and_renames_stay") else { return };
    repo.git(["config", "model.fsync", "off"]).ok();
    let added = calls(&repo, &["add", "w.bin", "d"]);
    repo.sh("rm -r w.bin d").ok();
    for calls in [added, calls(&repo, &["push"]), calls(&repo, &["sync"])] {
        assert_eq!(find(&calls, 0, &["sync("]), None, "{}", calls.join("\n"));
        assert!(find(&calls, 0, &["rename"]).is_some());
    }
}
