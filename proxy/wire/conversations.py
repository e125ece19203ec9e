"""Conversations out of the bodies of requests: one dialect a function, one `Conversation` for all of them.

Nothing here raises, and nothing takes longer than a body of its length has to: what is not as the dialect's reference
says is left out, and of a conversation with thousands of turns the midst is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ..core.call import Call
from ..core.conversation import Conversation, Talk
from .values import NOTHING, decode, listed, mapping, plain, text

DECODED_BYTES_MAX = 1024 * 1024
"""A larger field stays as it is: its parts are looked at one by one, and it is compared byte by byte."""

MESSAGES_MAX = 512
"""Of a longer conversation the first few and the last are read."""
MESSAGES_FIRST = 8

MEDIA_SAMPLE = 256
"""Characters at the beginning, in the middle and at the end that tell one picture from another, with its length."""

NOT_ANSWERED_BY = frozenset(
    {
        "stream",
        "stream_options",
        "metadata",
        "client_metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "cache_control",
        "service_tier",
        "serviceTier",
        "labels",
    }
)
"""Fields that change how an answer is sent, billed or counted, and not what it is. `store` is none of them: an answer
that its provider keeps can be gone on with by its id."""

ARGUMENTS_REMEMBERED = 4096
ARGUMENTS_REMEMBERED_CHARACTERS = 512
"""Short arguments of tools are brought in order once: they come again with every call of a conversation."""

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder(order="sorted").encode


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str = ""


class _Tool(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    type: str = ""
    function: _Function = _Function()


_tools = msgspec.json.Decoder(list[_Tool])


def read_conversation(call: Call, fields: Mapping[str, Any] | bytes) -> Conversation | None:
    """The conversation of a call, from the fields of its body, each still undecoded. Of an endpoint that holds none
    (embeddings, images) it has no turns; None where the body is no JSON object."""
    if isinstance(fields, bytes):
        return None
    asked = {name: value for name, value in fields.items() if name not in NOT_ANSWERED_BY}
    conversation = Conversation(asked=asked, max_output_tokens=call.max_output_tokens)
    reader = _READERS.get(call.api)
    if reader is not None:
        reader(conversation, asked)
    return conversation


def _messages(conversation: Conversation, asked: dict[str, Any], name: str) -> list[Any]:
    """The messages under a field, decoded; those in the midst of a very long list are left out. A field that was
    decoded whole is put back into `asked`, so that it is decoded once."""
    value = asked.get(name)
    if not isinstance(value, msgspec.Raw):
        return []
    if len(memoryview(value)) <= DECODED_BYTES_MAX:
        messages = plain(value)
        if messages is None:
            return []
        asked[name] = messages
        if not isinstance(messages, list):
            return [messages]
        return _ends(conversation, messages)
    try:
        pieces = _raw_list.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return [plain(piece) for piece in _ends(conversation, pieces)]


def _ends(conversation: Conversation, messages: list[Any]) -> list[Any]:
    if len(messages) <= MESSAGES_MAX:
        return messages
    conversation.omitted = len(messages) - MESSAGES_MAX
    return messages[:MESSAGES_FIRST] + messages[MESSAGES_FIRST - MESSAGES_MAX :]


def _arguments(value: Any) -> str:
    """A tool's arguments as JSON with sorted keys, whether they came as JSON or as a text that holds some."""
    if isinstance(value, str):
        return _sorted_text(value) if len(value) <= ARGUMENTS_REMEMBERED_CHARACTERS else _sorted(value)
    return _sorted_json(value)


def _sorted(text_: str) -> str:
    decoded = decode(text_) if text_[:1] in ("{", "[") else None
    return text_ if decoded is None else _sorted_json(decoded)


_sorted_text = lru_cache(maxsize=ARGUMENTS_REMEMBERED)(_sorted)


def _sorted_json(value: Any) -> str:
    try:
        return _encode(value).decode() if value is not None else ""
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return ""


_WRAPPERS = ("result", "output", "content", "error")


def _result(value: Any) -> str:
    """What a tool gave back, as text. Dialects that want an object wrap a text in a field of one of a few names."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in _WRAPPERS:
            return _result(inner)
    if isinstance(value, list):
        return "\n".join([_part(mapping(part)) for part in value])
    return _arguments(value)


def _part(part: Mapping[str, Any]) -> str:
    """One part of a message as text."""
    said = part.get("text")
    if isinstance(said, str):
        return said
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) else None
    return _media(inner if inner is not None else part)


def _media(value: Any) -> str:
    """A sample of the data of a picture, sound or file, or where it lies: the longest text in it."""
    longest = ""
    waiting = [value]
    for _ in range(16):
        if not waiting:
            break
        value = waiting.pop()
        if isinstance(value, str):
            longest = max(longest, value, key=len)
        elif isinstance(value, dict):
            waiting.extend(value.values())
    if len(longest) <= 3 * MEDIA_SAMPLE:
        return longest
    middle = len(longest) // 2
    sample = longest[:MEDIA_SAMPLE] + longest[middle : middle + MEDIA_SAMPLE] + longest[-MEDIA_SAMPLE:]
    return f"{len(longest)} {sample}"


def _texts(content: Any) -> list[str]:
    """What a message says: a text, or a list of parts."""
    if isinstance(content, str):
        return [content]
    return [_part(part) if isinstance(part, dict) else str(part) for part in listed(content)]


def _number(value: Any) -> float | None:
    value = plain(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _seed(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and abs(number) < 2**63 else None


def _tool_names(value: Any) -> list[str]:
    """The names of tools, without their schemas, which are most of a request."""
    if not isinstance(value, msgspec.Raw):
        return []
    try:
        tools = _tools.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return [tool.name or tool.function.name or tool.type for tool in tools]


def _sampling(conversation: Conversation, fields: Mapping[str, Any]) -> None:
    if "temperature" in fields:
        conversation.temperature = _number(fields["temperature"])
    if "seed" in fields:
        conversation.seed = _seed(fields["seed"])


# -- the dialects -----------------------------------------------------------------------------------------------------


def _read_chat(conversation: Conversation, asked: dict[str, Any]) -> None:
    """OpenAI's Chat Completions, and whoever speaks them."""
    _sampling(conversation, asked)
    conversation.tools = _tool_names(asked.get("tools")) or _tool_names(asked.get("functions"))
    talk = Talk()
    for message in _messages(conversation, asked, "messages"):
        if not isinstance(message, dict):
            message = NOTHING
        role, content = message.get("role"), message.get("content")
        if role == "user":
            texts = talk.turn(False).texts
            if isinstance(content, str):  # of hundreds of messages most are just that
                texts.append(content)
            else:
                texts += _texts(content)
        elif role == "assistant":
            turn = talk.turn(True)
            if isinstance(content, str):
                if content:
                    turn.texts.append(content)
            else:
                turn.texts += [said for said in _texts(content) if said]
            if "tool_calls" not in message and "function_call" not in message:
                continue
            called = [mapping(tool_call).get("function") for tool_call in listed(message.get("tool_calls"))]
            for function in map(mapping, called or (message.get("function_call"),)):
                if function:
                    turn.calls.append((str(function.get("name")), _arguments(function.get("arguments"))))
        elif role in ("tool", "function"):
            talk.turn(False).results.append(_result(content))
        elif role in ("system", "developer"):
            conversation.system += _texts(content)
        else:
            talk.turn(False).texts += _texts(content)
    conversation.turns = talk.turns


_CALL_ITEMS = frozenset({"function_call", "custom_tool_call", "local_shell_call", "mcp_call", "shell_call"})


def _read_responses(conversation: Conversation, asked: dict[str, Any]) -> None:
    """OpenAI's Responses: a text, or a list of messages, calls and their outputs."""
    _sampling(conversation, asked)
    conversation.tools = _tool_names(asked.get("tools"))
    conversation.system = [instructions] if (instructions := text(asked, "instructions")) else []
    kept = plain(asked.get("previous_response_id")) or plain(asked.get("conversation"))
    conversation.kept_by = _arguments(kept) if kept else ""
    talk = Talk()
    for item in _messages(conversation, asked, "input"):
        if isinstance(item, str):
            talk.turn(False).texts.append(item)
            continue
        item = mapping(item)
        kind, role = str(item.get("type")), item.get("role")
        if role in ("system", "developer"):
            conversation.system += _texts(item.get("content"))
        elif role is not None:
            turn = talk.turn(role == "assistant")
            turn.texts += [said for said in _texts(item.get("content")) if said]
        elif kind in _CALL_ITEMS:
            given = next((item[name] for name in ("arguments", "input", "action") if name in item), None)
            talk.turn(True).calls.append((str(item.get("name") or kind), _arguments(given)))
        elif kind.endswith("_output"):
            talk.turn(False).results.append(_result(item.get("output")))
    conversation.turns = talk.turns


def _read_messages(conversation: Conversation, asked: dict[str, Any]) -> None:
    """Anthropic's Messages."""
    conversation.temperature = _number(asked.get("temperature"))
    conversation.tools = _tool_names(asked.get("tools"))
    conversation.system = _texts(plain(asked.get("system")))
    talk = Talk()
    for message in _messages(conversation, asked, "messages"):
        message = mapping(message)
        turn = talk.turn(message.get("role") == "assistant")
        content = message.get("content")
        if isinstance(content, str):
            turn.texts.append(content)
            continue
        for block in listed(content):
            block = mapping(block)
            kind = block.get("type")
            if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
                turn.calls.append((str(block.get("name")), _arguments(block.get("input"))))
            elif kind == "tool_result":
                turn.results.append(_result(block.get("content")))
            elif kind == "text":
                turn.texts.append(str(block.get("text")))
            elif kind not in ("thinking", "redacted_thinking"):
                turn.texts.append(_media(block))
    conversation.turns = talk.turns


def _read_gemini(conversation: Conversation, asked: dict[str, Any]) -> None:
    """Google's generateContent, whose fields may be written in either case."""
    config = mapping(asked.get("generationConfig", asked.get("generation_config")))
    _sampling(conversation, config)
    instruction = plain(asked.get("systemInstruction", asked.get("system_instruction")))
    if isinstance(instruction, str):
        conversation.system = [instruction]
    else:
        conversation.system = [_part(mapping(part)) for part in listed(mapping(instruction).get("parts"))]
    conversation.kept_by = text(asked, "cachedContent") or text(asked, "cached_content") or ""
    conversation.tools = _declared(asked.get("tools"))
    talk = Talk()
    for content in _messages(conversation, asked, "contents"):
        if isinstance(content, str):
            talk.turn(False).texts.append(content)
            continue
        content = mapping(content)
        turn = talk.turn(content.get("role") == "model")
        for part in listed(content.get("parts")):
            part = mapping(part)
            asked_of = mapping(part.get("functionCall", part.get("function_call")))
            given = mapping(part.get("functionResponse", part.get("function_response")))
            if asked_of:
                turn.calls.append((str(asked_of.get("name")), _arguments(asked_of.get("args", NOTHING))))
            elif given:
                turn.results.append(_result(given.get("response")))
            elif part.get("thought") is not True:
                said = _part(part)
                if said:
                    turn.texts.append(said)
    conversation.turns = talk.turns


class _Declarations(msgspec.Struct, frozen=True, gc=False, rename={"camel": "functionDeclarations"}):
    camel: list[_Function] = []
    function_declarations: list[_Function] = []


_declarations = msgspec.json.Decoder(list[_Declarations])


def _declared(value: Any) -> list[str]:
    try:
        tools = _declarations.decode(value) if isinstance(value, msgspec.Raw) else []
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return [function.name for tool in tools for function in (*tool.camel, *tool.function_declarations)]


_READERS: dict[str, Callable[[Conversation, dict[str, Any]], None]] = {
    "openai.chat": _read_chat,
    "openai.responses": _read_responses,
    "anthropic.messages": _read_messages,
    "gemini.generate": _read_gemini,
}
"""By `Call.api`. A dialect that is added puts its reader here, and tests hold them together."""
