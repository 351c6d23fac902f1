"""The egress policy: the URLs and addresses that a provider or a callback may have.

It prevents server-side request forgery. A URL is checked when a caller gives it; the addresses of its host are checked
when a connection is made (`outbound/connections.py`), because only then are they known.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Of the ports below 1024 only two belong to the web; the others belong to mail, shells, DNS ...
PORTS = "80,443,1024-65535"
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
# The host ends at a port or at the end of the authority (RFC 3986, 3.2). A backslash is refused because some parsers
# take it for a slash: all parsers must see the same host, so that the checked host is the called host.
_URL = re.compile(r"([^:/?#]*)://([^/?#\\]*)(?:[/?#][^\x00-\x20\x7f]*)?")
_AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5})?)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The WHATWG's URL standard takes a host that ends in a number for an address; inet_aton accepts many notations of one.
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?")
# Characters: the longest URL, and the longest text from a URL that a message repeats.
_LONGEST, _SHOWN = 8192, 80

_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Networks that `is_global` misses, in all or some supported versions of Python (IANA's special-purpose registries).
_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), kind)
    for network, kind in [
        ("168.63.129.16/32", "is a metadata address"),  # Azure's, in public space
        ("169.254.0.0/16", "is link-local, where cloud metadata is"),
        ("192.0.0.0/24", "is in a special network"),
        ("192.88.99.0/24", "is in a special network"),
        ("fd00:ec2::/32", "is a metadata address"),
        # Addresses that embed IPv4: Teredo (in 2001::/23), 6to4. No server needs them.
        ("2001::/23", "is in a special network"),
        ("2002::/16", "is in a special network"),
        ("3fff::/20", "is in a special network"),
    ]
)


class DestinationForbidden(Exception):
    """The destination is forbidden; the message (at most 200 characters) gives the reason and the setting for it."""


class EgressPolicy:
    """The policy: http and https, the given ports, the public internet and the given networks.

    `ports` are numbers and ranges as in `PORTS`; a wrong one raises ValueError.
    """

    def __init__(self, networks: Iterable[Network] = (), *, ports: str = PORTS) -> None:
        self._networks = tuple(networks)
        self._ports = frozenset(port for first, last in port_ranges(ports) for port in range(first, last + 1))

    def check_url(self, url: str) -> None:
        """Check a URL without resolving its host. Raises DestinationForbidden, whose message has no secret of it."""
        if len(url) > _LONGEST:
            raise DestinationForbidden(f"not allowed: a URL of more than {_LONGEST} characters")
        match = _URL.fullmatch(url)
        if match is None:
            raise DestinationForbidden("not allowed: not an absolute http or https URL")
        scheme, authority = match[1].lower(), match[2]
        if scheme not in _DEFAULT_PORTS:
            raise DestinationForbidden(f"not allowed: {_shown(scheme)} is neither http nor https")
        if "@" in authority:
            raise DestinationForbidden("not allowed: a URL with a user or a password in it")
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            # Programs map other characters to ASCII in different ways; xn--... is the same name to all.
            raise DestinationForbidden("not allowed: a host is written in ASCII, an international one as xn--...")
        host = parts[1]
        port = int(parts[2]) if parts[2] else _DEFAULT_PORTS[scheme]
        if port not in self._ports:
            raise DestinationForbidden(f"not allowed: port {port} (DATAHOG_OUTBOUND_PORTS can allow it)")
        self._check_host(host)

    def check_address(self, address: Address, shown: str) -> None:
        """Checks the address of a connection. Raises DestinationForbidden; the message calls the address `shown`."""
        meant = _meant(address)
        if any(meant in network for network in self._networks):
            return
        if wrong := _wrong_with(meant):
            raise DestinationForbidden(f"not allowed: {_shown(shown)} {wrong} (DATAHOG_OUTBOUND_NETWORKS can allow it)")

    def _check_host(self, host: str) -> None:
        name = host.lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
            self.check_address(IPv4Address("127.0.0.1"), host)
        elif host.startswith("[") or _ENDS_IN_A_NUMBER.fullmatch(host):
            try:
                address = ip_address(host.strip("[]"))
            except ValueError:
                # Some programs take 127.1, 0x7f000001, 017700000001 and 2130706433 for 127.0.0.1.
                raise DestinationForbidden(
                    "not allowed: write an IPv4 address as four decimal numbers, an IPv6 one as RFC 4291 does"
                ) from None
            self.check_address(address, host)


def port_ranges(text: str) -> list[tuple[int, int]]:
    """Returns the first and last port of each range in a text such as `80,443,1024-65535`. Raises ValueError."""
    if not _PORTS.fullmatch(text):
        raise ValueError("ports must be numbers and ranges, such as 80,443,1024-65535")
    ranges = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ranges.append((int(first), int(last or first)))
    if not all(1 <= first <= last <= 65_535 for first, last in ranges):
        raise ValueError("a port must be a number from 1 to 65535, and a range must begin with the smaller one")
    return ranges


def _meant(address: Address) -> Address:
    """Returns the IPv4 address in an IPv4-mapped or NAT64 address (RFC 4291, 6052), else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _wrong_with(address: Address) -> str | None:
    """Returns the reason why an address is not on the public internet; None if it is."""
    for network, kind in _SPECIAL:
        if address in network:
            return kind
    if address.is_loopback:
        return "is this machine (loopback)"
    if address.is_unspecified:
        return "is this machine (unspecified)"
    if address.is_multicast:
        return "is multicast"
    if address.is_link_local:
        return "is link-local"
    if not address.is_global or (isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6):
        return "is in a private network"
    return None


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
