//! Uniform choice without replacement, at a cost that follows what is taken and not what there is.

use std::collections::BTreeMap;

use rand_core::Rng;

/// The numbers below `end` in random order, drawn lazily: a Fisher-Yates shuffle that remembers only the places
/// it has touched.
pub(crate) struct Shuffle<'a, R> {
    next: usize,
    end: usize,
    moved: BTreeMap<usize, usize>,
    rng: &'a mut R,
}

impl<'a, R: Rng> Shuffle<'a, R> {
    pub(crate) const fn new(end: usize, rng: &'a mut R) -> Self {
        Self {
            next: 0,
            end,
            moved: BTreeMap::new(),
            rng,
        }
    }
}

impl<R: Rng> Iterator for Shuffle<'_, R> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        let at = self.next.saturating_add(below(left, self.rng));
        // The value of this place goes where the drawn value came from; this place is never read again.
        let mine = self.moved.remove(&self.next).unwrap_or(self.next);
        let drawn = if at == self.next {
            mine
        } else {
            self.moved.insert(at, mine).unwrap_or(at)
        };
        self.next = self.next.saturating_add(1);
        Some(drawn)
    }
}

/// A uniform number below `n`, which is at least 1 (Lemire's method, without its bias).
fn below(n: usize, rng: &mut impl Rng) -> usize {
    let n = n as u64;
    let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(n);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the product"
        )]
        let [high, low] = [(wide >> 64) as u64, wide as u64];
        if low >= threshold {
            return usize::try_from(high).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::*;

    proptest! {
        #[test]
        fn a_full_draw_is_a_permutation(end in 0_usize..300, seed: u64) {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut drawn: Vec<_> = Shuffle::new(end, &mut rng).collect();
            drawn.sort_unstable();
            prop_assert_eq!(drawn, (0..end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_number_leads_equally_often() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let mut first = [0_u32; 10];
        for _ in 0..10_000 {
            first[Shuffle::new(10, &mut rng).next().unwrap()] += 1;
        }
        assert!(
            first.iter().all(|count| (850..1_150).contains(count)),
            "{first:?}"
        );
    }

    #[test]
    fn one_seed_gives_one_order() {
        let draw = |seed| -> Vec<_> {
            Shuffle::new(50, &mut ChaCha12Rng::seed_from_u64(seed))
                .take(10)
                .collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
