//! What is fed, and to whom.

use super::refusal::Refusal;
use crate::config::TokenSources;
use crate::core::claims::Claims;
use crate::core::config_error::ConfigError;
use crate::core::schema::Table;
use crate::core::token::Seen;
use crate::feed::access::{self, Denied};
use crate::feed::board::Board;
use crate::feed::herald::Herald;
use crate::feed::memory::Memory;
use crate::http::app::App;
use crate::http::lane::Lane;
use crate::http::push::Gate;
use crate::http::tokens::{Bearer, Tokens};
use crate::replica::target::Target;
use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// For all answers that are on their way, and changes that are kept for the late.
const MEMORY_BYTES: usize = 256 << 20;

/// For the shapes of all sockets.
const SOCKETS_BYTES: usize = 256 << 20;

/// For messages of sockets that are longer than others.
const LONG_BYTES: usize = 64 << 20;

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

/// A queue whose tables clients write, and who knows of its replica, where that is fed.
struct Written {
    lane: Arc<Lane>,
    herald: Option<Arc<Herald>>,
}

/// All that is fed.
pub struct Feed {
    /// By the names that tables go by.
    pub(super) tables: BTreeMap<String, Vec<Arc<Source>>>,
    pub(super) heralds: Vec<Arc<Herald>>,
    /// Queues whose tables clients write.
    written: Vec<Written>,
    pub(super) tokens: Option<Tokens>,
    /// Whoever waits is answered.
    pub(super) stopping: watch::Sender<bool>,
    memory: Memory,
    pub(super) sockets: Memory,
    pub(super) long: Memory,
}

impl Feed {
    /// What queues and syncs that pull feed, to those whose tokens are good by these sources; `None` where no table is, and
    /// clients do not write.
    pub fn of(app: &App, tokens: TokenSources, takes_writes: bool) -> Result<Option<Self>, ConfigError> {
        let mut feed = Self {
            tables: BTreeMap::new(),
            heralds: Vec::new(),
            written: Vec::new(),
            tokens: Tokens::new(tokens)?,
            stopping: watch::Sender::new(false),
            memory: Memory::new(MEMORY_BYTES),
            sockets: Memory::new(SOCKETS_BYTES),
            long: Memory::new(LONG_BYTES),
        };
        for lane in app.lanes() {
            let worker = &lane.worker;
            let fed: Vec<_> = worker.schema().tables().filter(|table| table.feed.is_some()).cloned().collect();
            let herald = feed.add(&fed, (worker.target(), worker.queue().as_str()), worker.seen());
            if worker.schema().tables().any(|table| table.writable.is_some()) {
                feed.written.push(Written { lane: lane.clone(), herald });
            }
        }
        for pull in app.service.pulls() {
            feed.add(pull.fed(), (pull.target(), pull.name()), pull.watch());
        }
        let closed = feed.tables.values().flatten().find(|source| access::needs_token(source.table()));
        match (closed, &feed.tokens) {
            (Some(source), None) => Err(ConfigError(format!(
                "the table {:?} is fed to those who have a token, and nothing says how tokens are checked: set FEED_JWT_SECRET (HS256), FEED_JWKS_URL (RS256, ES256) or FEED_AUTH_URL",
                source.table().name
            ))),
            (None, None) if takes_writes => Err(ConfigError(
                "PUSH_URL is set, and nothing says how the tokens of clients are checked: set FEED_JWT_SECRET (HS256), FEED_JWKS_URL (RS256, ES256) or FEED_AUTH_URL"
                    .to_owned(),
            )),
            _ => Ok((takes_writes || !feed.tables.is_empty()).then_some(feed)),
        }
    }

    /// Who sends these headers.
    pub(super) async fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refusal> {
        let Some(tokens) = &self.tokens else { return Err(Refusal::denied(&Denied::Anonymous)) };
        tokens.bearer(headers).await.map_err(|refused| Refusal::unknown(&refused))
    }

    /// Tables of a sync; `brought` tells when this process has brought its replica somewhere.
    fn add(
        &mut self,
        fed: &[Arc<Table>],
        (target, sync): (&Target, &str),
        brought: watch::Receiver<Option<Seen>>,
    ) -> Option<Arc<Herald>> {
        if fed.is_empty() {
            return None;
        }
        let herald = Arc::new(Herald::new(target.clone(), sync.to_owned(), fed, self.memory.clone(), brought));
        self.heralds.push(herald.clone());
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
        Some(herald)
    }
}

#[async_trait]
impl Gate for Feed {
    async fn claims(&self, headers: &HeaderMap) -> Result<Claims, Box<Response>> {
        let bearer = self.bearer(headers).await;
        bearer.map(|bearer| bearer.claims).map_err(|refusal| Box::new(refusal.into_response()))
    }

    async fn wrote(&self, tables: &BTreeSet<&str>, claims: &Claims, xid: u64, wait: Option<Duration>) -> Option<i64> {
        let xid = i64::try_from(xid).ok()?;
        let has_any = |lane: &Lane| tables.iter().any(|name| lane.worker.schema().get(name).is_some());
        let written: Vec<&Written> = self.written.iter().filter(|written| has_any(&written.lane)).collect();
        for Written { lane, herald } in &written {
            if let (Some(herald), Some(subject)) = (herald, claims.subject()) {
                herald.wrote(subject, xid);
            }
            lane.worker.ask_for_snapshot();
        }
        // Positions of several replicas say nothing together.
        match (&written[..], wait) {
            ([Written { herald: Some(herald), .. }], Some(wait)) => herald.arrival(xid, wait).await,
            _ => None,
        }
    }
}
