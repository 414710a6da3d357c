use super::*;
use pulsegate_core::ReservedBits;

#[tokio::test]
async fn a_handshake_passes_and_becomes_a_session() {
    let app = App::start().await;
    let mut config = app.config();
    config.registry.labels = [("user", "header:X-User"), ("room", "query:room"), ("none", "cookie:none")]
        .map(|(label, source)| (label.to_string(), source.to_string()))
        .into();
    let mut gateway = Gateway::start(config).await;
    let more = "Origin: https://shop.example\r\nCookie: a=b\r\nAuthorization: Bearer t\r\nX-User: ann\r\n\
                Sec-WebSocket-Protocol: chat, superchat\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                Pulsegate-Session: forged\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: r-1\r\n";
    let mut client =
        gateway.request(&(upgrade_request("/chat?room=blue&x=%2F", more) + "early client")).await;

    let (mut app, seen) = app.request().await;
    assert!(seen.starts_with("GET /chat?room=blue&x=%2F HTTP/1.1\r\n"), "{seen}");
    for line in [
        "Host: shop.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Origin: https://shop.example",
        "Cookie: a=b",
        "Authorization: Bearer t",
        "X-User: ann",
        "Sec-WebSocket-Protocol: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "forwarded: for=127.0.0.1;host=\"shop.example\";proto=http",
        "X-Request-Id: r-1",
        "pulsegate-mode: plain",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} is missing in {seen}");
    }
    assert!(value(&seen, "traceparent").is_some() && !seen.contains("forged"), "{seen}");

    let more = "Sec-WebSocket-Protocol: chat\r\nX-App: yes\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
    app.send(&(switching(more) + "early app")).await;
    let answer = client.head().await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for line in switching(more).lines().skip(1) {
        assert!(answer.contains(&format!("{line}\r\n")), "{line} is missing in {answer}");
    }

    let session = gateway.session().await;
    assert_eq!(value(&seen, "pulsegate-session"), Some(session.permit.id().to_string().as_str()));
    assert_eq!((&*session.client_early, &*session.app_early), (&b"early client"[..], &b"early app"[..]));
    assert_eq!(session.reserved_bits, ReservedBits::Deflate);
    assert_eq!((&*session.info.path, session.info.subprotocol.as_deref()), ("/chat", Some("chat")));
    assert_eq!(
        (session.info.origin.as_deref(), &*session.info.request_id),
        (Some("https://shop.example"), "r-1")
    );
    assert_eq!(*session.info.labels, [("room".into(), "blue".into()), ("user".into(), "ann".into())]);
    assert_eq!(session.info.peer, client.0.local_addr().unwrap());
    assert!(session.client.nodelay().unwrap() && session.app.nodelay().unwrap());
}

#[tokio::test]
async fn both_sockets_of_a_session_are_the_peers() {
    let app = App::start().await;
    let mut gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    app.send(&switching("")).await;
    client.head().await;
    let mut session = gateway.session().await;
    assert_eq!(session.reserved_bits, ReservedBits::None);
    session.client.write_all(b"to client").await.unwrap();
    session.app.write_all(b"to app").await.unwrap();
    assert_eq!((client.exactly(9).await, app.exactly(6).await), ("to client".into(), "to app".into()));
    drop(session);
    until(|| gateway.metric("connections") == 0).await;
    assert_eq!(gateway.places_taken(), 0);
}

#[tokio::test]
async fn the_client_gets_no_101_before_the_app_gave_one() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    let mut byte = [0u8; 1];
    assert!(client.0.try_read(&mut byte).is_err(), "an answer before the app's");
    app.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    app.send(&switching("")).await;
    assert_eq!(status(&client.head().await), "101");
}

#[tokio::test]
async fn the_apps_refusal_reaches_the_client_whole() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    app.send(
        "HTTP/1.1 403 No Way\r\nX-Why: banned\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\nyou are banned",
    )
    .await;
    drop(app);
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 403 No Way\r\n"), "{head}");
    assert_eq!((value(&head, "x-why"), value(&head, "x-hop")), (Some("banned"), None));
    assert_eq!(client.exactly(19).await, "E\r\nyou are banned\r\n");
    assert_eq!((gateway.rejected(Rejection::AppRefused), gateway.places_taken()), (1, 0));
}

#[tokio::test]
async fn a_connection_serves_on_after_a_refused_handshake() {
    let app = App::start().await;
    let mut gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut first, _) = app.request().await;
    first.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(client.answer().await.1, "no");
    client.send(&upgrade_request("/again", "")).await;
    let (mut second, seen) = app.request().await;
    assert!(seen.starts_with("GET /again "), "{seen}");
    second.send(&switching("")).await;
    assert_eq!(status(&client.head().await), "101");
    gateway.session().await;
}

#[tokio::test]
async fn a_426_of_the_app_keeps_its_headers() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    app.send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!((status(&head), value(&head, "upgrade")), ("426", Some("websocket")));
}

#[tokio::test]
async fn an_invalid_101_is_a_502() {
    let wrong = [
        switching("").replace("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
        switching("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        switching("Sec-WebSocket-Protocol: chat\r\n"),
        switching("").replace("Upgrade: websocket", "Upgrade: h2c"),
        switching("").replace("HTTP/1.1", "HTTX/1.1"),
    ];
    for answer in wrong {
        let app = App::start().await;
        let mut gateway = Gateway::start(app.config()).await;
        let mut client = gateway.request(&upgrade_request("/", "")).await;
        let (mut app, _) = app.request().await;
        app.send(&answer).await;
        let (head, body) = client.answer().await;
        assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-invalid"), "{answer}");
        app.is_cut().await;
        assert_eq!(gateway.rejected(Rejection::AppInvalid), 1);
        assert_eq!(gateway.dial_failures(), [DialFailure::InvalidResponse]);
        assert!(gateway.sessions.try_recv().is_err() && gateway.places_taken() == 0);
    }
}

#[tokio::test]
async fn an_app_that_is_down_is_a_502() {
    let gateway = Gateway::start(config_for(nobody().await)).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-unreachable"));
    assert_eq!((gateway.dial_failures(), gateway.places_taken()), (vec![DialFailure::Refused], 0));
}

#[tokio::test]
async fn an_app_that_hangs_up_is_a_502() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    drop(app.request().await);
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("502", "app-unreachable"));
    assert_eq!(gateway.dial_failures(), [DialFailure::Reset]);
}

#[tokio::test]
async fn an_app_that_never_answers_is_a_504() {
    let app = App::start().await;
    let mut config = app.config();
    config.upstream.handshake_timeout = Duration::from_millis(50);
    let gateway = Gateway::start(config).await;
    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("504", "app-timeout"));
    app.is_cut().await;
    assert_eq!((gateway.dial_failures(), gateway.places_taken()), (vec![DialFailure::HandshakeTimeout], 0));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_dial() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let client = gateway.request(&upgrade_request("/", "")).await;
    let (mut app, _) = app.request().await;
    assert_eq!(gateway.places_taken(), 1);
    drop(client);
    app.is_cut().await;
    until(|| gateway.places_taken() == 0).await;
    assert_eq!(gateway.rejected(Rejection::ClientGone), 1);
}

#[tokio::test]
async fn a_trusted_proxys_word_decides_who_the_client_is() {
    let app = App::start().await;
    let mut config = app.config();
    config.forwarded.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let mut gateway = Gateway::start(config).await;
    let more = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let _client = gateway.request(&upgrade_request("/", more)).await;
    let (mut app, seen) = app.request().await;
    assert_eq!(value(&seen, "x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(value(&seen, "x-forwarded-proto"), Some("https"));
    app.send(&switching("")).await;
    assert_eq!(gateway.session().await.info.client.to_string(), "203.0.113.9");
}

#[tokio::test]
async fn what_is_kept_of_a_long_path_and_origin_is_bounded() {
    let app = App::start().await;
    let mut gateway = Gateway::start(app.config()).await;
    let path = format!("/{}", "p".repeat(30_000));
    let more = format!("Origin: https://{}\r\n", "o".repeat(10_000));
    let _client = gateway.request(&upgrade_request(&path, &more)).await;
    let (mut app, seen) = app.request().await;
    assert!(seen.contains(&path) && seen.contains(&more), "the app gets them whole");
    app.send(&switching("")).await;
    let info = gateway.session().await.info;
    assert_eq!((info.path.len(), info.origin.unwrap().len()), (1024, 256));
}
