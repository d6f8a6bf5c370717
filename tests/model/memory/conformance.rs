//! The rules of the seam, run on the server in memory.

use super::engine::Lock;
use super::engine::Wait;
use super::link::Memory;
use super::postgres::Postgres;
use super::tables::{QUEUE, Reading, Row};
use super::writer::Writer;
use crate::seam::{self, Application, Bench, Odd, Place};
use async_trait::async_trait;
use pgflume::core::value::Cell;
use pgflume::postgres::Purpose;
use pgflume::postgres::link::{Connect, Link};
use std::time::Duration;

struct InMemory(Memory);

impl InMemory {
    fn new() -> Self {
        Self(Memory::new(Postgres::new(seam::schema(), &["t"])))
    }
}

#[async_trait]
impl Bench for InMemory {
    async fn connect(&self) -> Box<dyn Link> {
        self.0.connect(Purpose::Step).await.unwrap()
    }

    async fn begin(&self) -> Box<dyn Application> {
        Box::new(self.0.postgres.writer())
    }

    async fn put_odd(&self, id: i64, odd: Odd) {
        let reading = match odd {
            Odd::Fits => Reading::Fits,
            Odd::Unfit => Reading::Unfit,
            Odd::Unreadable => Reading::Unreadable,
            Odd::Slow => Reading::Slow,
        };
        let mut writer = self.0.postgres.writer();
        let row = Row { cells: vec![Cell::Integer(id), Cell::Integer(1)], reading };
        writer.put_unseen("w", row).await.unwrap();
        writer.commit(true).unwrap();
    }

    async fn remake_column(&self) {
        let wait = Wait::For(Duration::from_secs(1));
        self.0.postgres.alter_type("t", "v", Cell::Null, wait).await.unwrap();
    }
}

fn key(id: i64) -> Vec<String> {
    vec![id.to_string()]
}

fn row(id: i64, v: &str) -> Row {
    Row::new(vec![Cell::Integer(id), Cell::Text(v.to_owned())])
}

#[async_trait]
impl Application for Writer {
    async fn put(&mut self, id: i64, v: &str) {
        Self::put(self, "t", row(id, v)).await.unwrap();
    }

    async fn delete(&mut self, id: i64) {
        Self::delete(self, "t", &key(id)).await.unwrap();
    }

    async fn rekey(&mut self, from: i64, to: i64) {
        let rows = self.rows("t").unwrap();
        let mut moved = rows.iter().find(|row| row.cells[0] == Cell::Integer(from)).unwrap().as_ref().clone();
        moved.cells[0] = Cell::Integer(to);
        assert!(Self::rekey(self, "t", &key(from), moved).await.unwrap());
    }

    async fn truncate(&mut self, patience: Duration) -> bool {
        self.set_wait(Wait::For(patience));
        Self::truncate(self, "t").await.is_ok()
    }

    async fn send(&mut self, text: &str) -> i64 {
        Self::send(self, Some(text)).await.unwrap()
    }

    async fn delete_message(&mut self, id: i64) {
        assert!(Self::delete_message(self, id).await.unwrap());
    }

    async fn touch_message(&mut self, id: i64) {
        assert!(Self::touch_message(self, id).await.unwrap());
    }

    async fn lock(&mut self, place: Place, patience: Duration) -> bool {
        self.set_wait(Wait::For(patience));
        let place = if place == Place::Table { "t" } else { QUEUE };
        Self::lock(self, place, Lock::AccessExclusive).await.is_ok()
    }

    async fn commit(self: Box<Self>) {
        Self::commit(*self, true).unwrap();
    }

    async fn rollback(self: Box<Self>) {
        self.abort();
    }
}

macro_rules! in_memory {
    ($($rule:ident)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $rule() {
            seam::$rule(&InMemory::new()).await;
        })*
    };
}

seam::each_rule!(in_memory);
