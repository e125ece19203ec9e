"""Bodies: a conversation as the request body that its agent would send, in four dialects.

With the oddities that real agents have, since detectors trip over them: cache marks that move from turn to turn,
encrypted reasoning, ids of tool calls, instructions of the repository and the date before the first prompt, a
setting-up that the model acknowledges, the session's id in the body.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Protocol

from .company import Repository

TOOLS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("read_file", "Reads a file of the repository and gives its text with line numbers.", ("path",)),
    ("edit_file", "Replaces a text that occurs once in a file by another.", ("path", "old", "new")),
    ("write_file", "Writes a whole file, also a new one. Prefer edit_file for files that exist.", ("path", "text")),
    ("search", "Searches the repository for a regular expression; gives paths and lines.", ("pattern", "path")),
    ("list_files", "Lists the files below a directory, two levels deep.", ("path",)),
    ("shell", "Runs a command in the root of the repository, at most ten minutes.", ("command",)),
    ("ticket", "Reads a ticket with its comments.", ("id",)),
    ("todo", "Replaces the list of what is left to do.", ("items",)),
    ("fetch", "Fetches a page and gives its text.", ("url",)),
)
MANNERS = " ".join(
    f"Rule {number}: {rule}"
    for number, rule in enumerate(
        (
            "answer shortly; the person reads you in a terminal.",
            "look before you act: read a file before you edit it, search before you say that something is not there.",
            "never invent paths, names or results; say when you do not know.",
            "use the tools for all that touches files, and run several that do not depend on each other at once.",
            "do what was asked and nothing beside it; propose what else you saw at the end.",
            "follow the style of the files around your change, their names, their libraries and their manner of tests.",
            "no secrets in code, in commits or in what you print; ask before you delete what git does not keep.",
            "when tests fail, find out why; do not change a test so that it passes.",
            "keep a list of steps for work that has more than three, and keep it true.",
            "when a command was refused, do not try to reach the same by other means.",
            "refer to code as path:line so that it can be opened.",
            "stop when the work is done, and say so in a sentence.",
        )
        * 3,
        1,
    )
)
"""Some 3 KB that every conversation of an agent begins with."""
TITLE = "Give this conversation a title of at most six words, in the language of its first message. Print it alone."
NEXT_SPEAKER = (
    "Look only at your last reply, at what it says and how it ends. Who should speak next? If you said that you would "
    "do something at once, it is `model`. If you asked something, or all is done, it is `user`. Answer in JSON."
)


class Body(Protocol):
    """One conversation. Turns are added as they happen; `whole` is the body of a call made now."""

    def user(self, text: str) -> None: ...
    def answer(self, text: str, tool: str = "", arguments: dict[str, str] | None = None) -> None:
        """What the model said, perhaps with a call of a tool."""

    def result(self, text: str) -> None:
        """What the tool that was called last gave."""

    def whole(self) -> bytes: ...


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def joined(items: list[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def token(random: Random, length: int) -> str:
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=length))


def uuid(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def schema(names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}


class ChatBody:
    """OpenAI Chat Completions, as opencode and scripts send it."""

    def __init__(self, random: Random, model: str, system: str, *, tools: bool = True, **options: Any) -> None:
        self._random = random
        self._items = [compact({"role": "system", "content": system})] if system else []
        fields: dict[str, Any] = {"model": model, **options}
        if tools:
            fields["tools"] = [
                {"type": "function", "function": {"name": name, "description": what, "parameters": schema(names)}}
                for name, what, names in TOOLS
            ]
        self._head = compact(fields)[:-1] + b',"messages":'
        self._called = ""

    def user(self, text: str) -> None:
        self._items.append(compact({"role": "user", "content": text}))

    def answer(self, text: str, tool: str = "", arguments: dict[str, str] | None = None) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if tool:
            self._called = f"call_{token(self._random, 24)}"
            call = {"name": tool, "arguments": json.dumps(arguments or {})}
            message["tool_calls"] = [{"id": self._called, "type": "function", "function": call}]
        self._items.append(compact(message))

    def result(self, text: str) -> None:
        self._items.append(compact({"role": "tool", "tool_call_id": self._called, "content": text}))

    def whole(self) -> bytes:
        return self._head + joined(self._items) + b"}"


class ResponsesBody:
    """OpenAI Responses, as Codex sends it: whole input each time, reasoning encrypted between."""

    def __init__(self, random: Random, model: str, system: str, *, session: str, before: list[str]) -> None:
        self._random = random
        tools = [
            {"type": "function", "name": name, "description": what, "strict": False, "parameters": schema(names)}
            for name, what, names in TOOLS
        ]
        fields = {
            "model": model,
            "instructions": system,
            "tools": tools,
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "store": False,
            "stream": True,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": session,
        }
        self._head = compact(fields)[:-1] + b',"input":'
        self._items: list[bytes] = []
        self._called = ""
        for text in before:
            self.user(text)

    def user(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        self._items.append(compact({"type": "message", "role": "user", "content": content}))

    def answer(self, text: str, tool: str = "", arguments: dict[str, str] | None = None) -> None:
        secret = token(self._random, 120)
        self._items.append(compact({"type": "reasoning", "summary": [], "content": None, "encrypted_content": secret}))
        if text:
            content = [{"type": "output_text", "text": text}]
            self._items.append(compact({"type": "message", "role": "assistant", "content": content}))
        if tool:
            self._called = f"call_{token(self._random, 24)}"
            call = {"type": "function_call", "name": tool, "arguments": json.dumps(arguments or {})}
            self._items.append(compact({**call, "call_id": self._called}))

    def result(self, text: str) -> None:
        self._items.append(compact({"type": "function_call_output", "call_id": self._called, "output": text}))

    def whole(self) -> bytes:
        return self._head + joined(self._items) + b"}"


class MessagesBody:
    """Anthropic Messages, as Claude Code sends it: blocks, and a cache mark on the last of them."""

    def __init__(self, random: Random, model: str, system: str, *, session: str, before: list[str]) -> None:
        self._random = random
        marked = {"type": "ephemeral"}
        fields = {
            "model": model,
            "max_tokens": 32000,
            "temperature": 1,
            "stream": True,
            "metadata": {"user_id": f"user_{'5f' * 16}_account__session_{session}"},
            "system": [
                {"type": "text", "text": "You are an agent for the command line."},
                {"type": "text", "text": system, "cache_control": marked},
            ],
            "tools": [
                {"name": name, "description": what, "input_schema": schema(names)} for name, what, names in TOOLS
            ],
        }
        self._head = compact(fields)[:-1] + b',"messages":'
        self._messages: list[tuple[str, list[dict[str, Any]]]] = []
        self._encoded: list[bytes] = []
        self._before = before
        self._called = ""

    def user(self, text: str) -> None:
        reminders = [
            {"type": "text", "text": f"<system-reminder>\n{each}\n</system-reminder>"} for each in self._before
        ]
        self._before = []
        self._add("user", [*reminders, {"type": "text", "text": text}])

    def answer(self, text: str, tool: str = "", arguments: dict[str, str] | None = None) -> None:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        if tool:
            self._called = f"toolu_01{token(self._random, 22)}"
            blocks.append({"type": "tool_use", "id": self._called, "name": tool, "input": arguments or {}})
        self._add("assistant", blocks)

    def result(self, text: str) -> None:
        self._add("user", [{"type": "tool_result", "tool_use_id": self._called, "content": text}])

    def whole(self) -> bytes:
        role, blocks = self._messages[-1]
        marked = [*blocks[:-1], {**blocks[-1], "cache_control": {"type": "ephemeral"}}]
        last = compact({"role": role, "content": marked})
        return self._head + joined([*self._encoded[:-1], last]) + b"}"

    def _add(self, role: str, blocks: list[dict[str, Any]]) -> None:
        self._messages.append((role, blocks))
        self._encoded.append(compact({"role": role, "content": blocks}))


class GeminiBody:
    """Gemini generateContent, as Gemini CLI sends it: a setting-up that the model acknowledges, thought signatures."""

    def __init__(self, random: Random, system: str, *, before: list[str]) -> None:
        self._random = random
        declarations = [{"name": name, "description": what, "parameters": schema(names)} for name, what, names in TOOLS]
        fields = {
            "systemInstruction": {"role": "user", "parts": [{"text": system}]},
            "tools": [{"functionDeclarations": declarations}],
            "generationConfig": {"temperature": 0, "topP": 1, "thinkingConfig": {"includeThoughts": True}},
        }
        self._head = compact(fields)[:-1] + b',"contents":'
        self._items: list[bytes] = []
        self._called = ""
        for text in before:
            self.user(text)
            self.answer("Got it. What shall I do first?")

    def user(self, text: str) -> None:
        self._items.append(compact({"role": "user", "parts": [{"text": text}]}))

    def answer(self, text: str, tool: str = "", arguments: dict[str, str] | None = None) -> None:
        parts: list[dict[str, Any]] = [{"text": text}] if text else []
        if tool:
            self._called = tool
            signature = token(self._random, 80)
            parts.append({"functionCall": {"name": tool, "args": arguments or {}}, "thoughtSignature": signature})
        self._items.append(compact({"role": "model", "parts": parts}))

    def result(self, text: str) -> None:
        response = {"name": self._called, "response": {"output": text}}
        self._items.append(compact({"role": "user", "parts": [{"functionResponse": response}]}))

    def whole(self) -> bytes:
        return self._head + joined(self._items) + b"}"

    def asking_who_is_next(self) -> bytes:
        """The second call for one prompt: the conversation, and a question about it that is always the same."""
        answer = {"type": "object", "properties": {"next_speaker": {"type": "string", "enum": ["user", "model"]}}}
        options = {"temperature": 0, "responseMimeType": "application/json", "responseJsonSchema": answer}
        question = compact({"role": "user", "parts": [{"text": NEXT_SPEAKER}]})
        return b'{"generationConfig":' + compact(options) + b',"contents":' + joined([*self._items, question]) + b"}"


def surroundings(agent: str, place: Repository, day: str, user: str) -> list[str]:
    """What agents tell the model of where it works, before the first prompt, framed as each of them does."""
    directory = f"/home/{user}/src/{place.name}"
    listing = "\n".join(sorted(place.files)[:12])
    if agent == "codex":
        where = f"<cwd>{directory}</cwd>\n<approval_policy>on-request</approval_policy>\n<shell>bash</shell>"
        return [
            f"# AGENTS.md instructions for {directory}\n\n<INSTRUCTIONS>\n{place.instructions}\n</INSTRUCTIONS>",
            f"<environment_context>\n{where}\n<current_date>{day}</current_date>\n</environment_context>",
        ]
    if agent == "gemini-cli":
        return [
            f"This is the Gemini CLI. We are setting up the context for our chat.\nToday's date is {day}.\n"
            f"My operating system is: linux\nI'm currently working in the directory: {directory}\n\n"
            f"{place.instructions}\n\n{listing}"
        ]
    return [
        f"Instructions for this repository:\n\n{place.instructions}",
        f"Directory: {directory}\nToday: {day}\nPlatform: linux\nBranch: main\n\nFiles:\n{listing}",
    ]
