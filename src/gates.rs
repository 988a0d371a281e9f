//! The rules that a version must pass, as pure functions of what is known about it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model_yaml::{Direction, MetricRule};
use crate::values::number;

/// How one rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// It does not apply, because there is nothing to compare with.
    Skip,
}

/// One rule and how it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which rule, in a word or two: `metric auc`.
    pub gate: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, on one line.
    pub said: String,
    /// Whether it is about the truth of the record or the bytes themselves, which nobody's word can replace.
    pub integrity: bool,
}

impl Verdict {
    /// A rule of the policy that holds.
    pub fn pass(gate: impl Into<String>, said: impl Into<String>) -> Verdict {
        Verdict { gate: gate.into(), outcome: Outcome::Pass, said: said.into(), integrity: false }
    }

    /// A rule of the policy that does not hold.
    pub fn fail(gate: impl Into<String>, said: impl Into<String>) -> Verdict {
        Verdict { outcome: Outcome::Fail, ..Verdict::pass(gate, said) }
    }

    /// A rule of the policy that does not apply.
    pub fn skip(gate: impl Into<String>, said: impl Into<String>) -> Verdict {
        Verdict { outcome: Outcome::Skip, ..Verdict::pass(gate, said) }
    }

    /// The same verdict, as one that nobody's word can replace.
    pub fn of_integrity(self) -> Verdict {
        Verdict { integrity: true, ..self }
    }
}

/// Judges a metric by itself and against the version that is in a stage now; `baseline` is that version's metrics, `None` when
/// the stage is empty.
pub fn metric(
    rule: &MetricRule,
    metrics: Option<&BTreeMap<String, f64>>,
    baseline: Option<&BTreeMap<String, f64>>,
) -> Verdict {
    let gate = format!("metric {}", rule.name);
    let Some(metrics) = metrics else {
        return Verdict::fail(gate, "no evaluation of these weights is recorded");
    };
    let Some(&value) = metrics.get(&rule.name) else {
        return Verdict::fail(gate, "the evaluation report does not have it");
    };
    let shown = number(value);
    if let Some(min) = rule.min.filter(|min| value < *min) {
        return Verdict::fail(gate, format!("{shown} is below the minimum {}", number(min)));
    }
    if let Some(max) = rule.max.filter(|max| value > *max) {
        return Verdict::fail(gate, format!("{shown} is above the maximum {}", number(max)));
    }
    let Some(stage) = &rule.against else { return Verdict::pass(gate, shown) };
    let Some(baseline) = baseline else {
        return Verdict::pass(gate, format!("{shown}; nothing is in {stage} to compare with"));
    };
    let Some(&before) = baseline.get(&rule.name) else {
        return Verdict::fail(
            gate,
            format!("{shown}; the version in {stage} has no such metric to compare with"),
        );
    };
    let beside = format!("{shown}, {} in {stage}", number(before));
    let too_bad = match rule.direction {
        Direction::Higher => rule.max_drop.filter(|most| before - value > most + rounding(before)),
        Direction::Lower => {
            rule.max_relative_increase.filter(|most| value - before > most * before.abs() + rounding(before))
        }
    };
    match (too_bad, rule.direction) {
        (None, _) => Verdict::pass(gate, beside),
        (Some(most), Direction::Higher) => {
            Verdict::fail(gate, format!("{beside}: a drop of more than {}", number(most)))
        }
        (Some(most), Direction::Lower) => {
            Verdict::fail(gate, format!("{beside}: an increase of more than {} %", number(most * 100.0)))
        }
    }
}

/// 0.91 - 0.908 is a little more than 0.002 for a computer; that must not decide.
fn rounding(value: f64) -> f64 {
    value.abs() * 8.0 * f64::EPSILON
}

/// Judges how long a version has been in the stage that it comes from. Both times in Unix seconds.
pub fn soak(needed: Duration, since: Option<i64>, now: i64) -> Verdict {
    let needed = needed.as_secs();
    match since.map(|since| u64::try_from(now.saturating_sub(since)).unwrap_or(0)) {
        None => Verdict::fail("soak", "it is not in the stage before"),
        Some(elapsed) if elapsed < needed => {
            Verdict::fail("soak", format!("{} in the stage before, {} needed", span(elapsed), span(needed)))
        }
        Some(elapsed) => Verdict::pass("soak", format!("{} in the stage before", span(elapsed))),
    }
}

/// Judges approvals by how many distinct signers gave one.
pub fn approvals(needed: u32, signers: usize, unverified: usize) -> Verdict {
    let without = match unverified {
        0 => String::new(),
        count => format!("; {count} without a verified signature do not count"),
    };
    let said = format!("{signers} of {needed} by distinct verified signers{without}");
    if signers >= needed as usize {
        Verdict::pass("approvals", said)
    } else {
        Verdict::fail("approvals", said)
    }
}

/// A span of time, in the two largest units that matter.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::StageName;

    fn rule(direction: Direction) -> MetricRule {
        MetricRule {
            name: "m".into(),
            direction,
            min: None,
            max: None,
            against: None,
            max_drop: None,
            max_relative_increase: None,
        }
    }

    fn values(value: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("m".to_owned(), value)])
    }

    #[test]
    fn metrics_are_judged_by_themselves() {
        let bounded = MetricRule { min: Some(0.9), max: Some(1.0), ..rule(Direction::Higher) };
        for (value, outcome) in
            [(0.9, Outcome::Pass), (1.0, Outcome::Pass), (0.89, Outcome::Fail), (1.1, Outcome::Fail)]
        {
            assert_eq!(metric(&bounded, Some(&values(value)), None).outcome, outcome, "{value}");
        }
        assert_eq!(metric(&bounded, None, None).outcome, Outcome::Fail);
        assert_eq!(metric(&bounded, Some(&BTreeMap::new()), None).outcome, Outcome::Fail);
    }

    #[test]
    fn metrics_are_judged_against_a_stage() {
        let against = Some(StageName::parse("prod").unwrap());
        let drop = MetricRule { against: against.clone(), max_drop: Some(0.002), ..rule(Direction::Higher) };
        let rise = MetricRule { against, max_relative_increase: Some(0.1), ..rule(Direction::Lower) };
        for (rule, before, now, outcome) in [
            (&drop, 0.91, 0.908, Outcome::Pass),
            (&drop, 0.91, 0.9079, Outcome::Fail),
            (&drop, 0.91, 0.99, Outcome::Pass),
            (&rise, 100.0, 110.0, Outcome::Pass),
            (&rise, 100.0, 110.1, Outcome::Fail),
            (&rise, -100.0, -95.0, Outcome::Pass),
            (&rise, 100.0, 1.0, Outcome::Pass),
        ] {
            assert_eq!(
                metric(rule, Some(&values(now)), Some(&values(before))).outcome,
                outcome,
                "{before} {now}"
            );
        }
        assert_eq!(metric(&drop, Some(&values(0.5)), None).outcome, Outcome::Pass, "an empty stage");
        assert_eq!(metric(&drop, Some(&values(0.5)), Some(&BTreeMap::new())).outcome, Outcome::Fail);
    }

    #[test]
    fn soak_and_approvals_count() {
        let hour = Duration::from_secs(3600);
        assert_eq!(soak(hour, Some(0), 3600).outcome, Outcome::Pass);
        assert_eq!(soak(hour, Some(0), 3599).outcome, Outcome::Fail);
        assert_eq!(soak(hour, Some(5000), 0).outcome, Outcome::Fail, "a clock that is behind");
        assert_eq!(soak(hour, None, 3600).outcome, Outcome::Fail);
        assert_eq!(approvals(2, 2, 0).outcome, Outcome::Pass);
        assert_eq!(approvals(2, 1, 5).outcome, Outcome::Fail);
    }
}
