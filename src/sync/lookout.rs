//! When a session looks at the catalog on its second connection. No IO.

/// Steps that ask for themselves after one on the second connection came too early for its step.
const TOO_EARLY: u32 = 32;

/// Whether the catalog is looked at on the second connection while the first one takes: as long as the rest together.
/// What it says holds for the step if it has seen all that the step sees, as it has unless somebody committed just then.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    is_on: bool,
    /// Steps for which it is not.
    rest: u32,
}

impl Lookout {
    /// Both connections have sessions of their own.
    pub fn begin(&mut self) {
        self.is_on = true;
    }

    /// Whether they have.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// It had not seen all that its step sees.
    pub fn came_too_early(&mut self) {
        self.rest = TOO_EARLY;
    }

    /// Whether it looks for the next step.
    pub fn looks(&mut self) -> bool {
        let is_resting = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        self.is_on && !is_resting
    }
}
