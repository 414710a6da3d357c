use super::*;

/// Sends one request to a gateway whose app must not be asked, and returns status and problem.
async fn refused(gateway: &Gateway, request: &str) -> (String, String, String) {
    let mut client = gateway.request(request).await;
    let (head, body) = client.answer().await;
    (status(&head).to_string(), problem(&head, &body), head)
}

#[tokio::test]
async fn bad_handshakes_are_refused_and_counted() {
    let app = App::start().await;
    let mut config = app.config();
    config.origin.allow = vec!["https://shop.example".into()];
    let gateway = Gateway::start(config).await;
    let good = upgrade_request("/", "Origin: https://shop.example\r\n");
    let with = |line: &str| good.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let cases = [
        (with("Host: other.example"), "400", Rejection::Host),
        (good.replace("Host: shop.example\r\n", ""), "400", Rejection::Host),
        (with(&key), "400", Rejection::Key),
        (good.replace(KEY, "c2hvcnQ="), "400", Rejection::Key),
        (with("Content-Length: 5") + "hello", "400", Rejection::Body),
        (with("Transfer-Encoding: chunked") + "0\r\n\r\n", "400", Rejection::Body),
        (with("Transfer-Encoding: gzip, chunked") + "0\r\n\r\n", "501", Rejection::TransferCoding),
        (good.replace("GET /", "GET http://shop.example/"), "400", Rejection::Target),
        (good.replace("GET", "POST"), "400", Rejection::Method),
        (good.replace("HTTP/1.1", "HTTP/1.0"), "400", Rejection::HttpVersion),
        (good.replace("keep-alive, Upgrade", "keep-alive"), "400", Rejection::Connection),
        (good.replace("Version: 13", "Version: 12"), "426", Rejection::WebSocketVersion),
        (good.replace("https://shop", "https://evil"), "403", Rejection::Origin),
    ];
    for (request, code, reason) in cases {
        let before = gateway.rejected(reason);
        let (status, name, head) = refused(&gateway, &request).await;
        assert_eq!((status.as_str(), name), (code, reason.as_str().replace('_', "-")), "{request}");
        assert_eq!(gateway.rejected(reason), before + 1, "{request}");
        if code == "426" {
            assert_eq!(value(&head, "sec-websocket-version"), Some("13"));
        }
    }
    assert_eq!(gateway.metric("upstream_connects_total"), 0);
    assert_eq!(gateway.places_taken(), 0);
}

#[tokio::test]
async fn bad_plain_requests_are_refused_and_counted() {
    let gateway = Gateway::start(config_for(nobody().await)).await;
    for (request, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", Rejection::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Rejection::Host),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Rejection::Target),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Rejection::Connect),
    ] {
        let (status, name, _) = refused(&gateway, request).await;
        assert_eq!((status.as_str(), name.as_str()), ("400", reason.as_str()), "{request}");
    }
    assert_eq!(gateway.rejected(Rejection::Host), 2);
    assert_eq!((gateway.rejected(Rejection::Target), gateway.rejected(Rejection::Connect)), (1, 1));
}

#[tokio::test]
async fn sessions_beyond_a_cap_are_refused_until_a_place_is_free() {
    for (all, per_address, reason) in [(1, 9, Rejection::SessionsMax), (9, 1, Rejection::AddressMax)] {
        let app = App::start().await;
        let mut config = app.config();
        config.limits.sessions_max = all;
        config.limits.sessions_per_address_max = per_address;
        let mut gateway = Gateway::start(config).await;
        let _client = gateway.request(&upgrade_request("/", "")).await;
        let (mut first, _) = app.request().await;
        first.send(&switching("")).await;
        let session = gateway.session().await;

        let (status, name, head) = refused(&gateway, &upgrade_request("/", "")).await;
        assert_eq!((status.as_str(), name), ("503", reason.as_str().replace('_', "-")));
        assert_eq!((value(&head, "retry-after"), gateway.rejected(reason)), (Some("5"), 1));

        drop(session);
        let _client = gateway.request(&upgrade_request("/", "")).await;
        app.request().await;
    }
}

#[tokio::test]
async fn nobody_has_to_leave_for_a_client_that_the_app_does_not_want() {
    let app = App::start().await;
    let mut config = app.config();
    config.limits.sessions_max = 1;
    let mut gateway = Gateway::start(config).await;
    let _client = gateway.request(&upgrade_request("/", "")).await;
    let (mut first, _) = app.request().await;
    first.send(&switching("")).await;
    let session = gateway.session().await;
    // Its client is away.
    let id = session.permit.id();
    let shared = Arc::clone(&gateway.shared);
    assert_eq!(shared.parking.park(id, 0), []);

    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut asked, _) = app.request().await;
    asked.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert_eq!(status(&head).to_string(), "401");
    assert!(!shared.parking.is_empty());

    let mut client = gateway.request(&upgrade_request("/", "")).await;
    let (mut asked, _) = app.request().await;
    asked.send(&switching("")).await;
    let (head, _) = client.answer().await;
    assert_eq!(status(&head).to_string(), "101");
    assert!(shared.parking.is_empty(), "one had to leave");
    let _second = gateway.session().await;
    // Nobody is left who could.
    let (status, reason, _) = refused(&gateway, &upgrade_request("/", "")).await;
    assert_eq!((status.as_str(), reason.as_str()), ("503", "sessions-max"));
    drop(session);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_refused_until_a_place_is_free() {
    let app = App::start().await;
    let mut config = app.config();
    config.limits.connections_max = 1;
    let mut gateway = Gateway::start(config).await;
    let _client = gateway.request(&upgrade_request("/", "")).await;
    let (mut first, _) = app.request().await;
    first.send(&switching("")).await;
    // A session keeps its connection's place.
    let session = gateway.session().await;

    for _ in 0..3 {
        let (status, name, head) = refused(&gateway, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((status.as_str(), name.as_str()), ("503", "connections-max"));
        assert_eq!(value(&head, "retry-after"), Some("5"));
    }
    assert_eq!(gateway.rejected(Rejection::ConnectionsMax), 3);

    drop(session);
    let _client = gateway.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    app.request().await;
}
