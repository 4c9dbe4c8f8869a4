use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{LinkError, LinkOptions};

/// Where a node listens, and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) scheme: Scheme,
    /// `HOST:PORT`.
    pub(super) authority: &'a str,
    /// As it was given, for errors.
    text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// The native protocol.
    Quic,
    /// gRPC as release 0.6 speaks it, without TLS.
    Http,
    /// The same with TLS.
    Https,
}

impl<'a> Address<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, LinkError> {
        let (scheme, authority) = match text.split_once("://") {
            None => (Scheme::Quic, text),
            Some(("quic", authority)) => (Scheme::Quic, authority),
            Some(("http", authority)) => (Scheme::Http, authority),
            Some(("https", authority)) => (Scheme::Https, authority),
            Some((other, _)) => {
                let reason = format!("scheme: expected quic, http or https, got {other:?}");
                return Err(unusable(text, reason));
            }
        };
        Ok(Self { scheme, authority, text })
    }

    /// The host alone.
    pub(super) fn host(&self) -> &'a str {
        let host = self.authority.rsplit_once(':').map_or(self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Why nothing can be done with it.
    pub(super) fn unusable(&self, reason: impl ToString) -> LinkError {
        unusable(self.text, reason.to_string())
    }

    /// What takes too long if connecting does.
    pub(super) fn connecting(&self) -> String {
        format!("connecting to the node at {}", self.text)
    }

    /// The address for errors.
    pub(super) fn to_text(self) -> String {
        self.text.to_owned()
    }

    /// The first link that one of the host's addresses gives, or why the last one did not.
    pub(super) async fn connect<T, F: Future<Output = Result<T, LinkError>>>(
        &self,
        options: &LinkOptions,
        attempt: impl Fn(SocketAddr) -> F,
    ) -> Result<T, LinkError> {
        let timeout =
            || LinkError::Timeout { what: self.connecting(), after: options.connect_timeout };
        let resolved = tokio::time::timeout(options.connect_timeout, self.resolve()).await;
        let addresses = resolved.map_err(|_| timeout())??;
        // None of several addresses of a host may use up the time of the others.
        let share = options.connect_timeout / addresses.len().max(1) as u32;
        let mut failure = timeout();
        for remote in addresses {
            match tokio::time::timeout(share, attempt(remote)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, LinkError> {
        let error = |source: io::Error| LinkError::Address {
            address: self.to_text(),
            source: Arc::new(source),
        };
        let found: Vec<_> = tokio::net::lookup_host(self.authority).await.map_err(error)?.collect();
        if found.is_empty() {
            return Err(error(io::Error::new(io::ErrorKind::NotFound, "the host has no address")));
        }
        Ok(found)
    }
}

fn unusable(address: &str, reason: String) -> LinkError {
    LinkError::Address {
        address: address.to_owned(),
        source: Arc::new(io::Error::new(io::ErrorKind::InvalidInput, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_the_node_is_spoken_to() {
        for (text, scheme, authority, host) in [
            ("node:46357", Scheme::Quic, "node:46357", "node"),
            ("quic://[::1]:46357", Scheme::Quic, "[::1]:46357", "::1"),
            ("http://127.0.0.1:1", Scheme::Http, "127.0.0.1:1", "127.0.0.1"),
            ("https://node:46357", Scheme::Https, "node:46357", "node"),
        ] {
            let address = Address::parse(text).expect("an address");
            assert_eq!((address.scheme, address.authority), (scheme, authority));
            assert_eq!(address.host(), host);
        }
        let error = Address::parse("ftp://node:1").expect_err("another scheme");
        let expected =
            "address \"ftp://node:1\": scheme: expected quic, http or https, got \"ftp\"";
        assert_eq!(error.to_string(), expected);
    }
}
