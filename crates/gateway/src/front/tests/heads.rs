use super::*;
use crate::front::service::Front;
use crate::front::upgrade::admit;

async fn gateway_with(change: impl FnOnce(&mut Config)) -> Gateway {
    let mut config = config_for(nobody().await);
    change(&mut config);
    Gateway::start(config).await
}

#[tokio::test]
async fn a_slow_head_is_a_408() {
    let gateway = gateway_with(|config| config.limits.header_timeout = Duration::from_millis(50)).await;
    let mut client = gateway.request("GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), problem(&head, &body).as_str()), ("408", "head-timeout"));
    assert_eq!(client.rest().await.unwrap(), "");
    assert_eq!(gateway.rejected(Rejection::HeadTimeout), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let gateway = gateway_with(|config| config.limits.header_timeout = Duration::from_millis(50)).await;
    let mut silent = gateway.connect().await;
    assert_eq!(silent.rest().await.unwrap(), "");
    let mut served = gateway.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&served.answer().await.0), "502");
    assert_eq!(served.rest().await.unwrap(), "");
    assert_eq!(gateway.rejected(Rejection::HeadTimeout), 0);
}

#[tokio::test]
async fn heads_over_the_limits_are_a_431() {
    let gateway = gateway_with(|config| {
        config.limits.header_bytes_max = 4096;
        config.limits.headers_max = 10;
    })
    .await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(4096));
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(600_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10));
    for request in [long, endless, many] {
        let mut client = gateway.request(&request).await;
        let head = client.head().await;
        assert_eq!(status(&head), "431");
        assert_eq!(client.rest().await.unwrap(), "");
    }
    assert_eq!(gateway.rejected(Rejection::HeadTooLarge), 3);
}

#[tokio::test]
async fn a_head_at_the_limit_passes() {
    let gateway = gateway_with(|config| config.limits.header_bytes_max = 4096).await;
    let fixed = "GET / HTTP/1.1\r\nHost: a\r\nX-Long: \r\n\r\n".len();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(4096 - fixed));
    assert_eq!(status(&gateway.request(&request).await.head().await), "502");
}

#[tokio::test]
async fn heads_that_are_no_http_are_a_400() {
    let gateway = gateway_with(|_| {}).await;
    let cases = [
        "\u{16}\u{3}\u{1} hello TLS\r\n\r\n",
        "GET / HTTP/1.1\r\nHost a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in cases {
        let mut client = gateway.request(request).await;
        assert_eq!(status(&client.head().await), "400", "{request:?}");
        client.is_cut().await;
    }
    assert_eq!(gateway.rejected(Rejection::MalformedHead), cases.len());
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_ends_after_the_busy_ones() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut idle = gateway.connect().await;
    let mut busy = gateway.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut asking = gateway.request(&upgrade_request("/", "")).await;
    let (mut first, one) = app.request().await;
    let (mut second, _) = app.request().await;
    if one.contains("websocket") {
        std::mem::swap(&mut first, &mut second);
    }
    gateway.shared.stop.cancel();
    soon(gateway.serving).await.unwrap();
    assert_eq!(idle.rest().await.unwrap(), "");
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(busy.answer().await.1, "ok");
    assert_eq!(busy.rest().await.unwrap(), "");
    second.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(asking.answer().await.1, "no");
    drop((idle, busy, asking));
    gateway.shared.connections.close();
    soon(gateway.shared.connections.wait()).await;
}

#[tokio::test]
async fn nothing_is_read_behind_the_request_that_was_under_way_at_the_stop() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut peer, _) = app.request().await;
    client.send(&upgrade_request("/", "")).await;
    gateway.shared.stop.cancel();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.1, "ok");
    client.is_cut().await;
    assert_eq!(gateway.places_taken(), 0);
}

/// A head that was under way at the stop is still read.
#[tokio::test]
async fn a_handshake_after_the_stop_is_refused() {
    let gateway = gateway_with(|_| {}).await;
    let front = Front::new(&gateway.shared, Arc::new(|_, _| {}));
    let request = ::http::Request::builder()
        .uri("/")
        .header("host", "a")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", KEY)
        .header("sec-websocket-version", "13");
    let head = request.body(()).unwrap().into_parts().0;
    assert!(admit(&front, gateway.address, &head).is_ok());
    gateway.shared.stop.cancel();
    assert_eq!(admit(&front, gateway.address, &head).unwrap_err(), Rejection::Draining);
}
