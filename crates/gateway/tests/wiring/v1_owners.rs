//! Two who show the same token at the same instant (C28 of the fault list): one has the session, the other is told so.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;

use crate::kit::{PATIENCE, Running, Seen, next, read_rest};
use crate::messages::until;
use crate::v1_kit::{Got, Line, app_sees, gateway};

const ROUNDS: u64 = 1000;

/// Comes back when the other does. It is greeted, or was replaced before anything could be said to it.
async fn rush(gateway: &Running, token: &str, received: u64, start: Arc<Barrier>) -> (Line, Option<Got>) {
    start.wait().await;
    let (stream, first) = Line::resume(gateway, token, received).await;
    match first {
        Got::Close(..) => (Line { stream, token: String::new() }, Some(first)),
        Got::Text(_) | Got::Word(_) => (Line::welcomed(stream, first, true, received, received + 1), None),
    }
}

/// Says a word whether it is still heard or not, and returns whether it is: then the word comes back.
async fn is_owner((line, told): &mut (Line, Option<Got>), word: &str) -> bool {
    line.text(word).await;
    let got = match told.take() {
        Some(told) => told,
        None => line.read_message().await,
    };
    if got == Got::Text(word.to_owned()) {
        return true;
    }
    assert_eq!(got, Got::Close(4409, "replaced by a newer connection".into()));
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c28_of_two_with_one_token_one_has_the_session_and_gets_the_messages() {
    // Whoever lost may take its time to read that.
    let (gateway, mut seen) = gateway(|config| config.limits.close_timeout = PATIENCE).await;
    let gateway = Arc::new(gateway);
    let mut owner = Some(Line::open(&gateway).await);
    let mut token = owner.as_ref().unwrap().token.clone();
    assert_eq!(next(&mut seen).await, Seen::Open);
    let mut said = Vec::new();
    for round in 0..ROUNDS {
        // Every other time there is still somebody whom both replace.
        let before = owner.take().filter(|_| round % 2 == 0);
        let start = Arc::new(Barrier::new(2));
        let [one, two] = [0, 1].map(|_| {
            let (gateway, token, start) = (Arc::clone(&gateway), token.clone(), Arc::clone(&start));
            tokio::spawn(async move { rush(&gateway, &token, round, start).await })
        });
        let (mut one, mut two) = (one.await.unwrap(), two.await.unwrap());
        assert_ne!(one.0.token, two.0.token);
        // Whatever the other says as well counts for nothing.
        let words = [format!("one {round}"), format!("two {round}")];
        let owners = [is_owner(&mut one, &words[0]).await, is_owner(&mut two, &words[1]).await];
        assert_ne!(owners[0], owners[1], "round {round}: exactly one");
        let (mut winner, mut loser) = if owners[0] { (one.0, two.0) } else { (two.0, one.0) };
        said.push(words[usize::from(owners[1])].clone());
        loser.ack(round + 1).await;
        loser.stream.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut loser.stream).await, b"", "round {round}: nothing comes behind the Close");
        if let Some(mut before) = before {
            assert!(matches!(before.read_message().await, Got::Close(4409, _)), "round {round}");
        }
        winner.ack(round + 1).await;
        until(&gateway, |told| told["received"] == round + 1).await;
        token = winner.token.clone();
        owner = Some(winner);
    }
    for word in &said {
        app_sees(&mut seen, word).await;
    }
    assert_eq!(gateway.scrape("pulsegate_sessions_opened_total{mode=\"v1\"}").await, 1);
    assert_eq!(gateway.scrape("pulsegate_resumes_total").await, ROUNDS * 2);
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 0);
    drop(owner);
    Arc::into_inner(gateway).unwrap().stop().await;
}
