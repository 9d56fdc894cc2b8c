//! Nodes of a group die while other nodes hold copies of their connections: at every moment of a scenario, and in worlds
//! that a seed draws.

#[path = "crash/every.rs"]
mod every;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/scene.rs"]
mod scene;
