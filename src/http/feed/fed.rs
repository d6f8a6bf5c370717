//! What is fed, and to whom.

use super::refusal::Refusal;
use crate::config::TokenSources;
use crate::core::claims::Claims;
use crate::core::config_error::ConfigError;
use crate::core::schema::Table;
use crate::feed::access::{self, Denied};
use crate::feed::board::Board;
use crate::feed::figures::Figures;
use crate::feed::herald::{Feeds, Herald};
use crate::feed::limits::{LIMITS, Means};
use crate::feed::memory::Memory;
use crate::http::app::App;
use crate::http::feeding::Feeding;
use crate::http::lane::Lane;
use crate::http::push::Gate;
use crate::http::tokens::{Bearer, Tokens};
use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// For all answers that are on their way.
const MEMORY_BYTES: usize = 128 << 20;

/// For changes that are kept for those who are a little late.
const KEPT_BYTES: usize = 128 << 20;

/// For the values by which those who wait are found: of 12,000 who each have some 30 of their own, or 700 of 500.
const FOUND_BYTES: usize = 128 << 20;

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
    /// By the names of their syncs; that of the variables' queue is empty.
    pub(super) heralds: Vec<(String, Arc<Herald>)>,
    /// Queues whose tables clients write.
    written: Vec<Written>,
    pub(super) tokens: Option<Tokens>,
    /// Whoever waits is answered.
    pub(super) stopping: watch::Sender<bool>,
    means: Means,
    pub(super) sockets: Memory,
    pub(super) long: Memory,
    /// What those were answered who asked for no table that there is.
    unknown: Arc<Figures>,
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
            means: Means {
                limits: LIMITS,
                memory: Memory::new(MEMORY_BYTES),
                kept: Memory::new(KEPT_BYTES),
                found: Memory::new(FOUND_BYTES),
            },
            sockets: Memory::new(SOCKETS_BYTES),
            long: Memory::new(LONG_BYTES),
            unknown: Arc::default(),
        };
        for (name, lane) in app.named_lanes() {
            let worker = &lane.worker;
            let fed: Vec<_> = worker.schema().tables().filter(|table| table.feed.is_some()).cloned().collect();
            let (target, queue) = (worker.target().clone(), Feeds::Queue(worker.queue().as_str()));
            let herald = feed.add(name, Herald::new(target, queue, &fed, feed.means.clone(), worker.seen()));
            if worker.schema().tables().any(|table| table.writable.is_some()) {
                feed.written.push(Written { lane: lane.clone(), herald });
            }
        }
        for pull in app.service.pulls() {
            let (target, sync) = (pull.target().clone(), Feeds::Pull(pull.name()));
            feed.add(pull.name(), Herald::new(target, sync, pull.fed(), feed.means.clone(), pull.watch()));
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

    /// What is counted of it, for operators.
    pub fn figures(&self) -> Feeding {
        let memory = [self.means.memory.clone(), self.means.kept.clone(), self.means.found.clone()];
        Feeding { heralds: self.heralds.clone(), unknown: self.unknown.clone(), memory }
    }

    /// Counts a request for this table that is not looked at further.
    pub(super) fn refused(&self, table: Option<&str>, refusal: &Refusal) {
        let figures = match table.and_then(|name| self.tables.get(name)).map(Vec::as_slice) {
            Some([source]) => source.board.figures(),
            _ => &self.unknown,
        };
        figures.count(refusal.outcome());
    }

    /// Who sends these headers.
    pub(super) async fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refusal> {
        let Some(tokens) = &self.tokens else { return Err(Refusal::denied(&Denied::Anonymous)) };
        // On the heap, as long as it takes: it may ask another server.
        Box::pin(tokens.bearer(headers)).await.map_err(|refused| Refusal::unknown(&refused))
    }

    /// Tables of a sync, if it has any that are fed.
    fn add(&mut self, name: &str, herald: Herald) -> Option<Arc<Herald>> {
        if herald.boards().is_empty() {
            return None;
        }
        let herald = Arc::new(herald);
        self.heralds.push((name.to_owned(), herald.clone()));
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
