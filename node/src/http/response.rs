//! The head of a response.

use core::fmt::Write as _;

use bytes::Bytes;

use super::request::{After, Bad};

/// What a response says before its body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Status {
    Ok,
    /// Something that was made for the request, and has no ranges.
    Page,
    /// These octets of so many: the first, the one after the last, all.
    Partial(u64, u64, u64),
    /// None of what was asked for, of so many.
    NotSatisfiable(u64),
    Bad(Bad),
    Failed,
    /// Not now.
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok | Self::Page => "200 OK",
            Self::Partial(..) => "206 Partial Content",
            Self::Bad(Bad::Request) => "400 Bad Request",
            Self::Bad(Bad::NotFound) => "404 Not Found",
            Self::Bad(Bad::Method) => "405 Method Not Allowed",
            Self::NotSatisfiable(_) => "416 Range Not Satisfiable",
            Self::Bad(Bad::HeadTooLarge) => "431 Request Header Fields Too Large",
            Self::Failed => "500 Internal Server Error",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// A response that has no file for its body, with a line that says what it is.
pub(crate) fn short(status: Status, after: After, with_body: bool) -> Bytes {
    let body = format!("{}\n", status.line());
    let mut text = head(status, "text/plain; charset=utf-8", body.len() as u64, after);
    if with_body {
        text.push_str(&body);
    }
    text.into()
}

/// There is no `Date`: a session has no clock but its connection's (RFC 9110 section 6.6.1).
pub(crate) fn head(status: Status, content_type: &str, length: u64, after: After) -> String {
    let mut text = String::with_capacity(256);
    let extra = match status {
        Status::Ok => "Accept-Ranges: bytes\r\n".to_owned(),
        Status::Partial(start, end, all) => format!("Content-Range: bytes {start}-{}/{all}\r\n", end - 1),
        Status::NotSatisfiable(all) => format!("Content-Range: bytes */{all}\r\n"),
        Status::Bad(Bad::Method) => "Allow: GET, HEAD\r\n".to_owned(),
        Status::Page | Status::Bad(_) | Status::Failed | Status::Unavailable => String::new(),
    };
    let connection = match after {
        After::KeepAlive => "",
        After::TellKeepAlive => "Connection: keep-alive\r\n",
        After::Close => "Connection: close\r\n",
    };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{extra}{connection}\r\n",
        status.line()
    );
    text
}

/// By the ending of the name; what is not known is octets.
pub(crate) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt" | "md" | "log") => "text/plain; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("pdf") => "application/pdf",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("mp4") => "video/mp4",
        Some("webm") => "video/webm",
        _ => "application/octet-stream",
    }
}
