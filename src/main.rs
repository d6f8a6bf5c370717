//! Arguments → wiring → run; everything else is in the library.

/// Rows are made by one thread and freed by another, which glibc's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let _failpoints = pgflume::failpoint::armed();
    pgflume::cli::run().await
}
