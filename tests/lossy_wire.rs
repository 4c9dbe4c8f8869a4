//! The bad link that `benches/loss` measures over: what it does to packets.

#[path = "../benches/loss/impair.rs"]
mod impair;
