//! A source whose every closing view is read a second time, whole: what a pass has to equal.

use async_trait::async_trait;
use pgflume::core::error::Result;
use pgflume::core::message::MarkedKey;
use pgflume::core::value::{Cell, Key};
use pgflume::provider::{Begun, Description, Follows, Found, Limits, Look, Part, Provider, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Rows by table and key.
pub type Contents = BTreeMap<String, BTreeMap<Key, Vec<Cell>>>;

/// What the last view held, when all that was read in it was read.
pub type Seen = Arc<Mutex<Contents>>;

pub struct Watched<P> {
    pub inner: P,
    pub seen: Seen,
}

#[async_trait]
impl<P: Provider> Provider for Watched<P> {
    async fn open(&self) -> Result<Box<dyn Source>> {
        let inner = self.inner.open().await?;
        Ok(Box::new(WatchedSource { inner, seen: self.seen.clone(), marks: BTreeMap::new() }))
    }
}

struct WatchedSource {
    inner: Box<dyn Source>,
    seen: Seen,
    /// The mark of each table of this view.
    marks: BTreeMap<String, String>,
}

const ALL: Limits = Limits { rows: usize::MAX, bytes: usize::MAX };

impl WatchedSource {
    /// Reads all tables once more; whether they are made of what was looked at.
    async fn read(&mut self) -> Result<bool> {
        let mut contents = Contents::new();
        for (table, mark) in self.marks.clone() {
            if self.inner.look(&table, None, None).await?.mark != mark {
                return Ok(false);
            }
            let rows: &mut BTreeMap<Key, Vec<Cell>> = contents.entry(table).or_default();
            loop {
                let part = self.inner.next(ALL).await?;
                for found in part.found {
                    if let Found::Row(key, cells) = found {
                        assert!(rows.insert(key, cells).is_none(), "a key was read twice at one snapshot");
                    }
                }
                if part.is_end {
                    break;
                }
            }
        }
        *self.seen.lock().unwrap() = contents;
        self.inner.is_whole().await
    }
}

#[async_trait]
impl Source for WatchedSource {
    async fn describe(&mut self) -> Result<Arc<Description>> {
        self.inner.describe().await
    }

    fn outgrown(&self, before: &str, now: &str) -> Option<String> {
        self.inner.outgrown(before, now)
    }

    fn columns(&self, definition: &str) -> BTreeSet<String> {
        self.inner.columns(definition)
    }

    fn follows(&self, before: &str, now: &str) -> Follows {
        self.inner.follows(before, now)
    }

    async fn begin(&mut self, tables: &[&str]) -> Result<Begun> {
        self.marks.clear();
        self.inner.begin(tables).await
    }

    async fn look(&mut self, table: &str, since: Option<&str>, place: Option<&str>) -> Result<Look> {
        let look = self.inner.look(table, since, place).await?;
        self.marks.insert(table.to_owned(), look.mark.clone());
        Ok(look)
    }

    async fn next(&mut self, limits: Limits) -> Result<Part> {
        self.inner.next(limits).await
    }

    async fn rows(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>> {
        self.inner.rows(table, keys).await
    }

    async fn absent(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<usize>> {
        self.inner.absent(table, keys).await
    }

    async fn counts(&mut self, table: &str, bounds: &[MarkedKey]) -> Result<Vec<i64>> {
        self.inner.counts(table, bounds).await
    }

    async fn is_whole(&mut self) -> Result<bool> {
        Ok(self.inner.is_whole().await? && self.read().await?)
    }

    async fn make_durable(&mut self) -> Result<()> {
        self.inner.make_durable().await
    }

    async fn end(&mut self) -> Result<()> {
        self.inner.end().await
    }
}

/// What is done at some place of a pass: before its first write, or after a view.
pub type Hook = Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync>;

/// A source at which something happens on the way.
pub struct Hooked<P> {
    pub inner: P,
    /// When a view has begun.
    pub begun: Option<Hook>,
    /// Before all that was read in a view is written.
    pub durable: Option<Hook>,
    /// After a view.
    pub end: Option<Hook>,
}

#[async_trait]
impl<P: Provider> Provider for Hooked<P> {
    async fn open(&self) -> Result<Box<dyn Source>> {
        let inner = self.inner.open().await?;
        Ok(Box::new(HookedSource {
            inner,
            begun: self.begun.clone(),
            durable: self.durable.clone(),
            end: self.end.clone(),
        }))
    }
}

struct HookedSource {
    inner: Box<dyn Source>,
    begun: Option<Hook>,
    durable: Option<Hook>,
    end: Option<Hook>,
}

#[async_trait]
impl Source for HookedSource {
    async fn describe(&mut self) -> Result<Arc<Description>> {
        self.inner.describe().await
    }

    fn outgrown(&self, before: &str, now: &str) -> Option<String> {
        self.inner.outgrown(before, now)
    }

    fn columns(&self, definition: &str) -> BTreeSet<String> {
        self.inner.columns(definition)
    }

    fn follows(&self, before: &str, now: &str) -> Follows {
        self.inner.follows(before, now)
    }

    async fn begin(&mut self, tables: &[&str]) -> Result<Begun> {
        let begun = self.inner.begin(tables).await?;
        if let Some(hook) = &self.begun {
            hook().await;
        }
        Ok(begun)
    }

    async fn look(&mut self, table: &str, since: Option<&str>, place: Option<&str>) -> Result<Look> {
        self.inner.look(table, since, place).await
    }

    async fn next(&mut self, limits: Limits) -> Result<Part> {
        self.inner.next(limits).await
    }

    async fn rows(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>> {
        self.inner.rows(table, keys).await
    }

    async fn absent(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<usize>> {
        self.inner.absent(table, keys).await
    }

    async fn counts(&mut self, table: &str, bounds: &[MarkedKey]) -> Result<Vec<i64>> {
        self.inner.counts(table, bounds).await
    }

    async fn is_whole(&mut self) -> Result<bool> {
        self.inner.is_whole().await
    }

    async fn make_durable(&mut self) -> Result<()> {
        self.inner.make_durable().await?;
        if let Some(hook) = &self.durable {
            hook().await;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        self.inner.end().await?;
        if let Some(hook) = &self.end {
            hook().await;
        }
        Ok(())
    }
}
