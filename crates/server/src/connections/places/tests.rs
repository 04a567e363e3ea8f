use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn places(connections_max: usize, per_client_max: usize) -> Arc<Places> {
    let trusted = ["10.0.0.0/8", "2001:db8::5/128"];
    let trusted = trusted.map(|network| network.parse().expect("a network"));
    let metrics = ConnectionMetrics::default();
    Places::new(connections_max, per_client_max, trusted.into(), metrics)
}

/// Opens a connection whose task leaves when it is asked to.
async fn connect(places: &Arc<Places>, address: IpAddr) -> tokio::task::JoinHandle<()> {
    let place = places.take(address).await.expect("a place");
    assert_eq!(place.excess, None);
    let metrics = ConnectionMetrics::default();
    tokio::spawn(async move { place.seat.ends(&metrics).await })
}

#[tokio::test(start_paused = true)]
async fn the_client_with_most_connections_loses_its_longest_idle_one() {
    let places = places(4, 4);
    let other = connect(&places, B).await;
    let first = connect(&places, A).await;
    let second = connect(&places, A).await;
    // One client gets at most three of the four places.
    let third = connect(&places, A).await;
    let newcomer = connect(&places, B).await;
    tokio::task::yield_now().await;
    assert!(first.is_finished());
    let still = [&other, &second, &third, &newcomer].map(tokio::task::JoinHandle::is_finished);
    assert_eq!(still, [false; 4]);
}

/// For other IPv6 clients the whole /64 counts.
#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_with_an_ipv6_address_keeps_its_idle_connections_longest() {
    let places = places(5, 5);
    let proxy = "2001:db8::5".parse().expect("an address");
    let mut of_proxy = Vec::new();
    for _ in 0..3 {
        of_proxy.push(connect(&places, proxy).await);
    }
    let first = connect(&places, A).await;
    let second = connect(&places, A).await;
    let newcomer = connect(&places, B).await;
    tokio::task::yield_now().await;
    assert!(first.is_finished());
    of_proxy.extend([second, newcomer]);
    assert!(of_proxy.iter().all(|open| !open.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn busy_connections_are_kept_and_excess_ones_are_limited() {
    let places = places(2, 2);
    let first = places.take(A).await.expect("a place");
    let second = places.take(A).await.expect("a place");
    let busy = [first.seat.busy(), second.seat.busy()];
    let excess = places.take(B).await.expect("one in excess");
    assert_eq!(excess.excess.as_deref(), Some("connections_max = 2"));
    let mut more: Vec<_> = Vec::new();
    while let Some(place) = places.take(B).await {
        more.push(place);
    }
    assert_eq!(more.len(), EXCESS_PER_CLIENT_MAX - 1);
    assert!(
        places.take(A).await.is_some(),
        "a connection of another client"
    );
    let mut ending = Vec::new();
    for client in 10..100 {
        let client = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, client));
        let Some(place) = places.take(client).await else {
            break;
        };
        ending.push(place);
    }
    assert_eq!(
        ending.len(),
        EXCESS_MAX - EXCESS_PER_CLIENT_MAX,
        "no connection in excess has ended"
    );
    for place in more.drain(..) {
        tokio::spawn(async move { place.seat.ends(&ConnectionMetrics::default()).await });
    }
    assert!(
        places.take(A).await.is_some(),
        "some connections of the client with the most end"
    );
    drop(busy);
    drop(first);
    let place = places.take(B).await.expect("a place");
    assert_eq!(place.excess, None);
}

#[tokio::test(start_paused = true)]
async fn connections_per_client_are_limited_except_for_trusted_proxies() {
    let places = places(100, 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        let place = places.take(A).await.expect("a place");
        held.push((place.seat.busy(), place));
    }
    let excess = places.take(A).await.expect("one in excess");
    assert_eq!(
        excess.excess.as_deref(),
        Some("connections_per_client_max = 3")
    );
    let mut of_proxy = Vec::new();
    for _ in 0..20 {
        let place = places.take(PROXY).await.expect("a place");
        assert_eq!(place.excess, None);
        of_proxy.push(place);
    }
    let other = places.take(B).await.expect("a place");
    assert_eq!(other.excess, None);
}

#[tokio::test(start_paused = true)]
async fn connections_awaiting_bodies_give_way_to_clients_with_few() {
    let places = places(4, 4);
    let mut held = Vec::new();
    for _ in 0..3 {
        let place = places.take(A).await.expect("a place");
        let (busy, awaited) = (place.seat.busy(), place.seat.awaited());
        held.push((place, busy, Some(awaited)));
    }
    // The body of one has arrived.
    held[0].2 = None;
    let other = places.take(PROXY).await.expect("a place");
    let _busy = other.seat.busy();
    let mut ended = Vec::new();
    for (place, busy, awaited) in held {
        ended.push(tokio::spawn(async move {
            place.seat.ends(&ConnectionMetrics::default()).await;
            drop((place, busy, awaited));
        }));
    }
    let newcomer = places.take(B).await.expect("a place");
    assert_eq!(newcomer.excess, None);
    let still = |ended: &[tokio::task::JoinHandle<()>]| {
        let still = ended.iter().filter(|each| !each.is_finished());
        still.count()
    };
    assert!(
        !ended[0].is_finished(),
        "its operation may have been applied"
    );
    assert_eq!(still(&ended), 2, "one at a time");
    // With two of the four places, no client has more than twice as many as the new one.
    let place = places.take(B).await.expect("one in excess");
    assert_eq!(place.excess.as_deref(), Some("connections_max = 4"));
}

/// Returns all connections that a client can have, each with a request under way.
async fn fill(places: &Arc<Places>, address: IpAddr, count: usize) -> Vec<(Busy, Place)> {
    let mut held = Vec::new();
    for _ in 0..count {
        let place = places.take(address).await.expect("a place");
        assert_eq!(place.excess, None);
        held.push((place.seat.busy(), place));
    }
    held
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_declines_to_leave_delays_no_new_client() {
    let places = places(2, 2);
    let mut asking = Vec::new();
    for place in [places.take(A).await, places.take(A).await] {
        let place = place.expect("a place");
        asking.push(tokio::spawn(async move {
            // The head of its request arrives just when its worker checks whether it must leave.
            let _busy = place.seat.busy();
            place.seat.ends(&ConnectionMetrics::default()).await;
        }));
    }
    let before = tokio::time::Instant::now();
    let place = places.take(B).await.expect("one in excess");
    assert_eq!(place.excess.as_deref(), Some("connections_max = 2"));
    assert_eq!(
        before.elapsed(),
        Duration::ZERO,
        "every connection has decided"
    );
    assert!(asking.iter().all(|each| !each.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_client_with_many_connections_takes_none_from_one_with_few() {
    let places = places(40, 40);
    let _first = fill(&places, A, 19).await;
    let _second = fill(&places, B, 20).await;
    let few = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
    let newcomer = connect(&places, few).await;
    for many in [A, B] {
        let more = places.take(many).await.expect("one in excess");
        assert_eq!(more.excess.as_deref(), Some("connections_max = 40"));
    }
    tokio::task::yield_now().await;
    assert!(
        !newcomer.is_finished(),
        "it still has time to send a request"
    );
}

#[tokio::test(start_paused = true)]
async fn the_client_with_most_connections_makes_room_before_a_new_one() {
    let places = places(40, 40);
    let first = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
    let newcomer = connect(&places, first).await;
    let mut attackers = Vec::new();
    for (busy, place) in fill(&places, A, 30).await {
        let awaited = place.seat.awaited();
        attackers.push(tokio::spawn(async move {
            place.seat.ends(&ConnectionMetrics::default()).await;
            drop((busy, awaited, place));
        }));
    }
    let _others = fill(&places, PROXY, 9).await;
    let second = places.take(B).await.expect("a place");
    assert_eq!(second.excess, None);
    assert!(
        !newcomer.is_finished(),
        "it still has time to send a request"
    );
    let left = attackers.iter().filter(|each| each.is_finished()).count();
    assert_eq!(left, 2, "connections that await only bodies made room");
    // If no other connection can make room, the new one does.
    let all = places.permits.available_permits();
    let _rest = fill(&places, B, all).await;
    for each in attackers {
        each.abort();
        drop(each.await);
    }
    let all = places.permits.available_permits();
    let _rest = fill(&places, PROXY, all).await;
    let last = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 4));
    let place = places.take(last).await.expect("a place");
    assert_eq!(place.excess, None);
    assert!(newcomer.is_finished());
}
