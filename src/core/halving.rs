//! The search for what is at fault: what fails is cut into parts, which are tried one by one, until it stands alone.
//! No IO.

use std::ops::Range;

/// The parts of a list that are still to be tried, in its order.
#[derive(Debug)]
pub struct Search {
    /// The next one last.
    todo: Vec<Range<usize>>,
}

impl Search {
    /// All of so many, in parts of at most `most`.
    pub fn of(count: usize, most: usize) -> Self {
        let mut search = Self { todo: Vec::new() };
        search.put_back(0..count, most);
        search
    }

    /// The next part, or its first `most`.
    pub fn take(&mut self, most: usize) -> Option<Range<usize>> {
        let part = self.todo.pop()?;
        let cut = part.start.saturating_add(most.max(1)).min(part.end);
        self.again(cut..part.end);
        Some(part.start..cut)
    }

    /// This part is tried next, as it is.
    pub fn again(&mut self, part: Range<usize>) {
        if !part.is_empty() {
            self.todo.push(part);
        }
    }

    /// The same in both halves.
    pub fn halve(&mut self, part: &Range<usize>) {
        halves(part).into_iter().rev().for_each(|half| self.again(half));
    }

    /// The same in parts of at most `most`.
    pub fn put_back(&mut self, part: Range<usize>, most: usize) {
        let starts = part.clone().step_by(most.max(1)).rev();
        starts.for_each(|start| self.again(start..part.end.min(start.saturating_add(most))));
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// What is left, in order.
    pub fn leave(&mut self) -> impl Iterator<Item = usize> {
        std::mem::take(&mut self.todo).into_iter().rev().flatten()
    }
}

/// Both halves of a part.
pub fn halves(part: &Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [part.start..middle, middle..part.end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_at_fault_is_found_alone_and_in_order() {
        for count in 0..40 {
            for bad in 0..count {
                let (mut search, mut fine, mut found) = (Search::of(count, 16), Vec::new(), Vec::new());
                while let Some(part) = search.take(7) {
                    match part.contains(&bad) {
                        true if part.len() == 1 => found.push(bad),
                        true => search.halve(&part),
                        false => fine.extend(part),
                    }
                }
                assert_eq!(found, [bad]);
                assert_eq!(fine, (0..count).filter(|&i| i != bad).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_left_comes_in_order_and_once() {
        let mut search = Search::of(10, usize::MAX);
        assert_eq!(search.take(4), Some(0..4));
        search.put_back(0..4, 3);
        assert_eq!(search.take(2), Some(0..2));
        assert_eq!(search.leave().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(search.is_done());
    }
}
