//! Settings that change while services run: one document for the namespace, read and written by
//! dotted paths, with secrets that are kept encrypted.
//!
//! ```no_run
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let config = micro_sdk::mesh().config();
//! let pool: usize = config.get("db.pool").await?.unwrap_or(8);
//! let password: Option<String> = config.secret("db.password").await?;
//!
//! let mut greeting = config.watch::<String>("notes.greeting");
//! while let Some(value) = greeting.next().await {
//!     println!("the greeting is now {:?}", value?);
//! }
//! # Ok(())
//! # }
//! ```

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Mesh, call,
    feed::{Feed, Items, Opening, Source, stream_of_feed},
    wire::config::{
        DeleteRequest, DeleteResponse, GetRequest, GetResponse, Options, SetRequest, SetResponse,
        Value, WatchResponse,
    },
};

/// The settings of the service's namespace. Made by [`Mesh::config`]; clones are cheap.
///
/// ```no_run
/// let config = micro_sdk::mesh().config();
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    mesh: Mesh,
}

impl Config {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// The value at `path`; `None` when there is none. A secret is shown as `"[secret]"`: read it
    /// with [`secret`](Self::secret). The empty path is the whole document.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
    /// let pool = config.get::<usize>("db.pool").await?.unwrap_or(8);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](crate::Kind::Invalid) when the value is no `T`, and those of every call.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        self.read(path, false).await
    }

    /// As [`get`](Self::get), with secrets decrypted.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
    /// let password = config.secret::<String>("db.password").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn secret<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        self.read(path, true).await
    }

    /// Sets the value at `path`. An object is merged into what is there, member by member; anything
    /// else replaces it.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
    /// config.set("db.pool", &16).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn set<T: Serialize + ?Sized>(&self, path: &str, value: &T) -> Result<(), Error> {
        self.write(path, value, false).await
    }

    /// Sets the value at `path`, encrypted.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
    /// config.set_secret("db.password", "hunter2").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn set_secret<T: Serialize + ?Sized>(
        &self,
        path: &str,
        value: &T,
    ) -> Result<(), Error> {
        self.write(path, value, true).await
    }

    /// Deletes what is at `path` and below.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
    /// config.delete("db.pool").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call; [`NotFound`](crate::Kind::NotFound) when the namespace has no settings.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let request = DeleteRequest {
            namespace: String::new(),
            path: path.to_owned(),
        };
        let answer = call::unary(&self.mesh, "/config.Config/Delete", request).await;
        answer
            .map(|_: DeleteResponse| ())
            .map_err(|status| Error::call(format_args!("delete the setting {path}"), &status))
    }

    /// The value at `path`, and again after each change. See [`Watch`].
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) {
    /// let mut greeting = config.watch::<String>("notes.greeting");
    /// # }
    /// ```
    pub fn watch<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Watch<T> {
        self.follow(path, false)
    }

    /// As [`watch`](Self::watch), with secrets decrypted.
    ///
    /// ```no_run
    /// # async fn example(config: micro_sdk::config::Config) {
    /// let mut password = config.watch_secret::<String>("db.password");
    /// # }
    /// ```
    pub fn watch_secret<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Watch<T> {
        self.follow(path, true)
    }

    fn follow<T: DeserializeOwned + Send + 'static>(&self, path: &str, secret: bool) -> Watch<T> {
        Watch {
            feed: Feed::new(Watching {
                mesh: self.mesh.clone(),
                request: question(path, secret),
                last: None,
                value: PhantomData,
            }),
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        secret: bool,
    ) -> Result<Option<T>, Error> {
        let request = question(path, secret);
        let answer = call::unary(&self.mesh, "/config.Config/Get", request).await;
        match answer {
            Ok(GetResponse { value }) => decode(path, &value.unwrap_or_default().data),
            Err(status) => {
                let error = Error::call(format_args!("get the setting {path}"), &status);
                // A namespace that never had settings has no document.
                if error.kind() == crate::Kind::NotFound {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    async fn write<T: Serialize + ?Sized>(
        &self,
        path: &str,
        value: &T,
        secret: bool,
    ) -> Result<(), Error> {
        let what = || format!("set the setting {path}");
        let data = serde_json::to_string(value).map_err(|error| Error::invalid(what(), error))?;
        let request = SetRequest {
            namespace: String::new(),
            path: path.to_owned(),
            value: Some(Value {
                data,
                format: "json".to_owned(),
            }),
            options: Some(Options { secret }),
        };
        let answer = call::unary(&self.mesh, "/config.Config/Set", request).await;
        answer
            .map(|_: SetResponse| ())
            .map_err(|status| Error::call(what(), &status))
    }
}

fn question(path: &str, secret: bool) -> GetRequest {
    GetRequest {
        namespace: String::new(),
        path: path.to_owned(),
        options: Some(Options { secret }),
    }
}

/// `null` is what is not there.
fn decode<T: DeserializeOwned>(path: &str, json: &str) -> Result<Option<T>, Error> {
    if json.is_empty() {
        return Ok(None);
    }
    call::from_json(format_args!("read the setting {path}"), json.as_bytes())
}

/// A setting as it is, then each time it is another one: `None` when there is none.
///
/// It survives restarts of the platform: it connects again, and gives what was set meanwhile. Changes
/// that follow each other closely may be one, but the last one is never missed. A value that is no
/// `T` is an error of kind [`Invalid`](crate::Kind::Invalid), after which it goes on; it ends, with
/// an error before, when the platform refuses it.
///
/// ```no_run
/// # async fn example(config: micro_sdk::config::Config) -> Result<(), micro_sdk::Error> {
/// let mut greeting = config.watch::<String>("notes.greeting");
/// while let Some(value) = greeting.next().await {
///     println!("the greeting is now {:?}", value?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Watch<T> {
    feed: Feed<Option<T>>,
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config::Watch")
    }
}

stream_of_feed! {
    /// The next value. Can be dropped and asked again; nothing is lost by that.
    ///
    /// ```no_run
    /// # async fn example(mut watch: micro_sdk::config::Watch<String>) {
    /// let now = watch.next().await;
    /// # }
    /// ```
    Watch<T> => Option<T>
}

struct Watching<T> {
    mesh: Mesh,
    request: GetRequest,
    /// What the user was given, to leave out what a new connection only repeats.
    last: Option<String>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Source for Watching<T> {
    type Message = WatchResponse;
    type Item = Option<T>;

    fn what(&self) -> String {
        format!("watch the setting {}", self.request.path)
    }

    fn open(&mut self) -> Opening<WatchResponse> {
        let (mesh, request) = (self.mesh.clone(), self.request.clone());
        Box::pin(async move {
            let messages = call::stream(&mesh, "/config.Config/Watch", request).await?;
            Ok(Box::pin(messages) as _)
        })
    }

    fn take(&mut self, message: WatchResponse, items: &mut Items<Option<T>>) {
        let json = message.value.unwrap_or_default().data;
        if self.last.as_ref() != Some(&json) {
            items.push_back(decode(&self.request.path, &json));
            self.last = Some(json);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> Watching<u32> {
        Watching {
            mesh: crate::mesh(),
            request: question("db.pool", false),
            last: None,
            value: PhantomData,
        }
    }

    fn seen(watching: &mut Watching<u32>, json: &str) -> Option<Result<Option<u32>, Error>> {
        let mut items = Items::new();
        let value = Some(Value {
            data: json.to_owned(),
            format: "json".to_owned(),
        });
        watching.take(WatchResponse { value, version: 1 }, &mut items);
        items.pop_front()
    }

    #[test]
    fn a_new_connection_does_not_repeat_what_was_seen() {
        let mut watching = watching();
        assert_eq!(seen(&mut watching, "8").unwrap().unwrap(), Some(8));
        assert!(seen(&mut watching, "8").is_none());
        assert_eq!(seen(&mut watching, "16").unwrap().unwrap(), Some(16));
        assert_eq!(seen(&mut watching, "null").unwrap().unwrap(), None);
    }

    #[test]
    fn a_value_of_another_type_names_its_path() {
        let error = seen(&mut watching(), "\"many\"").unwrap().unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Invalid);
        assert!(error.to_string().contains("db.pool"), "{error}");
    }
}
