"""Addresses of which each node makes its own: by interface, by network, or by Ray's name of the node; and what clients are told of them."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

NODE = "node"
"""Stands for the address by which Ray knows a node."""
_NODE_IP = "{node_ip}"
_SIOCGIFADDR = 0x8915
_IPV6_FILE = Path("/proc/net/if_inet6")


def split_pattern(address: str) -> tuple[str, int] | None:
    """Return host and port of an address whose host is a network such as 10.0.0.0/8; None for a usual one.

    Raises:
        ValueError: It has a slash, and is no network.
    """
    host, _, port = address.rpartition(":")
    if "/" not in host or "://" in address or address.startswith("unix:"):
        return None
    try:
        network = ipaddress.ip_network(host.strip("[]"))
    except ValueError as error:
        raise ValueError(f"address: expected a network such as 10.0.0.0/8 before the port, received {address!r} ({error})") from error
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"address: expected a port from 0 to 65535, received {address!r}")
    return str(network), int(port)


def is_of_each_node(address: str) -> bool:
    """Tell whether each node makes an address of its own of this one: it is `node`, a network, or no address and no dotted name."""
    if address.startswith("unix:"):
        return False
    if split_pattern(address) is not None:
        return True
    host = host_of(address)
    if host == "localhost" or "." in host:
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return False
    return True


def is_loopback(address: str) -> bool:
    """Tell whether no other machine reaches an address."""
    host = host_of(address)
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def host_of(address: str) -> str:
    """Return the host of an address, without the brackets of IPv6."""
    return address.removeprefix("http://").removeprefix("https://").rpartition(":")[0].strip("[]")


def interface_of(address: str) -> str:
    """Return the name of this machine's interface that has an address; empty if none has it."""
    return next((name for name, group in _addresses().items() if address in group), "")


def is_unique_by_node(address: str, advertise: str) -> bool:
    """Tell whether the same port is another address on each node, for servers and for clients: then ports need not differ."""
    return is_of_each_node(address) and (not advertise or _NODE_IP in advertise)


def on_this_node(address: str, node_ip: str) -> str:
    """Return what an address stands for on this machine; one that is the same on all machines stays.

    Args:
        address: `node:PORT`, `INTERFACE:PORT`, `NETWORK:PORT`, or a usual one.
        node_ip: By which Ray knows this node.

    Raises:
        OSError: This machine has no such interface, or no address in the network.
    """
    if not is_of_each_node(address):
        return address
    pattern = split_pattern(address)
    host, _, port = address.rpartition(":")
    if pattern is not None:
        network = ipaddress.ip_network(pattern[0])
        found = sorted(each for group in _addresses().values() for each in group if ipaddress.ip_address(each) in network)
        if node_ip in found:
            return _joined(node_ip, port)
        if not found:
            raise OSError(f"listen.address: expected an address in {network} on this machine ({node_ip}), found none")
        return _joined(found[0], port)
    if host == NODE:
        return _joined(node_ip, port)
    there = _addresses()
    if host in there:
        return _joined(there[host][0], port)
    try:
        socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)  # a name without dots, of the hosts file or of a search domain
    except OSError as error:
        raise OSError(
            f"listen.address: expected 'node', an interface of this machine ({', '.join(sorted(there))}) or a name, received {host!r}"
        ) from error
    return address


def advertised(template: str, bound: str, node_ip: str) -> str:
    """Return what clients are told of an address.

    Args:
        template: HOST:PORT in which `{node_ip}` and `{port}` are replaced; empty: the address itself.
        bound: The address that the server listens on.
        node_ip: By which Ray knows this node.
    """
    if not template or bound.startswith("unix:"):
        return bound
    shown_ip = f"[{node_ip}]" if ":" in node_ip else node_ip
    return template.replace(_NODE_IP, shown_ip).replace("{port}", bound.rpartition(":")[2])


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _addresses() -> dict[str, list[str]]:
    """Return the addresses of this machine by interface, IPv4 first; link-local ones of IPv6 apart."""
    found: dict[str, list[str]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.setdefault(name, []).append(socket.inet_ntoa(answer[20:24]))
    if _IPV6_FILE.exists():
        for line in _IPV6_FILE.read_text(encoding="ascii").splitlines():
            digits, *_, name = line.split()
            address = ipaddress.IPv6Address(int(digits, 16))
            if not address.is_link_local:
                found.setdefault(name, []).append(str(address))
    return found
