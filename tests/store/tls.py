"""Certificates for a loopback server, signed by an authority of their own."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .loopback import LoopbackServer


def serve_tls(server: LoopbackServer, folder: Path) -> Path:
    """Make a server that has had no request yet speak TLS; return its authority's certificate."""
    certificates = {}
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None
    start = datetime.now(UTC) - timedelta(days=1)
    for name in ("authority", "server"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signing_key, issuer = (
            (key, subject) if authority is None else (authority[0], authority[1].subject)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=30))
            .add_extension(x509.BasicConstraints(name == "authority", None), critical=True)
        )
        if authority is not None:
            host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
        certificate = builder.sign(signing_key, hashes.SHA256())
        authority = authority or (key, certificate)
        certificates[name] = folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        certificates[name].write_bytes(public if name == "authority" else private + public)
    server.speak_tls(certificates["server"])
    return certificates["authority"]
