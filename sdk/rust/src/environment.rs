//! What the platform, or the person who starts the service by hand, says through the environment.
//! Read once at start; an empty variable is no variable.

use crate::error::Error;

/// The identity proxy of a server on this machine.
const DEFAULT_PLATFORM: &str = "127.0.0.1:8081";

/// Everything a service takes from its environment.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// `MICRO_SERVICE_ADDRESS`.
    address: Option<String>,
    /// `PORT`.
    port: Option<String>,
    /// Where the platform is reached, `host:port`.
    pub(crate) platform: String,
    /// The namespace the service lives in.
    pub(crate) namespace: String,
    /// Who the service is.
    pub(crate) credentials: Option<Credentials>,
    /// `MICRO_SERVICE_VERSION`.
    pub(crate) version: Option<String>,
    /// Whether the platform started this process; it registers the service then.
    pub(crate) managed: bool,
}

/// An account's id and secret.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .field("secret", &"[redacted]")
            .finish()
    }
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The environment that `get` knows.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        // The pairs are those of Micro 5 and Micro 3; a half of one and a half of the other is no account.
        let pair = |id: &str, secret: &str| {
            Some(Credentials {
                id: get(id)?,
                secret: get(secret)?,
            })
        };
        Self {
            address: get("MICRO_SERVICE_ADDRESS"),
            port: get("PORT"),
            platform: get("MICRO_PROXY")
                .or_else(|| get("MICRO_SERVICE_NETWORK"))
                .map_or_else(|| DEFAULT_PLATFORM.to_owned(), |text| host_port(&text)),
            namespace: get("MICRO_NAMESPACE").unwrap_or_else(|| "micro".to_owned()),
            credentials: pair("MICRO_CLIENT_ID", "MICRO_CLIENT_SECRET")
                .or_else(|| pair("MICRO_AUTH_ID", "MICRO_AUTH_SECRET")),
            version: get("MICRO_SERVICE_VERSION"),
            managed: get("MICRO_INSTANCE_ID").is_some(),
        }
    }

    /// Where to listen: `MICRO_SERVICE_ADDRESS`, else `$PORT` on loopback, else any port on loopback.
    pub(crate) fn listen_address(&self) -> Result<String, Error> {
        if let Some(address) = &self.address {
            // `:8080` is how Go writes all interfaces.
            return Ok(match address.strip_prefix(':') {
                Some(port) => format!("0.0.0.0:{port}"),
                None => address.clone(),
            });
        }
        match &self.port {
            None => Ok("127.0.0.1:0".to_owned()),
            Some(text) => match text.trim().parse::<u16>() {
                Ok(port) => Ok(format!("127.0.0.1:{port}")),
                Err(_) => Err(Error::Port {
                    value: text.clone(),
                }),
            },
        }
    }
}

/// `host:port` of what people write: a scheme, a path and a missing host are taken care of.
fn host_port(text: &str) -> String {
    let text = text.trim();
    if text.starts_with("https://") {
        // Kept whole, so that the refusal at the first call can show it.
        return text.to_owned();
    }
    let text = text.trim_start_matches("http://");
    let text = text.split('/').next().unwrap_or(text);
    match text.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let (_, value) = pairs.iter().find(|(n, _)| *n == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn the_platform_decides_where_to_listen() {
        let listen = |pairs: &[(&str, &str)]| environment(pairs).listen_address();
        assert_eq!(listen(&[]).unwrap(), "127.0.0.1:0");
        assert_eq!(listen(&[("PORT", "4000")]).unwrap(), "127.0.0.1:4000");
        assert_eq!(
            listen(&[("PORT", "4000"), ("MICRO_SERVICE_ADDRESS", "[::1]:5000")]).unwrap(),
            "[::1]:5000"
        );
        assert_eq!(
            listen(&[("MICRO_SERVICE_ADDRESS", ":8080")]).unwrap(),
            "0.0.0.0:8080"
        );
        let error = listen(&[("PORT", "http")]).unwrap_err();
        assert!(error.to_string().contains("PORT is \"http\""), "{error}");
    }

    #[test]
    fn the_platform_address_is_taken_in_every_form_in_use() {
        let platform = |pairs: &[(&str, &str)]| environment(pairs).platform;
        assert_eq!(platform(&[]), "127.0.0.1:8081");
        assert_eq!(
            platform(&[("MICRO_SERVICE_NETWORK", ":8443")]),
            "127.0.0.1:8443"
        );
        assert_eq!(
            platform(&[
                ("MICRO_SERVICE_NETWORK", "127.0.0.1:8443"),
                ("MICRO_PROXY", "http://10.0.0.1:8081/")
            ]),
            "10.0.0.1:8081"
        );
        assert_eq!(platform(&[("MICRO_PROXY", "")]), "127.0.0.1:8081");
    }

    #[test]
    fn credentials_come_in_pairs() {
        let id = |pairs: &[(&str, &str)]| environment(pairs).credentials.map(|c| c.id);
        assert_eq!(id(&[("MICRO_CLIENT_ID", "a")]), None);
        assert_eq!(
            id(&[
                ("MICRO_CLIENT_ID", "a"),
                ("MICRO_AUTH_ID", "b"),
                ("MICRO_AUTH_SECRET", "s")
            ]),
            Some("b".to_owned())
        );
        let secret = environment(&[("MICRO_CLIENT_ID", "a"), ("MICRO_CLIENT_SECRET", "hush")]);
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
