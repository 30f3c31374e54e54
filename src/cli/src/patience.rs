//! Commands that go on until they are stopped: they outlive a restart of the server, and end clean
//! when they are interrupted.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use crate::{
    error::{Error, Result},
    printer::Printer,
};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Whether to try again, and when.
#[derive(Debug)]
pub(crate) struct Patience {
    printer: Printer,
    /// When the connection that was there last began.
    connected: Option<Instant>,
    told: bool,
    delay: Duration,
}

impl Patience {
    /// For the first try, which must succeed.
    pub(crate) fn new(printer: Printer) -> Self {
        Self {
            printer,
            connected: None,
            told: false,
            delay: SHORTEST,
        }
    }

    /// Whether there was a connection before.
    pub(crate) fn was_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self) {
        if self.told {
            self.printer.note("connected again");
        }
        self.told = false;
        self.connected = Some(Instant::now());
    }

    /// Waits until it is time to try again.
    ///
    /// # Errors
    /// `error`, when there never was a connection or trying again cannot help.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<()> {
        let Some(connected) = self.connected else {
            return Err(error);
        };
        if !error.may_pass() {
            return Err(error);
        }
        if !self.told {
            self.told = true;
            let text = error.to_string();
            let first = text.lines().next().unwrap_or(&text);
            self.printer.note(&format!(
                "lost the server ({first}); waiting until it is back"
            ));
            // A server that ends every connection at once is not to be asked ever faster.
            if connected.elapsed() > LONGEST {
                self.delay = SHORTEST;
            }
        }
        sleep(self.delay).await;
        self.delay = (self.delay * 2).min(LONGEST);
        Ok(())
    }
}

/// What a stream means that the server ended without a reason.
pub(crate) fn ended() -> Error {
    Error::Foreign("the server ended the stream".into())
}

/// Waits for Ctrl-C, or for whoever asks this process to end.
pub(crate) async fn interrupted() {
    // Without a handler the signal ends the process as it always does.
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::Output;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answered_is_not_waited_for() {
        let mut patience = Patience::new(Printer::new(Output::Text));
        assert!(patience.wait(ended()).await.is_err());
        patience.connected();
        assert!(patience.wait(ended()).await.is_ok());
        assert!(patience.wait(Error::usage("no")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_up_to_a_limit() {
        let mut patience = Patience::new(Printer::new(Output::Text));
        patience.connected();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let begin = Instant::now();
            patience.wait(ended()).await.unwrap();
            waits.push(begin.elapsed().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        // A connection that lasted is a good sign.
        patience.connected();
        sleep(LONGEST * 2).await;
        let begin = Instant::now();
        patience.wait(ended()).await.unwrap();
        assert_eq!(begin.elapsed().as_millis(), 100);
    }
}
