"""Policies for tests, from the text of a file."""

from __future__ import annotations

from textwrap import dedent

from proxy.core.policy import Policy
from proxy.core.policy_file import load

UPSTREAM = """
upstreams:
  openai: {dialect: openai, url: "http://127.0.0.1:1"}
"""


def policy_of(text: str) -> Policy:
    """The policy of one file, with an upstream `openai` beside what is given."""
    loaded = load({"test.yaml": UPSTREAM + dedent(text)}, {})
    assert loaded.policy is not None, [str(fault) for fault in loaded.faults]
    return loaded.policy
