//! What of HTTP/1.1 a node needs where it serves something by it: requests without a body, and the head of a response.

pub(crate) mod request;
pub(crate) mod response;
