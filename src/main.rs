//! Arguments → wiring → run; everything else is in the library.

use std::process::ExitCode;

/// Rows are made by one thread and freed by another, which glibc's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before there is another thread: what it reads becomes part of the environment.
    if let Err(code) = pgflume::cli::read_environment() {
        return code;
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run()),
        Err(e) => {
            eprintln!("pgflume: threads cannot be started ({e})");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
    // The allocator asks for no huge pages, which the kernel would zero between two batches, for up to a fifth of a
    // drain's time. Here, where the system gives them unasked; an old kernel may not know how.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
    pgflume::core::memory::allocator_gives_back_by(give_back);
    let _failpoints = pgflume::core::failpoint::armed();
    // Off the main thread, where each row from Postgres would have to wake it.
    let done = tokio::spawn(pgflume::cli::run()).await;
    done.unwrap_or(ExitCode::from(101)) // as after any panic
}

#[expect(unsafe_code, reason = "the allocator's own interface")]
fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
