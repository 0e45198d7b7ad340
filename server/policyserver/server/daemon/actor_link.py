"""The daemon's link to its serving actors: a unix socket on its own machine, a port on a cluster."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policyserver.common.settings import SettingsError
from policyserver.server.config.link_address import LinkAddress, RemoteAddress
from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.ray_join import JoinedRay
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.grpc_front.listen_security import ListenSecrets
from policyserver.server.processes.driver_link import DriverLink
from policyserver.server.processes.link import SECRETS, Link

if TYPE_CHECKING:
    from policyserver.server.processes.link_secret import ActorSecret

Silences = Callable[[int, bool], None]
"""Called with RLlib's index of a serving actor, and whether it is silent or heard of again."""


@dataclass(frozen=True)
class ActorLink:
    """A link, and where its actors find it."""

    link: Link
    address: LinkAddress
    secret: ActorSecret | None = None
    """What proves that an actor is one, beyond this machine."""

    def let_actors_in(self, ending: contextlib.ExitStack) -> None:
        """Let the actors find what proves that they are some; Ray runs. At the end of `ending` it is removed."""
        if self.secret is not None and isinstance(self.address, RemoteAddress):
            from policyserver.server.processes.link_secret import give_to_cluster, remove_from_cluster

            give_to_cluster(self.address.secret_name, self.secret)
            ending.callback(remove_from_cluster, self.address.secret_name)


def open_link(ray: RayProcess | JoinedRay, config: RayConfig, on_silence: Silences, secrets_sent: ListenSecrets | None = None) -> ActorLink:
    """Open the daemon's end; on a cluster, `secrets_sent` go to the actors over it.

    Raises:
        SettingsError: On a cluster, no certificates can be made, or no port be opened on the machine's own address.
    """
    if isinstance(ray, RayProcess):
        path = ray.folder / "driver.sock"
        return ActorLink(DriverLink(path), path)
    # Only now: a start on one machine does without them.
    from policyserver.server.daemon.lost_nodes import LostNodes
    from policyserver.server.processes.link_secret import NoCertificateError
    from policyserver.server.processes.package_version import package_version
    from policyserver.server.processes.remote_link import RemoteLink

    try:
        link = RemoteLink(
            ray.local_host,
            package_version(),
            silent_s=config.silent_s,
            on_silent=lambda index: on_silence(index, True),
            on_heard=lambda index: on_silence(index, False),
            is_given_up=LostNodes().has,
        )
    except (NoCertificateError, OSError) as error:
        raise SettingsError("ray.address", "", str(error)) from error
    if secrets_sent is not None:
        link.keep(SECRETS, (secrets_sent.certificate, secrets_sent.key, secrets_sent.token))
    secret_name = f"driver-link-{secrets.token_hex(16)}"
    sends = secrets_sent is not None
    return ActorLink(link, RemoteAddress(link.address, secret_name, config.silent_s, config.partition_grace_s, sends), link.secret)
