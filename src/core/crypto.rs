//! Which implementation of TLS this process uses.

/// Sets it; a second call changes nothing.
pub fn install() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A race with another thread that does the same is no failure.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}
