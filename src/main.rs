//! Arguments → wiring → run; everything else is in the library.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let _failpoints = pgflume::failpoint::armed();
    pgflume::cli::run().await
}
