"""How commands talk to a running proxy: a small client of its admin port, with errors made for people."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Any

import click

TIMEOUT_S = 30.0
"""A report over months of calls takes seconds; longer than this, something is wrong."""
STREAM_SILENCE_S = 120.0
"""An export over years may look for its first hour that long."""
PART_BYTES = 64 * 1024
ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""An answer is held in memory; the API gives long ones in pages far below this."""
DETAIL_CHARS_MAX = 2_000

URL_FILE = "admin.url"
TOKEN_FILE = "admin.token"


class AdminError(click.ClickException):
    """The admin port could not be reached, or said no. The message is one or two sentences."""


class AdminClient:
    """Calls the admin API. Every method gives the decoded JSON, and raises AdminError for everything else."""

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AdminError(f"`{url}` is no URL of an admin port; write CALLMETER_ADMIN_URL=http://127.0.0.1:8081")
        if not (token.isascii() and token.isprintable()):
            raise AdminError("CALLMETER_ADMIN_TOKEN holds what no header can; copy it again, as one line")
        self.url = url.rstrip("/")
        self._token = token
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if _is_loopback(parts.hostname):
            # A proxy for the web, as many companies set, cannot reach this machine's own ports.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        """Never shows the token."""
        return f"AdminClient({self.url})"

    def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Any:
        """`query` leaves out what is None."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: object, *, timeout_s: float = TIMEOUT_S) -> Any:
        return self.request("POST", path, body=body, timeout_s=timeout_s)

    def patch(self, path: str, body: object) -> Any:
        return self.request("PATCH", path, body=body)

    def stream(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Iterator[bytes]:
        """The body of an answer in parts, however long it is. Raises AdminError also where it breaks off."""
        request = self._request("GET", path, query)
        try:
            with self._opener.open(request, timeout=STREAM_SILENCE_S) as answer:
                while part := answer.read(PART_BYTES):
                    yield part
        except urllib.error.HTTPError as error:
            with error:
                raise AdminError(self._why(error)) from None
        except http.client.IncompleteRead:
            raise AdminError(f"the answer of {self.url} broke off; its log says why, ask again") from None
        except (OSError, ValueError) as error:
            raise AdminError(self._unreachable(error)) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: object = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """`path` begins with `/`, its parts already quoted."""
        request = self._request(method, path, query)
        request.add_header("accept", "application/json")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                data = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise AdminError(self._why(error)) from None
        except (OSError, ValueError) as error:
            raise AdminError(self._unreachable(error)) from None
        if len(data) > ANSWER_BYTES_MAX:
            raise AdminError(f"the answer to {method} {path} is too large; ask for less")
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise AdminError(
                f"{self.url} does not answer like Callmeter's admin port; check CALLMETER_ADMIN_URL"
            ) from None

    def _request(self, method: str, path: str, query: Mapping[str, str | int | None] | None) -> urllib.request.Request:
        text = urllib.parse.urlencode({name: value for name, value in (query or {}).items() if value is not None})
        request = urllib.request.Request(self.url + path + (f"?{text}" if text else ""), method=method)
        request.add_header("authorization", f"Bearer {self._token}")
        return request

    def _unreachable(self, error: Exception) -> str:
        reason = getattr(error, "reason", None) or error
        return (
            f"cannot reach the admin port at {self.url}: {reason}. Is `callmeter serve` running? "
            "CALLMETER_ADMIN_URL names another place."
        )

    def _why(self, error: urllib.error.HTTPError) -> str:
        """The sentence for an answer that is no success, from its problem details where it has them."""
        if error.headers.get("x-callmeter-reason"):
            return f"{self.url} is the data port, for agents; CALLMETER_ADMIN_URL must name the admin port"
        if error.code == 401:
            return f"the admin port at {self.url} does not take this admin token; check CALLMETER_ADMIN_TOKEN"
        if 300 <= error.code < 400:
            return f"{self.url} answers with a redirect; set CALLMETER_ADMIN_URL to where it leads"
        try:
            problem = json.loads(error.read(ANSWER_BYTES_MAX))
            detail = problem.get("detail") or problem.get("title")
        except (OSError, ValueError, AttributeError):
            detail = None
        return str(detail)[:DETAIL_CHARS_MAX] if detail else f"the admin port at {self.url} answered {error.code}"


def find_admin(environ: Mapping[str, str] | None = None) -> AdminClient:
    """The client for the proxy that the environment names, else for the one whose data directory is here.

    Reads CALLMETER_ADMIN_URL and CALLMETER_ADMIN_TOKEN; what is not set comes from the files `admin.url` and
    `admin.token` in the data directory (CALLMETER_DATA, default `data`). Raises AdminError.
    """
    environ = os.environ if environ is None else environ
    data = Path(environ.get("CALLMETER_DATA") or "data").expanduser()
    url = environ.get("CALLMETER_ADMIN_URL") or _kept(data / URL_FILE, "CALLMETER_ADMIN_URL")
    token = environ.get("CALLMETER_ADMIN_TOKEN") or _kept(data / TOKEN_FILE, "CALLMETER_ADMIN_TOKEN")
    return AdminClient(url, token)


def _kept(path: Path, variable: str) -> str:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise AdminError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}; set {variable}"
        ) from None
    if not text:
        raise AdminError(
            f"no running proxy found: {path} does not exist. Start one with `callmeter serve`, run this where its data "
            f"directory is (CALLMETER_DATA), or set {variable}."
        )
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the admin token to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None
