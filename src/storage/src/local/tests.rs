//! Behaviour of the engine on ground that fails.
