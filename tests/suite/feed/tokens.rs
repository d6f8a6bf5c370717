//! Who may read what: tokens, and the rows of their claims.

use super::{Fed, escaped};
use crate::parts::http::Answer;
use crate::support::{Path, until};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const TABLE: &str = "create table notes (id int primary key, org text, level int, title text);
    insert into notes values (1, 'a', 1, 'one'), (2, 'b', 1, 'two'), (3, 'a', 2, 'three'), (4, null, 1, 'four')";
pub const FED: &str = r#"{"notes":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","level":"INTEGER","title":"TEXT"},
    "feed":{"match":{"org":"orgs"},"columns":["id","title","level"],"filter":["level"]}}}"#;
pub const SECRET: &str = "a secret of the tests, which is long enough";
const RSA: &[u8] = include_bytes!("keys/rsa.der");
const P256: &[u8] = include_bytes!("keys/p256.der");

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of somebody of these organizations.
fn of(orgs: Value) -> Value {
    json!({"sub": "ann", "orgs": orgs, "exp": now() + 600})
}

fn signed(algorithm: Algorithm, key: &EncodingKey, name: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: name.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

fn secret_key(text: &str) -> EncodingKey {
    EncodingKey::from_secret(text.as_bytes()).unwrap()
}

pub fn by_secret(claims: &Value) -> String {
    signed(Algorithm::HS256, &secret_key(SECRET), None, claims)
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.json();
    let ids = rows.as_array().unwrap().iter().filter_map(|row| row["value"]["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reads_the_rows_of_its_claims_and_no_others() {
    let fed = Fed::with(Path::File, TABLE, FED, &[("FEED_JWT_SECRET", SECRET)]).await;
    let (a, b) = (by_secret(&of(json!("a"))), by_secret(&of(json!(["b", "c"]))));
    let all = "table=notes&offset=-1";
    let rows = fed.get_whole_as(Some(&a), all).await;
    assert_eq!(ids(&rows), ["1", "3"]);
    assert_eq!(rows.json()[0]["value"], json!({"id": "1", "title": "one", "level": "1"}));
    assert_eq!(rows.header("cache-control"), Some("private, no-store"));
    assert_eq!(ids(&fed.get_as(Some(&b), all).await), ["2"]);
    assert!(ids(&fed.get_as(Some(&by_secret(&of(json!([])))), all).await).is_empty());
    let narrowed = format!("{all}&where={}", escaped("level = 2"));
    assert_eq!(ids(&fed.get_as(Some(&a), &narrowed).await), ["3"]);
    // The column that claims are compared with is neither seen nor asked for.
    for query in [format!("{all}&where={}", escaped("org = 'b'")), format!("{all}&columns=id,org")] {
        assert_eq!(fed.get_as(Some(&a), &query).await.status, 400, "{query}");
    }
    // What one is at is another's no more than its rows.
    let next = |answer: &Answer| {
        let header = |name: &str| answer.header(name).unwrap().to_owned();
        format!("table=notes&offset={}&handle={}", header("electric-offset"), header("electric-handle"))
    };
    let at_a = next(&rows);
    assert_eq!(fed.get_as(Some(&b), &at_a).await.status, 409);
    let at_a = next(&fed.get_as(Some(&a), &at_a).await);
    let at_b = next(&fed.get_as(Some(&b), &next(&fed.get_as(Some(&b), all).await)).await);
    // Rows go from one to the other: a delete there, an insert here.
    fed.db.sql("update notes set org = 'b' where id = 1; update notes set title = 'x' where id = 3").await;
    let told = async |token: &str, at: &str| {
        let found = Mutex::new(Value::Null);
        until("it is told", async || {
            let answer = fed.get_as(Some(token), at).await;
            let rows = if answer.status == 200 { answer.json() } else { json!([]) };
            let rows: Vec<Value> =
                rows.as_array().unwrap().iter().filter(|row| !row["value"].is_null()).cloned().collect();
            let operations = rows.iter().map(|row| json!([row["headers"]["operation"], row["value"]["id"]]));
            *found.lock().unwrap() = operations.collect();
            !rows.is_empty()
        })
        .await;
        found.into_inner().unwrap()
    };
    assert_eq!(told(&a, &at_a).await, json!([["delete", "1"], ["update", "3"]]));
    assert_eq!(told(&b, &at_b).await, json!([["insert", "1"]]));
    // Other claims, other rows: it begins anew.
    assert_eq!(fed.get_as(Some(&by_secret(&of(json!(["a", "b"])))), &at_a).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_good_token_reads_nothing_and_hears_why() {
    let fed = Fed::with(Path::File, TABLE, FED, &[("FEED_JWT_SECRET", SECRET)]).await;
    let all = "table=notes&offset=-1";
    fed.get_whole_as(Some(&by_secret(&of(json!("a")))), all).await;
    let good = by_secret(&of(json!("a")));
    let (head, rest) = good.split_once('.').unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0"; // {"alg":"none"}
    let (claims, signature) = rest.split_once('.').unwrap();
    let other_secret = secret_key("another secret of the tests, long enough");
    let public = Jwk::from_encoding_key(&EncodingKey::from_rsa_der(RSA), Algorithm::RS256).unwrap();
    let confused = secret_key(&serde_json::to_string(&public).unwrap());
    for (token, status, said) in [
        (None, 401, "is missing"),
        (Some(String::new()), 401, "is missing"),
        (Some("x".into()), 401, "no JWT"),
        (Some("x".repeat(20_000)), 401, "too long"),
        (Some(format!("{unsigned}.{claims}.")), 401, "token"),
        (Some(format!("{unsigned}.{claims}.{signature}")), 401, "token"),
        (Some(format!("{head}.{claims}.")), 401, "token"),
        (Some(format!("{head}.{claims}x.{signature}")), 401, "was changed"),
        (Some(signed(Algorithm::HS256, &other_secret, None, &of(json!("a")))), 401, "another key"),
        (Some(signed(Algorithm::HS256, &confused, None, &of(json!("a")))), 401, "another key"),
        (Some(signed(Algorithm::HS384, &other_secret, None, &of(json!("a")))), 401, "not accepted"),
        (Some(signed(Algorithm::RS256, &EncodingKey::from_rsa_der(RSA), None, &of(json!("a")))), 401, "not accepted"),
        (Some(by_secret(&json!({"orgs": "a", "exp": now() - 60}))), 401, "has expired"),
        (Some(by_secret(&json!({"orgs": "a"}))), 401, "lacks the claim exp"),
        (Some(by_secret(&json!({"orgs": "a", "exp": now() + 600, "nbf": now() + 300}))), 401, "not good yet"),
        (Some(by_secret(&json!({"sub": "ann", "exp": now() + 600}))), 403, "no claim \\\"orgs\\\""),
        (Some(by_secret(&of(json!({"a": "b"})))), 403, "no claim"),
        (Some(by_secret(&of(json!(["a", null])))), 403, "no claim"),
    ] {
        let answer = fed.get_as(token.as_deref(), all).await;
        assert_eq!(answer.status, status, "{token:?}: {}", answer.body);
        assert!(answer.body.contains(said), "{token:?}: {}", answer.body);
        assert!(!answer.body.contains("three"), "{}", answer.body);
    }
    // Whoever goes on asking is heard until the token ends, and no longer.
    let short = by_secret(&json!({"orgs": "a", "exp": now() + 1}));
    let rows = fed.get_as(Some(&short), all).await;
    let header = |answer: &Answer, name: &str| answer.header(name).unwrap().to_owned();
    let at =
        format!("table=notes&offset={}&handle={}", header(&rows, "electric-offset"), header(&rows, "electric-handle"));
    let end = fed.get_as(Some(&short), &at).await;
    let at =
        format!("table=notes&offset={}&handle={}", header(&end, "electric-offset"), header(&end, "electric-handle"));
    let began = std::time::Instant::now();
    let streamed = fed.get_as(Some(&short), &format!("{at}&live=true&live_sse=true")).await;
    assert!(began.elapsed() < Duration::from_secs(12), "it goes on: {}", streamed.body);
    until("the token has expired", async || fed.get_as(Some(&short), &at).await.status == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_for_tokens_is_not_served_where_nothing_says_how_they_are_checked() {
    for (variables, said) in [
        (vec![], "set FEED_JWT_SECRET"),
        (vec![("FEED_JWT_SECRET", "short")], "FEED_JWT_SECRET is shorter than 32 bytes"),
        (vec![("FEED_JWT_SECRET", SECRET), ("FEED_JWKS_URL", "example.org/keys")], "FEED_JWKS_URL is no address"),
        (vec![("FEED_AUTH_URL", "ftp://example.org")], "FEED_AUTH_URL is no address"),
    ] {
        let pair = [("PGMQ_URL", "postgres://x@127.0.0.1:1/x"), ("LIBSQL_URL", "file:x.db")];
        let program = crate::parts::Program::new(FED, &[&pair[..], &variables].concat());
        let refused = program.refused(&["serve"], 2).await;
        assert!(refused.contains(said) && !refused.contains(SECRET), "{variables:?}: {refused}");
    }
}

/// A server that answers each request by this.
pub(super) fn answering(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/of", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                let (status, body) = answer(&String::from_utf8_lossy(&head));
                let head =
                    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).ok();
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_address_are_looked_for_when_a_new_one_is_named() {
    let (rsa, p256) = (EncodingKey::from_rsa_der(RSA), EncodingKey::from_ec_der(P256));
    let named = |key: &EncodingKey, algorithm, name: &str| {
        let mut key = Jwk::from_encoding_key(key, algorithm).unwrap();
        key.common.key_id = Some(name.into());
        key
    };
    let keys = Arc::new(Mutex::new(JwkSet { keys: vec![named(&rsa, Algorithm::RS256, "one")] }));
    let (told, asked) = (keys.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    let url = answering(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        (200, serde_json::to_string(&*told.lock().unwrap()).unwrap())
    });
    let fed = Fed::with(Path::File, TABLE, FED, &[("FEED_JWKS_URL", &url)]).await;
    let all = "table=notes&offset=-1";
    let by_rsa = signed(Algorithm::RS256, &rsa, Some("one"), &of(json!("a")));
    assert_eq!(ids(&fed.get_whole_as(Some(&by_rsa), all).await), ["1", "3"]);
    // A key signs by its own algorithm only.
    let public = serde_json::to_string(&named(&rsa, Algorithm::RS256, "one")).unwrap();
    let confused = signed(Algorithm::HS256, &secret_key(&public), Some("one"), &of(json!("a")));
    assert_eq!(fed.get_as(Some(&confused), all).await.status, 401);
    let by_p256 = signed(Algorithm::ES256, &p256, Some("two"), &of(json!("b")));
    assert_eq!(fed.get_as(Some(&by_p256), all).await.status, 401);
    for _ in 0..20 {
        let unknown =
            signed(Algorithm::ES256, &p256, Some("two"), &of(json!(["b", asked.load(Ordering::Relaxed).to_string()])));
        assert_eq!(fed.get_as(Some(&unknown), all).await.status, 401);
    }
    assert!(asked.load(Ordering::Relaxed) <= 3, "anybody can have them looked for");
    keys.lock().unwrap().keys.push(named(&p256, Algorithm::ES256, "two"));
    until("the new key is known", async || {
        let token = signed(
            Algorithm::ES256,
            &p256,
            Some("two"),
            &json!({"orgs": "b", "exp": now() + 600, "n": rand::random::<u32>()}),
        );
        fed.get_as(Some(&token), all).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_says_whose_a_token_is() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = answering(move |head| {
        counted.fetch_add(1, Ordering::Relaxed);
        let token =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("authorization: bearer ").map(str::to_owned));
        match token.as_deref() {
            Some("opaque-a") => (200, json!({"orgs": "a"}).to_string()),
            Some("broken") => (500, "secret".into()),
            _ => (401, String::new()),
        }
    });
    let fed = Fed::with(Path::File, TABLE, FED, &[("FEED_AUTH_URL", &url), ("FEED_JWT_SECRET", SECRET)]).await;
    let all = "table=notes&offset=-1";
    assert_eq!(ids(&fed.get_whole_as(Some("opaque-a"), all).await), ["1", "3"]);
    for _ in 0..10 {
        assert_eq!(ids(&fed.get_as(Some("opaque-a"), all).await), ["1", "3"]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is kept for a minute");
    assert_eq!(fed.get_as(Some("opaque-b"), all).await.status, 401);
    let broken = fed.get_as(Some("broken"), all).await;
    let after = broken.header("retry-after").and_then(|text| text.parse::<u32>().ok());
    assert!(broken.status == 503 && after.is_some_and(|seconds| (1..=3).contains(&seconds)), "{after:?}");
    assert!(!broken.body.contains("secret"));
    assert_eq!(ids(&fed.get_as(Some(&by_secret(&of(json!("b")))), all).await), ["2"], "a JWT is not asked for");
}
