//! ECDSA keys on the curves that OpenSSF Model Signing allows, from PEM files as OpenSSL writes them.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;

/// No key file is larger; larger ones are never read.
pub const MAX_KEY: u64 = 64 * 1024;
/// Characters of one line of PEM.
const PEM_LINE: usize = 64;

/// A curve, with the hash that goes with it.
struct Curve {
    signing: &'static EcdsaSigningAlgorithm,
    verifying: &'static EcdsaVerificationAlgorithm,
    /// How a `SubjectPublicKeyInfo` with an uncompressed point begins, up to and with the mark of such a point.
    prefix: &'static [u8],
    /// Its bytes in all.
    length: usize,
}

/// P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512.
const CURVES: [Curve; 3] = [
    Curve {
        signing: &ECDSA_P256_SHA256_ASN1_SIGNING,
        verifying: &ECDSA_P256_SHA256_ASN1,
        prefix: b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04",
        length: 91,
    },
    Curve {
        signing: &ECDSA_P384_SHA384_ASN1_SIGNING,
        verifying: &ECDSA_P384_SHA384_ASN1,
        prefix: b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04",
        length: 120,
    },
    Curve {
        signing: &ECDSA_P521_SHA512_ASN1_SIGNING,
        verifying: &ECDSA_P521_SHA512_ASN1,
        prefix: b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00\x04",
        length: 158,
    },
];

/// A key that signs. It cannot print itself.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").finish_non_exhaustive()
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// `SubjectPublicKeyInfo` in DER, with an uncompressed point.
    der: Vec<u8>,
}

impl PrivateKey {
    /// Takes the key from the PEM text of the file at `path` (for messages): PKCS #8 or SEC 1, not encrypted.
    pub fn from_pem(pem: &[u8], path: &str) -> Result<PrivateKey> {
        let shown = human::escape(path);
        if is_encrypted(pem) {
            return Err(Error::new(format!("{shown}: the key is encrypted"))
                .hint("decrypt it for as long as it is needed: openssl pkey -in KEY -out DECRYPTED"));
        }
        let mut public = false;
        for (kind, der) in sections(pem, &shown)? {
            match kind {
                SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    return PrivateKey::from_der(&der).ok_or_else(|| unsupported(&shown));
                }
                SectionKind::RsaPrivateKey => return Err(unsupported(&shown)),
                SectionKind::PublicKey => public = true,
                _ => {}
            }
        }
        let error = Error::new(format!("{shown}: holds no private key in PEM"));
        Err(if public { error.hint("it holds a public key; signing needs the private one") } else { error })
    }

    fn from_der(der: &[u8]) -> Option<PrivateKey> {
        let pair =
            CURVES.iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve.signing, der).ok())?;
        let der = pair.public_key().as_der().ok()?.as_ref().to_vec();
        curve_of(&der)?;
        Some(PrivateKey { pair, public: PublicKey { der } })
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message; the signature is in DER.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signed = self.pair.sign(&SystemRandom::new(), message);
        signed.map(|signature| signature.as_ref().to_vec()).map_err(|_| Error::new("the key cannot sign"))
    }
}

impl PublicKey {
    /// Takes the key from the PEM text of the file at `path` (for messages).
    pub fn from_pem(pem: &[u8], path: &str) -> Result<PublicKey> {
        let shown = human::escape(path);
        let mut other = None;
        for (kind, der) in sections(pem, &shown)? {
            match kind {
                SectionKind::PublicKey if curve_of(&der).is_some() => return Ok(PublicKey { der }),
                SectionKind::PublicKey => return Err(unsupported(&shown)),
                SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    other = Some("it holds a private key; its public one: openssl pkey -in KEY -pubout");
                }
                SectionKind::Certificate => {
                    other =
                        Some("it holds a certificate; its key: openssl x509 -in CERTIFICATE -pubkey -noout");
                }
                _ => {}
            }
        }
        let error = Error::new(format!("{shown}: holds no public key in PEM"));
        Err(other.into_iter().fold(error, Error::hint))
    }

    /// How a bundle names the key: the SHA-256 of its PEM text, as OpenSSL writes it.
    pub fn hint(&self) -> Digest {
        let body = STANDARD.encode(&self.der);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(PEM_LINE)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        Digest::of(text.as_bytes())
    }

    /// Whether a signature in DER is one of this message by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        curve_of(&self.der).is_some_and(|curve| {
            let point = &self.der[curve.prefix.len() - 1..];
            UnparsedPublicKey::new(curve.verifying, point).verify(message, signature).is_ok()
        })
    }
}

/// The curve of a `SubjectPublicKeyInfo`.
fn curve_of(der: &[u8]) -> Option<&'static Curve> {
    CURVES.iter().find(|curve| der.len() == curve.length && der.starts_with(curve.prefix))
}

fn is_encrypted(pem: &[u8]) -> bool {
    let holds = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED")
}

fn sections(pem: &[u8], shown: &str) -> Result<Vec<(SectionKind, Vec<u8>)>> {
    let sections: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).collect();
    sections.map_err(|_| Error::new(format!("{shown}: not a PEM file")))
}

fn unsupported(shown: &str) -> Error {
    Error::new(format!("{shown}: not an ECDSA key on P-256, P-384 or P-521 that can be used"))
        .hint("make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY && openssl pkey -in KEY -pubout -out KEY.pub")
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg@\n-----END PRIVATE KEY-----\n";

    #[test]
    fn what_is_no_key_is_told_apart() {
        let private = |pem: &str| PrivateKey::from_pem(pem.as_bytes(), "k").unwrap_err();
        let public = |pem: &str| PublicKey::from_pem(pem.as_bytes(), "k").unwrap_err();
        let section = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        assert!(private("").one_line().contains("no private key"));
        assert!(private(P256).one_line().contains("not a PEM file"));
        assert!(private(&section("ENCRYPTED PRIVATE KEY")).one_line().contains("encrypted"));
        let old = section("EC PRIVATE KEY").replacen("\n", "\nProc-Type: 4,ENCRYPTED\n", 1);
        assert!(private(&old).one_line().contains("encrypted"));
        for kind in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
            assert!(private(&section(kind)).one_line().contains("P-256"), "{kind}");
        }
        assert!(private(&section("PUBLIC KEY")).hints()[0].contains("public key"));
        assert!(public(&section("PUBLIC KEY")).one_line().contains("P-256"));
        assert!(public(&section("PRIVATE KEY")).hints()[0].contains("-pubout"));
        assert!(public(&section("CERTIFICATE")).hints()[0].contains("x509"));
    }

    #[test]
    fn every_curve_signs_and_checks() {
        for curve in &CURVES {
            let pair = EcdsaKeyPair::generate(curve.signing).unwrap();
            for der in [
                pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
                pair.private_key().as_der().unwrap().as_ref().to_vec(),
            ] {
                let key = PrivateKey::from_der(&der).unwrap();
                let signature = key.sign(b"message").unwrap();
                assert!(key.public().verifies(b"message", &signature));
                assert!(!key.public().verifies(b"massage", &signature));
                assert!(!key.public().verifies(b"message", &signature[1..]));
            }
        }
    }
}
