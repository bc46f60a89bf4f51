"""Who may see the page: this machine without a word, others with a token, and no other web site ever."""

import hmac
import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

from edgefuse.errors import InputError

VARIABLE = "EDGEFUSE_TOKEN"
"""Environment variable of a token that stays the same, such as for programs that read the metrics."""
TOKEN = re.compile(r"[\w-]{16,}", re.ASCII)
ANY = ("0.0.0.0", "::")
"""Hosts that stand for all addresses of this machine."""
ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses in other networks: those kept for documentation (RFC 5737, RFC 3849)."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob:; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True)
class Address:
    """Where the page is served."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `8080`, `HOST:8080` or `[::1]:8080`.

        Raises:
            InputError: not of that form, or no port from 0 to 65535.
        """
        try:
            split = urlsplit(f"//{text}" if ":" in text else f"//127.0.0.1:{text}")
            host, port = split.hostname, split.port
        except ValueError:
            port = None
        if port is None or split.path or split.query or split.username is not None:
            raise InputError(f"--serve {text}: give a port, or HOST:PORT, such as 8080 or 0.0.0.0:8080")
        return cls(host or "127.0.0.1", port)

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """As a browser takes it, on another device too: for all addresses of this machine, one of them."""
        host = lan_host(self.host) if self.host in ANY else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def lan_host(any_host: str) -> str:
    """Return this machine's address towards other networks, or its name if it has none; sends nothing.

    Args:
        any_host: one of `ANY`, which says in which version of IP; those of version 6 have version 4, too.
    """
    families = ELSEWHERE if any_host == "::" else [socket.AF_INET]
    for family in families:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((ELSEWHERE[family], 9))  # of a datagram: only looks the way up
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return socket.gethostname()


def make_token() -> str:
    """Return the token that the environment gives, else a new one.

    Raises:
        InputError: the one that is given is easily guessed, or does not fit into a cookie.
    """
    token = os.environ.get(VARIABLE, "")
    if token and not TOKEN.fullmatch(token):
        raise InputError(f"{VARIABLE} must be 16 or more of the characters A-Z, a-z, 0-9, _ and -")
    return token or secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Access:
    """Decides about requests.

    A loopback address needs no token, but a loopback name as the request's host, so that no web site can
    reach it under its own name (DNS rebinding). Any other address needs the token, in a header
    (`Authorization: Bearer …`), or once as `?token=…`, after which a cookie has it.
    """

    address: Address
    token: str = field(default_factory=make_token)

    @property
    def url(self) -> str:
        """What to open in a browser, with the token where one is needed; one that was given is only named."""
        if self.address.local:
            return self.address.url
        given = self.token == os.environ.get(VARIABLE)
        return f"{self.address.url}?token={f'${{{VARIABLE}}}' if given else self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie. A browser sends cookies to every port of a host, so other pages' too."""
        return f"edgefuse-{self.address.port}"

    def refuses(self, scope: Any) -> int | None:
        """Return the status that a request (an ASGI scope) is refused with; None: it may pass."""
        headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"]}
        if self.address.local:
            host = _split(f"//{headers.get('host', '')}")
            if host is None:
                return 400
            if not Address(host.hostname or "", 0).local:
                return 421
        elif not any(self._is_token(given) for given in self._tokens(scope, headers)):
            return 401
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return 403
        return None

    def location_with_cookie(self, scope: Any) -> tuple[str, str] | None:
        """Return the address without the token, and the cookie that holds it from then on."""
        query = parse_qs(str(scope["query_string"], "latin-1"))
        if self.address.local or scope["method"] != "GET" or "token" not in query:
            return None
        rest = urlencode({name: values[-1] for name, values in query.items() if name != "token"})
        return (
            "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else ""),  # a browser takes \\ for /
            f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/",
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _tokens(self, scope: Any, headers: dict[str, str]) -> list[str]:
        given = parse_qs(str(scope["query_string"], "latin-1")).get("token", [])
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            given.append(bearer.strip())
        try:
            if (cookie := SimpleCookie(headers.get("cookie", "")).get(self.cookie)) is not None:
                given.append(cookie.value)
        except CookieError:
            pass
        return given


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether a request that changes something comes from the page itself, or from no browser."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    if "origin" not in headers:
        return True
    origin = _split(headers["origin"])
    return origin is not None and origin.netloc == headers.get("host")


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address; None: it is malformed."""
    try:
        return urlsplit(url)
    except ValueError:
        return None
