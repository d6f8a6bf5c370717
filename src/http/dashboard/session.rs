//! Who is signed in: a cookie that the worker has signed, so that nothing is kept and every worker of the same secret
//! knows it; and a token that a page of another site cannot send.

use super::super::auth::Auth;
use axum::http::{HeaderMap, HeaderValue, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The cookie's name.
const COOKIE: &str = "pgflume_session";

/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);

/// Header of the token.
const CSRF: &str = "x-pgflume-csrf";

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// Random, and when it ends.
    text: String,
    /// What its requests have to send.
    pub token: String,
}

impl Session {
    /// A new one, and its cookie.
    pub fn begin(auth: &Auth, is_https: bool) -> (Self, HeaderValue) {
        let ends = now() + LASTS.as_secs();
        let text = format!("{ends}.{}", uuid::Uuid::new_v4().simple());
        let signature = auth.seal("session", &text);
        let secure = if is_https { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE}={text}.{signature}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
            LASTS.as_secs()
        );
        let token = auth.seal("csrf", &text);
        (Self { text, token }, value(&cookie))
    }

    /// The one of these headers, if it is one of ours and has not ended.
    pub fn of(auth: &Auth, headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let mut values = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|one| {
            let (name, value) = one.trim().split_once('=')?;
            (name == COOKIE).then_some(value)
        });
        values.find_map(|value| {
            let (text, signature) = value.rsplit_once('.')?;
            let ends: u64 = text.split_once('.')?.0.parse().ok()?;
            let is_good = auth.is_sealed("session", text, signature) && ends > now();
            is_good.then(|| Self { text: text.to_owned(), token: auth.seal("csrf", text) })
        })
    }

    /// Whether the request comes from our own page.
    pub fn is_own(&self, auth: &Auth, headers: &HeaderMap) -> bool {
        let token = headers.get(CSRF).and_then(|token| token.to_str().ok());
        token.is_some_and(|token| auth.is_sealed("csrf", &self.text, token))
    }

    /// The cookie that ends it.
    pub fn end() -> HeaderValue {
        HeaderValue::from_static("pgflume_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| Session::end()) // always ASCII
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Signatures;
    use crate::core::secret::Secret;

    fn auth(secret: &str) -> Auth {
        let secrets = || vec![Secret::new(secret)];
        Auth::new(Signatures { webhook: secrets(), nuke: secrets() })
    }

    fn with(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    #[test]
    fn a_cookie_opens_the_worker_of_its_secret_and_no_other_until_it_ends() {
        let ours = auth("one secret of some length");
        let (session, cookie) = Session::begin(&ours, true);
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap();
        assert_eq!(Session::of(&ours, &with(&format!("a=b; {cookie}; c=d"))), Some(session.clone()));
        assert_eq!(Session::of(&auth("one secret of some length"), &with(cookie)), Some(session.clone()));
        assert_eq!(Session::of(&auth("another one of some length"), &with(cookie)), None);
        let (head, signature) = cookie.rsplit_once('.').unwrap();
        let (name, rest) = head.split_once('=').unwrap();
        let (ends, random) = rest.split_once('.').unwrap();
        for other in [
            format!("{name}={}.{random}.{signature}", ends.parse::<u64>().unwrap() + 1),
            format!("{name}={rest}.{}", ours.seal("csrf", rest)),
            format!("{name}={rest}"),
            format!("{name}="),
            format!("{name}=1.{random}.{}", ours.seal("session", &format!("1.{random}"))),
        ] {
            assert_eq!(Session::of(&ours, &with(&other)), None, "{other}");
        }
        let mut headers = with(cookie);
        assert!(!session.is_own(&ours, &headers));
        headers.insert(CSRF, HeaderValue::from_str(&session.token).unwrap());
        assert!(session.is_own(&ours, &headers));
        headers.insert(CSRF, HeaderValue::from_static("0"));
        assert!(!session.is_own(&ours, &headers));
    }
}
