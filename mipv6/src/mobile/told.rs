//! What a client has been told, and what it answers: Binding Acknowledgements, and when to give up.

use core::net::Ipv6Addr;

use ferry_stack::Instant;

use super::RENEW_BEFORE;
use super::client::{Ability, Asked, Bound, Client, Tested, Update, patience};
use crate::correspondent::{Outgoing, is_later};
use crate::header::{BindingUpdate, Lifetime, Message, Options, Received, Status};
use crate::keys::{Cookie, Cookies, Key};

/// Takes a Binding Acknowledgement (RFC 6275 section 11.7.3).
pub(super) fn acknowledged(
    client: &mut Client<Instant>,
    received: &Received,
    home: Ipv6Addr,
    plain_until: Instant,
    now: Instant,
) -> bool {
    let Message::BindingAcknowledgement(acknowledgement) = &received.message else { return false };
    let Some(Update { care_of: here, .. }) = client.update else { return false };
    // Status 136 to 138 cannot be signed: what they cost is a test (section 9.5.4).
    if matches!(acknowledgement.status, Status::HOME_NONCE | Status::CARE_OF_NONCE | Status::NONCES) {
        return acknowledgement.sequence == client.sequence
            && forget_tokens(client, here, acknowledgement.status);
    }
    let Some(key) = signing_key(client, here, home) else { return false };
    if !received.is_authorized(&key, here, received.source) {
        return false;
    }
    match acknowledgement.status {
        Status::SEQUENCE
            if is_later(acknowledgement.sequence, client.sequence)
                || acknowledgement.sequence == client.sequence =>
        {
            // Another node has sent later ones: the client's number is the one to go on from.
            client.sequence = acknowledgement.sequence;
            client.update = None;
        }
        status if acknowledgement.sequence != client.sequence && status != Status::SEQUENCE => return false,
        status if status.is_accepted() => bind(client, here, home, acknowledgement.lifetime, now),
        _ => {
            give_up(client, plain_until);
        }
    }
    true
}

pub(super) fn may_believe(client: &Client<Instant>, now: Instant) -> bool {
    client.binding(now).is_some() || client.update.is_some() || client.unsure
}

/// From now on the client counts as plain, until the moment that is given back.
pub(super) fn give_up(client: &mut Client<Instant>, until: Instant) -> Instant {
    client.ability = Ability::Plain { until };
    (client.update, client.bound, client.unsure) = (None, None, false);
    until
}

fn bind(client: &mut Client<Instant>, here: Ipv6Addr, home: Ipv6Addr, lifetime: Lifetime, now: Instant) {
    (client.update, client.unsure) = (None, false);
    let holds = lifetime.duration();
    let renew = now + holds.saturating_sub(RENEW_BEFORE).max(holds / 2);
    if client.bound.is_some_and(|bound| bound.care_of == here) {
        // The path carries routing headers, and has for a while.
        client.failures = 0;
    }
    client.bound = (here != home).then_some(Bound { care_of: here, until: now + holds, renew });
}

pub(super) fn forget_tokens(client: &mut Client<Instant>, here: Ipv6Addr, status: Status) -> bool {
    if status != Status::CARE_OF_NONCE {
        client.home = Tested::default();
    }
    if status != Status::HOME_NONCE {
        client.care_of.remove(&here);
    }
    client.update = None;
    true
}

/// The key of the last Binding Update. Its tokens may have become stale since; they still sign.
fn signing_key(client: &Client<Instant>, here: Ipv6Addr, home: Ipv6Addr) -> Option<Key> {
    let home_token = client.home.token?.token;
    if here == home {
        return Some(Key::new(&home_token, None));
    }
    Some(Key::new(&home_token, Some(&client.care_of.get(&here)?.token?.token)))
}

/// The next Binding Update (RFC 6275 section 11.7.2); `None` without fresh tokens.
pub(super) fn signed_update(
    home: Ipv6Addr,
    address: Ipv6Addr,
    client: &mut Client<Instant>,
    target: Ipv6Addr,
    now: Instant,
) -> Option<Outgoing> {
    let home_token = *client.home.fresh(now)?;
    let at_home = target == home;
    let care_of_token = client.care_of.get(&target).and_then(|tested| tested.fresh(now)).copied();
    if !at_home && care_of_token.is_none() {
        return None;
    }
    let key =
        Key::new(&home_token.token, care_of_token.as_ref().filter(|_| !at_home).map(|held| &held.token));
    client.sequence = client.sequence.wrapping_add(1);
    let indices = (home_token.nonce_index, care_of_token.map_or(0, |held| held.nonce_index));
    let mut message = Message::BindingUpdate(BindingUpdate {
        sequence: client.sequence,
        acknowledge: true,
        lifetime: if at_home { Lifetime::ZERO } else { Lifetime::MAX_ROUTABILITY },
        options: Options { nonce_indices: Some(indices), ..Options::default() },
        ..BindingUpdate::default()
    });
    message.authorize(&key, target, address);
    let home_address = (!at_home).then_some(home);
    Some(Outgoing { home_address, ..Outgoing::plain(target, address, message) })
}

/// Notes that a test is sent now, and gives the cookie of it: the same one for as long as it stays unanswered, so that
/// a late answer is one.
pub(super) fn ask(tested: &mut Tested<Instant>, cookies: &mut Cookies, now: Instant) -> Cookie {
    let (cookie, tries) = match tested.asked {
        Some(asked) => (asked.cookie, asked.tries.saturating_add(1)),
        None => (cookies.draw(), 1),
    };
    tested.asked = Some(Asked { cookie, again: now + patience(tries), tries });
    cookie
}
