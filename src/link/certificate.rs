use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::policy::Principal;

/// Whom a chain of certificates, which TLS has verified, belongs to; nobody without one.
pub fn principal_of(chain: Option<&[CertificateDer<'_>]>) -> Principal {
    let Some(own) = chain.and_then(<[_]>::first) else {
        return Principal::Nobody;
    };
    let parsed = EndEntityCert::try_from(own).ok();
    let name = parsed.and_then(|certificate| {
        let spiffe = spiffe_id(certificate.valid_uri_names());
        let name = spiffe.or_else(|| certificate.valid_dns_names().next());
        name.map(Box::from).or_else(|| common_name(certificate.subject()))
    });
    Principal::Certificate(name.unwrap_or_else(|| fingerprint(own)))
}

/// A SPIFFE certificate has one URI, its id.
fn spiffe_id<'a>(mut uris: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let id = uris.next().filter(|uri| uri.starts_with("spiffe://"))?;
    uris.next().is_none().then_some(id)
}

/// What a certificate without any name is known by.
fn fingerprint(certificate: &[u8]) -> Box<str> {
    let digest = digest(&SHA256, certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("SHA256={hex}").into()
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;

/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The first common name of a subject, which is a sequence of sets of pairs in DER.
fn common_name(mut subject: &[u8]) -> Option<Box<str>> {
    while !subject.is_empty() {
        let mut set = take(&mut subject, SET)?;
        while !set.is_empty() {
            let mut pair = take(&mut set, SEQUENCE)?;
            if take(&mut pair, OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let text = [UTF8_STRING, PRINTABLE_STRING];
            let text = text.into_iter().find_map(|tag| take(&mut pair, tag))?;
            return Some(format!("CN={}", str::from_utf8(text).ok()?).into());
        }
    }
    None
}

/// The content of the element at the beginning, if it is of this kind and shorter than 64 KiB.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let rest = der.strip_prefix(&[tag])?;
    let (length, rest) = match *rest {
        [short @ 0..=0x7f, ref rest @ ..] => (usize::from(short), rest),
        [0x81, length, ref rest @ ..] => (usize::from(length), rest),
        [0x82, high, low, ref rest @ ..] => (u16::from_be_bytes([high, low]).into(), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: Option<&str>, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "org");
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("ASCII"))
    }

    fn named(common_name: Option<&str>, names: Vec<SanType>) -> String {
        match principal_of(Some(&[certificate(common_name, names)])) {
            Principal::Certificate(name) => name.into(),
            other => panic!("expected a certificate, got {other}"),
        }
    }

    #[test]
    fn the_most_telling_name_of_a_certificate_is_taken() {
        let spiffe = || uri("spiffe://example.org/robot");
        let both = vec![dns("a.example"), spiffe(), dns("b.example")];
        assert_eq!(named(Some("c"), both), "spiffe://example.org/robot");
        let other = vec![uri("https://example.org"), dns("a.example"), dns("b.example")];
        assert_eq!(named(Some("c"), other), "a.example");
        // It would be two workloads at once.
        let two = vec![spiffe(), uri("spiffe://example.org/other"), dns("a.example")];
        assert_eq!(named(None, two), "a.example");
        let long = "ü".repeat(100);
        assert_eq!(named(Some(&long), Vec::new()), format!("CN={long}"));
        // A common name cannot pass for a SPIFFE id.
        assert_eq!(named(Some("spiffe://a/b"), Vec::new()), "CN=spiffe://a/b");
        assert!(named(None, Vec::new()).starts_with("SHA256="));
        assert_eq!(principal_of(None), Principal::Nobody);
        assert_eq!(principal_of(Some(&[])), Principal::Nobody);
    }

    #[test]
    fn a_subject_that_is_cut_has_no_name() {
        let whole = certificate(Some("name"), Vec::new());
        let parsed = EndEntityCert::try_from(&whole).expect("a certificate");
        let subject = parsed.subject();
        assert_eq!(common_name(subject).as_deref(), Some("CN=name"));
        for length in 0..subject.len() {
            assert_eq!(common_name(&subject[..length]), None, "{length}");
        }
    }
}
