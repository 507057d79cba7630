"""The environment's network settings, proxies and certificates: for calls outside, and never for those to this machine.

Our own clients take ``http_options``. Libraries that make clients of their own (MLflow, ZenML, Apprise) read the
environment themselves: ``reach_this_machine_directly`` lets them too leave a proxy aside.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import ipaddress
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ontopic.errors import UserError

# As the libraries' several ways to read NO_PROXY understand it.
_THIS_MACHINE = ("localhost", ".localhost", "127.0.0.0/8", "127.0.0.1", "::1")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_CERTIFICATES_OF_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def http_options(base_url: str) -> dict[str, Any]:
    """What a client of httpx takes to reach a server: for one on this machine, to leave proxies and .netrc aside.

    Certificates of a user's own are trusted there all the same, where they can be read: nothing else could name them.

    Raises:
        UserError: the server is elsewhere, and a proxy's address or a certificate's file in the environment is wrong.
    """
    if not is_loopback_url(base_url):
        check_way_out()
        return {}
    options: dict[str, Any] = {"trust_env": False}
    if base_url.lower().startswith("https:"):
        options["verify"] = _own_certificates()
    return options


def is_server_address(url: str) -> bool:
    """Whether a URL is one that a client of HTTP can ask."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and not any(c.isspace() for c in url)
        return parts.scheme in ("http", "https") and good
    except ValueError:  # a port that is no number, a bracket that is never closed
        return False


def reach_this_machine_directly() -> None:
    """Let ``NO_PROXY`` hold this machine, where the environment names a proxy: for this process and its children."""
    if not _settings(*_PROXIES):
        return  # a NO_PROXY alone would switch off the proxies that macOS and Windows keep elsewhere
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    entries = [entry.strip() for entry in given.split(",") if entry.strip()]
    if "*" not in entries:
        entries += [entry for entry in _THIS_MACHINE if entry not in entries]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(entries)


def check_way_out(*, by_requests: bool = False) -> None:
    """Make sure that the environment's proxies and certificates can be used at all.

    Args:
        by_requests: by the package ``requests``, as MLflow, ZenML and Apprise use it, and not by httpx.

    Raises:
        UserError: one can't be; its variable is named, and not its value, which may hold a password.
    """
    module, package = ("socks", "PySocks") if by_requests else ("socksio", "socksio")
    for variable, value in _settings(*_PROXIES).items():
        scheme, _, rest = value.strip().lower().rpartition("://")
        said = ""
        if scheme not in ("", "http", "https", "socks5", "socks5h") or not is_server_address(f"http://{rest}"):
            said = "is not the address of a proxy; give it as http://host:port"
        elif scheme.startswith("socks") and importlib.util.find_spec(module) is None:
            said = f"names a SOCKS proxy, which needs a package that is not installed; run: pip install {package}"
        if said:
            raise UserError(f"{variable} in the environment {said}, or unset it")
    certificates = _settings(*(_CERTIFICATES_OF_REQUESTS if by_requests else _CERTIFICATES))
    for variable, value in list(certificates.items())[:1]:  # the first one that is set is taken
        if not _holds_certificates(variable, value):
            raise UserError(
                f"{variable} in the environment names no certificates ({value[:200]!r} is not there or holds none); "
                "correct it, or unset it"
            )


def proxy_variable(url: str) -> str | None:
    """The variable that names the proxy by which ``url`` is reached; ``None`` where it is reached without."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed has none

    parts = urlsplit(url)
    if is_loopback_url(url) or proxy_bypass_environment(parts.hostname or ""):
        return None
    return next(iter(_settings(f"{parts.scheme}_proxy", "ALL_PROXY")), None)


def is_loopback_url(url: str) -> bool:
    """Whether a URL leads to this machine. Names without a dot, which no proxy knows, are looked up."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if is_loopback_name(host):
        return True
    return bool(host) and ("." not in host.rstrip(".") or host.endswith(".localdomain")) and _resolves_here(host)


def is_loopback_name(host: str) -> bool:
    """Whether a host's name or address means this machine wherever it is read: no name is looked up.

    Args:
        host: without a port; an IPv6 address without its brackets.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1 and such
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


@functools.cache
def _resolves_here(host: str) -> bool:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(map(is_loopback_name, found))


def _settings(*variables: str) -> dict[str, str]:
    """Those of the variables that are set, in that order, by the names that they are set by; proxies' in lower case
    count too, and first."""
    found = {}
    for variable in variables:
        for name in (variable.lower(), variable.upper()) if variable.lower().endswith("_proxy") else (variable,):
            if value := os.environ.get(name):
                found[name] = value
                break
    return found


def _holds_certificates(variable: str, value: str) -> bool:
    if variable == "SSL_CERT_DIR":
        return any(Path(folder).is_dir() for folder in value.split(os.pathsep))
    if variable in _CERTIFICATES_OF_REQUESTS and Path(value).is_dir():
        return True
    try:
        ssl.create_default_context(cafile=value)
    except OSError:  # also ssl.SSLError: a file of something else
        return False
    return True


def _own_certificates() -> ssl.SSLContext | bool:
    for variable, value in list(_settings(*_CERTIFICATES).items())[:1]:
        with contextlib.suppress(OSError):
            if variable == "SSL_CERT_FILE":
                return ssl.create_default_context(cafile=value)
            return ssl.create_default_context(capath=value)
    return True
