//! What is said to etcd's gateway and what that says, as a real one (3.4.23) did.

use core::time::Duration;

use super::gateway::Gateway;
use crate::io::{Cell, Guard, Put};
use crate::{StoreAnswer, StoreRequest};

fn answer(request: &StoreRequest, body: &str) -> StoreAnswer {
    Gateway::new("ferry/demo/").answer(request, body.as_bytes()).unwrap()
}

#[test]
fn a_commit_compares_revisions_and_asks_for_everything_either_way() {
    let commit = StoreRequest::Commit {
        guards: vec![Guard { key: "nodes/a".into(), revision: 0 }],
        puts: vec![Put { key: "nodes/a".into(), value: "x".into(), lease: Some(7) }],
        deletes: vec!["b".into()],
    };
    let (path, body) = Gateway::new("ferry/demo/").request(&commit);
    assert_eq!(path, "/v3/kv/txn");
    let look = r#"{"request_range":{"key":"ZmVycnkvZGVtby8=","range_end":"ZmVycnkvZGVtbzA="}}"#;
    let key = "ZmVycnkvZGVtby9ub2Rlcy9h";
    let expected = format!(
        r#"{{"compare":[{{"key":"{key}","mod_revision":"0","result":"EQUAL","target":"MOD"}}],"failure":[{look}],"success":[{{"request_put":{{"key":"{key}","lease":"7","value":"eA=="}}}},{{"request_delete_range":{{"key":"ZmVycnkvZGVtby9i"}}}},{look}]}}"#
    );
    assert_eq!(body, expected);
}

#[test]
fn answers_are_read_as_etcd_writes_them() {
    let header = r#""header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"2","raft_term":"2"}"#;
    let granted = answer(
        &StoreRequest::Grant { ttl: Duration::from_secs(1) },
        &format!(r#"{{{header},"ID":"2324035700752335621","TTL":"2"}}"#),
    );
    assert_eq!(
        granted,
        StoreAnswer::Granted { lease: 2_324_035_700_752_335_621, ttl: Duration::from_secs(2) }
    );
    let keep = StoreRequest::KeepAlive { lease: 1 };
    let kept = answer(&keep, &format!(r#"{{"result":{{{header},"ID":"1","TTL":"3"}}}}"#));
    assert_eq!(kept, StoreAnswer::Kept { ttl: Duration::from_secs(3) });
    let ended = answer(&keep, &format!(r#"{{"result":{{{header},"ID":"12345"}}}}"#));
    assert_eq!(ended, StoreAnswer::Kept { ttl: Duration::ZERO });

    let range = format!(
        r#"{{{header},"kvs":[{{"key":"ZmVycnkvZGVtby9ub2Rlcy9h","create_revision":"2","mod_revision":"2","version":"1","value":"YjE=","lease":"9"}}],"count":"1"}}"#
    );
    let cells = [("nodes/a".to_owned(), Cell { value: "b1".into(), revision: 2 })];
    let looked = answer(&StoreRequest::Look, &range);
    assert_eq!(looked, StoreAnswer::Cells { done: true, revision: 2, cells: cells.clone().into() });
    let commit = StoreRequest::Commit { guards: vec![], puts: vec![], deletes: vec![] };
    let refused = answer(&commit, &format!(r#"{{{header},"responses":[{{"response_range":{range}}}]}}"#));
    assert_eq!(refused, StoreAnswer::Cells { done: false, revision: 2, cells: cells.into() });
}

#[test]
fn a_watch_tells_what_changed_and_ends_when_its_revision_was_compacted_away() {
    let gateway = Gateway::new("ferry/demo/");
    let event = |line: &str| gateway.event(line.as_bytes());
    assert_eq!(event(r#"{"result":{"header":{"revision":"2"},"created":true}}"#), Ok(None));
    let gone = r#"{"result":{"header":{"revision":"9"},"events":[{"type":"DELETE","kv":{"key":"ZmVycnkvZGVtby9ub2Rlcy9h","mod_revision":"3"}}]}}"#;
    let changes = vec![("nodes/a".to_owned(), None)];
    assert_eq!(event(gone), Ok(Some(StoreAnswer::Changed { revision: 3, changes })));
    let compacted = r#"{"result":{"header":{"revision":"9"},"canceled":true,"compact_revision":"5"}}"#;
    assert!(event(compacted).is_err());
    assert!(event(r#"{"error":{"grpc_code":14}}"#).is_err());
    assert!(event("<html>").is_err());
}
