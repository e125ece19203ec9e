"""What deliveries tell: small ones of our own writing, and recorded ones where they are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.happenings import Happening, task_of, told_by
from proxy.core.outcomes import Origin, OutcomeRule
from proxy.wire.webhooks import PayloadInvalid, read
from proxy.wire.webhooks.payload import moment_ms
from tests.support.deliveries import AT_MS, commit, github, merged, pushed

TASK = "[A-Z]+-[0-9]+"
RECORDED = Path(__file__).parents[4] / "shared" / "webhooks"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded webhooks are not here: ../shared/webhooks")


def rule(origin: Origin = "github", event: str = "pull_request.merged") -> OutcomeRule:
    return OutcomeRule(name="r", origin=origin, secret="x", event=event, task=TASK, accepted_after_ms=0)


def seen(payload: dict[str, Any]) -> list[Happening]:
    body, headers = github(payload)
    return list(read(rule(), headers, body, AT_MS))


@pytest.mark.parametrize(
    ("more", "task"),
    [
        ({"title": "PAY-1", "branch": "x"}, "PAY-1"),
        ({"title": "PAY-1", "branch": "feat/PAY-2-x"}, "PAY-2"),
        ({"title": "PAY-1", "body": "Fixes it.\n\nTask: PAY-3\nSigned-off-by: ada"}, "PAY-3"),
        ({"title": "PAY-1", "body": "Fixes it.\r\n\r\ntask:  PAY-3 \r\n"}, "PAY-3"),
        ({"title": "PAY-1", "body": "This Task: PAY-3 is no trailer"}, "PAY-1"),
        ({"title": "x", "labels": ("bug", "PAY-4")}, "PAY-4"),
        ({"title": "x", "body": "see PAY-5"}, "PAY-5"),
        ({"title": "x", "body": "Task: none of ours"}, ""),
        ({"title": "x", "body": None}, ""),
    ],
)
def test_where_a_task_is_looked_for(more: dict[str, Any], task: str) -> None:
    (happening,) = seen(merged(**more))
    assert task_of(TASK, happening) == task


def test_a_renamed_task_is_linked_by_a_trailer_with_the_name_that_the_calls_have() -> None:
    (happening,) = seen(merged(branch="NEW-9-x", title="NEW-9", body="Task: OLD-1"))
    assert task_of(TASK, happening) == "OLD-1"


def test_without_an_expression_only_a_trailer_names_a_task() -> None:
    (happening,) = seen(merged(title="PAY-1", body="Task: anything at all"))
    assert task_of("", happening) == "anything at all"


def test_a_task_is_short_and_printable() -> None:
    (happening,) = seen(merged(body="Task: " + "x" * 190))
    assert task_of("", happening) == "x" * 128
    (odd,) = seen(merged(title="a\u0000b", body="Task: a\u0000\u202eb"))
    assert task_of("", odd) == "ab"


@pytest.mark.parametrize(
    "changes", [{"action": "opened"}, {"pull_request": {"merged": False}}, {"pull_request": None}, {"pull_request": []}]
)
def test_what_was_not_merged_is_nothing(changes: dict[str, Any]) -> None:
    body, headers = github(merged() | changes, event="pull_request")
    assert list(read(rule(), headers, body, AT_MS)) == []


def test_github_may_send_a_form() -> None:
    from urllib.parse import urlencode

    _, headers = github(merged())
    body = urlencode({"payload": json.dumps(merged())}).encode()
    found = read(rule(), headers | {"content-type": "application/x-www-form-urlencoded"}, body, AT_MS)
    assert found == seen(merged())
    plain, _ = github(merged())
    assert read(rule(), headers | {"content-type": "application/x-www-form-urlencoded"}, plain, AT_MS) == found


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_an_error_with_a_sentence(body: bytes) -> None:
    with pytest.raises(PayloadInvalid, match="the body is not"):
        read(rule(), {"x-github-event": "push"}, body, AT_MS)


def test_pushes_of_tags_and_deletions_are_nothing() -> None:
    assert seen(pushed(("a", "x")) | {"ref": "refs/tags/v1"}) == []
    assert seen(pushed()) == []


def test_only_the_branch_that_is_the_default_one_takes_back_what_was_deployed() -> None:
    message = f"x\n\nThis reverts commit {commit('a')}.\n"
    (on_main,) = seen(pushed(("r", message)))
    (elsewhere,) = seen(pushed(("r", message), base="play"))
    assert len(on_main.undoes) == 2
    assert len(elsewhere.undoes) == 1
    assert set(elsewhere.undoes).isdisjoint(on_main.undoes)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2017-12-10 17:08:07 UTC", 1_512_925_687_000),
        ("2021-04-28 21:50:00 +0200", 1_619_639_400_000),
        ("2019-05-15T15:20:55Z", 1_557_933_655_000),
        ("2019-05-15T15:20:55.123456789Z", 1_557_933_655_123),
        ("2019-05-15T15:20:55.5Z", 1_557_933_655_500),
        (1_557_933_655, 1_557_933_655_000),
        (1_557_933_655_000, 1_557_933_655_000),
        (True, 5),
        ("9999-99-99T99:99:99Z", 5),
        ("yesterday", 5),
        (None, 5),
    ],
)
def test_times_as_sources_write_them(text: Any, at_ms: int) -> None:
    assert moment_ms(text, 5) == at_ms


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("action", "pull_request", "deployment", "deployment_status", "issue", "commits", "ref", "after", "repository",
        "object_kind", "object_attributes", "project", "status", "deployment_id", "type", "timestamp",
        "data")  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), json_values | st.sampled_from(["closed", "merge", "push"])), st.data())
def test_nothing_that_a_source_sends_breaks_the_reading(payload: dict[str, Any], data: st.DataObject) -> None:
    origin: Origin = data.draw(st.sampled_from(["github", "gitlab", "standard"]))
    event = data.draw(st.sampled_from(["pull_request", "push", "deployment_status", "issues", ""]))
    found = read(rule(origin, "x"), {"x-github-event": event}, json.dumps(payload).encode(), AT_MS)
    told_by(rule(origin, "x"), found, AT_MS)


def load(name: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads((RECORDED / name).read_text())
    return payload


@recorded
def test_a_recorded_pull_request_of_github_as_it_is_and_as_its_merge_would_be() -> None:
    payload = load("github/pull_request.closed.json")
    assert seen(payload) == []
    payload["pull_request"] |= {"merged": True, "merged_at": "2019-05-15T15:21:18Z", "merged_by": {"login": "octocat"}}
    (found,) = seen(payload)
    assert (found.repo, found.base, found.author, found.merged_by, found.reviewed) == (
        "Codertocat/Hello-World", "master", "Codertocat", "octocat", True,
    )  # fmt: skip
    assert found.change == "f95f852bd8fca8fcc58a9a2d6c842781e32a215e"
    assert found.texts.branch == "changes"
    assert found.texts.labels


@recorded
def test_a_recorded_deployment_of_github() -> None:
    (found,) = seen(load("github/deployment_status.json"))
    assert (found.kind, found.environment, found.base) == ("deployed", "production", "master")
    assert found.change == "f95f852bd8fca8fcc58a9a2d6c842781e32a215e"
    assert found.at_ms == 1_557_933_655_000


@recorded
def test_recorded_merge_requests_of_gitlab() -> None:
    told = {}
    for name in ("merge", "close", "create", "reopen"):
        body = (RECORDED / f"gitlab/pull_request_{name}.json").read_bytes()
        told[name] = read(rule("gitlab", "merge_request.merged"), {}, body, AT_MS)
    (found,) = told.pop("merge")
    assert not any(told.values())
    assert (found.repo, found.base, found.merged_by) == ("gitlab-org/hello-world", "master", "sytses")
    assert found.texts.branch == "feature"
    assert found.at_ms == 1_512_925_687_000
    body = (RECORDED / "gitlab/push_merge.json").read_bytes()
    (push,) = read(rule("gitlab", "push"), {}, body, AT_MS)
    assert set(found.told) <= set(push.told), "a trailer of the merge commit can tell the task of the merge request"


@recorded
def test_a_recorded_deployment_of_gitlab() -> None:
    body = (RECORDED / "gitlab/deployment.json").read_bytes()
    (found,) = read(rule("gitlab", "deployment.success"), {}, body, AT_MS)
    assert (found.kind, found.environment, found.repo) == ("deployed", "staging", "root/test-deployment-webhooks")
    assert found.change == "279484c09fbe69ededfced8c1bb6e6d24616b468"


@recorded
@pytest.mark.parametrize("name", sorted(str(path.relative_to(RECORDED)) for path in RECORDED.rglob("*.json")))
def test_every_recorded_delivery_can_be_read(name: str) -> None:
    event = Path(name).name.split(".")[0]
    origin: Origin = "gitlab" if name.startswith("gitlab") else "github"
    read(rule(origin), {"x-github-event": event}, (RECORDED / name).read_bytes(), AT_MS)
