//! `POST /v1/push`: what clients may write, as whom, and what becomes of it; on a real Postgres.

mod http;
mod journal;
mod page;
mod policies;
mod rights;
mod setup;
mod types;

use crate::support::{Db, schema};
use pgflume::core::claims::Claims;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::schema::Schema;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::push::{Failure, Push, Pushes, Writables};
use serde_json::{Value, json};
use std::sync::Arc;

/// A database that clients may write, by a login that may be two roles of users. Roles belong to the cluster, so each
/// database has its own.
pub struct Written {
    pub db: Db,
    pub schema: Arc<Schema>,
    pub pushes: Arc<Pushes>,
    pub login: String,
}

/// Todos of tenants, each of which sees its own only.
pub const TODOS: &str = "
    create table todos (id text primary key, org text not null default current_setting('request.jwt.claims')::json->>'org',
        title text, note text, done boolean, at timestamptz, doc json, check (title <> 'bad'));
    alter table todos enable row level security;
    create policy own on todos for all using (org = current_setting('request.jwt.claims')::json->>'org')";

/// Their definition, with this `writable`.
pub fn todos(writable: &str) -> String {
    format!(
        r#"{{"todos":{{"primaryKey":"id","columns":{{"id":"TEXT","org":"TEXT","title":"TEXT","note":"TEXT","done":"BOOLEAN","at":"TEXT","doc":"JSON"}},
            "writable":{{"columns":["title","note","done","at","doc"],"ops":["insert","update","delete"]{writable}}}}}}}"#
    )
}

impl Written {
    /// Todos under this policy.
    pub async fn todos(conflict: &str) -> Self {
        Self::with(TODOS, &todos(conflict)).await
    }

    /// These tables, which the user's role may do everything to that policies allow.
    pub async fn with(tables: &str, json: &str) -> Self {
        Self::on(Db::new().await, tables, json).await
    }

    /// The same in a database of its own.
    pub async fn on(db: Db, tables: &str, json: &str) -> Self {
        db.sql(tables).await;
        let schema = schema(json);
        let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
        capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema, &queue, &SetupOptions::default()).await.unwrap();
        let login = format!("pusher_{}", db.name);
        db.sql(&format!(
            "create role {login} login noinherit; create role member_{0}; create role other_{0};
             grant pgflume_push, member_{0}, other_{0} to {login};
             grant select, insert, update, delete on all tables in schema public to member_{0}, other_{0}",
            db.name
        ))
        .await;
        let pushes = Self::pushes_at(&db.url(), &login, &schema);
        Self { db, schema, pushes: Arc::new(pushes), login }
    }

    /// Another process that takes writes, over this address.
    pub fn pushes_at(url: &str, login: &str, schema: &Schema) -> Pushes {
        let url = PgUrl::parse(&url.replace("postgres@", &format!("{login}@"))).unwrap();
        Pushes::new(url, Writables::of(schema.tables()))
    }

    /// The same database, by another connection.
    pub async fn existing(&self) -> Db {
        Db::existing(&self.db.name, self.db.cluster()).await
    }

    /// The role of users.
    pub fn member(&self) -> String {
        format!("member_{}", self.db.name)
    }

    /// A token's claims: of this user of this tenant.
    pub fn claims(&self, subject: &str, org: &str) -> Claims {
        let claims = json!({"sub": subject, "org": org, "role": self.member()});
        Claims::new(claims.as_object().unwrap().clone())
    }

    /// What a request of Ann's of tenant `a` is answered, as JSON.
    pub async fn ann(&self, key: &str, changes: Value) -> Value {
        self.push(&self.claims("ann", "a"), key, changes).await.unwrap()
    }

    /// The same of anybody's.
    pub async fn push(&self, claims: &Claims, key: &str, changes: Value) -> Result<Value, Failure> {
        push_to(&self.pushes, claims, key, changes).await
    }

    /// Rows as text, `|` between columns.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        self.db.all(sql).await
    }
}

/// What these are answered, as JSON.
pub async fn push_to(pushes: &Pushes, claims: &Claims, key: &str, changes: Value) -> Result<Value, Failure> {
    // A text is JSON as it stands: a parser of ours would round its numbers.
    let changes = changes.as_str().map_or_else(|| changes.to_string(), str::to_owned);
    let body = format!(r#"{{"client":"c","changes":{changes}}}"#);
    let push = Push::read(pushes.writables(), &body, key).unwrap_or_else(|e| panic!("{e:?}"));
    pushes.push(&push, claims).await.map(|answer| serde_json::to_value(answer).unwrap())
}

/// The results of an answer.
pub fn statuses(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect()
}

/// A new todo.
pub fn new(id: &str, title: &str) -> Value {
    json!({"table": "todos", "op": "insert", "key": {"id": id}, "set": {"title": title}})
}

/// Another title, of one who knew this row.
pub fn update(id: &str, set: Value, base: Value) -> Value {
    json!({"table": "todos", "op": "update", "key": {"id": id}, "set": set, "base": base})
}
