"""Call: what a request to a model asks for, as far as deciding, metering and pricing need to know."""

from __future__ import annotations

import msgspec


class Call(msgspec.Struct, kw_only=True):
    """One request, read by `wire.read_call` from its path, headers and body. Holds no prompt text.

    api        the record's name of the endpoint (`openai.chat`), `free` where it can cost nothing, `unknown` else
    dialect    whose error bodies and streams the caller understands: openai | anthropic | gemini | "" (none known)
    route      the path with its variable parts named, without upstream and task: `/v1/responses/{id}`
    model      as asked for; from the path where the body has none; None where the call names none
    stream     the caller asked for a stream of events
    free       the call costs nothing at the provider (model lists, token counts, retrievals)
    retrieves  the id of an earlier call or batch whose usage this answer may show, else None
    later      the answer of this call carries no usage yet: a background answer, a batch
    """

    api: str = "unknown"
    dialect: str = ""
    route: str = ""
    method: str = "POST"
    model: str | None = None
    stream: bool = False
    free: bool = False
    later: bool = False
    retrieves: str | None = None
    usage_asked: bool | None = None
    """`stream_options.include_usage` as the caller sent it; None where it was not sent or does not exist."""
    max_output_tokens: int | None = None
    output_tokens_min: int = 1
    """What `max_output_tokens` may be lowered to: the least that the endpoint takes, or what must be left to think."""
    other_models: tuple[str, ...] = ()
    """Models that the provider may take in its place, as the body says (OpenRouter's `models`)."""
    choices: int = 1
    """How many answers are asked for at once (`n`, `candidateCount`)."""
    service_tier: str | None = None
    """The tier asked for, in the provider's own word: `flex`, `priority`, `batch`, `auto`."""
    region: str | None = None
    """The region that the path names, where prices may differ by it (Vertex): `us-east5`, `global`."""
    json_array: bool = False
    """The stream asked for is one JSON array and not events (Gemini without `alt=sse`)."""
    json_lines: bool = False
    """It is JSON objects, one a line, and not events (Ollama)."""
    api_version: str = ""
    """The dated version of the interface that the query names (Azure's `api-version`), "" where it names none."""
    task: str | None = None
    session: str | None = None
    """What the body says of task, session and end user (`metadata`, `user`); self-declared, never an identity."""
    body_bytes: int = 0
    inline_bytes: int = 0
    """Bytes of the body that are base64 data (images, files, audio) rather than text."""
    characters: int = 0
    """Length of the text to be spoken, for endpoints that bill characters."""
    unbounded: tuple[str, ...] = ()
    """Why nothing in the request bounds what it costs: `background`, `previous_response_id`, `web_search`..."""
    tool_fees: dict[str, int] = {}
    """Tools that the provider may run, by the name of their fee in `usage.requests`, and how often at most; 0 where
    the request does not say."""

    @property
    def events(self) -> bool:
        """The stream asked for is one of server-sent events, in which comments may stand."""
        return self.stream and not self.json_array and not self.json_lines
