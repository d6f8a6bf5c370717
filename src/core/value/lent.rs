//! Large values are not copied: whoever has them lends them.

use std::fmt;
use std::sync::Arc;

/// What holds a value and does not change: a row as it came, for one.
pub trait Lender: Send + Sync {
    /// The value's bytes.
    fn bytes(&self) -> &[u8];
}

/// A value that is lent.
#[derive(Clone)]
pub struct Lent {
    lender: Arc<dyn Lender>,
    is_text: bool,
}

impl Lent {
    /// A text; `None` if it is no UTF-8.
    pub fn as_text(lender: Arc<dyn Lender>) -> Option<Self> {
        let is_text = std::str::from_utf8(lender.bytes()).is_ok();
        is_text.then_some(Self { lender, is_text })
    }

    /// Bytes.
    pub(crate) fn as_blob(lender: Arc<dyn Lender>) -> Self {
        Self { lender, is_text: false }
    }

    /// Whether it is a text.
    pub(crate) fn is_text(&self) -> bool {
        self.is_text
    }

    /// The bytes, of a text as well.
    pub fn bytes(&self) -> &[u8] {
        self.lender.bytes()
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if self.is_text { std::str::from_utf8(self.bytes()).ok() } else { None }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", if self.is_text { "a text" } else { "a blob" }, self.bytes().len())
    }
}
