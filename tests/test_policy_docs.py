"""The published schema and the table of keys say what the loader does. CALLMETER_WRITE_DOCS=1 writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

from proxy.core.policy_file import json_schema, key_table, load

DOCS = Path(__file__).parent.parent / "docs"
END = "<!-- end of keys -->"
ANEW = "run `CALLMETER_WRITE_DOCS=1 pytest tests/test_policy_docs.py`"


def check_file(path: Path, expected: str) -> None:
    if os.environ.get("CALLMETER_WRITE_DOCS"):
        path.write_text(expected)
    assert path.read_text() == expected, f"{path.name} is not current; {ANEW}"


def test_the_published_json_schema_is_current() -> None:
    check_file(DOCS / "policy.schema.json", json.dumps(json_schema(), indent=2) + "\n")


def test_the_table_of_keys_is_current() -> None:
    path = DOCS / "policy-files.md"
    before, start, rest = path.read_text().partition("<!-- keys:")
    comment, _, others = rest.partition("-->\n")
    after = others.partition(END)[2]
    check_file(path, f"{before}{start}{comment}-->\n{key_table()}{END}{after}")


def test_the_access_rules_in_the_docs_load() -> None:
    example = (DOCS / "policy-files.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert load({"example.yaml": example}, {}).faults == []
