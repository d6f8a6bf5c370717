//! Reads the bodies of requests, whose senders may be anybody: at most so long each, in so much time, and
//! all of them together in so much memory.

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Largest request body: a call names a verb and perhaps tables.
pub const BODY_BYTES: usize = 1024 * 1024;

/// Time for a body to arrive whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory for all bodies that are being read; ordinary ones have a few bytes.
const BODIES_BYTES: usize = 32 * 1024 * 1024;

/// The memory for bodies.
pub(super) struct Bodies(Semaphore);

/// Why a body was not read.
pub(super) type Refused = (StatusCode, &'static str);

impl Bodies {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(BODIES_BYTES))
    }

    /// The whole body.
    pub(super) async fn read(&self, length: Option<&header::HeaderValue>, body: Body) -> Result<Bytes, Refused> {
        let announced = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > BODY_BYTES) {
            return Err(too_long());
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, self.collect(body));
        read.await.unwrap_or(Err((StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive: send it at once")))
    }

    async fn collect(&self, body: Body) -> Result<Bytes, Refused> {
        let mut parts = body.into_data_stream();
        let (mut whole, mut memory) = (Vec::new(), None::<tokio::sync::SemaphorePermit<'_>>);
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| (StatusCode::BAD_REQUEST, "the body was cut off: send it again"))?;
            if whole.len() + part.len() > BODY_BYTES {
                return Err(too_long());
            }
            let bytes = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let more = self.0.try_acquire_many(bytes).map_err(|_| {
                (StatusCode::SERVICE_UNAVAILABLE, "too many large bodies arrive at once: send it again later")
            })?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole.into())
    }
}

fn too_long() -> Refused {
    (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bytes: usize) -> Body {
        let part = Bytes::from(vec![b'x'; 1000]);
        Body::from_stream(futures_util::stream::iter(
            (0..bytes / 1000).map(move |_| Ok::<_, std::io::Error>(part.clone())),
        ))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_or_refused() {
        let bodies = Bodies::new();
        assert_eq!(bodies.read(None, parts(500_000)).await.unwrap().len(), 500_000);
        assert_eq!(bodies.read(None, parts(2_000_000)).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        let announced = header::HeaderValue::from_static("2000000");
        let refused = bodies.read(Some(&announced), parts(1000)).await.unwrap_err();
        assert_eq!(refused.0, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn all_bodies_together_have_so_much_memory_and_give_it_back() {
        let bodies = Bodies::new();
        let taken = bodies.0.try_acquire_many(BODIES_BYTES as u32 - 100_000).unwrap();
        assert_eq!(bodies.read(None, parts(200_000)).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        drop(taken);
        assert_eq!(bodies.read(None, parts(200_000)).await.unwrap().len(), 200_000);
        assert_eq!(bodies.0.available_permits(), BODIES_BYTES);
    }
}
