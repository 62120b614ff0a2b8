//! Who may connect.

use crate::world::{LONG, World};
use bastide_proxy::{Body, Pool, PoolLimits, Request};
use bastide_types::Role;
use tokio::time::Instant;

#[tokio::test]
async fn only_edges_get_through_the_handshake() {
    let world = World::new().await;
    let pool = Pool::new(PoolLimits::default());
    for role in [Role::Gateway, Role::Platform, Role::Runtime, Role::Bus] {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("host", "demo.apps.localhost:8443".parse().unwrap());
        let to = world.upstream(role, role.as_str());
        assert!(pool.send(&to, request, Instant::now() + LONG).await.is_err(), "{role}");
    }
    let stranger = World::new().await;
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert("host", "demo.apps.localhost:8443".parse().unwrap());
    let mut to = stranger.upstream(Role::Edge, "edge");
    to.place = world.upstream(Role::Edge, "edge").place;
    assert!(pool.send(&to, request, Instant::now() + LONG).await.is_err(), "an edge of another installation");
}
