"""Is this key, or this gateway URL, usable? Told before anything is sent, and without loading an HTTP client.

Both may hold secrets (the key; a password in the URL), so no message ever quotes what was given.
"""

from __future__ import annotations

import re

from creditguard.errors import ConfigurationError

DEFAULT_BASE_URL = "https://gateway.apimall.ai"
DEFAULT_PORTS = {"https": 443, "http": 80}

_OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HOST = re.compile(
    rf"{_OCTET}(\.{_OCTET}){{3}}|(?!(\d+\.){{3}}\d+$)(?!.*\.\.)(?!.*[^.]{{64}})[a-z0-9_]([a-z0-9_.-]{{0,251}}[a-z0-9_])?",
    re.ASCII,
)
_LOOPBACK = re.compile(rf"localhost|::1|127(\.{_OCTET}){{3}}", re.ASCII)


def check_key(key: str, name: str = "APIMALL_API_KEY") -> str:
    """The key, if it can stand in a header. Raises ConfigurationError, which never shows it; `name` is where it came from."""
    why = _unfit(key)
    if why:
        del key
        raise ConfigurationError(f"{name} {why}", name)
    return key


def check_base_url(url: str, name: str = "CREDITGUARD_BASE_URL") -> str:
    """The gateway's URL in its plain form: lower case, no default port, no slash or `/api/v1` at the end.

    It must be https; http is for loopback addresses only (localhost, 127.0.0.0/8, ::1), since the key goes with each request.
    Raises ConfigurationError, which never quotes the URL; `name` is where it came from.
    """
    try:
        return _plain_form(url)
    except _UnfitError as error:
        why = str(error)
    del url  # a traceback may be shown with the variables of its frames
    raise ConfigurationError(f"{name} {why}", name)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name."""
    return _LOOPBACK.fullmatch(host) is not None


def _unfit(key: str) -> str:
    if not key:
        return "is empty: it must hold the API Mall key"
    if any(character.isspace() for character in key):
        return "holds white space: give the key alone, without 'Bearer' or a line end"
    return "" if _plain(key) else "holds a control character, or one beyond ASCII: no key does"


class _UnfitError(Exception):
    """What is wrong with a URL. It goes no further, for the frames that it came through hold the URL."""


def _plain_form(url: str) -> str:
    if not url:
        raise _UnfitError(f"is empty: it must be a URL such as {DEFAULT_BASE_URL}")
    if not _plain(url) or "\\" in url:
        raise _UnfitError("holds white space, a backslash or a character beyond ASCII")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise _UnfitError("must be a URL that starts with https://")
    if "?" in rest or "#" in rest:
        raise _UnfitError("must have no query and no fragment")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise _UnfitError("must hold no user name or password")
    host, port = _host_and_port(authority.lower())
    if scheme == "http" and not is_loopback(host):
        raise _UnfitError(
            "must start with https:// (http is for loopback addresses only: the key goes with each request)"
        )
    path = (slash + path).rstrip("/").removesuffix("/api/v1")  # API Mall's documentation gives its base URL with it
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}{path}" if port in {None, DEFAULT_PORTS[scheme]} else f"{scheme}://{host}:{port}{path}"


def _host_and_port(authority: str) -> tuple[str, int | None]:
    bracketed = authority.startswith("[")
    host, closed, rest = authority[1:].partition("]") if bracketed else (authority, "", "")
    if not bracketed:
        host, colon, digits = authority.partition(":")
        rest = colon + digits
    if bracketed and closed:
        host = _ipv6(host)
    elif not _HOST.fullmatch(host):
        host = ""
    if not host:
        raise _UnfitError("has no host that can be asked")
    if not rest:
        return host, None
    if not re.fullmatch(r":[0-9]{1,5}", rest) or not 0 < int(rest[1:]) < 65536:
        raise _UnfitError("has a port that is not a number from 1 to 65535")
    return host, int(rest[1:])


def _ipv6(text: str) -> str:
    """The address in its shortest form; "" if it is none."""
    from ipaddress import AddressValueError, IPv6Address

    try:
        return IPv6Address(text).compressed if "%" not in text else ""
    except AddressValueError:
        return ""


def _plain(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
