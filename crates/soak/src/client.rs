//! A client of `pulsegate.v1`: it says numbered messages, wants to know the end of each, and notes what it gets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use pulsegate_client::{Client, ClientConfig, Delivered, DeliveryError, Event, Payload, Sender, UrlError};
use pulsegate_core::Sent;

use crate::clock;
use crate::history::{Outcome, Way};
use crate::message::Name;
use crate::world::World;

/// Messages whose end is awaited, at most.
const IN_FLIGHT_MAX: usize = 1000;

/// The time limit of those that have one: shorter than the longer outages.
const TTL: Duration = Duration::from_secs(2);

/// Talks until the world is over.
///
/// # Errors
/// The URL can't be dialed.
pub(crate) async fn talk(client: usize, url: String, world: Arc<World>) -> Result<(), UrlError> {
    let config = ClientConfig {
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(2),
        welcome_within: Duration::from_secs(5),
        ..ClientConfig::default()
    };
    let mut connection = Client::connect(&url, config)?;
    let saying = tokio::spawn(say(client, connection.sender(), Arc::clone(&world)));
    let mut line = 0;
    while let Some(Some(event)) = world.over.run_until_cancelled(connection.next()).await {
        let (history, now) = (&world.history, clock());
        match event {
            Event::Message { text, payload, .. } => {
                history.arrive(client, Way::ToClient, line, text, &payload, now);
            }
            Event::Live { resumed } => {
                if line == 0 {
                    world.live.fetch_add(1, Relaxed);
                }
                line = history.live(client, resumed, now);
            }
            Event::Detached => {}
            Event::Reset { undelivered } => {
                history.ended(client, format!("the client lost its session, {undelivered} undelivered"), now);
            }
            Event::Unsupported => history.ended(client, "the server speaks no pulsegate.v1".to_owned(), now),
            Event::Closed { code, reason } => {
                history.ended(client, format!("the client was closed: {code:?} {reason}"), now);
            }
        }
    }
    world.history.over(client);
    saying.abort();
    connection.close().await;
    Ok(())
}

async fn say(client: usize, sender: Sender, world: Arc<World>) {
    let mut ends = FuturesUnordered::new();
    for _ in 0..world.messages {
        if world.quiet.is_cancelled() {
            break;
        }
        let number = world.history.send(client, Way::ToApp);
        let name = Name { client, way: Way::ToApp, number };
        match sender.begin_delivery(payload(name), name.is_limited().then_some(TTL)).await {
            Ok(delivery) => ends.push(async move { (number, outcome(delivery.end().await)) }),
            Err(_) => world.history.settle(client, number, Outcome::NotSent, clock()),
        }
        while ends.len() >= IN_FLIGHT_MAX
            && let Some((number, outcome)) = ends.next().await
        {
            world.history.settle(client, number, outcome, clock());
        }
        while let Some(Some((number, outcome))) = ends.next().now_or_never() {
            world.history.settle(client, number, outcome, clock());
        }
    }
    while let Some((number, outcome)) = ends.next().await {
        world.history.settle(client, number, outcome, clock());
    }
}

fn payload(name: Name) -> Payload {
    match name.is_text() {
        true => Payload::Text(String::from_utf8(name.payload()).expect("it is ASCII")),
        false => Payload::Binary(name.payload()),
    }
}

fn outcome(end: Result<Delivered, DeliveryError>) -> Outcome {
    match end {
        Ok(Delivered) => Outcome::Delivered,
        Err(DeliveryError::Expired(Sent::No) | DeliveryError::NotTaken(_)) => Outcome::NotSent,
        Err(DeliveryError::Expired(Sent::Maybe)) => Outcome::Unknown,
        Err(DeliveryError::Refused(_)) => Outcome::Rejected,
    }
}
