//! Notes: what a service does with the state that Micro keeps for it.
//!
//! | where | what | kept in |
//! |---|---|---|
//! | here | the notes, and a file beside each | store, blobs |
//! | `feed.rs` | an event per change, consumed into a feed | events, store |
//! | `greeting.rs` | a setting that is followed while it changes | config |

use micro_sdk::{
    Error, Kind, Mesh, Request, Response, Service, Status, async_trait,
    auth::Auth,
    blobs::Blobs,
    store::{Record, Table},
};
use serde::{Deserialize, Serialize};

use feed::Feed;
use greeting::Greeting;
use helloworld::helloworld_client::HelloworldClient;
use pb::notes_server::{Notes, NotesServer};

mod feed;
mod greeting;

mod pb {
    micro_sdk::include_proto!("notes");
}

mod helloworld {
    micro_sdk::include_proto!("helloworld");
}

/// A note as it is stored.
#[derive(Serialize, Deserialize)]
struct Note {
    text: String,
    author: String,
}

struct MyNotes {
    micro: Mesh,
    auth: Auth,
    notes: Table<Note>,
    blobs: Blobs,
    feed: Feed,
    greeting: Greeting,
}

impl MyNotes {
    fn new(micro: Mesh) -> Self {
        Self {
            auth: micro.auth(),
            notes: micro.store().table("notes"),
            blobs: micro.blobs(),
            feed: Feed::follow(&micro),
            greeting: Greeting::follow(&micro),
            micro,
        }
    }

    async fn note(&self, id: &str) -> Result<Record<Note>, Status> {
        let note = self.notes.get(id).await?;
        note.ok_or_else(|| Status::not_found(format!("there is no note {id:?}")))
    }
}

fn attachment(id: &str) -> String {
    format!("notes/{id}")
}

fn answer(id: String, note: Note, revision: u64) -> pb::Note {
    pb::Note {
        id,
        text: note.text,
        author: note.author,
        revision,
    }
}

// The errors of Micro's own services become statuses by `?`.
#[async_trait]
impl Notes for MyNotes {
    async fn create(
        &self,
        request: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::Note>, Status> {
        let author = match self.auth.caller(&request).await? {
            Some(account) => account.id,
            None => "somebody".to_owned(),
        };
        let pb::CreateRequest { id, text } = request.into_inner();
        let note = Note { text, author };
        let revision = match self.notes.create(&id, &note).await {
            Err(error) if error.kind() == Kind::Conflict => {
                return Err(Status::already_exists(format!("there is a note {id:?}")));
            }
            result => result?,
        };
        self.feed.tell("created", &id).await?;
        Ok(Response::new(answer(id, note, revision)))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::Note>, Status> {
        let note = self.note(&request.into_inner().id).await?;
        Ok(Response::new(answer(note.key, note.value, note.revision)))
    }

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        let pb::ListRequest { prefix, limit } = request.into_inner();
        let notes = self.notes.list().prefix(prefix).limit(limit);
        let notes = notes.records().await?.into_iter();
        Ok(Response::new(pb::ListResponse {
            notes: notes
                .map(|note| answer(note.key, note.value, note.revision))
                .collect(),
        }))
    }

    async fn update(
        &self,
        request: Request<pb::UpdateRequest>,
    ) -> Result<Response<pb::Note>, Status> {
        let pb::UpdateRequest { id, text, revision } = request.into_inner();
        let mut note = self.note(&id).await?.value;
        note.text = text;
        // Fails when somebody changed the note since the caller read it: nobody's work is lost.
        let revision = self.notes.update(&id, &note, revision).await?;
        self.feed.tell("updated", &id).await?;
        Ok(Response::new(answer(id, note, revision)))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let id = request.into_inner().id;
        self.notes.delete(&id).await?;
        self.blobs.delete(&attachment(&id)).await?;
        self.feed.tell("deleted", &id).await?;
        Ok(Response::new(pb::DeleteResponse {}))
    }

    async fn attach(
        &self,
        request: Request<pb::AttachRequest>,
    ) -> Result<Response<pb::AttachResponse>, Status> {
        let request = request.into_inner();
        self.note(&request.id).await?;
        self.blobs
            .upload(attachment(&request.id))
            .content_type(request.content_type)
            .bytes(request.content)
            .await?;
        Ok(Response::new(pb::AttachResponse {}))
    }

    async fn attachment(
        &self,
        request: Request<pb::AttachmentRequest>,
    ) -> Result<Response<pb::AttachmentResponse>, Status> {
        let id = request.into_inner().id;
        let Some(blob) = self.blobs.read(&attachment(&id)).await? else {
            return Err(Status::not_found(format!("note {id:?} has no attachment")));
        };
        let content = blob.bytes().await?.into();
        Ok(Response::new(pb::AttachmentResponse { content }))
    }

    async fn greet(
        &self,
        request: Request<pb::GreetRequest>,
    ) -> Result<Response<pb::GreetResponse>, Status> {
        if self.micro.registry().get("helloworld").await?.is_empty() {
            return Err(Status::unavailable("deploy helloworld first"));
        }
        let name = request.into_inner().name;
        let hello = HelloworldClient::new(self.micro.clone())
            .call(helloworld::Request { name })
            .await?;
        let msg = format!("{}{}", self.greeting.now(), hello.into_inner().msg);
        Ok(Response::new(pb::GreetResponse { msg }))
    }

    async fn feed(
        &self,
        _: Request<pb::FeedRequest>,
    ) -> Result<Response<pb::FeedResponse>, Status> {
        Ok(Response::new(pb::FeedResponse {
            count: self.feed.count().await?,
            latest: self.feed.latest().await?,
            heard: self.feed.heard(),
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::new("notes")
        .descriptors(pb::FILE_DESCRIPTOR_SET)
        .add(NotesServer::new(MyNotes::new(micro_sdk::mesh())))
        .run()
        .await
}
