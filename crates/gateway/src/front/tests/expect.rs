use super::*;

const REQUEST: &str = "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n";

#[tokio::test]
async fn the_clients_100_is_the_apps() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(REQUEST).await;
    let (mut app, seen) = app.request().await;
    assert_eq!(value(&seen, "expect"), Some("100-continue"));
    assert!(client.0.try_read(&mut [0u8; 1]).is_err(), "a 100 before the app's");
    app.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(app.exactly(5).await, "hello");
    app.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), body.as_str()), ("201", "ok"));
    // Nothing was left undecided: the connection serves on.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(app.head().await.starts_with("GET / "));
}

#[tokio::test]
async fn a_final_answer_without_a_100_leaves_the_body_unread() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(REQUEST).await;
    let (mut app, _) = app.request().await;
    app.send("HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\n\r\nno way").await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), body.as_str()), ("413", "no way"));
    assert_eq!(value(&head, "connection"), Some("close"));
    assert_eq!(client.rest().await.unwrap(), "");
    assert_eq!(app.rest().await.unwrap_or_default(), "", "the app got a body that it did not ask for");
}

#[tokio::test]
async fn an_app_that_never_sends_a_100_gets_the_body_after_a_while() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let mut client = gateway.request(REQUEST).await;
    let (mut app, _) = app.request().await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(app.exactly(5).await, "hello");
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&client.head().await), "200");
}

#[tokio::test]
async fn an_expectation_without_a_body_does_not_travel() {
    let app = App::start().await;
    let gateway = Gateway::start(app.config()).await;
    let request = REQUEST.replace("Content-Length: 5", "Content-Length: 0");
    let mut client = gateway.request(&request).await;
    let (mut app, seen) = app.request().await;
    assert_eq!(value(&seen, "expect"), None);
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&client.head().await), "200");
}
