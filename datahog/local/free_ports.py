"""Checks that a port is free; the error gives the reason and the setting that changes the port."""

import errno
import socket

from datahog.settings import PREFIX, SettingsError


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Returns a socket that listens on the port of `setting` (an attribute of Settings). Raises SettingsError."""
    variable = PREFIX + setting.upper()
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} is taken: stop what uses it, or set {variable} to another one."
        else:
            reason = f"Cannot listen on {host} port {port} ({variable}): {str(error.strerror).partition(' (')[0]}."
        raise SettingsError(reason) from None
