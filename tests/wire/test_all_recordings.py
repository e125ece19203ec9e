"""Which recorded exchanges are read: all of the families that this house understands, none left out unseen."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from proxy.wire import BodyInvalid
from tests.support.recordings import FOLDER, Recording, recordings

RECORDINGS = recordings()
NOT_OURS_YET = ("bedrock.", "cohere.", "aleph-alpha.")
"""Dialects of other kinds. All other recordings are of OpenAI, Anthropic, Gemini, Ollama, or of providers that speak as
one of these do."""

NAMED = [
    "openai.",
    "azure.",
    "anthropic.",
    "gemini.",
    "groq.",
    "mistral.",
    "deepseek.",
    "xai.",
    "openrouter.",
    "perplexity.",
    "together.",
    "ollama.openai.",
    "local.openai.",
    "huggingface.",
    "vercel-gateway.",
    "cerebras.",
    "alibaba.",
    "zai.",
    "ollama.",
    "vertex.",
    "bedrock-mantle.",
    "avian.",
    "crusoe.",
    "heroku.",
    "snowflake.",
    "voyage.",
    "writer.",
]

UNKNOWN = {
    "anthropic.complete": "billed, and its answers report no usage",
    "gemini.cachedContents": "making or prolonging a cache is billed by the hour, and no answer tells it",
    "vertex.cachedContents": "as Gemini's",
    "gemini.predictLongRunning": "videos, billed by the second, and no answer tells how many",
    "mistral.ocr": "billed by the page, which the reader counts",
    "openai.files": "a file put into a vector store: storage is billed by the day, and no answer tells it",
}
"""Families of which some paths have no api that a record could name, and why. They are recorded, never free."""

FREE_OF_THOSE = {
    ("gemini.cachedContents", "DELETE"),
    ("vertex.cachedContents", "DELETE"),
    ("openai.files", "POST /v1/files"),
}
"""Paths of these families that are known all the same."""

WITHOUT_THEIR_REQUEST = {
    "gemini.interactions/stream-200-gemini-2.5-flash-93b83c5a",
    "vertex.generateContent/plain-200-gemini-1.5-pro-3903cc3c",
}
"""Recordings that have lost the body of their request."""


def test_every_file_of_the_index_is_loaded() -> None:
    index = json.loads((FOLDER / "INDEX.json").read_bytes())
    assert {entry["file"].removesuffix(".json") for entry in index} == {recording.name for recording in RECORDINGS}


def test_every_family_is_named_here() -> None:
    families = {recording.api for recording in RECORDINGS}
    assert {family for family in families if not family.startswith((*NAMED, *NOT_OURS_YET))} == set()
    assert [name for name in NAMED if not any(family.startswith(name) for family in families)] == []


def _module(name: str) -> ModuleType:
    """A neighbouring file of tests, which pytest does not make importable by its name."""
    specification = importlib.util.spec_from_file_location(f"read_{name}", Path(__file__).with_name(f"{name}.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_no_recording_of_a_named_family_is_left_out_of_the_tests_that_read_answers() -> None:
    files = ("test_openai_recordings", "test_anthropic_recordings", "test_gemini_recordings")
    read = {recording.name for name in files for recording in _module(name).RECORDINGS}
    ours = {recording.name for recording in RECORDINGS if not recording.api.startswith(NOT_OURS_YET)}
    assert ours - read == set()


@pytest.mark.parametrize("recording", [each for each in RECORDINGS if not each.api.startswith(NOT_OURS_YET)], ids=str)
def test_a_recorded_request_is_recognised(recording: Recording) -> None:
    if recording.name in WITHOUT_THEIR_REQUEST:
        with pytest.raises(BodyInvalid):
            recording.call()
        return
    call = recording.call()
    kinds = (recording.api, recording.method), (recording.api, f"{recording.method} {recording.path}")
    if recording.api in UNKNOWN and not any(kind in FREE_OF_THOSE for kind in kinds):
        assert (call.api, call.free) == ("unknown", False)
    else:
        assert call.api != "unknown"
