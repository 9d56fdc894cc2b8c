use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::Instant;

/// So many may be out of date before they are looked for.
const SPARE: usize = 1024;

/// Deadlines that are kept elsewhere, with what they are of; here is only what reminds of them. That costs nearly nothing where
/// most deadlines are so long after they are set as one of a few others, as those of a protocol are: what is as long comes
/// due in the order in which it was set.
///
/// A deadline that is moved is added once more, and one that is not must not be; one that is gone is not taken out. So whoever asks what is due has to say what
/// the deadline of each is now.
#[derive(Clone, Debug)]
pub struct Reminders<K> {
    /// Each in order.
    runs: Vec<VecDeque<(Instant, K)>>,
    /// With more than these, it is time to look for those that are out of date.
    limit: usize,
}

impl<K> Default for Reminders<K> {
    fn default() -> Self {
        Self { runs: Vec::new(), limit: SPARE }
    }
}

impl<K: Copy> Reminders<K> {
    /// Reminds of `name` at that moment, if that is its deadline then.
    pub fn add(&mut self, name: K, at: Instant) {
        let last = |run: &VecDeque<(Instant, K)>| run.back().map(|(last, _)| *last);
        // The run that ends the latest, so that a longer way leaves the others free for shorter ones.
        let fits = self.runs.iter_mut().filter(|run| last(run) <= Some(at));
        match fits.max_by_key(|run| last(run)) {
            Some(run) => run.push_back((at, name)),
            None => self.runs.push([(at, name)].into()),
        }
    }

    /// The earliest deadline, where `current` gives that of a name, if it has one.
    pub fn next(&mut self, mut current: impl FnMut(&K) -> Option<Instant>) -> Option<Instant> {
        let mut holds = |(at, name): &(Instant, K)| current(name) == Some(*at);
        if self.len() > self.limit {
            self.runs.iter_mut().for_each(|run| run.retain(&mut holds));
            self.limit = 2 * self.len() + SPARE;
        }
        for run in &mut self.runs {
            while run.front().is_some_and(|first| !holds(first)) {
                run.pop_front();
            }
        }
        self.runs.retain(|run| !run.is_empty());
        self.runs.iter().filter_map(|run| run.front()).map(|(at, _)| *at).min()
    }

    /// Takes out what is due the longest, if anything is due by `now`; `current` as in [`Reminders::next`].
    pub fn due(&mut self, now: Instant, mut current: impl FnMut(&K) -> Option<Instant>) -> Option<K> {
        loop {
            let first = |run: &VecDeque<(Instant, K)>| run.front().map(|(at, _)| *at);
            let due = self.runs.iter_mut().filter(|run| first(run).is_some_and(|at| at <= now));
            let (at, name) = due.min_by_key(|run| first(run))?.pop_front()?;
            if current(&name) == Some(at) {
                return Some(name);
            }
        }
    }

    /// How many there are, those that are out of date among them.
    pub fn len(&self) -> usize {
        self.runs.iter().map(VecDeque::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use core::time::Duration;

    use super::*;
    use crate::Alarms;

    /// What is due, and when something will be, is what others say who know each deadline.
    #[test]
    fn reminders_come_due_like_alarms() {
        let mut alarms = Alarms::default();
        let (mut reminders, mut deadlines) = (Reminders::default(), BTreeMap::new());
        for step in 0..20_000_u64 {
            let (name, now) = (step * 7919 % 61, Instant::from_millis(step));
            // Of a few lengths, and now and then of any.
            let length = [10, 40, 300, 5000, step * 1009 % 4999 + 5][(step * 31 % 5) as usize];
            let at = (step % 7 != 0).then_some(now + Duration::from_millis(length));
            alarms.set(name, at);
            match at {
                Some(at) => {
                    deadlines.insert(name, at);
                    reminders.add(name, at);
                }
                None => drop(deadlines.remove(&name)),
            }
            if step % 3 == 0 {
                assert_eq!(reminders.next(|name| deadlines.get(name).copied()), alarms.next(), "{step}");
                assert!(reminders.len() <= reminders.limit && reminders.limit <= 2 * 61 + SPARE);
            }
            if step % 11 == 0 {
                let all = |next: &mut dyn FnMut() -> Option<u64>| {
                    let mut due: Vec<_> = core::iter::from_fn(next).collect();
                    due.sort_unstable();
                    due
                };
                let reminded = all(&mut || {
                    let name = reminders.due(now, |name| deadlines.get(name).copied())?;
                    deadlines.remove(&name);
                    Some(name)
                });
                assert_eq!(reminded, all(&mut || alarms.due(now)), "{step}");
            }
        }
    }

    #[test]
    fn the_longest_due_comes_first_and_deadlines_of_a_few_lengths_need_as_many_runs() {
        let mut reminders = Reminders::default();
        let at = |length, nth| Instant::from_millis(length + nth);
        for nth in 0..100 {
            for length in [100, 5_000, 120_000] {
                reminders.add((length, nth), at(length, nth));
            }
        }
        assert_eq!(reminders.runs.len(), 3);
        let current = |(length, nth): &(u64, u64)| Some(at(*length, *nth));
        let due = core::iter::from_fn(|| reminders.due(Instant::from_millis(5_098), current));
        let due: Vec<_> = due.map(|(length, nth)| length + nth).collect();
        assert_eq!((due.len(), due.is_sorted()), (199, true));
        assert_eq!(reminders.next(current), Some(Instant::from_millis(5_099)));
    }
}
