"""The client of the admin port: finds it, and explains itself when it cannot."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.commands.admin_client import AdminClient, AdminError, find_admin
from tests.commands.fake_admin import FakeAdmin, fake_admin


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with fake_admin() as admin:
        yield admin


def test_the_data_port_is_told_apart_from_an_admin_port_that_does_not_know_the_token(admin: FakeAdmin) -> None:
    admin.answers({"error": {}}, 401, **{"x-callmeter-reason": "key_missing"})
    with pytest.raises(AdminError, match="is the data port"):
        AdminClient(admin.url, "t").get("/api/keys")


def test_a_token_that_no_header_holds_is_told_without_showing_it(admin: FakeAdmin) -> None:
    with pytest.raises(AdminError, match="CALLMETER_ADMIN_TOKEN holds") as caught:
        AdminClient(admin.url, "s3cret\nmore")
    assert "s3cret" not in caught.value.message


def test_the_environment_names_the_admin_port(admin: FakeAdmin) -> None:
    admin.answers({"calls": []})
    client = find_admin({"CALLMETER_ADMIN_URL": admin.url + "/", "CALLMETER_ADMIN_TOKEN": "t0ken"})
    assert client.get("/api/calls", {"user": "ada lovelace", "team": None, "limit": 5}) == {"calls": []}
    assert admin.asked == [("GET", "/api/calls?user=ada+lovelace&limit=5", None, "Bearer t0ken")]


def test_the_data_directory_names_it_on_the_same_machine(admin: FakeAdmin, tmp_path: Path) -> None:
    (tmp_path / "admin.url").write_text(admin.url + "\n")
    (tmp_path / "admin.token").write_text("kept\n")
    find_admin({"CALLMETER_DATA": str(tmp_path)}).post("/api/keys", {"user": "ada"})
    assert admin.asked == [("POST", "/api/keys", {"user": "ada"}, "Bearer kept")]


def test_no_running_proxy_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match=r"no running proxy found: .*admin\.url does not exist.*callmeter serve"):
        find_admin({"CALLMETER_DATA": str(tmp_path)})


def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(AdminError, match=f"cannot reach the admin port at {url}: .*refused"):
            AdminClient(url, "t").get("/api/keys")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "file:///etc/passwd", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(AdminError, match="no URL of an admin port"):
        AdminClient(url, "t")


def test_the_sentence_of_a_problem_is_shown(admin: FakeAdmin) -> None:
    admin.answers({"title": "Not found", "detail": "no key `abc`"}, 404)
    with pytest.raises(AdminError) as raised:
        AdminClient(admin.url, "t").patch("/api/keys/abc", {})
    assert raised.value.message == "no key `abc`"


def test_a_wrong_token_is_said_and_not_shown(admin: FakeAdmin) -> None:
    admin.answers({}, 401)
    client = AdminClient(admin.url, "s3cret")
    with pytest.raises(AdminError, match="does not take this admin token") as raised:
        client.get("/api/keys")
    assert "s3cret" not in raised.value.message + repr(client)


def test_the_token_does_not_follow_a_redirect(admin: FakeAdmin) -> None:
    with fake_admin() as other:
        admin.answers({}, 302, location=other.url)
        with pytest.raises(AdminError, match="answers with a redirect"):
            AdminClient(admin.url, "t").get("/api/keys")
        assert other.asked == []


@pytest.mark.parametrize(("status", "message"), [(500, "answered 500"), (200, "does not answer like Callmeter")])
def test_an_answer_that_is_not_ours_is_told_from_one_that_is(admin: FakeAdmin, status: int, message: str) -> None:
    admin.answer = (status, {}, b"<html>")
    with pytest.raises(AdminError, match=message):
        AdminClient(admin.url, "t").get("/api/keys")


def test_a_web_proxy_of_the_company_is_not_asked_for_this_machine(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert AdminClient(admin.url, "t").get("/api/keys") == {}
