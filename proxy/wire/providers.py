"""Providers: where those who speak the OpenAI dialect differ from OpenAI, as one table."""

from __future__ import annotations

import msgspec


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What the meter needs to know of a provider beyond its dialect.

    takes_include_usage  accepts `stream_options.include_usage` and sends the usage of a stream only when so asked
    reasoning_beside     reports reasoning beside the output also where the total does not show it
    moderation_is_free   its moderation endpoint costs nothing
    azure_api_versions   has dated versions of its interface, the older of which refuse `stream_options`
    """

    takes_include_usage: bool = False
    reasoning_beside: bool = False
    moderation_is_free: bool = False
    azure_api_versions: bool = False


_ASKED = Provider(takes_include_usage=True)

OTHER = Provider()
"""A provider that is not in the table: nothing is put into its requests that it might refuse."""

PROVIDERS: dict[str, Provider] = {
    "openai": Provider(takes_include_usage=True, moderation_is_free=True),
    "azure": Provider(takes_include_usage=True, azure_api_versions=True),
    "alibaba": _ASKED,
    "anyscale": _ASKED,
    "baseten": _ASKED,
    "bedrock-mantle": _ASKED,
    "cerebras": _ASKED,
    "crusoe": _ASKED,
    "databricks": _ASKED,
    "deepinfra": _ASKED,
    "deepseek": _ASKED,
    "fireworks": _ASKED,
    "friendli": _ASKED,
    "gemini": _ASKED,
    "google": _ASKED,
    "groq": _ASKED,
    "huggingface": _ASKED,
    "hyperbolic": _ASKED,
    "litellm": _ASKED,
    "llama.cpp": _ASKED,
    "lm-studio": _ASKED,
    "local": _ASKED,
    "moonshotai": _ASKED,
    "nebius": _ASKED,
    "novita": _ASKED,
    "nscale": _ASKED,
    "ollama": _ASKED,
    "openrouter": _ASKED,
    "ovhcloud": _ASKED,
    "sambanova": _ASKED,
    "scaleway": _ASKED,
    "sglang": _ASKED,
    "simulated": _ASKED,
    "together": _ASKED,
    "vercel": Provider(takes_include_usage=True, reasoning_beside=True),
    "vllm": _ASKED,
    "writer": _ASKED,
    "x-ai": _ASKED,
    # Unasked they send the usage with the last chunks, and they may refuse fields that they do not know.
    "avian": OTHER,
    "mistral": OTHER,
    "perplexity": Provider(reasoning_beside=True),
    "zai": OTHER,
}

_ALIASES = {
    "azure-openai": "azure",
    "dashscope": "alibaba",
    "fireworks-ai": "fireworks",
    "google-gla": "gemini",
    "google-vertex": "gemini",
    "hf": "huggingface",
    "hugging-face": "huggingface",
    "llama-cpp": "llama.cpp",
    "llamacpp": "llama.cpp",
    "lmstudio": "lm-studio",
    "moonshot": "moonshotai",
    "qwen": "alibaba",
    "together-ai": "together",
    "togetherai": "together",
    "vercel-ai-gateway": "vercel",
    "vercel-gateway": "vercel",
    "xai": "x-ai",
    "z-ai": "zai",
}


def provider_named(name: str) -> Provider:
    """The row of a provider, by any of its names; OTHER where it has none."""
    key = name.strip().lower().replace("_", "-")
    return PROVIDERS.get(_ALIASES.get(key, key), OTHER)
