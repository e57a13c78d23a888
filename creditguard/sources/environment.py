"""What the user's environment says about connections: whom to trust (SSL_CERT_FILE, SSL_CERT_DIR), and which proxy to use
(HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, in either case of letters, the lower one first).

The rules are those that curl and httpx follow, with one difference: a request over plain http, which goes to a loopback address
and carries the key in the clear, is never handed to a proxy on another machine.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from creditguard.sources.apimall_checks import is_loopback

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


class EnvironmentUnusableError(Exception):
    """A variable that cannot be used. The message names it and does not quote it: a proxy's URL may hold a password."""


class Proxy(NamedTuple):
    """Where to connect instead: `scheme` is http, https, socks5 or socks5h. The repr leaves out name and password."""

    scheme: str
    host: str
    port: int
    auth: tuple[bytes, bytes] | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.scheme}://{self.host}:{self.port})"


def tls_context(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """A context that verifies certificates and host names.

    It trusts what SSL_CERT_FILE and SSL_CERT_DIR name; else the system's hashed directory, whose files are read one by one as
    they are needed (0.3 ms instead of 20 ms for a whole bundle); else certifi's bundle.
    """
    file, directory = environment.get("SSL_CERT_FILE") or None, environment.get("SSL_CERT_DIR") or None
    if not file and not directory:
        directory = _system_directory()
        if not directory:
            import certifi

            file = certifi.where()
    try:
        return ssl.create_default_context(cafile=file, capath=directory)
    except OSError:  # which an SSLError is, too
        raise EnvironmentUnusableError("SSL_CERT_FILE names no file of certificates") from None


def _system_directory() -> str | None:
    directory = ssl.get_default_verify_paths().capath
    if not directory:
        return None
    try:
        with os.scandir(directory) as entries:
            return directory if any(_HASHED.fullmatch(entry.name) for entry in entries) else None
    except OSError:
        return None


def proxy_for(scheme: str, host: str, port: int, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy to use, if any."""
    variables = {name: value.strip() for name, value in environment.items() if name.lower().endswith("_proxy")}
    if not variables:
        return None
    settings = {name.lower(): value for name, value in variables.items()}
    settings |= {name: value for name, value in variables.items() if name == name.lower()}
    if "REQUEST_METHOD" in environment and "http_proxy" not in variables:
        settings.pop("http_proxy", None)  # in a CGI script, HTTP_PROXY is a header that the visitor sent
    names = [name for name in (f"{scheme}_proxy", "all_proxy") if settings.get(name)]
    if not names or _exempt(host, port, settings.get("no_proxy", "")):
        return None
    proxy = _parse(settings[names[0]], names[0].upper())
    return proxy if scheme == "https" or is_loopback(proxy.host) else None


def _parse(value: str, name: str) -> Proxy:
    from urllib.parse import unquote_to_bytes, urlsplit

    if "://" not in value:
        value = f"http://{value}"
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    default = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}.get(value.partition("://")[0].lower())
    if not host or not default:
        raise EnvironmentUnusableError(f"{name} is not the URL of a proxy")
    auth = None
    if url.username or url.password:
        auth = unquote_to_bytes(url.username or ""), unquote_to_bytes(url.password or "")
    return Proxy(url.scheme, host, port or default, auth)


def _exempt(host: str, port: int, no_proxy: str) -> bool:
    spellings = {host, f"{host}:{port}", f"[{host}]", f"[{host}]:{port}"}
    for entry in filter(None, re.split(r"[,\s]+", no_proxy.lower())):
        name = entry.removeprefix("*").removeprefix(".")
        if entry == "*" or name in spellings or _within(host, entry):
            return True
        if name and any(spelling.endswith(f".{name}") for spelling in spellings):
            return True
    return False


def _within(host: str, network: str) -> bool:
    """Whether the host is an address of a network such as 127.0.0.0/8."""
    if "/" not in network:
        return False
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
