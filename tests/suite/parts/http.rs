//! One HTTP/1.1 request over a plain TCP connection, for health checks and the pg_net stand-in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longer answers are cut: no test asks for more than this.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{}: {e}", self.body))
    }

    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends one request to `http://host:port/path` and reads the whole answer, all within `timeout`.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    timeout: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let (host, path) = split_url(url)?;
    let mut stream = TcpStream::connect_timeout(&resolve(host)?, timeout)?;
    stream.set_nodelay(true)?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let written = stream.write_all(&[head.as_bytes(), body].concat());
    // A server that refuses a long body answers before it has read it all.
    match (written, read_answer(&mut stream, deadline)) {
        (_, Ok(answer)) if !answer.is_empty() => parse(&answer),
        (Err(e), _) => Err(e),
        (Ok(()), answer) => parse(&answer?),
    }
}

/// The status of a GET without headers, when there is an answer.
pub fn get_status(url: &str) -> Option<u16> {
    request("GET", url, &[], b"", Duration::from_secs(2)).ok().map(|answer| answer.status)
}

fn split_url(url: &str) -> io::Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("only http:// URLs"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let path = if slash == rest.len() { "/" } else { &rest[slash..] };
    Ok((&rest[..slash], path))
}

fn resolve(host: &str) -> io::Result<SocketAddr> {
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    with_port.to_socket_addrs()?.next().ok_or_else(|| invalid("host has no address"))
}

/// Reads to the end of the answer: what `Content-Length` says, or the end of the stream.
fn read_answer(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    while bytes.len() < ANSWER_MAX_BYTES && !is_complete(&bytes) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(bytes)
}

fn is_complete(bytes: &[u8]) -> bool {
    let Ok(answer) = parse(bytes) else {
        return false;
    };
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| head_end(bytes).is_some_and(|head| bytes.len() >= head + length))
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let end = head_end(bytes).ok_or_else(|| invalid("no HTTP answer"))?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut answer = Answer { status: status.ok_or_else(|| invalid("no status"))?, headers, body: String::new() };
    let chunked = answer.header("transfer-encoding").is_some_and(|how| how.contains("chunked"));
    let body = if chunked { unchunk(&bytes[end..]) } else { bytes[end..].to_vec() };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..line]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16).unwrap_or(0);
        let chunk = rest.get(line + 2..line + 2 + size).unwrap_or_default();
        body.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    body
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
