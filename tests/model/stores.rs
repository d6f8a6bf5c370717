//! The stores that `tests/store` runs on here: memory as it is made and as it is restored.

use pgflume::replica::Replica;
use pgflume::replica::memory::Memory;

/// Nothing has to live as long as the replica.
pub type Keep = ();

pub async fn every_store() -> Vec<(String, Replica, Keep)> {
    let (made, restored) = (Memory::new().unwrap(), Memory::new().unwrap());
    restored.restore(&made.image().unwrap()).unwrap();
    let replica = |(name, memory): (&str, Memory)| (name.to_owned(), Replica::on(Box::new(memory)), ());
    [("Memory", made), ("Memory restored", restored)].map(replica).into()
}
