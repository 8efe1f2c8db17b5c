"""Which hosts are this machine, where what is sent crosses no network."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, whatever a name server says, and no other can reach it there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
