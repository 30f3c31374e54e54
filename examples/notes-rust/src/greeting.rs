//! The setting `notes.greeting`, followed while it changes: no restart is needed.

use std::sync::{Arc, PoisonError, RwLock};

use micro_sdk::{Mesh, config::Watch};

#[derive(Clone, Default)]
pub struct Greeting(Arc<RwLock<String>>);

impl Greeting {
    pub fn follow(micro: &Mesh) -> Self {
        let greeting = Self::default();
        tokio::spawn(
            greeting
                .clone()
                .keep(micro.config().watch("notes.greeting")),
        );
        greeting
    }

    pub fn now(&self) -> String {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn keep(self, mut changes: Watch<String>) {
        while let Some(change) = changes.next().await {
            match change {
                Ok(text) => {
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) =
                        text.unwrap_or_default();
                }
                Err(error) => eprintln!("{error}"),
            }
        }
    }
}
