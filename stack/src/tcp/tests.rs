//! The engine as a whole. Each state is built from the one before; time is virtual; silence is asserted.

mod closing;
mod commit;
mod ecn;
mod endpoint;
mod group;
mod harness;
mod hostile;
mod limits;
mod loss;
mod moving;
mod mutated;
mod opening;
mod pair;
mod path;
mod plpmtud;
mod rack;
mod receiving;
mod recovered;
mod sending;
mod simulated;
mod states;
mod timers;
mod undo;
mod wire;
