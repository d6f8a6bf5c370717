//! Arguments → wiring → run; everything else is in the library.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    pgflume::cli::run().await
}
