//! What a list of tags says: the state of stages, GTO's tags, and what is found wrong.

use super::fixture::*;
use super::*;
use crate::id::Digest;

fn prod() -> StageName {
    stage("prod")
}

/// What is in `prod`: `1.0.0 since 1`, and `canary 1.1.0 10%` behind it; `-` when it is empty.
fn shown(current: Option<Current<'_>>) -> String {
    let Some(current) = current else { return "-".to_owned() };
    let n = current.since.n.map(|n| n.to_string()).unwrap_or_default();
    let canary = current.canary.map(|canary| format!(" canary {} {}%", canary.version, canary.traffic));
    format!("{} since {n}{}", current.version, canary.unwrap_or_default())
}

fn in_prod(tags: impl IntoIterator<Item = Tag>) -> String {
    shown(History::new(&model("churn"), tags).current(&prod()))
}

fn findings(tags: impl IntoIterator<Item = Tag>) -> Vec<String> {
    History::new(&model("churn"), tags).findings().iter().map(ToString::to_string).collect()
}

fn target(history: &History) -> String {
    history.rollback_target(&prod()).map_or("-".to_owned(), ToString::to_string)
}

#[test]
fn the_state_of_a_stage() {
    let cases: [(&[&str], &str, &str); 22] = [
        (&[], "-", "-"),
        (&["promote 1.0.0"], "1.0.0 since 1", "-"),
        (&["promote 1.0.0", "promote 1.1.0"], "1.1.0 since 2", "1.0.0"),
        (&["promote 1.0.0", "canary 1.1.0 10"], "1.0.0 since 1 canary 1.1.0 10%", "-"),
        (&["promote 1.0.0", "canary 1.1.0 10", "canary 1.1.0 50"], "1.0.0 since 1 canary 1.1.0 50%", "-"),
        (&["promote 1.0.0", "canary 1.1.0 10", "promote 1.1.0"], "1.1.0 since 3", "1.0.0"),
        (&["promote 1.0.0", "canary 1.1.0 10", "rollback 1.0.0"], "1.0.0 since 3", "-"),
        (&["promote 1.0.0", "canary 1.1.0 10", "outcome 1.1.0 aborted"], "1.0.0 since 1", "-"),
        (&["promote 1.0.0", "canary 1.1.0 10", "outcome 1.1.0 ok"], "1.0.0 since 1 canary 1.1.0 10%", "-"),
        (
            &["promote 1.0.0", "canary 1.2.0 10", "outcome 1.1.0 aborted"],
            "1.0.0 since 1 canary 1.2.0 10%",
            "-",
        ),
        (&["canary 1.0.0 10"], "-", "-"),
        (&["canary 1.0.0 10", "promote 1.0.0"], "1.0.0 since 2", "-"),
        (&["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0"], "1.0.0 since 3", "-"),
        (&["promote 1.0.0", "promote 1.1.0", "promote 1.2.0", "rollback 1.1.0"], "1.1.0 since 4", "1.0.0"),
        (&["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0", "promote 1.2.0"], "1.2.0 since 4", "1.0.0"),
        (
            &["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0", "promote 1.1.0", "promote 1.2.0"],
            "1.2.0 since 5",
            "1.1.0",
        ),
        (
            &["promote 1.0.0", "promote 1.1.0", "outcome 1.1.0 aborted", "promote 1.2.0"],
            "1.2.0 since 4",
            "1.0.0",
        ),
        (&["promote 1.0.0", "canary 1.1.0 10", "retire"], "-", "1.0.0"),
        (&["promote 1.0.0", "retire", "promote 1.1.0"], "1.1.0 since 3", "1.0.0"),
        (&["promote 1.0.0", "approve 1.1.0", "freeze 1.1.0"], "1.0.0 since 1", "-"),
        (&["promote 1.0.0", "thaw"], "1.0.0 since 1", "-"),
        (&["promote 1.0.0", "promote 1.0.0"], "1.0.0 since 2", "-"),
    ];
    for (events, state, rollback) in cases {
        let history = history(events);
        assert_eq!(history.findings(), [], "{events:?}");
        assert_eq!(
            (shown(history.current(&prod())).as_str(), target(&history).as_str()),
            (state, rollback),
            "{events:?}"
        );
    }
}

#[test]
fn who_approved_and_what_was_in() {
    let history = history(&[
        "promote 1.0.0",
        "approve 1.1.0",
        "approve 1.2.0",
        "approve 1.1.0",
        "canary 1.1.0 5",
        "rollback 1.0.0",
    ]);
    let numbers =
        |text| history.approvals(&prod(), &version(text)).iter().map(|event| event.n).collect::<Vec<_>>();
    assert_eq!(numbers("1.1.0"), [Some(2), Some(4)]);
    assert_eq!(numbers("1.0.0"), []);
    assert!(history.was_in(&prod(), &version("1.0.0")));
    assert!(!history.was_in(&prod(), &version("1.1.0")), "a canary's share is not enough");
    assert!(!history.was_in(&stage("staging"), &version("1.0.0")));
    assert_eq!(history.stages().collect::<Vec<_>>(), [&prod()]);
}

#[test]
fn order_is_by_number_never_by_clock() {
    let mut tags = tags(&[]);
    let (old, new) = (["promote 1.0.0"; 9], ["promote 1.1.0"; 2]);
    // All in one second, the last one even earlier, and listed as git lists names: 1, 10, 11, 2, …
    tags.extend(
        (1..).zip(old.iter().chain(&new)).map(|(n, what)| event(n, what, if n == 11 { 7 } else { 100 })),
    );
    tags.sort_by_key(|tag| tag.name.to_string());
    let history = History::new(&model("churn"), tags.clone());
    let numbers: Vec<_> = history.events(&prod()).iter().filter_map(|event| event.n).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<u64>>());
    assert_eq!(shown(history.current(&prod())), "1.1.0 since 11");
    assert_eq!(history.findings(), []);
    tags.reverse();
    assert_eq!(in_prod(tags), "1.1.0 since 11", "whatever the order of the list");
}

#[test]
fn the_state_at_a_time() {
    let mut tags = tags(&["promote 1.0.0", "promote 1.1.0", "promote 1.2.0", "retire"]);
    tags[7].time = 50; // 1.2.0, by a clock that is behind
    let history = History::new(&model("churn"), tags);
    for (time, state) in [
        (i64::MIN, "-"),
        (100, "-"),
        (101, "1.0.0 since 1"),
        (102, "1.2.0 since 3"),
        (103, "1.2.0 since 3"),
        (104, "-"),
        (i64::MAX, "-"),
    ] {
        assert_eq!(shown(history.at(&prod(), time)), state, "{time}");
    }
}

#[test]
fn the_next_number() {
    let next = |tags: Vec<Tag>| History::new(&model("churn"), tags).next(&prod());
    assert_eq!(next(tags(&[])).unwrap(), Next { n: 1, previous: None });
    let two = tags(&["promote 1.0.0", "retire"]);
    let expected = |n: u64, name: &str| Next { n, previous: Some(Previous { n: n - 1, oid: oid(name) }) };
    assert_eq!(next(two.clone()).unwrap(), expected(3, "churn#prod#2"));
    let with = |more: Tag| two.iter().cloned().chain([more]).collect::<Vec<_>>();
    assert_eq!(next(with(gto("churn#prod!#9", "1.0.0", 1))).unwrap(), expected(10, "churn#prod!#9"));
    assert_eq!(next(with(gto("churn#staging#9", "1.0.0", 1))).unwrap(), expected(3, "churn#prod#2"));
    let unreadable = tag("churn#prod#3", "1.0.0", 1, Parsed::Damaged("torn".to_owned()));
    assert_eq!(
        next(with(unreadable)).unwrap(),
        expected(4, "churn#prod#3"),
        "its name is taken all the same"
    );
    let mut lightweight = gto("churn#prod#3", "1.0.0", 1);
    lightweight.oid = lightweight.target.clone();
    assert_eq!(next(with(lightweight)).unwrap().n, 4, "its name is taken all the same");
    let last = gto(&format!("churn#prod#{MAX_NUMBER}"), "1.0.0", 1);
    assert!(next(with(last)).unwrap_err().one_line().contains("no number is left"));
}

#[test]
fn gto_reads_as_gto_means_it() {
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|text| gto(&format!("churn@v{text}"), text, 1));
    type Tags = [(&'static str, &'static str, i64)];
    let cases: [(&Tags, &str); 13] = [
        (&[("churn#prod#1", "1.0.0", 2), ("churn#prod#2", "2.0.0", 3)], "2.0.0 since 2"),
        // The undo of one version lets the one before show again, as `gto show` has it.
        (
            &[("churn#prod#1", "1.0.0", 2), ("churn#prod#2", "2.0.0", 3), ("churn#prod!#3", "2.0.0", 4)],
            "1.0.0 since 1",
        ),
        (
            &[("churn#prod#1", "1.0.0", 2), ("churn#prod#2", "2.0.0", 3), ("churn#prod!#3", "1.0.0", 4)],
            "2.0.0 since 2",
        ),
        (&[("churn#prod#1", "1.0.0", 2), ("churn#prod!#2", "1.0.0", 3)], "-"),
        (
            &[("churn#prod#1", "1.0.0", 2), ("churn#prod!#2", "1.0.0", 3), ("churn#prod#3", "1.0.0", 4)],
            "1.0.0 since 3",
        ),
        // One assignment twice is undone at once.
        (&[("churn#prod#1", "1.0.0", 2), ("churn#prod#2", "1.0.0", 3), ("churn#prod!#3", "1.0.0", 4)], "-"),
        // Counters run over all stages; a gap is none.
        (
            &[("churn#dev#1", "1.0.0", 2), ("churn#prod#2", "1.0.0", 3), ("churn#prod#5", "2.0.0", 4)],
            "2.0.0 since 5",
        ),
        // Two assignments in one second go by counter, not by name.
        (&[("churn#prod#9", "1.0.0", 2), ("churn#prod#10", "2.0.0", 2)], "2.0.0 since 10"),
        (&[("churn#prod!#5", "1.0.0", 2), ("churn#prod#5", "1.0.0", 2)], "1.0.0 since 5"),
        // Without counters, by time.
        (&[("churn#prod", "1.0.0", 2)], "1.0.0 since "),
        (&[("churn#prod", "1.0.0", 2), ("churn#prod!", "1.0.0", 3)], "-"),
        // A withdrawn version holds no stage.
        (
            &[("churn#prod#1", "1.0.0", 2), ("churn#prod#2", "2.0.0", 3), ("churn@v2.0.0!", "2.0.0", 4)],
            "1.0.0 since 1",
        ),
        (
            &[("churn#prod#2", "2.0.0", 3), ("churn@v2.0.0!", "2.0.0", 4), ("churn@v2.0.0#3", "2.0.0", 5)],
            "2.0.0 since 2",
        ),
    ];
    for (events, state) in cases {
        let tags = events.iter().map(|&(name, on, time)| gto(name, on, time)).chain(releases.clone());
        let history = History::new(&model("churn"), tags);
        assert_eq!(history.findings(), [], "{events:?}");
        assert_eq!(shown(history.current(&prod())), state, "{events:?}");
    }
}

#[test]
fn withdrawals_count_from_their_time_on() {
    let tags = [
        gto("churn@v1.0.0", "1.0.0", 1),
        gto("churn@v2.0.0", "2.0.0", 1),
        gto("churn#prod#1", "1.0.0", 2),
        gto("churn#prod#2", "2.0.0", 3),
        gto("churn@v2.0.0!", "2.0.0", 9),
    ];
    let history = History::new(&model("churn"), tags);
    assert_eq!(shown(history.at(&prod(), 8)), "2.0.0 since 2");
    assert_eq!(shown(history.at(&prod(), 9)), "1.0.0 since 1");
    assert_eq!(target(&history), "-", "a withdrawn version is nowhere to go back to");
}

#[test]
fn ours_and_gto_in_one_stage() {
    let assigned = gto("churn#prod#1", "1.0.0", 500);
    let mut promoted = event_payload(2, "promote 1.1.0");
    promoted.previous = Some(Previous { n: 1, oid: assigned.oid.clone() });
    let promoted = tag("churn#prod#2", "1.1.0", 100, Parsed::Event(promoted));
    let base: Vec<Tag> = tags(&[]).into_iter().chain([assigned, promoted]).collect();
    assert_eq!(findings(base.clone()), Vec::<String>::new());
    assert_eq!(in_prod(base.clone()), "1.1.0 since 2", "by number, though GTO's clock is ahead");
    let with =
        |name: &str, on: &str, time| base.iter().cloned().chain([gto(name, on, time)]).collect::<Vec<_>>();
    assert_eq!(in_prod(with("churn#prod!#3", "1.1.0", 101)), "1.0.0 since 1");
    assert_eq!(in_prod(with("churn#prod!#2", "1.1.0", 101)), "1.1.0 since 2", "of one number, ours stands");
    assert_eq!(in_prod(with("churn#prod#7", "1.2.0", 1)), "1.2.0 since 7");
    assert_eq!(in_prod(with("churn#prod", "1.2.0", 99)), "1.1.0 since 2");
    assert_eq!(in_prod(with("churn#prod", "1.2.0", 101)), "1.2.0 since ");
}

#[test]
fn what_left_a_stage_for_a_reason_does_not_come_back() {
    let tags = tags(&["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0", "retire"]);
    assert_eq!(in_prod(tags.into_iter().chain([gto("churn#prod!#5", "1.0.0", 200)])), "-");
    let rolled_back = history(&["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0"]);
    assert_eq!(shown(rolled_back.current(&prod())), "1.0.0 since 3");
    let names = ["churn#prod#1", "churn#prod#2", "churn#prod!#3", "churn#prod#4"];
    let events = (10..).zip(["1.0.0", "1.1.0", "1.1.0", "1.2.0"]).zip(names);
    let events = events.map(|((time, on), name)| gto(name, on, time));
    let history = History::new(&model("churn"), super::fixture::tags(&[]).into_iter().chain(events));
    assert_eq!(target(&history), "1.0.0", "what was undone is nowhere to go back to");
    let undone = super::fixture::tags(&["promote 1.0.0", "promote 1.1.0", "rollback 1.0.0"]);
    let undone = undone.into_iter().chain([gto("churn#prod!#4", "1.0.0", 200)]);
    assert_eq!(in_prod(undone), "-", "what was rolled back from does not come back");
}

#[test]
fn the_version_of_a_commit() {
    // An rc and its final version on one commit, with one digest.
    let candidate = release("1.5.0-rc.1");
    let mut last = release("1.5.0");
    let Parsed::Release(payload) = &mut last.message else { panic!() };
    payload.commit = candidate.target.clone();
    payload.digest = candidate_digest(&candidate);
    (last.target, last.time) = (candidate.target.clone(), 50);
    let with = |time| [candidate.clone(), last.clone(), gto("churn#prod#1", "1.5.0-rc.1", time)];
    assert_eq!(findings(with(10)), Vec::<String>::new());
    assert_eq!(in_prod(with(10)), "1.5.0-rc.1 since 1");
    assert_eq!(in_prod(with(60)), "1.5.0 since 1");
    // GTO counts a registration after the assignment.
    assert_eq!(in_prod([gto("churn#prod#1", "1.0.0", 0), release("1.0.0")]), "1.0.0 since 1");
    // A commit without a version hides what was there.
    let tags = [release("1.0.0"), gto("churn#prod#1", "1.0.0", 2), gto("churn#prod#2", "elsewhere", 3)];
    assert_eq!(in_prod(tags.clone()), "-");
    assert_eq!(findings(tags.clone()), ["churn#prod#2: its commit has no release"]);
    let with = |more: &[Tag]| tags.iter().chain(more).cloned().collect::<Vec<_>>();
    assert_eq!(in_prod(with(&[gto("churn#prod!#3", "elsewhere", 4)])), "1.0.0 since 1");
    let another = [gto("churn#prod#3", "somewhere", 4), gto("churn#prod!#4", "somewhere", 5)];
    assert_eq!(in_prod(with(&another)), "-", "two commits without a version are not the same");
}

fn candidate_digest(tag: &Tag) -> Digest {
    match &tag.message {
        Parsed::Release(payload) => payload.digest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn releases_that_are_asked_for() {
    let names = ["1.4.0", "1.4.2", "1.10.0", "1.11.0-rc.1", "2.0.0"];
    let found = |extra: &[Tag], text: &str| {
        let tags = names.map(|text| gto(&format!("churn@v{text}"), text, 1)).into_iter();
        let history = History::new(&model("churn"), tags.chain(extra.iter().cloned()));
        let release = history.find(&Wanted::parse(text).unwrap());
        release.map_or("-".to_owned(), |release| release.version.to_string())
    };
    for (text, expected) in [
        ("v1.4.0", "1.4.0"),
        ("1.4.1", "-"),
        ("1.11.0-rc.1", "1.11.0-rc.1"),
        ("1.4", "1.4.2"),
        ("1", "1.10.0"),
        ("v1.11", "-"),
        ("3", "-"),
        ("latest", "2.0.0"),
    ] {
        assert_eq!(found(&[], text), expected, "{text}");
    }
    let withdrawn = [gto("churn@v2.0.0!", "2.0.0", 2)];
    assert_eq!(found(&withdrawn, "latest"), "1.10.0");
    assert_eq!(found(&withdrawn, "2"), "-");
    assert_eq!(found(&withdrawn, "2.0.0"), "2.0.0", "an exact name always means the same");
    let deprecated = gto("churn@deprecated", "2.0.0", 2);
    assert_eq!(found(std::slice::from_ref(&deprecated), "latest"), "-");
    assert_eq!(found(&[gto("churn@deprecated", "2.0.0", 1)], "latest"), "-", "in the same second");
    assert_eq!(found(&[deprecated, gto("churn@v2.0.1", "2.0.1", 3)], "latest"), "2.0.1", "used again since");
    assert_eq!(found(&[gto("churn@created", "2.0.0", 2)], "latest"), "2.0.0");
    let only = History::new(&model("churn"), [release("1.0.0-rc.1"), release("1.0.0-rc.2")]);
    assert_eq!(only.find(&Wanted::Latest).unwrap().version, version("1.0.0-rc.2"));
    assert_eq!(only.find(&Wanted::parse("1.0").unwrap()), None);
}

#[test]
fn one_history_is_of_one_model() {
    let tags = ["churn@v1.0.0", "team/churn@v1.1.0", "team=churn@v1.2.0", "churn2@v9.0.0"];
    let versions = |name: &str| {
        let history = History::new(&model(name), tags.map(|tag| gto(tag, tag, 1)));
        assert_eq!(history.findings(), []);
        history.releases().iter().map(|release| release.version.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(versions("churn"), ["1.0.0"]);
    assert_eq!(versions("team/churn"), ["1.1.0", "1.2.0"]);
    assert_eq!(versions("none"), Vec::<String>::new());
}

/// The tags of two promotions, changed by `change`, and what is then found.
fn found(change: impl FnOnce(&mut Vec<Tag>)) -> Vec<String> {
    let mut tags = vec![release("1.0.0"), release("1.1.0")];
    tags.extend([event(1, "promote 1.0.0", 10), event(2, "promote 1.1.0", 11), event(3, "retire", 12)]);
    change(&mut tags);
    findings(tags)
}

fn event_of(tag: &mut Tag) -> &mut EventPayload {
    match &mut tag.message {
        Parsed::Event(payload) => payload,
        other => panic!("{other:?}"),
    }
}

fn release_of(tag: &mut Tag) -> &mut ReleasePayload {
    match &mut tag.message {
        Parsed::Release(payload) => payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_chain_is_found() {
    let none: [&str; 0] = [];
    assert_eq!(found(|_| {}), none);
    assert_eq!(found(|tags| drop(tags.remove(3))), ["churn#prod#3: the event before it is missing"]);
    assert_eq!(found(|tags| drop(tags.remove(2))), ["churn#prod#2: the event before it is missing"]);
    assert_eq!(found(|tags| drop(tags.remove(4))), none, "a cut at the end cannot show");
    let rewritten = ["churn#prod#3: the event before it was rewritten"];
    assert_eq!(found(|tags| tags[3].oid = oid("again")), rewritten);
    assert_eq!(found(|tags| event_of(&mut tags[4]).previous = None), rewritten);
    let skips = Previous { n: 1, oid: oid("churn#prod#1") };
    assert_eq!(found(|tags| event_of(&mut tags[4]).previous = Some(skips)), rewritten);
    let misnumbered = Previous { n: 1, oid: oid("churn#prod#2") };
    assert_eq!(found(|tags| event_of(&mut tags[4]).previous = Some(misnumbered)), rewritten);
    let before_first = Previous { n: 0, oid: oid("x") };
    assert_eq!(
        found(|tags| event_of(&mut tags[2]).previous = Some(before_first)),
        ["churn#prod#1: the event before it was rewritten"]
    );
}

#[test]
fn a_moved_release_is_found() {
    let moved = ["churn#prod#2: churn@v1.1.0 was moved after this event"];
    assert_eq!(found(|tags| tags[1].oid = oid("again")), moved);
    assert_eq!(
        found(|tags| {
            tags[1].target = oid("another commit");
            release_of(&mut tags[1]).commit = oid("another commit");
        }),
        moved
    );
    assert_eq!(found(|tags| tags[3].target = oid("another commit")), moved);
    assert_eq!(
        found(|tags| event_of(&mut tags[3]).digest = Some(Digest::of(b"other"))),
        ["churn#prod#2: its payload disagrees about the model digest"]
    );
    assert_eq!(
        found(|tags| drop(tags.remove(1))),
        ["churn#prod#2: the release that it names, churn@v1.1.0, is missing or damaged"]
    );
    let deleted = History::new(
        &model("churn"),
        tags(&["promote 1.1.0"]).into_iter().filter(|tag| tag.name.version() != Some(&version("1.1.0"))),
    );
    assert!(deleted.taken().contains(&version("1.1.0")), "its name cannot be used again");
    assert_eq!(
        found(|tags| tags.push(gto("churn@v1.1.0#5", "1.0.0", 20))),
        ["churn@v1.1.0#5: an earlier tag gives this version to another commit"]
    );
}

#[test]
fn payloads_that_disagree_with_their_tag_are_left_out() {
    type Change = fn(&mut EventPayload);
    let changes: [(Change, &str); 3] = [
        (|payload| payload.name = model("other"), "name"),
        (|payload| payload.stage = stage("staging"), "stage"),
        (|payload| payload.n = 9, "number"),
    ];
    for (change, about) in changes {
        let mut tags = tags(&["promote 1.0.0", "promote 1.1.0"]);
        change(event_of(tags.last_mut().unwrap()));
        assert_eq!(in_prod(tags.clone()), "1.0.0 since 1");
        assert_eq!(findings(tags), [format!("churn#prod#2: its payload disagrees about the {about}")]);
    }
    type ChangeRelease = fn(&mut ReleasePayload);
    let changes: [(ChangeRelease, &str); 3] = [
        (|payload| payload.name = model("other"), "name"),
        (|payload| payload.version = version("9.0.0"), "version"),
        (|payload| payload.commit = oid("elsewhere"), "commit"),
    ];
    for (change, about) in changes {
        let mut tag = release("1.0.0");
        change(release_of(&mut tag));
        let history = History::new(&model("churn"), [tag]);
        assert_eq!(history.releases(), []);
        assert_eq!(history.taken(), [version("1.0.0")], "its name cannot be used again");
        let found = history.findings()[0].to_string();
        assert_eq!(found, format!("churn@v1.0.0: its payload disagrees about the {about}"));
    }
}

#[test]
fn payloads_in_the_wrong_kind_of_tag_are_left_out() {
    let event = Parsed::Event(event_payload(1, "promote 1.0.0"));
    let payload = Parsed::Release(release_payload("1.0.0"));
    for (name, message) in [
        ("churn@v1.0.0", event.clone()),
        ("churn#prod#1", payload.clone()),
        ("churn#prod!#1", event.clone()),
        ("churn#prod", event),
        ("churn@v1.0.0!", payload.clone()),
        ("churn@v1.0.0#3", payload),
    ] {
        let history = History::new(&model("churn"), [tag(name, "1.0.0", 1, message)]);
        assert!(history.releases().is_empty() && history.events(&prod()).is_empty(), "{name}");
        assert_eq!(
            history.findings()[0].to_string(),
            format!("{name}: its payload disagrees about the kind of tag")
        );
    }
}

#[test]
fn damaged_and_lightweight_tags_are_left_out() {
    let torn = || Parsed::Damaged("torn".to_owned());
    let tags = vec![tag("churn@v1.0.0", "1.0.0", 1, torn()), tag("churn#prod#1", "1.0.0", 1, torn())];
    assert_eq!(in_prod(tags.clone()), "-");
    assert_eq!(
        findings(tags),
        ["churn@v1.0.0: damaged payload: torn", "churn#prod#1: damaged payload: torn"]
    );
    let mut light = ["churn@v1.0.0", "churn#prod#1", "churn@deprecated"].map(|name| gto(name, "1.0.0", 1));
    light.iter_mut().for_each(|tag| tag.oid = tag.target.clone());
    let history = History::new(&model("churn"), light);
    assert_eq!(history.findings().len(), 3);
    assert!(history.findings()[0].to_string().contains("lightweight"));
    assert!(history.releases().is_empty() && history.events(&prod()).is_empty());
    assert_eq!(history.taken(), [version("1.0.0")]);
}

#[test]
fn names_that_differ_in_case_only_are_found_once() {
    let tags = [
        gto("churn@v1.0.0", "1.0.0", 1),
        gto("Churn@v1.0.0", "1.0.0", 1),
        gto("Churn@v1.1.0", "1.0.0", 1),
        gto("churn#prod#1", "1.0.0", 2),
        gto("churn#Prod#2", "1.0.0", 3),
        gto("churn#Prod#3", "1.0.0", 3),
    ];
    assert_eq!(
        findings(tags),
        [
            "Churn@v1.0.0: its name differs from churn in letter case only",
            "churn#prod#1: its name differs from Prod in letter case only",
        ]
    );
    assert_eq!(findings([gto("CHURN@v1.0.0", "1.0.0", 1)]).len(), 1, "also for a model that has no tag yet");
}
