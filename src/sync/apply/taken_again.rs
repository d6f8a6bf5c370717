//! Images that the ledger must not list, because one of them was rejected: its dead letter is written with the step, and
//! where that is not acknowledged, it is taken again. Then all that share a key with it have to come with it, directly or
//! by way of others: an image that comes alone would take back what newer ones did. No IO.

use crate::core::batch::Item;
use crate::core::value::Key;
use std::collections::BTreeSet;

/// Those of one step.
#[derive(Debug, Default)]
pub(in crate::sync) struct TakenAgain {
    /// Their keys, by table.
    keys: BTreeSet<(String, Key)>,
    images: BTreeSet<i64>,
}

impl TakenAgain {
    /// The images of this row are.
    pub fn reject(&mut self, item: &Item) {
        if !item.images.is_empty() {
            self.add(item);
        }
    }

    /// The `images` of a batch of `items` but for those.
    pub fn without(&mut self, items: &[Item], images: &[i64]) -> Vec<i64> {
        if !self.keys.is_empty() {
            self.spread(items);
        }
        images.iter().copied().filter(|id| !self.images.contains(id)).collect()
    }

    fn spread(&mut self, items: &[Item]) {
        loop {
            let known = self.images.len();
            for item in items.iter().filter(|item| !item.images.is_empty()) {
                let shares_key = self.keys.contains(&(item.table.name.clone(), item.key.clone()));
                if shares_key || item.images.iter().any(|id| self.images.contains(id)) {
                    self.add(item);
                }
            }
            if self.images.len() == known {
                break;
            }
        }
    }

    fn add(&mut self, item: &Item) {
        self.keys.insert((item.table.name.clone(), item.key.clone()));
        self.images.extend(&item.images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::RowState;
    use crate::core::schema::Schema;
    use crate::core::value::Cell;

    #[test]
    fn what_shares_a_key_with_a_rejected_image_by_way_of_others_and_over_batches_comes_with_it() {
        let schema = Schema::parse(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#).unwrap();
        let table = schema.get("t").unwrap();
        let item = |key: i64, images: &[i64]| Item {
            table: table.clone(),
            key: vec![Cell::Integer(key)],
            state: RowState::Gone,
            images: images.to_vec(),
        };
        let mut again = TakenAgain::default();
        let listed = |again: &mut TakenAgain, items: &[Item]| {
            let images: Vec<i64> = items.iter().flat_map(|item| item.images.clone()).collect();
            again.without(items, &images)
        };
        let first = [item(1, &[10, 11]), item(2, &[11, 12]), item(3, &[12]), item(4, &[13])];
        assert_eq!(listed(&mut again, &first).len(), 6, "nothing was rejected");
        again.reject(&first[0]);
        assert_eq!(listed(&mut again, &first), [13]);
        assert_eq!(listed(&mut again, &[item(3, &[20]), item(5, &[20, 21]), item(6, &[22])]), [22], "the next batch");
        again.reject(&item(6, &[]));
        assert_eq!(listed(&mut again, &[item(6, &[30])]), [30], "marks are read again whatever comes");
    }
}
