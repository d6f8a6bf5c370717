//! What is fed, and to whom.

use crate::config::TokenSources;
use crate::core::config_error::ConfigError;
use crate::core::schema::Table;
use crate::core::token::Seen;
use crate::feed::access;
use crate::feed::board::Board;
use crate::feed::herald::Herald;
use crate::feed::memory::Memory;
use crate::http::app::App;
use crate::http::lane::Lane;
use crate::http::tokens::Tokens;
use crate::replica::target::Target;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// For all answers that are on their way, and changes that are kept for the late.
const MEMORY_BYTES: usize = 256 << 20;

/// A table that is fed, and who knows of its replica.
pub(super) struct Source {
    pub board: Arc<Board>,
    pub herald: Arc<Herald>,
}

impl Source {
    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        self.board.table()
    }
}

/// All that is fed.
pub struct Feed {
    /// By the names that tables go by.
    pub(super) tables: BTreeMap<String, Vec<Arc<Source>>>,
    pub(super) heralds: Vec<(Arc<Herald>, watch::Receiver<Option<Seen>>)>,
    pub(super) tokens: Option<Tokens>,
    /// Whoever waits is answered.
    pub(super) stopping: watch::Sender<bool>,
    memory: Memory,
}

impl Feed {
    /// What queues and syncs that pull feed, to those whose tokens are good by these sources; `None` where no table is.
    pub fn of(app: &App, tokens: TokenSources) -> Result<Option<Self>, ConfigError> {
        let mut feed = Self {
            tables: BTreeMap::new(),
            heralds: Vec::new(),
            tokens: Tokens::new(tokens)?,
            stopping: watch::Sender::new(false),
            memory: Memory::new(MEMORY_BYTES),
        };
        for Lane { worker, .. } in app.lanes().map(|lane| &**lane) {
            let fed: Vec<_> = worker.schema().tables().filter(|table| table.feed.is_some()).cloned().collect();
            feed.add(&fed, worker.target(), worker.seen());
        }
        for pull in app.service.pulls() {
            feed.add(pull.fed(), pull.target(), pull.watch());
        }
        let closed = feed.tables.values().flatten().find(|source| access::needs_token(source.table()));
        match (closed, &feed.tokens) {
            (Some(source), None) => Err(ConfigError(format!(
                "the table {:?} is fed to those who have a token, and nothing says how tokens are checked: set FEED_JWT_SECRET (HS256), FEED_JWKS_URL (RS256, ES256) or FEED_AUTH_URL",
                source.table().name
            ))),
            _ => Ok((!feed.tables.is_empty()).then_some(feed)),
        }
    }

    /// Tables of a sync; `brought` tells when this process has brought its replica somewhere.
    fn add(&mut self, fed: &[Arc<Table>], target: &Target, brought: watch::Receiver<Option<Seen>>) {
        if fed.is_empty() {
            return;
        }
        let herald = Arc::new(Herald::new(target.clone(), fed, self.memory.clone()));
        self.heralds.push((herald.clone(), brought));
        for board in herald.boards() {
            let table = board.table();
            let mut names = vec![table.name.clone(), table.source.written(), table.source.quoted()];
            names.sort();
            names.dedup();
            let source = Arc::new(Source { board: board.clone(), herald: herald.clone() });
            for name in names {
                self.tables.entry(name).or_default().push(source.clone());
            }
        }
    }
}
