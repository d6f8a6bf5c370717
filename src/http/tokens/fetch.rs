//! Asks others who signs tokens, and who bears them: soon, and for little.

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use std::time::Duration;

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer.
const MOST_BYTES: usize = 1 << 20;

pub(super) fn client() -> reqwest::Result<Client> {
    crate::core::crypto::install();
    Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()
}

/// What was answered; or why nothing was, without what was sent.
pub(super) async fn get(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
    let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
    let status = answer.status();
    Ok((status, bounded(answer).await?))
}

async fn bounded(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| e.without_url().to_string())? {
        if bytes.len() + part.len() > MOST_BYTES {
            return Err(format!("it answers more than {MOST_BYTES} bytes"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}
