//! Reading a request: the parts of HTTP/1.1 (RFC 9110, RFC 9112) that matter for a `GET` of a file.

use httparse::{EMPTY_HEADER, Error, Header, Status as Parsed};

/// Octets of a request's head; a longer one is refused.
pub(crate) const MAX_HEAD: usize = 8 << 10;

const MAX_HEADERS: usize = 64;

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Below the root, decoded.
    pub(crate) path: String,
    pub(crate) range: Option<Range>,
}

/// What becomes of the connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Another request may follow.
    KeepAlive,
    /// So it may, and HTTP/1.0 must be told.
    TellKeepAlive,
    /// It ends.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
}

/// A single range of octets (RFC 9110 section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// From one octet to another, both included.
    Closed(u64, u64),
    /// From an octet on.
    From(u64),
    /// The last so many octets.
    Last(u64),
}

/// Why a request is not answered with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Request,
    NotFound,
    Method,
    HeadTooLarge,
}

/// What the octets at the start of a connection's input are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not yet a whole head.
    Partial,
    /// A whole head, of so many octets.
    Whole { request: Result<Request, Bad>, after: After, len: usize },
    /// Nothing after this can be understood.
    Broken(Bad),
}

pub(crate) fn parse(octets: &[u8]) -> Head {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(octets) {
        Ok(Parsed::Partial) if octets.len() >= MAX_HEAD => Head::Broken(Bad::HeadTooLarge),
        Ok(Parsed::Partial) => Head::Partial,
        Ok(Parsed::Complete(len)) if len > MAX_HEAD => Head::Broken(Bad::HeadTooLarge),
        Ok(Parsed::Complete(len)) => whole(&request, len),
        Err(Error::TooManyHeaders) => Head::Broken(Bad::HeadTooLarge),
        Err(_) => Head::Broken(Bad::Request),
    }
}

fn whole(request: &httparse::Request<'_, '_>, len: usize) -> Head {
    let headers = &*request.headers;
    // A body is of no use here, and where it ends is not worth knowing (RFC 9112 section 6.3).
    let body = values(headers, "transfer-encoding").next().is_some()
        || values(headers, "content-length").any(|length| length != "0");
    let old = request.version == Some(0);
    // RFC 9112 section 3.2
    let hosts = values(headers, "host").count();
    if body || hosts > 1 || (hosts == 0 && !old) {
        // How to go on is as unclear as the request; a method that is not served gets to know that, though.
        return Head::Broken(if method(request).is_err() { Bad::Method } else { Bad::Request });
    }
    Head::Whole { request: understand(request), after: after(headers, old), len }
}

fn understand(request: &httparse::Request<'_, '_>) -> Result<Request, Bad> {
    Ok(Request {
        method: method(request)?,
        path: path(request.path.unwrap_or_default())?,
        range: range(request.headers),
    })
}

fn method(request: &httparse::Request<'_, '_>) -> Result<Method, Bad> {
    match request.method {
        Some("GET") => Ok(Method::Get),
        Some("HEAD") => Ok(Method::Head),
        _ => Err(Bad::Method),
    }
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| core::str::from_utf8(header.value).unwrap_or_default().trim())
}

/// RFC 9112 section 9.3.
fn after(headers: &[Header<'_>], old: bool) -> After {
    let says = |wanted: &str| {
        values(headers, "connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(wanted))
    };
    match (old, says("close"), says("keep-alive")) {
        (false, false, _) => After::KeepAlive,
        (true, false, true) => After::TellKeepAlive,
        _ => After::Close,
    }
}

/// A set of ranges, or one that is not understood, may be ignored (RFC 9110 section 14.2). So is any range that
/// depends on a validator, for none is ever sent: the copies at the nodes have no common one.
fn range(headers: &[Header<'_>]) -> Option<Range> {
    if values(headers, "if-range").next().is_some() {
        return None;
    }
    let mut ranges = values(headers, "range");
    let (unit, range) = ranges.next()?.split_once('=')?;
    if ranges.next().is_some() || !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?;
    match (first, last) {
        ("", last) => Some(Range::Last(number(last)?)),
        (first, "") => Some(Range::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Range::Closed(first, last))
        }
    }
}

impl Range {
    /// The octets that it means of a file of this length: the first, and the one after the last. `None` if there are
    /// none (RFC 9110 section 15.5.17).
    pub(crate) fn of(self, length: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Self::Closed(first, last) => (first, last.saturating_add(1).min(length)),
            Self::From(first) => (first, length),
            Self::Last(count) => (length.saturating_sub(count), length),
        };
        (start < end).then_some((start, end))
    }
}

/// The path that a request's target names, below the root (RFC 9112 section 3.2; RFC 3986 section 2.1).
fn path(target: &str) -> Result<String, Bad> {
    let path = match target.strip_prefix("http://") {
        Some(absolute) => absolute.find('/').map_or("/", |at| &absolute[at..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let below = path.strip_prefix('/').ok_or(Bad::Request)?;
    let mut path = decode(below)?;
    if path.is_empty() || path.ends_with('/') {
        path.push_str("index.html");
    }
    Ok(path)
}

fn decode(path: &str) -> Result<String, Bad> {
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = digit().zip(digit()).ok_or(Bad::Request)?;
        match u8::try_from(high << 4 | low).map_err(|_| Bad::Request)? {
            0 => return Err(Bad::Request),
            // An encoded slash is part of a name, and no file has such a name.
            b'/' => return Err(Bad::NotFound),
            octet => octets.push(octet),
        }
    }
    String::from_utf8(octets).map_err(|_| Bad::NotFound)
}
