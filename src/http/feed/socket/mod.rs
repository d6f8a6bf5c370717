//! `GET /v1/socket`: several shapes on one connection, for those whose proxy lets no server-sent events through. Its token is
//! renewed in it.

mod said;
mod shapes;
mod telling;

use super::asking::why_not;
use super::fed::Feed;
use super::question::Question;
use super::refusal::Refusal;
use super::wanted::Wanted;
use crate::feed::answer::{Answer, Told};
use crate::http::connections::{Occupation, Stay, Visit};
use crate::http::tokens::{Bearer, Refused};
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse as _, Response};
use said::Said;
use shapes::{Shapes, Step};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// What is read of a connection at once: it is held for each.
const READ_BYTES: usize = 1 << 10;

/// Longest message of a client: a token and a condition have 16 KiB each.
const MESSAGE_BYTES: usize = 64 << 10;

/// Shapes of a connection.
const MOST_SHAPES: usize = 50;

/// What a shape takes of the memory for all, beside so many times its message.
const SHAPE_BYTES: usize = 2 << 10;

/// See there: a value of a few bytes is kept in several places.
const SHAPE_FACTOR: usize = 32;

/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(15);

/// One that has said nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(50);

/// How long a client may take to read one message.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for the last one.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn socket(
    State(feed): State<Arc<Feed>>,
    Extension(visit): Extension<Visit>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => {
            let problem = "is missing: this path speaks WebSocket";
            return Refusal::with_status(why.status(), "upgrade", problem).into_response();
        }
    };
    let stay = visit.stay();
    let upgrade = upgrade.read_buffer_size(READ_BYTES).write_buffer_size(0);
    upgrade
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .on_upgrade(move |socket| async move { Connection::new(feed, visit, stay, socket).run().await })
}

/// Why a connection ends.
enum End {
    /// Nobody is there.
    Gone,
    /// For this reason, which its client is told.
    Because(u16, &'static str),
}

/// One client's.
struct Connection {
    feed: Arc<Feed>,
    visit: Visit,
    socket: WebSocket,
    line: Line,
    bearer: Option<Bearer>,
    /// When its token ends.
    until: Option<Instant>,
    shapes: Shapes,
}

/// What ends a connection from our side.
struct Line {
    stay: Stay,
    stopping: watch::Receiver<bool>,
}

impl Line {
    async fn cut(&mut self) -> End {
        tokio::select! {
            () = self.stay.given_up() => End::Because(close_code::AGAIN, "too many are connected"),
            _ = self.stopping.wait_for(|stopping| *stopping) => End::Because(close_code::AWAY, "the server stops"),
        }
    }
}

impl Connection {
    fn new(feed: Arc<Feed>, visit: Visit, stay: Stay, socket: WebSocket) -> Self {
        let line = Line { stay, stopping: feed.stopping.subscribe() };
        Self { feed, visit, socket, line, bearer: None, until: None, shapes: Shapes::new() }
    }

    async fn run(mut self) {
        if let Err(End::Because(code, reason)) = self.converse().await {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            let closing = async {
                self.socket.send(close).await.ok();
                // Until its client has read that.
                while let Some(Ok(_)) = self.socket.recv().await {}
            };
            timeout(LAST_PATIENCE, closing).await.ok();
        }
    }

    async fn converse(&mut self) -> Result<(), End> {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let is_waiting = self.shapes.count() > 0;
            self.visit.set(if is_waiting { Occupation::Shared } else { Occupation::Sender });
            let until = self.until;
            let expired = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                end = self.line.cut() => return Err(end),
                said = self.socket.recv() => {
                    heard = Instant::now();
                    self.hear(said).await?;
                }
                Some(step) = self.shapes.next() => match step {
                    Ok(step) => self.tell(step).await?,
                    Err(e) if e.is_cancelled() => {}
                    Err(_) => return Err(End::Because(close_code::ERROR, "something failed: connect again")),
                },
                () = expired => self.expire().await?,
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(End::Gone);
                    }
                    self.send(Message::Ping(Default::default())).await?;
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        tokio::select! {
            sent = timeout(PATIENCE, self.socket.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                _ => Err(End::Gone),
            },
            end = self.line.cut() => Err(end),
        }
    }

    async fn send_text(&mut self, text: String) -> Result<(), End> {
        self.send(Message::Text(text.into())).await
    }

    async fn refuse(&mut self, id: Option<&str>, refusal: &Refusal) -> Result<(), End> {
        self.send_text(telling::refusal(id, refusal)).await
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match message {
            Some(Ok(Message::Text(text))) => match Said::parse(&text) {
                Ok(Said::Token(token)) => self.take(&token).await,
                Ok(Said::Subscribe(id, question)) => match self.subscribe(&id, &question, text.len()) {
                    Ok(()) => Ok(()),
                    Err(refusal) => {
                        self.feed.refused(question.table.as_deref(), &refusal);
                        self.refuse(Some(&id), &refusal).await
                    }
                },
                Ok(Said::Unsubscribe(id)) => {
                    self.shapes.remove(&id);
                    Ok(())
                }
                Err((id, refusal)) => self.refuse(id.as_deref(), &refusal).await,
            },
            Some(Ok(Message::Binary(_))) => Err(End::Because(close_code::UNSUPPORTED, "messages are JSON as text")),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
            Some(Err(e)) => Err(unreadable(&e)),
        }
    }

    fn subscribe(&mut self, id: &str, question: &Question, bytes: usize) -> Result<(), Refusal> {
        if self.shapes.has(id) {
            return Err(Refusal::wrong("id", "is that of another shape of this connection"));
        }
        if self.shapes.count() >= MOST_SHAPES {
            return Err(Refusal::wrong("id", format!("is one too many: a connection carries {MOST_SHAPES} shapes")));
        }
        let mut asked = Wanted::read(&self.feed, question)?;
        asked.is_live = true;
        if asked.needs_token() && self.bearer.is_none() {
            return Err(Refusal::unknown(&Refused::Token("is missing: send it first, in a message of type token")));
        }
        let allowed = asked.clone().of(self.bearer.as_ref())?;
        let memory = self.feed.sockets.take(SHAPE_BYTES + SHAPE_FACTOR * bytes);
        let memory = memory.ok_or_else(|| Refusal::not_now("too much is asked for at once: ask again"))?;
        self.shapes.add(id.to_owned(), asked, allowed, memory);
        Ok(())
    }

    /// Takes a token for all shapes, in place of the one before.
    async fn take(&mut self, token: &str) -> Result<(), End> {
        let feed = self.feed.clone();
        let Some(tokens) = &feed.tokens else {
            return self.refuse(None, &Refusal::wrong("token", "is not asked for here")).await;
        };
        let bearer = match tokens.check(token).await {
            Ok(bearer) => bearer,
            Err(refused) => return self.refuse(None, &Refusal::unknown(&refused)).await,
        };
        let rest = bearer.rest();
        self.until = Some(Instant::now() + rest);
        self.bearer = Some(bearer.clone());
        self.send_text(telling::taken(rest.as_secs())).await?;
        for id in self.shapes.ids() {
            if let Err(refusal) = self.shapes.change(&id, |asked| asked.of(Some(&bearer))) {
                self.shapes.remove(&id);
                self.refuse(Some(&id), &refusal).await?;
            }
        }
        Ok(())
    }

    /// The token has ended, and with it what is read by it.
    async fn expire(&mut self) -> Result<(), End> {
        (self.until, self.bearer) = (None, None);
        let refusal = Refusal::unknown(&Refused::Token("has expired"));
        for id in self.shapes.ids() {
            if self.shapes.get(&id).is_some_and(|open| open.needs_token()) {
                self.shapes.remove(&id);
                self.refuse(Some(&id), &refusal).await?;
            }
        }
        match self.shapes.count() {
            0 => Err(End::Because(close_code::POLICY, "the token has expired")),
            _ => Ok(()),
        }
    }

    fn has_expired(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    async fn tell(&mut self, step: Step) -> Result<(), End> {
        if self.has_expired() {
            self.expire().await?;
        }
        let Step { mut following, answer, .. } = step;
        let Some(open) = self.shapes.of(&following) else { return Ok(()) };
        let mut after = Duration::ZERO;
        match answer {
            Ok(Answer::Messages(told)) => self.write(&following, told).await?,
            Ok(Answer::Nothing(told)) if told.is_up_to_date => self.write(&following, told).await?,
            Ok(Answer::Nothing(_)) => {}
            Ok(Answer::Refetch { handle, body }) => {
                (open.place, open.has_schema) = (None, false);
                following.begin();
                self.send_text(telling::refetch(following.id(), &handle, &body)).await?;
            }
            other => {
                let refusal = why_not(&other);
                after = Duration::from_secs(refusal.retry_after.unwrap_or(1).into());
                if !std::mem::replace(&mut open.is_waiting, true) {
                    self.refuse(Some(following.id()), &refusal).await?;
                }
            }
        }
        self.shapes.go_on(following, after);
        Ok(())
    }

    /// Writes an answer, and holds little beside it.
    async fn write(&mut self, following: &shapes::Following, told: Told) -> Result<(), End> {
        let feed = self.feed.clone();
        let Some(open) = self.shapes.of(following) else { return Ok(()) };
        let (with_schema, needs_token) = (!open.has_schema, open.needs_token());
        for part in telling::answer(following.id(), &told, with_schema) {
            if needs_token && self.has_expired() {
                return Ok(());
            }
            let _long = match part.bytes() {
                bytes if bytes > 2 * telling::PART_BYTES => {
                    let memory = timeout(PATIENCE, feed.long.wait(bytes)).await;
                    Some(memory.map_err(|_| End::Because(close_code::AGAIN, "too much is asked for at once"))?)
                }
                _ => None,
            };
            self.send_text(part.text()).await?;
        }
        if let Some(open) = self.shapes.of(following) {
            open.place = Some((told.offset, told.handle));
            (open.has_schema, open.is_waiting) = (true, false);
        }
        Ok(())
    }
}

/// Why no more can be read.
fn unreadable(error: &axum::Error) -> End {
    use tokio_tungstenite::tungstenite::Error;
    let error = std::error::Error::source(error).and_then(|error| error.downcast_ref::<Error>());
    match error {
        Some(Error::Capacity(_)) => End::Because(close_code::SIZE, "messages have at most 64 KiB"),
        Some(Error::Utf8(_)) => End::Because(close_code::INVALID, "messages are UTF-8"),
        Some(Error::Protocol(_)) => End::Because(close_code::PROTOCOL, "that is no WebSocket"),
        _ => End::Gone,
    }
}
