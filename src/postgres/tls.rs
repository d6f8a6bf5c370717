//! TLS to Postgres: what `sslmode`, `sslrootcert` and their like ask for, and no more.

use super::url::{PgUrl, Tls};
use crate::core::error::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

impl PgUrl {
    /// Opens TLS as the URL asks for it.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier {
            chain: match self.tls {
                Tls::Unchecked(_) => None,
                Tls::VerifyCa | Tls::VerifyFull => Some(self.chain_verifier(&provider)?),
            },
            name: self.tls == Tls::VerifyFull,
            provider: provider.clone(),
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::halt(format!("TLS cannot be set up: {e}")).caused_by(e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.client_cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(read_certs("sslcert", cert)?, read_key(key)?).map_err(|e| {
                    Error::halt(format!(
                        "sslcert and sslkey in PGMQ_URL do not go together ({e}): name a certificate and its own key"
                    ))
                })?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// Looks at the files that the URL names: said at start, and not at the first connection.
    pub(crate) fn check_files(&self) -> Result<(), String> {
        self.connector().map(drop).map_err(|e| e.to_string())
    }

    fn chain_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
        let remedy = "set sslrootcert in PGMQ_URL to the file of the server's certificate authority";
        let mut roots = RootCertStore::empty();
        match self.root_cert.as_deref() {
            None | Some("system") => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(path) => {
                let certs = read_certs("sslrootcert", path)?;
                roots.add_parsable_certificates(certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| Error::halt(format!("no certificate authority to check Postgres with ({e}): {remedy}")))
    }
}

fn read_certs(name: &str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certs = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certs {
        Ok(certs) if certs.is_empty() => Err(unread(name, "it holds no certificate")),
        Ok(certs) => Ok(certs),
        Err(e) => Err(unread(name, e)),
    }
}

fn read_key(path: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| unread("sslkey", e))
}

fn unread(name: &str, why: impl std::fmt::Display) -> Error {
    Error::halt(format!("{name} in PGMQ_URL cannot be read ({why}): name a PEM file that the worker may read"))
}

/// Checks what `sslmode` asks for and no more.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the name last, so everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
