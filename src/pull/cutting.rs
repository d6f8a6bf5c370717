//! What clients of the feed are told with: the transaction that ends a pass says that its tables equal one view.

use super::session::Session;
use crate::core::error::Result;
use crate::provider::View;
use crate::replica::Cut;

impl Session<'_> {
    /// All tables equal the view but those that are left as they are, or that nobody looks at.
    pub(super) fn cut(&self, view: &View) -> Cut {
        let is_unseen =
            |name: &&String| self.is_following && !self.is_followed(name) && !self.problems.contains_key(*name);
        Cut {
            at: Some(view.at.clone()),
            held: self.problems.keys().cloned().collect(),
            unseen: self.description.tables.keys().filter(is_unseen).cloned().collect(),
        }
    }

    /// Whether clients wait for this, though nothing is to be written.
    pub(super) fn is_to_cut(&self, cut: Option<&Cut>) -> bool {
        cut.is_some_and(|cut| self.writer.replica.is_to_cut_aside(&cut.held))
    }

    /// After a comparison: what it has written follows the last cut, and is told with the next pass, which is this one.
    pub(super) async fn pass_after_comparing(&mut self) -> Result<()> {
        if self.writer.replica.is_to_cut_aside(&Default::default()) { self.pass().await } else { Ok(()) }
    }
}
