use std::sync::mpsc;
use std::thread;

use tokio::runtime::Builder;

use super::*;

#[tokio::test]
async fn a_connection_that_another_worker_has_more_time_for_is_served_on_its_thread() {
    let app = App::start().await;
    let shared = Arc::new(Shared::new(app.config()));
    let (give, take) = mpsc::channel();
    let stop = shared.stop.clone();
    let other = thread::Builder::new().name("other".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        give.send(runtime.handle().clone()).unwrap();
        runtime.block_on(stop.cancelled());
    });
    let team = Team::new([Handle::current(), take.recv().unwrap()]);
    let busy: Vec<_> = (0..9).map(|_| team.load(0)).collect();
    let (tell, mut told) = unbounded_channel();
    let relay = move |_: &Arc<Shared>, established: Established| {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        tell.send((thread, Handle::current().id(), established)).unwrap();
    };
    let acceptor = Acceptor::with_relay(&shared, team, Arc::new(relay));
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut client = Peer(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let serving = tokio::spawn(async move { acceptor.serve(listener, 0).await });

    client.send(&upgrade_request("/", "")).await;
    let (mut app, _head) = app.request().await;
    app.send(&switching("")).await;
    assert_eq!(status(&client.head().await), "101");
    let (thread, runtime, _established) = soon(told.recv()).await.unwrap();
    assert_eq!(thread, "other");
    assert_ne!(runtime, Handle::current().id());
    drop(busy);
    shared.stop.cancel();
    soon(serving).await.unwrap();
    other.unwrap().join().unwrap();
}
