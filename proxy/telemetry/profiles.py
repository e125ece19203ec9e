"""Profiles: attributes beside the conventions, for backends that read usage and cost under names of their own.

Each profile adds to the attributes of the CLIENT span, and where a backend shows it, of the SERVER span.
`semconv` stands for the conventions themselves, which are always there. Which backend reads what is told in
docs/observability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ..core.record import Record, rfc3339
from . import names
from .figures import Figures, usd

AttributeValue = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, AttributeValue]
Extend = Callable[[Record, Figures, Attributes], None]

LANGFUSE_USAGE = {
    "input": "input",
    "cached_input": "input_cached",
    "cache_write": "input_cache_write",
    "cache_write_1h": "input_cache_write_1h",
    "audio_input": "input_audio",
    "image_input": "input_image",
    "output": "output",
    "reasoning": "output_reasoning",
    "audio_output": "output_audio",
    "image_output": "output_image",
}
"""Our usage fields -> keys of Langfuse, which counts every key that contains `input` as input, likewise `output`."""


def _compact(value: Mapping[str, AttributeValue]) -> str:
    return msgspec.json.encode(value).decode()


def _metadata(attributes: Attributes) -> dict[str, AttributeValue]:
    """What tells a call's purpose, for backends that show metadata beside a span. From the attributes, where what a
    caller wrote is already redacted."""
    shown = {"team": names.TEAM, "task": names.TASK, "agent": names.AGENT, "call_id": names.CALL_ID}
    return {name: attributes[attribute] for name, attribute in shown.items() if attribute in attributes}


def langfuse_client(record: Record, figures: Figures, attributes: Attributes) -> None:
    """Usage and cost by kind of token. Langfuse takes these over everything it would derive by itself."""
    attributes[names.LANGFUSE_TYPE] = "generation"
    if figures.known:
        # `reasoning` is a part of `output`, and the keys of usage_details must not overlap.
        usage = {
            key: tokens
            for field, key in LANGFUSE_USAGE.items()
            if field != "reasoning" and (tokens := getattr(record.usage, field))
        }
        usage["total"] = figures.input_tokens + figures.output_tokens
        attributes[names.LANGFUSE_USAGE_DETAILS] = _compact(usage)
    if record.cost_nusd is not None:
        costs = {LANGFUSE_USAGE.get(field, field): usd(part) for field, part in record.cost_parts_nusd.items()}
        costs["total"] = usd(record.cost_nusd)
        attributes[names.LANGFUSE_COST_DETAILS] = _compact(costs)
    if record.stream and record.ms_first_byte is not None:
        attributes[names.LANGFUSE_COMPLETION_START] = rfc3339(record.at_ms + round(record.ms_first_byte))
    if record.result == "failed":
        attributes[names.LANGFUSE_LEVEL] = "ERROR"


def langfuse_server(record: Record, figures: Figures, attributes: Attributes) -> None:
    """Team and task on the trace; a refusal as a warning, which 4xx would not show by the HTTP conventions."""
    attributes[names.LANGFUSE_TYPE] = "span"
    attributes[names.LANGFUSE_TRACE_METADATA_TEAM] = record.team
    if names.TASK in attributes:
        attributes[names.LANGFUSE_TRACE_METADATA_TASK] = attributes[names.TASK]
    if record.refusal is not None:
        attributes[names.LANGFUSE_LEVEL] = "ERROR" if record.status >= 500 else "WARNING"
        by_rule = f" by rule `{record.rule}`" if record.rule else ""
        attributes[names.LANGFUSE_STATUS_MESSAGE] = f"refused: {record.refusal}{by_rule}"


def openinference_client(record: Record, figures: Figures, attributes: Attributes) -> None:
    """`llm.*`, which Phoenix and other OpenInference readers take tokens from."""
    operation = attributes[names.GEN_AI_OPERATION]
    attributes[names.OPENINFERENCE_KIND] = {"embeddings": "EMBEDDING", "rerank": "RERANKER"}.get(str(operation), "LLM")
    model = attributes.get(names.GEN_AI_RESPONSE_MODEL) or attributes.get(names.GEN_AI_REQUEST_MODEL)
    if model is not None:
        attributes[names.LLM_MODEL_NAME] = model
    attributes[names.LLM_PROVIDER] = record.provider
    if figures.known:
        usage = record.usage
        attributes[names.LLM_TOKENS_PROMPT] = figures.input_tokens
        attributes[names.LLM_TOKENS_COMPLETION] = figures.output_tokens
        attributes[names.LLM_TOKENS_TOTAL] = figures.input_tokens + figures.output_tokens
        for name, tokens in (
            (names.LLM_TOKENS_PROMPT_CACHE_READ, usage.cached_input),
            (names.LLM_TOKENS_PROMPT_CACHE_WRITE, figures.cache_write_tokens),
            (names.LLM_TOKENS_PROMPT_AUDIO, usage.audio_input),
            (names.LLM_TOKENS_COMPLETION_REASONING, usage.reasoning),
            (names.LLM_TOKENS_COMPLETION_AUDIO, usage.audio_output),
        ):
            if tokens:
                attributes[name] = tokens
    if figures.cost_usd is not None:
        attributes[names.LLM_COST_TOTAL] = figures.cost_usd
        attributes[names.LLM_COST_PROMPT] = figures.input_cost_usd
        attributes[names.LLM_COST_COMPLETION] = figures.output_cost_usd
    attributes[names.OPENINFERENCE_METADATA] = _compact(_metadata(attributes))


def openinference_server(record: Record, figures: Figures, attributes: Attributes) -> None:
    """Without a kind Phoenix shows the span as unknown."""
    attributes[names.OPENINFERENCE_KIND] = "CHAIN"


def mlflow_client(record: Record, figures: Figures, attributes: Attributes) -> None:
    """The cost in the one form that MLflow takes over its own price table."""
    if figures.cost_usd is not None:
        attributes[names.MLFLOW_COST] = _compact(
            {
                "input_cost": figures.input_cost_usd,
                "output_cost": figures.output_cost_usd,
                "total_cost": figures.cost_usd,
            }
        )


def nothing(record: Record, figures: Figures, attributes: Attributes) -> None:
    """A profile that adds nothing here."""


PROFILES: dict[str, tuple[Extend, Extend]] = {
    "semconv": (nothing, nothing),
    "langfuse": (langfuse_client, langfuse_server),
    "openinference": (openinference_client, openinference_server),
    "mlflow": (mlflow_client, nothing),
}
"""By name as in `telemetry: profiles:` of the policy: what extends the CLIENT span and what the SERVER span."""
