//! Behaviour of [`Handle`].
