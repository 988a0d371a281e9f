//! How much is on its way at once: more while that makes the whole faster, half when the store asks for less.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// A rate is measured over at least this time.
const EPOCH: Duration = Duration::from_millis(250);
/// More at once must make the whole faster by this factor, else it is taken back.
const WORTH: f64 = 1.1;
/// After growth did not help, or the store asked for less, nothing is tried for so long.
const REST: Duration = Duration::from_secs(10);

/// Bytes of small objects on their way to a store at once, to begin with and at most.
const AHEAD_TO_BEGIN: u64 = 2 * 1024 * 1024;
const AHEAD: u64 = 16 * 1024 * 1024;
/// More than to begin with only where the store took as much in so many seconds.
const AHEAD_SECONDS: u64 = 15;
/// The unit in which they are counted.
const AHEAD_GRAIN: u64 = 8 * 1024;

/// Bounds the small objects that are on their way to a store by their bytes. They leave this process at once and its system much
/// later: what a slow link cannot carry in a minute would count as stalled, and be sent again for nothing.
#[derive(Debug)]
pub(super) struct Ahead {
    permits: Semaphore,
    state: Mutex<AheadState>,
}

#[derive(Debug)]
struct AheadState {
    /// Bytes that may be on their way.
    limit: u64,
    done: u64,
    began: Option<Instant>,
}

impl AheadState {
    /// The store took these bytes. Returns by how many more may be on their way.
    fn done(&mut self, bytes: u64, now: Instant) -> u64 {
        self.done += bytes;
        let elapsed = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let carried = self.done as f64 / elapsed.as_secs_f64() * AHEAD_SECONDS as f64;
        let more = (carried as u64).min(AHEAD).saturating_sub(self.limit) / AHEAD_GRAIN * AHEAD_GRAIN;
        self.limit += more;
        more
    }
}

impl Ahead {
    pub(super) fn new() -> Ahead {
        Ahead {
            permits: Semaphore::new((AHEAD_TO_BEGIN / AHEAD_GRAIN) as usize),
            state: Mutex::new(AheadState { limit: AHEAD_TO_BEGIN, done: 0, began: None }),
        }
    }

    fn state(&self) -> MutexGuard<'_, AheadState> {
        self.state.lock().expect("no thread panicked")
    }

    /// Waits until so many bytes may be on their way, too.
    pub(super) async fn room_for(&self, bytes: u64) -> SemaphorePermit<'_> {
        let grains = bytes.div_ceil(AHEAD_GRAIN).clamp(1, AHEAD_TO_BEGIN / AHEAD_GRAIN) as u32;
        let room = self.permits.acquire_many(grains).await.expect("never closed");
        self.state().began.get_or_insert_with(Instant::now);
        room
    }

    /// The store took so many.
    pub(super) fn done(&self, bytes: u64) {
        let more = self.state().done(bytes, Instant::now());
        self.permits.add_permits((more / AHEAD_GRAIN) as usize);
    }
}

/// Decides the limit. Knows no clock and no threads: it is told what happened when.
#[derive(Debug)]
struct Controller {
    limit: usize,
    max: usize,
    /// So many times the limit must be done before it grows.
    patience: usize,
    /// How much was done in all.
    total: usize,
    /// What to go back to when growth does not help, and the rate that it has to beat.
    before: Option<(usize, f64)>,
    /// Until the store first asks for less, or growth first does not help, the limit doubles.
    fresh: bool,
    rest_until: Option<Instant>,
    /// Requests that started before the last halving say nothing new.
    generation: u64,
    epoch: Instant,
    work: u64,
    done: usize,
    /// Whether somebody had to wait in this epoch: without, more would change nothing.
    full: bool,
}

impl Controller {
    fn new(start: usize, max: usize, patience: usize, now: Instant) -> Controller {
        Controller {
            limit: start.min(max),
            max,
            patience,
            total: 0,
            before: None,
            fresh: true,
            rest_until: None,
            generation: 0,
            epoch: now,
            work: 0,
            done: 0,
            full: false,
        }
    }

    /// Something of this weight is done.
    fn done(&mut self, work: u64, now: Instant) {
        self.work += work;
        self.done += 1;
        self.total += 1;
        let elapsed = now.saturating_duration_since(self.epoch);
        if elapsed < EPOCH || self.done < self.limit {
            return;
        }
        let rate = self.work as f64 / elapsed.as_secs_f64();
        let full = self.full;
        self.start_epoch(now);
        let is_early = self.total < self.patience * self.limit;
        if is_early || !full || self.rest_until.is_some_and(|until| now < until) {
            return;
        }
        self.rest_until = None;
        match self.before.take() {
            Some((limit, to_beat)) if rate < to_beat * WORTH => {
                self.limit = limit;
                self.fresh = false;
                self.rest_until = Some(now + REST);
            }
            _ => {
                let step = if self.fresh { self.limit } else { (self.limit / 4).max(1) };
                let larger = (self.limit + step).min(self.max);
                if larger > self.limit {
                    self.before = Some((self.limit, rate));
                    self.limit = larger;
                }
            }
        }
    }

    /// The store asked for less than the `taken` turns of now, or did not answer in time.
    fn overloaded(&mut self, generation: u64, taken: usize, now: Instant) {
        if generation != self.generation {
            return;
        }
        self.generation += 1;
        // One that was alone does not tell how many are too many.
        let crowd = if taken > 1 { self.limit.min(taken) } else { self.limit };
        self.limit = (crowd / 2).max(1);
        self.before = None;
        self.fresh = false;
        self.rest_until = Some(now + REST);
        self.start_epoch(now);
    }

    fn start_epoch(&mut self, now: Instant) {
        (self.epoch, self.work, self.done, self.full) = (now, 0, 0, false);
    }
}

/// Lets through as many at once as its controller says.
#[derive(Debug)]
pub(super) struct Gate {
    /// As many permits as the limit, but for those that are still owed.
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    /// Permits that exist, held ones included.
    issued: usize,
}

/// A turn. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
    generation: u64,
}

impl Gate {
    /// Lets through `start` at once to begin with, and never more than `max`. More only once `patience` times as many are done:
    /// for work of which all that is on its way is lost when the link breaks.
    pub(super) fn new(start: usize, max: usize, patience: usize) -> Arc<Gate> {
        let controller = Controller::new(start, max.max(1), patience, Instant::now());
        let issued = controller.limit;
        Arc::new(Gate {
            permits: Arc::new(Semaphore::new(issued)),
            state: Mutex::new(State { controller, issued }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked")
    }

    /// Waits for a turn.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let permits = Arc::clone(&self.permits);
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.state().controller.full = true;
                permits.acquire_owned().await.expect("never closed")
            }
        };
        let generation = self.state().controller.generation;
        Turn { gate: Arc::clone(self), permit: Some(permit), generation }
    }

    /// Brings the number of permits nearer to the limit.
    fn adjust(&self, state: &mut State) {
        let limit = state.controller.limit;
        if state.issued < limit {
            self.permits.add_permits(limit - state.issued);
            state.issued = limit;
        } else if state.issued > limit {
            state.issued -= self.permits.forget_permits(state.issued - limit);
        }
    }
}

impl Turn {
    /// What it was for is done.
    pub(super) fn done(&self, work: u64) {
        let mut state = self.gate.state();
        state.controller.done(work, Instant::now());
        self.gate.adjust(&mut state);
    }

    /// It met an overloaded store.
    pub(super) fn overloaded(&self) {
        let mut state = self.gate.state();
        let taken = state.issued - self.gate.permits.available_permits();
        state.controller.overloaded(self.generation, taken, Instant::now());
        self.gate.adjust(&mut state);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if state.issued > state.controller.limit
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            state.issued -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link on which `best` at once are fastest; returns the limit after so many epochs.
    fn settle(controller: &mut Controller, best: usize, epochs: u32, now: &mut Instant) -> usize {
        for _ in 0..epochs {
            let useful = controller.limit.min(best) as u64;
            *now += EPOCH;
            controller.full = true;
            for _ in 0..controller.limit {
                controller.done(useful * 1_000 / controller.limit as u64, *now);
            }
        }
        controller.limit
    }

    #[test]
    fn grows_while_that_helps_and_not_further() {
        for (best, expected) in [(1000, 64), (64, 64), (30, 32), (8, 8), (1, 8)] {
            let mut now = Instant::now();
            let mut controller = Controller::new(8, 64, 0, now);
            assert_eq!(settle(&mut controller, best, 10, &mut now), expected, "{best}");
        }
        let now = Instant::now();
        assert_eq!(Controller::new(8, 3, 0, now).limit, 3);
    }

    #[test]
    fn an_overload_halves_once_and_growth_is_slow_afterwards() {
        let mut now = Instant::now();
        let mut controller = Controller::new(8, 64, 0, now);
        settle(&mut controller, 1000, 10, &mut now);
        // All 64 requests on their way meet the same overload.
        (0..64).for_each(|_| controller.overloaded(0, 64, now));
        assert_eq!(controller.limit, 32);
        // More are on their way than may be now.
        controller.overloaded(1, 64, now);
        assert_eq!(controller.limit, 16);
        assert_eq!(settle(&mut controller, 1000, 30, &mut now), 16, "first it rests");
        now += REST;
        assert_eq!(settle(&mut controller, 1000, 1, &mut now), 20);
        for generation in 2..20 {
            controller.overloaded(generation, 64, now);
        }
        assert_eq!(controller.limit, 1, "never none");
    }

    #[test]
    fn half_is_half_of_what_was_on_its_way() {
        let now = Instant::now();
        let mut controller = Controller::new(256, 256, 0, now);
        controller.overloaded(0, 1, now);
        assert_eq!(controller.limit, 128, "it was alone");
        controller.overloaded(1, 16, now);
        assert_eq!(controller.limit, 8);
    }

    #[test]
    fn what_would_be_lost_is_little_beside_what_is_done() {
        let mut now = Instant::now();
        let mut controller = Controller::new(2, 16, 8, now);
        while controller.limit < 16 {
            settle(&mut controller, 1000, 1, &mut now);
            let (limit, done) = (controller.limit, controller.total);
            assert!(limit <= 2 || limit * 4 <= done, "{limit} of {done}");
            assert!(done < 200, "it grows");
        }
    }

    #[test]
    fn an_idle_gate_does_not_grow() {
        let mut now = Instant::now();
        let mut controller = Controller::new(8, 64, 0, now);
        for _ in 0..100 {
            now += EPOCH;
            controller.done(1_000, now);
        }
        assert_eq!(controller.limit, 8);
    }

    #[test]
    fn more_is_on_its_way_only_where_it_is_carried() {
        let began = Instant::now();
        // Objects of 64 KiB each, so many a second.
        let after = |rate: u32, seconds: u32| {
            let mut state = AheadState { limit: AHEAD_TO_BEGIN, done: 0, began: Some(began) };
            for object in 1..=rate * seconds {
                state.done(64 * 1024, began + Duration::from_secs(1) * object / rate);
            }
            state.limit
        };
        assert_eq!(after(1, 300), AHEAD_TO_BEGIN, "it takes half a minute");
        assert_eq!(after(8, 10), 8 * 1024 * 1024 / 16 * 15);
        assert_eq!(after(1000, 1), AHEAD);
    }

    #[test]
    fn turns_follow_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new(4, 8, 0);
            let mut turns = Vec::new();
            for _ in 0..4 {
                turns.push(gate.turn().await);
            }
            assert_eq!(gate.permits.available_permits(), 0);
            turns[0].overloaded();
            turns[1].overloaded();
            turns.pop();
            assert_eq!(gate.permits.available_permits(), 0, "it was owed");
            turns.clear();
            assert_eq!(gate.permits.available_permits(), 2);
        });
    }
}
