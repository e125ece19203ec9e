"""Unbounded: requests that nothing in them bounds, because the provider adds to them what we do not see.

Earlier conversation kept at the provider, files by reference, stored prompts, cached content, and tools that the
provider runs itself and whose results become input. Also the fees of such tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..core.call import Call
from .values import has_too_many_parts, listed, mapping, plain, text, whole

REFERENCE_REASON = "file_reference"
DEARER_OUTPUT = "speech_or_pictures"
"""Output whose tokens cost several times those of text, and whose share nobody knows before."""
OTHER_TOOL = "server_tool"
"""The reason for a tool that we do not know: it is taken for one that the provider runs."""

_RESPONSES_KEPT = ("previous_response_id", "conversation", "prompt")
"""Fields of OpenAI's Responses that point at something which the provider adds to the input."""

_OPENAI_TELLING = frozenset({*_RESPONSES_KEPT, "agent_id", "background", "modalities", "tools", "web_search_options"})
"""Fields of which one alone may leave a request without a bound."""

_OPENAI_CALLERS_TOOLS = frozenset(
    {
        "function",
        "custom",
        "namespace",
        "computer",
        "computer_use",
        "computer_use_preview",
        "local_shell",
        "apply_patch",
    }
)
"""Tools whose calls come back to the caller to be run."""

_ANTHROPIC_CALLERS_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")

_GEMINI_CALLERS_TOOLS = frozenset({"functionDeclarations", "function_declarations", "computerUse", "computer_use"})

_FEES = {
    "web_search": "web_search",
    "web_search_preview": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_interpreter",
    "code_execution": "code_execution",
    "web_fetch": "web_fetch",
    "google_search": "web_search",
    "google_search_retrieval": "web_search",
}
"""Server tools -> the name of their fee, as the readers of answers count it."""

_DATED = re.compile(r"_(?:20\d{6}|20\d\d_\d\d_\d\d)\Z")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

# In JSON a quote inside a text is escaped, so that these are names of fields and whole values, never prose. The first
# of each pair begins with something rare, by which a long conversation is searched several times as fast.
_OPENAI_LOOK = re.compile(rb'_(?<=file_|mage_|tore_)(?:id|url|ids)"')
_OPENAI_REFERENCE = re.compile(
    rb'"(?:file_id|file_url|vector_store_ids)"\s*:|"image_url"\s*:\s*(?:\{[^{}]{0,200}?"url"\s*:\s*)?"https?:'
)
_ANTHROPIC_REFERENCE = re.compile(rb'"type"\s*:\s*"(?:url|file|container_upload)"')
_GEMINI_LOOK = re.compile(rb'ri"\s*:')
_GEMINI_REFERENCE = re.compile(rb'"(?:fileUri|file_uri|gcsUri|uri)"\s*:')


class _Tool(msgspec.Struct):
    type: str = ""
    max_uses: int | None = None
    environment: Any = None


_tools = msgspec.json.Decoder(list[_Tool])


def _read_tools(value: Any) -> list[_Tool]:
    """The tools of a request, without their schemas. What has another shape is read piece by piece."""
    if value is None:
        return []
    if isinstance(value, msgspec.Raw):
        try:
            return _tools.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    tools = [mapping(tool) for tool in listed(value)]
    return [_Tool(text(tool, "type") or "", whole(tool.get("max_uses")), tool.get("environment")) for tool in tools]


def _refers(
    values: Iterable[Any], look: re.Pattern[bytes], reference: re.Pattern[bytes], *, byte: int = ord('"')
) -> bool:
    """Whether some part of the request names a file that lies elsewhere. `byte` is in every such name: to find that
    there is none takes a tenth of a search."""
    for value in values:
        if value is None:
            continue
        raw = bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
        if byte not in raw:
            continue
        if look.search(raw) and (look is reference or reference.search(raw)):
            return True
    return False


def _is_set(fields: Mapping[str, Any], name: str) -> bool:
    return name in fields and plain(fields[name]) not in (None, "", False)


def _mark(call: Call, reasons: Sequence[str]) -> Call:
    if reasons:
        call.unbounded = tuple(dict.fromkeys((*call.unbounded, *reasons)))
    return call


def _add_tool(call: Call, name: str, uses: int | None) -> str:
    """Notes the fee of a server tool, and gives the reason."""
    fee = _FEES.get(name)
    if fee is not None:
        call.tool_fees = {**call.tool_fees, fee: uses or 0}
    return name if fee is not None or name in _NAMED_REASONS else OTHER_TOOL


_NAMED_REASONS = frozenset({"mcp", "image_generation", "shell", "url_context", "google_maps", "tool_search", "advisor"})


def mark_openai(call: Call, fields: Mapping[str, Any]) -> Call:
    """An OpenAI request, its fields still undecoded."""
    reasons: list[str] = []
    said = [fields.get("messages"), fields.get("input")]
    if call.api == "openai.batches":
        reasons.append("batch_file")
    if "/threads/" in call.route:
        reasons.append("thread")
    if call.other_models and set(call.other_models) - {call.model}:
        reasons.append("other_models")  # any of them may be dearer than the one asked for
    if "-search-preview" in (call.model or ""):
        reasons.append(_add_tool(call, "web_search", None))
    if not _OPENAI_TELLING.isdisjoint(fields):  # most requests have none of these
        kept = _RESPONSES_KEPT if call.api == "openai.responses" else ()
        reasons += [name for name in (*kept, "agent_id", "background") if _is_set(fields, name)]
        if _is_set(fields, "web_search_options"):
            reasons.append(_add_tool(call, "web_search", None))
        if "audio" in listed(fields.get("modalities")):
            reasons.append(DEARER_OUTPUT)
        # The schemas of callers' own tools may have fields of such names, which refer to nothing.
        if hosted := _hosted_by_openai(call, fields.get("tools")):
            reasons += hosted
            said.append(fields["tools"])
    if _refers(said, _OPENAI_LOOK, _OPENAI_REFERENCE, byte=ord("_")):
        reasons.append(REFERENCE_REASON)
    return _mark(call, reasons)


def _hosted_by_openai(call: Call, tools: Any) -> list[str]:
    """The reasons of the tools that the provider runs."""
    reasons = []
    for tool in _read_tools(tools):
        in_container = tool.type == "shell" and str(mapping(tool.environment).get("type", "")).startswith("container")
        if in_container or (tool.type not in _OPENAI_CALLERS_TOOLS and tool.type not in ("", "shell")):
            reasons.append(_add_tool(call, _DATED.sub("", tool.type), None))
    return reasons


def mark_anthropic(call: Call, fields: Mapping[str, Any]) -> Call:
    """An Anthropic message, its fields still undecoded."""
    reasons = []
    for tool in _read_tools(fields.get("tools")):
        if not tool.type or tool.type.startswith(_ANTHROPIC_CALLERS_TOOLS):
            continue
        reasons.append(_add_tool(call, _DATED.sub("", tool.type), tool.max_uses))
    if _is_set(fields, "mcp_servers"):
        reasons.append("mcp")
    if _is_set(fields, "container"):
        reasons.append("container")
    if _compacts(fields.get("context_management")):
        reasons.append("compaction")
    said = (fields.get("messages"), fields.get("system"))
    if _refers(said, _ANTHROPIC_REFERENCE, _ANTHROPIC_REFERENCE) and _has_source_elsewhere(said):
        reasons.append(REFERENCE_REASON)
    return _mark(call, reasons)


def _compacts(value: Any) -> bool:
    """Whether the provider may summarise the conversation on the way, which is billed beside the answer."""
    edits = listed(mapping(value).get("edits"))
    return any((text(mapping(edit), "type") or "").startswith("compact") for edit in edits)


def _has_source_elsewhere(values: Iterable[Any]) -> bool:
    """A closer look, since callers' tools have fields and types of the same names: a source that is a URL or a file?"""
    values = list(values)
    if any(isinstance(value, msgspec.Raw) and has_too_many_parts(bytes(value)) for value in values):
        return True  # nobody looks through that; it is refused, or may be anything
    waiting = [plain(value) for value in values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") == "container_upload" or (
                value.get("type") in ("url", "file") and ("url" in value or "file_id" in value)
            ):
                return True
            waiting.extend(inner for inner in value.values() if isinstance(inner, (dict, list)))
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def mark_gemini(call: Call, fields: Mapping[str, Any]) -> Call:
    """A Gemini request: generated content, embeddings, batches and interactions."""
    reasons = [
        told
        for name, told in (
            ("cachedContent", "cached_content"),
            ("cached_content", "cached_content"),
            ("previous_interaction_id", "previous_interaction_id"),
            ("previousInteractionId", "previous_interaction_id"),
            ("background", "background"),
            ("agent", "agent"),
        )
        if _is_set(fields, name)
    ]
    for tool in listed(fields.get("tools")):
        tool = mapping(tool)
        named = text(tool, "type")
        for name in (named,) if named else tool:
            if name not in _GEMINI_CALLERS_TOOLS and name != "function":
                reasons.append(_add_tool(call, _CAMEL.sub("_", name).lower(), None))
    if "batch" in fields:
        reasons.append("batch")  # its requests may lie in a file, and need not limit their output
    config = mapping(fields.get("generationConfig", fields.get("generation_config")))
    asked = listed(config.get("responseModalities", config.get("response_modalities")))
    if any(str(modality).upper() in ("IMAGE", "AUDIO") for modality in asked):
        reasons.append(DEARER_OUTPUT)
    looked_at = (fields.get("contents"), fields.get("systemInstruction"), fields.get("input"), fields.get("content"))
    if _refers(looked_at, _GEMINI_LOOK, _GEMINI_REFERENCE):
        reasons.append(REFERENCE_REASON)
    return _mark(call, reasons)


# -- how little an answer may be held to ------------------------------------------------------------------------------

RESPONSES_OUTPUT_MIN = 16
"""OpenAI's Responses take no smaller `max_output_tokens`."""


def openai_output_min(call: Call) -> int:
    """The least limit on the output that an OpenAI endpoint takes."""
    return RESPONSES_OUTPUT_MIN if call.api == "openai.responses" else 1


def anthropic_output_min(fields: Mapping[str, Any]) -> int:
    """`max_tokens` must be above the thinking budget, which is a part of it."""
    return (whole(mapping(fields.get("thinking")).get("budget_tokens")) or 0) + 1


def gemini_output_min(config: Mapping[str, Any]) -> int:
    """Thoughts are a part of the output, and without room for an answer beside them they are paid for nothing."""
    thinking = mapping(config.get("thinkingConfig", config.get("thinking_config")))
    return (whole(thinking.get("thinkingBudget", thinking.get("thinking_budget"))) or 0) + 1
