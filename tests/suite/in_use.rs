//! Drops the database of a test when its last [`Db`](crate::support::Db) goes: all of them together
//! would be more than five gigabytes of disk.

use pgflume::postgres::PgUrl;
use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

/// Where a database is: the URL of the server's `postgres`, and its name.
type Place = (String, String);

/// How many hold each database.
static HOLDERS: LazyLock<Mutex<HashMap<Place, usize>>> = LazyLock::new(Mutex::default);

/// One that needs a database to be there.
pub struct InUse(Place);

impl InUse {
    pub fn new(server: String, name: String) -> Self {
        let place = (server, name);
        *HOLDERS.lock().unwrap().entry(place.clone()).or_default() += 1;
        Self(place)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap();
        let left = holders.get_mut(&self.0).expect("it was counted");
        *left -= 1;
        if *left == 0 {
            holders.remove(&self.0);
            drop(holders);
            static DROPPER: LazyLock<Sender<Place>> = LazyLock::new(start_dropper);
            DROPPER.send(self.0.clone()).expect("it ends with the process");
        }
    }
}

/// A thread of its own: a test's runtime is about to end.
fn start_dropper() -> Sender<Place> {
    let (sender, places) = channel::<Place>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (server, name) in places {
            runtime.block_on(async {
                // One whose server was stopped, or in which a transaction is prepared, stays.
                let Ok(admin) = PgUrl::parse(&server).unwrap().connect().await else { return };
                drop(admin.batch_execute(&format!("drop database {name} with (force)")).await);
            });
        }
    });
    sender
}
