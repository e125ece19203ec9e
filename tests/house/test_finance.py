"""What finance does with a running house: the report, exports, forgetting. Real processes and the real command."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from tests.support.deliveries import SECRET, github, merged
from tests.support.house import POLICY, REPOSITORY, House, Providers, clean_environ, eventually, own_house, request
from tests.support.store import now_ms

CHAT = "/openai/v1/chat/completions"
ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
RULES = f"""\
outcomes:
  - {{name: merged, from: github, secret: {SECRET}, task: "[A-Z]+-[0-9]+", match: {{base: main}}, accepted_after: 1m}}
teams:
  default: {{unit: merged, size: 6}}
"""


def callmeter(house: House, *words: str) -> str:
    environ = clean_environ() | {"CALLMETER_ADMIN_URL": house.admin_url, "CALLMETER_ADMIN_TOKEN": house.token}
    command = [sys.executable, "-m", "proxy", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_month_is_closed_and_a_person_forgotten(providers: Providers, tmp_path: Path) -> None:
    with own_house(providers, policy=POLICY) as house:
        house.write_policy(RULES, "outcomes.yaml")
        told = merged(at_ms=now_ms() - 61_000)
        body, headers = github(told, delivery="d1")
        eventually(
            lambda: request(house.admin_url, "POST", "/webhooks/merged", body, headers).status == 200,
            "the rule is in force",
        )
        adele = house.caller("adele")
        for task in ("PAY-7", "PAY-7", "S-1", None):
            assert adele.post(CHAT, ASK, {"x-callmeter-task": task} if task else {}).status == 200

        def total() -> dict[str, int]:
            found: dict[str, int] = house.admin("GET", "/api/report?by=team").json["total"]
            return found

        eventually(lambda: total()["calls"] == 4 and total()["accepted_outcomes"] == 1, "calls and outcome are known")
        cost = total()["cost_nusd"]
        fates = [total()[f"{fate}_nusd"] for fate in ("accepted", "unproven", "untasked")]
        assert sum(fates) == cost > 0
        assert all(fates)
        assert json.loads(callmeter(house, "report", "--by", "team", "--format", "json"))["total"] == total()
        assert "1 x merged" in callmeter(house, "report", "--by", "team")

        out = tmp_path / "focus.csv"
        callmeter(house, "export", "focus", "--since", "1d", "-o", str(out))
        assert "adele" not in out.read_text()
        assert sum(int(row["x_cost_nusd"]) for row in csv.DictReader(io.StringIO(out.read_text()))) == cost
        assert len(callmeter(house, "export", "otlp", "--since", "1d").splitlines()) == 1

        callmeter(house, "forget", "--user", adele.user, "--yes")
        assert total()["cost_nusd"] == cost
        assert adele.user not in callmeter(house, "export", "csv", "--since", "1d", "--with-users")
        eventually(lambda: adele.post(CHAT, ASK).status == 401, "the key is revoked")
