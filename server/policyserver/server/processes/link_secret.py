"""What proves at a link between machines that the daemon is the daemon, and an actor one of its actors.

Each end has a certificate of its own, made for one run of the daemon, and trusts the other end's alone: there is no authority that could
issue a third. The actors' half travels through the cluster's store of keys and values, so by Ray's own connections.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field

import grpc

DAEMON, ACTOR = "policy-server-daemon", "policy-server-actor"
"""Names in the certificates."""
_DAYS = 3650
_END = b"-----END PRIVATE KEY-----\n"
_NAMESPACE = b"policy-server"


class NoCertificateError(RuntimeError):
    """The command openssl is missing or makes no certificate."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its key (PEM)."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class ActorSecret:
    """What an actor must have to follow its daemon."""

    actor: Identity
    daemon_certificate: bytes

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel to the daemon needs."""
        return grpc.ssl_channel_credentials(self.daemon_certificate, self.actor.key, self.actor.certificate)

    def to_bytes(self) -> bytes:
        """Encode it."""
        parts = (self.actor.certificate, self.actor.key, self.daemon_certificate)
        return json.dumps([part.decode("ascii") for part in parts]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ActorSecret:
        """Decode it."""
        certificate, key, daemon = (str(part).encode("ascii") for part in json.loads(content))
        return cls(Identity(certificate, key), daemon)


def make_identity(name: str) -> Identity:
    """Make a key and a certificate of its own; neither touches the disk.

    Raises:
        NoCertificateError: The command openssl is missing or fails.
    """
    command = shutil.which("openssl")
    if command is None:
        raise NoCertificateError("expected the command openssl, which makes the certificates of the link to other machines; install it")
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(_DAYS)]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    made = subprocess.run(
        [command, *request, *names, "-keyout", "-", "-out", "-"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60.0, check=False
    )
    key, end, certificate = made.stdout.partition(_END)
    if made.returncode or not end:
        raise NoCertificateError(f"openssl made no certificate: {made.stderr.decode(errors='replace').strip()[-500:]}")
    return Identity(certificate, key + end)


def server_credentials(daemon: Identity, actor_certificate: bytes) -> grpc.ServerCredentials:
    """Return what the daemon's end listens with: only a party with the actors' certificate gets in."""
    return grpc.ssl_server_credentials([(daemon.key, daemon.certificate)], actor_certificate, require_client_auth=True)


def give_to_cluster(name: str, secret: ActorSecret) -> None:
    """Put the actors' half where the actors of this cluster find it; Ray must be joined."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(name.encode(), secret.to_bytes(), overwrite=True, namespace=_NAMESPACE)


def take_from_cluster(name: str) -> ActorSecret | None:
    """Return the actors' half; None if that name has no entry."""
    from ray.experimental import internal_kv

    content = internal_kv._internal_kv_get(name.encode(), namespace=_NAMESPACE)
    return None if content is None else ActorSecret.from_bytes(content)


def remove_from_cluster(name: str) -> None:
    """Remove the actors' half."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(name.encode(), namespace=_NAMESPACE)
