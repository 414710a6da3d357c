use super::*;
use crate::front::probe_upstream;

const MIB: usize = 1024 * 1024;
/// What the kernel's buffers on the way may hold besides the gateway's.
const IN_FLIGHT_MAX: usize = 32 * MIB;

const GET: &str = "GET /a%2Fb?c=d HTTP/1.1\r\nHost: shop.example\r\nX-CaSe: kept\r\n\r\n";

#[tokio::test]
async fn requests_pass_over_one_connection_on_either_side() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&GET.replace("X-CaSe", "Connection: X-Hop\r\nX-Hop: 1\r\nX-CaSe")).await;
    let (mut app, seen) = app.request().await;
    assert!(seen.starts_with("GET /a%2Fb?c=d HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("\r\nHost: shop.example\r\n") && seen.contains("\r\nX-CaSe: kept\r\n"), "{seen}");
    assert_eq!((value(&seen, "x-forwarded-for"), value(&seen, "x-hop")), (Some("127.0.0.1"), None));
    assert_eq!((value(&seen, "connection"), value(&seen, "pulsegate-session")), (None, None));
    for turn in ["one", "two"] {
        app.send(&format!(
            "HTTP/1.1 200 Fine\r\nX-ApP: {turn}\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\n{turn}"
        ))
        .await;
        let (head, body) = client.answer().await;
        assert!(
            head.starts_with("HTTP/1.1 200 Fine\r\n") && head.contains(&format!("\r\nX-ApP: {turn}\r\n")),
            "{head}"
        );
        assert_eq!((body.as_str(), value(&head, "keep-alive")), (turn, None));
        if turn == "one" {
            client.send(GET).await;
            app.head().await;
        }
    }
}

#[tokio::test]
async fn old_clients_without_a_host_are_served() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request("GET /health HTTP/1.0\r\n\r\n").await;
    let authority = app.address.to_string();
    let (mut app, seen) = app.request().await;
    assert!(seen.starts_with("GET /health HTTP/1.1\r\n"), "{seen}");
    assert_eq!(value(&seen, "host"), Some(authority.as_str()));
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && value(&head, "transfer-encoding").is_none(), "{head}");
    assert_eq!(client.rest().await.unwrap(), "ok");
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut app, _) = app.request().await;
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    assert_eq!(value(&client.head().await, "content-length"), Some("1234"));
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(app.head().await.starts_with("OPTIONS * HTTP/1.1\r\n"));
    app.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(status(&client.head().await), "204");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let mut client = gateway.request(request).await;
    let (mut app, seen) = app.request().await;
    assert_eq!((value(&seen, "te"), value(&seen, "transfer-encoding")), (Some("trailers"), Some("chunked")));
    // Streamed: the first chunk is here although there is no last one yet.
    assert_eq!(app.exactly(10).await, "5\r\nhello\r\n");
    client.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(app.head().await.to_ascii_lowercase(), "0\r\nx-sum: 1\r\n\r\n");
    app.send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    assert_eq!(value(&client.head().await, "transfer-encoding"), Some("chunked"));
    assert_eq!(client.exactly(7).await, "2\r\nok\r\n");
    app.send("0\r\nX-Sum: 2\r\n\r\n").await;
    assert_eq!(client.head().await.to_ascii_lowercase(), "0\r\nx-sum: 2\r\n\r\n");
}

/// Writes until nothing moves any more, and returns how much went out.
async fn fill(peer: &mut Peer, total: usize) -> usize {
    let block = vec![7u8; MIB];
    let mut sent = 0;
    while sent < total {
        let part = &block[..block.len().min(total - sent)];
        match tokio::time::timeout(Duration::from_millis(300), peer.0.write(part)).await {
            Ok(count) => sent += count.unwrap(),
            Err(_) => break,
        }
    }
    sent
}

/// Reads `total` bytes while the other end writes what is missing of them.
async fn drain(from: &mut Peer, to: &mut Peer, mut sent: usize, total: usize) {
    let write = async {
        let block = vec![7u8; MIB];
        while sent < total {
            sent += from.0.write(&block[..block.len().min(total - sent)]).await.unwrap();
        }
    };
    let read = async {
        let (mut block, mut count) = (vec![0u8; MIB], 0);
        while count < total {
            let more = to.0.read(&mut block).await.unwrap();
            assert!(more > 0 && block[..more].iter().all(|byte| *byte == 7));
            count += more;
        }
    };
    soon(async { tokio::join!(write, read) }).await;
}

#[tokio::test]
async fn bodies_of_64_mib_stream_both_ways_and_never_pile_up() {
    let total = 64 * MIB;
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client =
        gateway.request(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n")).await;
    let (mut app, _) = app.request().await;
    let sent = fill(&mut client, total).await;
    assert!(sent < IN_FLIGHT_MAX, "{sent} bytes went in while the app read none");
    drain(&mut client, &mut app, sent, total).await;

    app.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")).await;
    client.head().await;
    let sent = fill(&mut app, total).await;
    assert!(sent < IN_FLIGHT_MAX, "{sent} bytes went in while the client read none");
    drain(&mut app, &mut client, sent, total).await;
}

#[tokio::test]
async fn an_app_that_is_down_slow_or_odd_is_said_so() {
    let gateway = Gateway::start(config_for(nobody().await)).await;
    let (head, body) = gateway.request(GET).await.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-unreachable"));

    let app = App::start().await;
    let mut config = app.config();
    config.upstream.response_timeout = Duration::from_millis(50);
    let gateway = Gateway::start(config).await;
    let mut client = gateway.request(GET).await;
    let (mut peer, _) = app.request().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("504", "app-timeout"));
    peer.is_cut().await;

    let mut client = gateway.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
    let (mut peer, _) = app.request().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("408", "body-timeout"));
    peer.is_cut().await;

    let gateway = Gateway::start(app.config()).await;
    for odd in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let mut client =
            gateway.request(&GET.replace("X-CaSe", "Connection: Upgrade\r\nUpgrade: h2c\r\nX-CaSe")).await;
        let (mut peer, seen) = app.request().await;
        assert_eq!(value(&seen, "upgrade"), None);
        peer.send(odd).await;
        let (head, body) = client.answer().await;
        assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-invalid"), "{odd}");
        peer.is_cut().await;
    }
}

#[tokio::test]
async fn a_safe_request_into_a_connection_that_just_closed_is_sent_again() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(GET).await;
    let (mut first, _) = app.request().await;
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.answer().await;
    client.send(GET).await;
    first.head().await;
    drop(first);
    let (mut second, seen) = app.request().await;
    assert!(seen.starts_with("GET /a%2Fb?c=d ") && seen.contains("X-CaSe: kept"), "{seen}");
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain").await;
    assert_eq!(client.answer().await.1, "again");

    // What might not bear it is not, and nothing is sent a third time.
    for (request, times) in [("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 1), (GET, 2)] {
        let gateway = Gateway::start(app.config()).await;
        let mut client = gateway.request(request).await;
        for _ in 0..times {
            drop(app.request().await);
        }
        let (head, body) = client.answer().await;
        assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-invalid"), "{request}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_is_a_400() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    let mut client = gateway.request(request).await;
    let (mut app, _) = app.request().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("400", "malformed-body"));
    assert!(
        !app.rest().await.unwrap_or_default().ends_with("0\r\n\r\n"),
        "the app must not take it for whole"
    );
}

#[tokio::test]
async fn an_app_that_dies_in_mid_body_cuts_the_client() {
    for (request, head) in [
        (GET.to_string(), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        (GET.to_string(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        (GET.replace("1.1", "1.0"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ] {
        let app = App::start().await;
        let gateway = Gateway::start(app.config()).await;
        let mut client = gateway.request(&request).await;
        let (mut app, _) = app.request().await;
        app.send(head).await;
        client.head().await;
        drop(app);
        let cut = client.rest().await;
        assert_eq!(cut.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "{head}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_app() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let client = gateway.request(GET).await;
    let (mut waiting, _) = app.request().await;
    drop(client);
    waiting.is_cut().await;

    let mut client = gateway.request(GET).await;
    let (mut sending, _) = app.request().await;
    sending.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.head().await;
    drop(client);
    sending.is_cut().await;
}

#[tokio::test]
async fn the_probe_tells_whether_the_app_accepts() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    assert!(probe_upstream(&gateway.shared).await);
    drop(app);
    assert!(probe_upstream(&gateway.shared).await, "an answer is good for a second");
    let gateway = Gateway::start(config_for(nobody().await)).await;
    assert!(!probe_upstream(&gateway.shared).await);
    assert_eq!(gateway.metric("upstream_up"), 0);
}
