//! What KServe is told about shares of the traffic. It gives all of it to the newest revision that is ready, which is the canary
//! until others are; with a share of 0, the revision that had all before the canary keeps it.

use super::folder::Record;
use crate::human;
use crate::manifests::Target;

/// Sets the share in a record whose versions are known, given what was in the directory and the stage's canary. Returns what the user
/// should know.
pub(super) fn of_kserve(record: &mut Record, before: Option<&Record>, canary: Option<u8>) -> Option<String> {
    let before = before.filter(|before| before.target == Target::Kserve);
    let stays = before.is_some_and(|before| keeps_the_rest(before, record));
    record.traffic = canary.or(stays.then_some(0));
    record.stable = match canary {
        Some(_) => before.and_then(|before| before.stable.clone()),
        None => Some(record.version.clone()),
    };
    let left = before.filter(|before| before.traffic > Some(0) && before.version != record.version)?;
    record.traffic.is_none().then(|| {
        format!(
            "until the pods of v{} are ready, KServe gives all traffic to v{}, the canary that these manifests named",
            record.version,
            human::escape(&left.version)
        )
    })
}

/// Whether a canary ends in favour of the version that it stood beside, as that was deployed.
fn keeps_the_rest(before: &Record, now: &Record) -> bool {
    let ends_canary = match before.traffic {
        None => false,
        // It was ended already, and nothing else happened.
        Some(0) => before.version == now.version,
        Some(_) => before.version != now.version,
    };
    let as_deployed = now.versions.first().is_some_and(|version| before.versions.contains(version));
    ends_canary && as_deployed && before.stable.as_ref() == Some(&now.version)
}
