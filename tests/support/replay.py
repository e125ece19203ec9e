"""A provider that answers with what real ones once sent: the bytes of a recording, in small pieces."""

from __future__ import annotations

from aiohttp import web

from tests.support.recordings import Recording

PIECE_BYTES = 700
"""Smaller than most events, so that they arrive cut; large enough that a recording takes milliseconds."""
HEADER = "x-replay"
"""Names the recording that a call is to be answered with."""
FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


class Replay:
    """Knows the recordings it was given by name, and what it was sent for each."""

    def __init__(self) -> None:
        self.recordings: dict[str, Recording] = {}
        self.seen: dict[str, tuple[str, bytes]] = {}
        self.app = web.Application(client_max_size=64 * 1024 * 1024)
        self.app.router.add_route("*", "/{path:.*}", self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        recording = self.recordings[request.headers[HEADER]]
        self.seen[recording.name] = (request.path_qs, await request.read())
        headers = {name: value for name, value in recording.response_headers.items() if name not in FRAMING}
        response = web.StreamResponse(status=recording.status, headers=headers)
        await response.prepare(request)
        for start in range(0, len(recording.body), PIECE_BYTES):
            await response.write(recording.body[start : start + PIECE_BYTES])
        await response.write_eof()
        return response
