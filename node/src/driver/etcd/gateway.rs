//! Requests and answers as etcd's JSON gateway (`/v3/…`) spells them: keys and values in base64, 64-bit numbers as strings, and
//! whatever is zero left out.

use core::time::Duration;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::io::Cell;
use crate::{StoreAnswer, StoreRequest};

/// Speaks for one group.
pub(super) struct Gateway {
    prefix: String,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: i64,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct Kept {
    result: KeptResult,
}

#[derive(Deserialize)]
struct KeptResult {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    mod_revision: i64,
}

#[derive(Deserialize)]
struct Committed {
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Part>,
    header: Header,
}

#[derive(Deserialize)]
struct Part {
    response_range: Option<Range>,
}

#[derive(Deserialize)]
struct Watched {
    result: Option<WatchResult>,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    kv: KeyValue,
}

/// etcd writes 64-bit numbers as strings.
fn number<'a, D: serde::Deserializer<'a>>(from: D) -> Result<i64, D::Error> {
    use serde::de::Error as _;
    match Value::deserialize(from)? {
        Value::String(text) => text.parse().map_err(D::Error::custom),
        Value::Number(number) => number.as_i64().ok_or_else(|| D::Error::custom("no whole number")),
        _ => Err(D::Error::custom("no number")),
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Gateway {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The path and the body.
    pub(super) fn request(&self, request: &StoreRequest) -> (&'static str, String) {
        let (path, body) = match request {
            StoreRequest::Grant { ttl } => ("/v3/lease/grant", json!({"TTL": ttl.as_secs().to_string()})),
            StoreRequest::KeepAlive { lease } => ("/v3/lease/keepalive", json!({"ID": lease.to_string()})),
            StoreRequest::Look => ("/v3/kv/range", self.everything()),
            StoreRequest::Watch { from } => {
                let mut create = self.everything();
                create["start_revision"] = json!(from.to_string());
                ("/v3/watch", json!({"create_request": create}))
            }
            StoreRequest::Commit { guards, puts, deletes } => {
                let compare = guards.iter().map(|guard| {
                    let revision = guard.revision.to_string();
                    json!({"key": self.key(&guard.key), "target": "MOD", "result": "EQUAL", "mod_revision": revision})
                });
                let puts = puts.iter().map(|put| {
                    let lease = put.lease.unwrap_or(0).to_string();
                    json!({"request_put": {
                        "key": self.key(&put.key), "value": STANDARD.encode(&put.value), "lease": lease,
                    }})
                });
                let deletes =
                    deletes.iter().map(|key| json!({"request_delete_range": {"key": self.key(key)}}));
                let look = json!({"request_range": self.everything()});
                let success: Vec<_> = puts.chain(deletes).chain([look.clone()]).collect();
                let compare: Vec<_> = compare.collect();
                ("/v3/kv/txn", json!({"compare": compare, "success": success, "failure": [look]}))
            }
        };
        (path, body.to_string())
    }

    fn key(&self, key: &str) -> String {
        STANDARD.encode(format!("{}{key}", self.prefix))
    }

    fn everything(&self) -> Value {
        // The prefix ends with '/', which '0' follows.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        json!({"key": STANDARD.encode(&self.prefix), "range_end": STANDARD.encode(end)})
    }

    /// What the body of an answer says.
    pub(super) fn answer(&self, request: &StoreRequest, body: &[u8]) -> Result<StoreAnswer, String> {
        Ok(match request {
            StoreRequest::Grant { .. } => {
                let Granted { id, ttl } = read(body)?;
                StoreAnswer::Granted { lease: id, ttl: seconds(ttl) }
            }
            StoreRequest::KeepAlive { .. } => {
                StoreAnswer::Kept { ttl: seconds(read::<Kept>(body)?.result.ttl) }
            }
            StoreRequest::Commit { .. } => {
                let Committed { succeeded: done, responses, header } = read(body)?;
                let all = responses.into_iter().filter_map(|part| part.response_range).next_back();
                let cells = self.cells(all.ok_or("the answer lacks what is there")?.kvs)?;
                StoreAnswer::Cells { done, revision: header.revision, cells }
            }
            StoreRequest::Look => {
                let Range { header, kvs } = read(body)?;
                StoreAnswer::Cells { done: true, revision: header.revision, cells: self.cells(kvs)? }
            }
            StoreRequest::Watch { .. } => return Err("a watch has events".to_owned()),
        })
    }

    /// What one line of a watch says, if it is anything of interest.
    pub(super) fn event(&self, line: &[u8]) -> Result<Option<StoreAnswer>, String> {
        let Watched { result } = read(line)?;
        // Canceled, or an error: what it was to tell has been compacted away, or the member is no leader's.
        let result = result.filter(|result| !result.canceled).ok_or("the watch was ended")?;
        let Some(revision) = result.events.iter().map(|event| event.kv.mod_revision).max() else {
            return Ok(None);
        };
        let mut changes = Vec::new();
        for Event { kind, kv } in result.events {
            let gone = kind.as_deref() == Some("DELETE");
            let (key, cell) = self.cell(kv)?;
            changes.push((key, (!gone).then_some(cell)));
        }
        Ok(Some(StoreAnswer::Changed { revision, changes }))
    }

    fn cells(&self, all: Vec<KeyValue>) -> Result<BTreeMap<String, Cell>, String> {
        all.into_iter().map(|kv| self.cell(kv)).collect()
    }

    fn cell(&self, kv: KeyValue) -> Result<(String, Cell), String> {
        let KeyValue { key, value, mod_revision: revision } = kv;
        let text = |encoded: String| {
            let octets = STANDARD.decode(encoded).map_err(|why| why.to_string())?;
            // What is no text is none of ours, and is read as such.
            Ok::<_, String>(String::from_utf8_lossy(&octets).into_owned())
        };
        let key = text(key)?;
        let key = key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned();
        Ok((key, Cell { value: text(value)?, revision }))
    }
}

fn read<'a, T: Deserialize<'a>>(octets: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(octets).map_err(|why| format!("an answer that is none of etcd's: {why}"))
}
