"""What callers' commands ask of the data port, with CALLMETER_KEY at CALLMETER_URL."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from .task import caller_key, proxy_url

TIMEOUT_S = 15.0
ANSWER_BYTES_MAX = 16 * 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DETAIL_CHARACTERS_MAX = 2_000


def ask(method: str, path: str, body: object = None, environ: Mapping[str, str] | None = None) -> Any:
    """The JSON that the data port answers with. Raises click.ClickException with its sentence where it says no."""
    environ = os.environ if environ is None else environ
    key, url = caller_key(environ), proxy_url(environ)
    request = urllib.request.Request(url + path, method=method)
    request.add_header("x-callmeter-key", key)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if urlsplit(url).hostname in LOOPBACK:
        # A proxy for the web, as many companies set, cannot reach this machine's own ports.
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
            data = answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            raise click.ClickException(sentence_of(error.read(ANSWER_BYTES_MAX), error.code)) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"{url} cannot be reached: {getattr(error, 'reason', error)}; is the proxy there, and CALLMETER_URL right?"
        ) from None
    try:
        return json.loads(data)
    except ValueError:
        raise click.ClickException(f"{url} does not answer like Callmeter; check CALLMETER_URL") from None


def sentence_of(data: bytes, status: int) -> str:
    """The sentence of an answer that is no success."""
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    detail = told.get("detail") if isinstance(told, dict) else None
    if isinstance(detail, str) and detail:
        return detail[:DETAIL_CHARACTERS_MAX]
    return f"the proxy answered {status}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes nowhere but to the proxy."""

    def redirect_request(self, *_: Any) -> None:
        return None
