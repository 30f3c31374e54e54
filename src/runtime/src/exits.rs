//! Ends of instances: who waits for one hears of it, however the end and the waiting race.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use micro_core::InstanceId;
use micro_sandbox::Exit;
use tokio::sync::oneshot;

/// Ends that nobody has forgotten yet.
#[derive(Default)]
pub(crate) struct Exits {
    inner: Mutex<HashMap<InstanceId, State>>,
}

enum State {
    Waiting(Vec<oneshot::Sender<Exit>>),
    Ended(Exit),
}

impl Exits {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, State>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance ended.
    pub(crate) fn record(&self, id: &InstanceId, exit: &Exit) {
        let before = self.lock().insert(id.clone(), State::Ended(exit.clone()));
        if let Some(State::Waiting(waiting)) = before {
            for waiter in waiting {
                // Whoever stopped waiting does not need to hear.
                drop(waiter.send(exit.clone()));
            }
        }
    }

    /// How an instance ended, if it has.
    pub(crate) fn seen(&self, id: &InstanceId) -> Option<Exit> {
        match self.lock().get(id) {
            Some(State::Ended(exit)) => Some(exit.clone()),
            _ => None,
        }
    }

    /// Nobody will ask for this one again.
    pub(crate) fn forget(&self, id: &InstanceId) {
        self.lock().remove(id);
    }

    /// Waits for the end of an instance. Never returns for one that is forgotten meanwhile.
    pub(crate) async fn wait(&self, id: &InstanceId) -> Exit {
        let receiver = {
            let mut inner = self.lock();
            match inner
                .entry(id.clone())
                .or_insert_with(|| State::Waiting(Vec::new()))
            {
                State::Ended(exit) => return exit.clone(),
                State::Waiting(waiting) => {
                    let (sender, receiver) = oneshot::channel();
                    waiting.push(sender);
                    receiver
                }
            }
        };
        match receiver.await {
            Ok(exit) => exit,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_heard_before_and_after_it_happens() {
        let exits = Exits::default();
        let id = InstanceId::parse("i-1").unwrap();
        let (exit, ()) = tokio::join!(exits.wait(&id), async {
            tokio::task::yield_now().await;
            exits.record(&id, &Exit::Code(3));
        });
        assert_eq!(exit, Exit::Code(3));
        assert_eq!(exits.wait(&id).await, Exit::Code(3));
        assert_eq!(exits.seen(&id), Some(Exit::Code(3)));
        exits.forget(&id);
        assert_eq!(exits.seen(&id), None);
    }
}
