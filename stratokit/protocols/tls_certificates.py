"""X.509 certificates of handshakes (RFC 5280), read by `cryptography`, each distinct one once."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

# Longer chains and larger certificates occur only where somebody tries.
CHAIN_LIMIT = 16
NAMES_LIMIT = 256

FIELDS: dict[str, Any] = {
    "cert_subject": pl.String,
    "cert_issuer": pl.String,
    "cert_names": pl.List(pl.String),
    "cert_not_before": pl.Datetime("ns", "UTC"),
    "cert_not_after": pl.Datetime("ns", "UTC"),
    "cert_sha256": pl.String,
}
_NOTHING: dict[str, Any] = dict.fromkeys(FIELDS)


def _names(certificate: Any) -> list[str] | None:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
    known = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    return [str(name.value) for name in extension.value if isinstance(name, known)][:NAMES_LIMIT]


def read(der: bytes) -> dict[str, Any]:
    """What one certificate says, null where it cannot be read; names as RFC 4514 writes them."""
    from cryptography import x509

    found = _NOTHING | {"cert_sha256": hashlib.sha256(der).hexdigest()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about certificates that are not quite as they should be
        try:
            certificate = x509.load_der_x509_certificate(der)
            found["cert_not_before"] = certificate.not_valid_before_utc
            found["cert_not_after"] = certificate.not_valid_after_utc
            found["cert_subject"] = certificate.subject.rfc4514_string()
            found["cert_issuer"] = certificate.issuer.rfc4514_string()
            found["cert_names"] = _names(certificate)
        except (ValueError, TypeError, OverflowError, x509.InvalidVersion):
            return found
    return found


def table(ders: Iterable[bytes]) -> pl.DataFrame:
    """A row for each distinct certificate: `der` and FIELDS."""
    distinct = sorted(set(ders))
    rows = [{"der": der} | read(der) for der in distinct]
    return pl.DataFrame(rows, schema={"der": pl.Binary} | FIELDS)
