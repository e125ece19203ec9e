"""One conversation in the words of each dialect, for tests of fingerprints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from proxy.core.call import Call
from proxy.core.conversation import Conversation
from proxy.wire.conversations import read_conversation
from proxy.wire.request import json_fields

Step = tuple[str, str, Any, str]
"""A tool round: id, name, arguments, result."""

APIS = ("openai.chat", "openai.responses", "anthropic.messages", "gemini.generate")


def conversation(api: str, body: dict[str, Any] | bytes, **call: Any) -> Conversation:
    """As the proxy reads it from a body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = read_conversation(Call(api=api, **call), json_fields(data, route="/test", content_type=""))
    assert found is not None
    return found


def body_in(api: str, *, system: str, said: list[str], steps: list[Step], last: str = "") -> dict[str, Any]:
    """`said` are the caller's turns, with an answer `ok N` between them; then come rounds of tools, then `last`."""
    writer = {
        "openai.chat": _chat,
        "openai.responses": _responses,
        "anthropic.messages": _messages,
        "gemini.generate": _gemini,
    }[api]
    return writer(system, said, steps, last)


def told(
    api: str, *, system: str = "Be brief.", said: list[str], steps: Sequence[Step] = (), last: str = ""
) -> Conversation:
    return conversation(api, body_in(api, system=system, said=said, steps=list(steps), last=last))


def _turns(said: list[str]) -> list[tuple[bool, str]]:
    turns: list[tuple[bool, str]] = []
    for number, text in enumerate(said):
        if number:
            turns.append((True, f"ok {number}"))
        turns.append((False, text))
    return turns


def _chat(system: str, said: list[str], steps: list[Step], last: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    messages += [{"role": "assistant" if model else "user", "content": text} for model, text in _turns(said)]
    for id_, name, arguments, result in steps:
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": id_, "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": id_, "content": result})
    if last:
        messages.append({"role": "user", "content": [{"type": "text", "text": last}]})
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {}}}]
    return {"model": "gpt-5", "messages": messages, "tools": tools}


def _responses(system: str, said: list[str], steps: list[Step], last: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for model, text in _turns(said):
        kind = "output_text" if model else "input_text"
        role = "assistant" if model else "user"
        items.append({"type": "message", "role": role, "content": [{"type": kind, "text": text}]})
    for id_, name, arguments, result in steps:
        items.append({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"})
        items.append({"type": "function_call", "call_id": id_, "name": name, "arguments": json.dumps(arguments)})
        items.append({"type": "function_call_output", "call_id": id_, "output": result})
    if last:
        items.append({"role": "user", "content": last})
    tools = [{"type": "function", "name": "bash", "parameters": {}}]
    return {"model": "gpt-5", "instructions": system, "input": items, "tools": tools}


def _messages(system: str, said: list[str], steps: list[Step], last: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if model else "user", "content": text} for model, text in _turns(said)
    ]
    for id_, name, arguments, result in steps:
        use = {"type": "tool_use", "id": id_, "name": name, "input": arguments}
        messages.append({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, use]})
        content = [{"type": "text", "text": result}]
        messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_, "content": content}]})
    if last:
        block = {"type": "text", "text": last}
        if messages[-1]["role"] == "user" and isinstance(messages[-1]["content"], list):
            messages[-1]["content"].append(block)
        else:
            messages.append({"role": "user", "content": [block]})
    system_blocks = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    tools = [{"name": "bash", "input_schema": {}}]
    return {"model": "claude", "max_tokens": 1000, "system": system_blocks, "messages": messages, "tools": tools}


def _gemini(system: str, said: list[str], steps: list[Step], last: str) -> dict[str, Any]:
    contents: list[dict[str, Any]] = [
        {"role": "model" if model else "user", "parts": [{"text": text}]} for model, text in _turns(said)
    ]
    for _, name, arguments, result in steps:
        call = {"functionCall": {"name": name, "args": arguments}}
        contents.append({"role": "model", "parts": [{"text": "hm", "thought": True}, call]})
        response = {"name": name, "response": {"output": result}}
        contents.append({"role": "user", "parts": [{"functionResponse": response}]})
    if last:
        contents.append({"role": "user", "parts": [{"text": last}]})
    return {
        "systemInstruction": {"parts": [{"text": system}]},
        "contents": contents,
        "tools": [{"functionDeclarations": [{"name": "bash"}]}],
    }
