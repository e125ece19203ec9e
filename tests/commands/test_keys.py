"""`callmeter keys`, against a stand-in for the admin port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.commands.keys import keys, read_rows
from tests.commands.fake_admin import FakeAdmin, fake_admin


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdmin]:
    with fake_admin() as admin:
        monkeypatch.setenv("CALLMETER_ADMIN_URL", admin.url)
        monkeypatch.setenv("CALLMETER_ADMIN_TOKEN", "t0ken")
        yield admin


def keys_command(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(keys, arguments, input=stdin)
    assert "Traceback" not in result.output
    return result


def test_create_prints_the_key_alone(admin: FakeAdmin) -> None:
    admin.answers({"key": "cm_abc_def", "key_id": "abc"})
    result = keys_command("create", "--user", "ada")
    assert result.stdout == "cm_abc_def\n"
    body: dict[str, object] = {
        "user": "ada",
        "team": "default",
        "org": "default",
        "labels": {},
        "kind": "person",
        "acts_for": None,
        "expires_at": None,
    }
    assert admin.asked == [("POST", "/api/keys", body, "Bearer t0ken")]


def test_create_says_all_that_a_key_stands_for(admin: FakeAdmin) -> None:
    admin.answers({"key": "cm_abc_def", "key_id": "abc"})
    keys_command(
        *("create", "--user", "ci", "--team", "pay", "--org", "acme", "--label", "a=1", "--label", "b = x y"),
        *("--expires", "2099-01-01T01:00:00+01:00", "--kind", "service", "--acts-for", "dev-*"),
    )
    _, _, body, _ = admin.asked[0]
    assert body["labels"] == {"a": "1", "b": "x y"}
    assert body["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert (body["kind"], body["acts_for"]) == ("service", "dev-*")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--user", ""], "--user is ``"),
        (["--user", "a\nb"], "1 to 128 printable characters"),
        (["--user", "ada", "--expires", "soon"], "`soon` is no time; write `90d`"),
        (["--user", "ada", "--expires", "2001-01-01T00:00:00Z"], "not in the future"),
        (["--user", "ada", "--label", "x"], "`x` is no label"),
        (["--user", "ada", "--label", "x=1", "--label", "x=2"], "label `x` comes twice"),
        (["--user", "ada", "--acts-for", "*"], "--kind service"),
        ([], "Missing option '--user'"),
    ],
)
def test_create_refuses_what_cannot_be_before_it_asks(admin: FakeAdmin, arguments: list[str], sentence: str) -> None:
    result = keys_command("create", *arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert admin.asked == []


def test_a_proxy_that_does_not_run_is_an_error_without_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALLMETER_DATA", str(tmp_path))
    result = keys_command("list")
    assert result.exit_code == 1
    assert "no running proxy found" in result.stderr


def test_list_shows_keys_by_user_with_their_state(admin: FakeAdmin) -> None:
    admin.answers(
        {
            "keys": [
                {"key_id": "k3", "user": "cyn", "revoked_at": "2026-01-01T00:00:00.000Z"},
                {"key_id": "k2", "user": "bob", "expires_at": "2020-01-01T00:00:00.000Z"},
                {"key_id": "k1", "user": "ada", "team": "pay", "org": "acme", "kind": "person", "labels": {"b": "2"}},
            ]
        }
    )
    lines = [line.split() for line in keys_command("list").stdout.splitlines()]
    assert lines[0][:3] == ["KEY", "ID", "USER"]
    assert lines[1] == ["k1", "ada", "pay", "acme", "person", "b=2", "never", "valid"]
    assert [line[1] for line in lines[1:]] == ["ada", "bob", "cyn"]
    assert [line[-1] for line in lines[1:]] == ["valid", "expired", "revoked"]
    assert [key["key_id"] for key in json.loads(keys_command("list", "--format", "json").stdout)["keys"]] == [
        "k1",
        "k2",
        "k3",
    ]


def test_update_changes_only_what_is_said(admin: FakeAdmin) -> None:
    assert keys_command("update", "k1", "--team", "pay", "--expires", "never").exit_code == 0
    assert keys_command("update", "k1", "--no-labels").exit_code == 0
    assert [asked[:3] for asked in admin.asked] == [
        ("PATCH", "/api/keys/k1", {"team": "pay", "expires_at": None}),
        ("PATCH", "/api/keys/k1", {"labels": {}}),
    ]


def test_update_with_nothing_to_change_says_so(admin: FakeAdmin) -> None:
    result = keys_command("update", "k1")
    assert result.exit_code == 2
    assert "nothing to change" in result.output


def test_revoke_names_the_key_by_its_id(admin: FakeAdmin) -> None:
    assert keys_command("revoke", "k/1").exit_code == 0
    assert admin.asked[0][:2] == ("POST", "/api/keys/k%2F1/revoke")


def test_a_whole_key_in_place_of_an_id_is_not_sent(admin: FakeAdmin) -> None:
    result = keys_command("revoke", "cm_abc_secret")
    assert result.exit_code == 2
    assert "secret" not in result.output
    assert admin.asked == []


def test_import_makes_a_key_for_each_line(admin: FakeAdmin, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("\ufeffUser,team,labels,expires\nada,pay,cost=7;site=b,2099-01-01T00:00:00Z\n\n bob ,,,\n")
    admin.answers(
        {"keys": [{"user": "ada", "key_id": "a", "key": "cm_a"}, {"user": "bob", "key_id": "b", "key": "cm_b"}]}
    )
    result = keys_command("import", str(file))
    assert result.stdout == "user,key_id,key\nada,a,cm_a\nbob,b,cm_b\n"
    rows = admin.asked[0][2]["keys"]
    assert rows[0] == {
        "user": "ada",
        "team": "pay",
        "org": "default",
        "kind": "person",
        "labels": {"cost": "7", "site": "b"},
        "expires_at": "2099-01-01T00:00:00.000Z",
    }
    assert rows[1]["user"] == "bob"
    assert rows[1]["team"] == "default"


def test_import_reports_all_faults_at_once_and_makes_nothing(admin: FakeAdmin, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("user,kind,labels,expires\n,person,,\nbob,robot,x,soon\ncyn,person\ncyn,person\na,b,c,d,e\n")
    result = keys_command("import", str(file))
    assert result.exit_code == 1
    for fault in (
        "people.csv:2: `user` is empty",
        "people.csv:3: `kind` is `robot`",
        "people.csv:3: `x` is no label",
        "people.csv:3: `soon` is no time",
        "people.csv:5: the same as line 4",
        "people.csv:6: 5 values for 4 columns",
        "no key was made",
    ):
        assert fault in result.stderr
    assert admin.asked == []


def test_import_reads_standard_input(admin: FakeAdmin) -> None:
    admin.answers({"keys": []})
    assert keys_command("import", "-", stdin="user\nada\n").exit_code == 0
    assert admin.asked[0][2]["keys"][0]["user"] == "ada"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "1: the file is empty"),
        (b"team\npay\n", "1: the column `user` is missing"),
        (b"user,user,size\n", "1: unknown column `size`"),
        (b"user,user\n", "1: column `user` comes twice"),
        (b"user\n", "1: no keys below the first line"),
        (b"user\n\xff\n", "1: the file is not UTF-8 text"),
        (b'user\n"ada\n', "unexpected end of data"),
    ],
)
def test_a_file_that_is_no_list_of_keys_is_refused(data: bytes, fault: str) -> None:
    rows, faults = read_rows(data)
    assert rows == []
    assert fault in "\n".join(faults)
