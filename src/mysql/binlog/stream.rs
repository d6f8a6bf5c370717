//! Reads a binlog from a place on, as a replica would, over a connection of its own.

use super::place::Place;
use super::statement::Said;
use crate::core::error::Error;
use crate::mysql::MySqlUrl;
use crate::mysql::session::{connect, error};
use futures_util::StreamExt;
use mysql_async::binlog::events::{QueryEvent, RotateEvent, RowsEventData, TableMapEvent};
use mysql_async::binlog::{EventType, events};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, ServerError};
use std::time::Duration;

/// How often the server says that nothing has happened.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// After so long without a word the connection is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// What happened.
pub(crate) enum Event {
    /// Rows of a table that nobody asks for were touched.
    Others,
    /// Rows of a table were touched.
    Rows(Box<(RowsEventData<'static>, TableMapEvent<'static>)>),
    Said(Said),
    /// A transaction was committed.
    End,
    /// It was prepared by this id, and is neither committed nor rolled back.
    Prepared(String),
    /// A file begins: no transaction goes over from one to the next.
    File,
    /// A statement that is a transaction by itself comes next.
    Announced,
    /// What it was is not known: rows of any table may have been touched.
    Unknown,
    /// Nothing.
    Other,
}

/// What is at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The stream ends, and its connection with a word: a server logs those that end without.
    Ends,
    /// More is waited for.
    Waits,
}

/// Why nothing is read.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The server no longer has the log from that place on: its words.
    Gone(String),
    /// The login may not read it.
    Forbidden,
    Error(Error),
}

/// A log that is read.
pub(crate) struct Stream {
    /// None once it has ended.
    events: Option<BinlogStream>,
    pub tail: Tail,
    /// The server's number.
    server: u32,
    /// When the file that is read was begun, and when the one was that was asked for: seconds since 1970.
    made: Option<u32>,
    expected: Option<u32>,
    /// Where the last event has ended.
    place: Place,
}

impl Stream {
    /// From a place on in the log of the server that has this number, whose file was begun at that time, if that is known.
    pub async fn open(
        url: &MySqlUrl,
        server: u32,
        from: &Place,
        expected: Option<u32>,
        tail: Tail,
    ) -> Result<Self, Failed> {
        if !from.can_begin() {
            return Err(Failed::Gone("it is beyond what a server can be asked for".into()));
        }
        let mut conn = connect(url).await.map_err(Failed::Error)?;
        // The second is MariaDB's: without it an XA transaction ends the stream.
        let heartbeat =
            format!("set @master_heartbeat_period = {}, @mariadb_slave_capability = 4", HEARTBEAT.as_nanos());
        conn.query_drop(heartbeat).await.map_err(|e| Failed::Error(error(e)))?;
        // A replica of the same number would end this one.
        let number = uuid::Uuid::new_v4().as_u128() as u32 | 1;
        let request = BinlogStreamRequest::new(number).with_filename(from.file.as_bytes()).with_pos(from.at);
        let request = if tail == Tail::Ends { request.with_non_blocking() } else { request };
        let events = conn.get_binlog_stream(request).await.map_err(failed)?;
        Ok(Self { events: Some(events), tail, server, made: None, expected, place: from.clone() })
    }

    /// The next event, and where it ends; `None` after `patience` without any, or at the end of the log. May be given up at
    /// any moment.
    pub async fn next(
        &mut self,
        patience: Duration,
        is_wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Option<(Place, Event)>, Failed> {
        let patience = patience.min(SILENCE);
        let Some(events) = &mut self.events else { return Ok(None) };
        let event = match tokio::time::timeout(patience, events.next()).await {
            Err(_) if patience < SILENCE => return Ok(None),
            Err(_) => {
                return Err(broken(
                    "MySQL says nothing of its binlog: the connection is given up, and it will be tried again",
                ));
            }
            Ok(None) if self.tail == Tail::Ends => {
                if let Some(events) = self.events.take() {
                    tokio::spawn(events.close());
                }
                return Ok(None);
            }
            Ok(None) => return Err(broken("MySQL has ended the stream of its binlog; it will be tried again")),
            Ok(Some(event)) => event.map_err(failed)?,
        };
        let header = event.header();
        let raw = header.event_type_raw();
        let unreadable = |_| broken("an event of the binlog cannot be read; it will be tried again");
        if raw == EventType::ROTATE_EVENT as u8 {
            let rotate = event.read_event::<RotateEvent<'_>>().map_err(unreadable)?;
            // The first one only repeats where we are, with a checksum behind it that the driver takes for a part of the name.
            if !rotate.name_raw().starts_with(self.place.file.as_bytes()) {
                self.place = Place { file: rotate.name().into_owned(), at: rotate.position() };
                (self.made, self.expected) = (None, None);
            }
            return Ok(Some((self.place.clone(), Event::Other)));
        }
        // Events that the server makes up, and those within a compressed transaction, stand nowhere.
        if header.log_pos() > 0 && !is_made_up(&header) {
            self.place.advance(header.log_pos());
        }
        if raw == EventType::FORMAT_DESCRIPTION_EVENT as u8 {
            if header.server_id() != self.server {
                return Err(broken(
                    "the binlog that came is another server's: let the host be one server; it will be tried again",
                ));
            }
            if self.expected.is_some_and(|expected| expected != header.timestamp()) {
                return Err(Failed::Gone("it was begun anew".into()));
            }
            self.made = Some(header.timestamp());
        }
        let happened = match raw {
            raw if raw == EventType::QUERY_EVENT as u8 => {
                let query = event.read_event::<QueryEvent<'_>>().map_err(unreadable)?;
                Event::Said(Said::read(query.query_raw(), &query.schema()))
            }
            raw if raw == EventType::XID_EVENT as u8 => Event::End,
            raw if raw == EventType::XA_PREPARE_LOG_EVENT as u8 => prepared(event.data()),
            // In part, before MySQL 5.1.18; the row events of a MariaDB that compresses them.
            20..=22 | 165..=171 => Event::Unknown,
            23..=25 | 30..=32 | 39 => self.rows(&event, is_wanted).unwrap_or(Event::Unknown),
            MARIADB_GTID => begin(event.data()),
            // A compressed transaction of a MySQL, whose events come next.
            40 => Event::Said(Said::Begin),
            raw if raw == EventType::FORMAT_DESCRIPTION_EVENT as u8 => Event::File,
            raw if is_silent(raw) || header.flags_raw() & IGNORABLE != 0 => Event::Other,
            _ => Event::Unknown,
        };
        Ok(Some((self.place.clone(), happened)))
    }

    /// Whether it was read to its end.
    pub fn has_ended(&self) -> bool {
        self.events.is_none()
    }

    /// The file that is read, and when it was begun, where that is known.
    pub fn made(&self) -> Option<(&str, u32)> {
        self.made.map(|made| (self.place.file.as_str(), made))
    }

    fn rows(&self, event: &events::Event, is_wanted: impl Fn(&str, &str) -> bool) -> Option<Event> {
        let Some(events::EventData::RowsEvent(rows)) = event.read_data().ok()? else { return None };
        const DUMMY: u64 = 0x00ff_ffff;
        if rows.table_id() == DUMMY {
            return Some(Event::Other);
        }
        let map = self.events.as_ref()?.get_tme(rows.table_id())?;
        // Rows of others may be large.
        Some(match is_wanted(&map.database_name(), &map.table_name()) {
            true => Event::Rows(Box::new((rows.into_owned(), map.clone()))),
            false => Event::Others,
        })
    }
}

/// MariaDB's event before a transaction.
const MARIADB_GTID: u8 = 162;

/// Whether a transaction follows that has an end of its own, by such an event.
fn begin(data: &[u8]) -> Event {
    const STANDALONE: u8 = 1;
    // Behind its number of eight bytes and its domain of four.
    match data.get(12) {
        Some(flags) if flags & STANDALONE != 0 => Event::Announced,
        _ => Event::Said(Said::Begin),
    }
}

/// An event that whoever does not know it may pass over.
const IGNORABLE: u16 = 0x80;

fn is_made_up(header: &events::BinlogEventHeader) -> bool {
    const ARTIFICIAL: u16 = 0x20;
    header.flags_raw() & ARTIFICIAL != 0
}

/// Events that touch no row: stops, formats, heartbeats, parameters of statements that speak for themselves, marks of
/// transactions, lists of them, keys.
fn is_silent(raw: u8) -> bool {
    matches!(raw, 3 | 5 | 13 | 14 | 19 | 27..=29 | 33..=37 | 41 | 42 | 160 | 161 | 163 | 164)
}

/// Of an event that says by which id a transaction was prepared, or that it was committed in the same breath.
fn prepared(data: &[u8]) -> Event {
    let number = |at: usize| data.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    let (Some(one_phase), Some(format), Some(gtrid), Some(bqual)) = (data.first(), number(1), number(5), number(9))
    else {
        return Event::Unknown;
    };
    if *one_phase != 0 {
        return Event::End;
    }
    let (gtrid, bqual) = (gtrid as usize, bqual as usize);
    match (data.get(13..13 + gtrid), data.get(13 + gtrid..13 + gtrid + bqual)) {
        (Some(first), Some(second)) => {
            Event::Prepared(format!("x'{}',x'{}',{format}", hex::encode(first), hex::encode(second)))
        }
        _ => Event::Unknown,
    }
}

fn broken(text: &str) -> Failed {
    Failed::Error(Error::retry(text))
}

fn failed(e: mysql_async::Error) -> Failed {
    match &e {
        mysql_async::Error::Server(ServerError { code: 1236, message, .. }) => Failed::Gone(message.clone()),
        mysql_async::Error::Server(ServerError { code: 1227 | 1045 | 1142, .. }) => Failed::Forbidden,
        mysql_async::Error::Server(_) => Failed::Error(error(e)),
        _ => Failed::Error(
            Error::retry("the connection to MySQL's binlog is broken; it will be tried again").caused_by(e),
        ),
    }
}
