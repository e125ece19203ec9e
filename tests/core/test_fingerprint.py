from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.conversation import Conversation
from proxy.core.fingerprint import Fingerprinter, rounds
from tests.support.conversations import APIS, conversation, told

MAKER = Fingerprinter(b"secret")
BODY: dict[str, Any] = {
    "model": "m",
    "temperature": 0,
    "messages": [{"role": "user", "content": "Fix the login page."}],
}


def exact(body: dict[str, Any] | bytes, *, model: str = "m", maker: Fingerprinter = MAKER) -> bytes:
    found = maker.exact(conversation("openai.chat", body), api="openai.chat", upstream="openai", model=model)
    assert found is not None
    return found


# -- exact ------------------------------------------------------------------------------------------------------------


def test_order_of_keys_spacing_and_how_it_is_sent_make_no_other_call() -> None:
    turned = dict(reversed(list(BODY.items()))) | {"messages": [dict(reversed(list(BODY["messages"][0].items())))]}
    sent = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"a": "b"},
        "user": "ada",
        "temperature": 0.0,
    }
    assert exact(BODY) == exact(json.dumps(turned, indent=3).encode()) == exact(BODY | sent)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1},
        {"n": 2},
        {"seed": 7},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"store": True},
        {"messages": [{"role": "user", "content": "Fix the login page"}]},
        {"tools": [{"type": "function", "function": {"name": "x"}}]},
    ],
)
def test_whatever_else_is_asked_for_is_another_call(change: dict[str, Any]) -> None:
    assert exact(BODY) != exact(BODY | change)


def test_another_model_or_secret_gives_another_fingerprint() -> None:
    assert exact(BODY) != exact(BODY, model="n")
    assert exact(BODY) != exact(BODY, maker=Fingerprinter(b"other"))


def test_tools_are_recognised_in_another_order_of_keys_also_from_memory() -> None:
    schema = {"name": "bash", "description": "d" * 600, "parameters": {"a": 1}}
    turned = dict(reversed(list(schema.items())))
    one, two = ({"tools": [{"type": "function", "function": each}]} for each in (schema, turned))
    assert exact(BODY | one) == exact(BODY | two) == exact(BODY | one)


def test_spacing_makes_no_other_call_of_a_field_that_is_long_by_it_alone() -> None:
    plain = b'{"messages":[],"response_format":{"name":"' + b"n" * 440 + b'","strict":true}}'
    assert len(plain) < 512 < len(spaced := plain.replace(b":true", b":" + b" " * 60 + b"true"))
    assert exact(plain) == exact(spaced)


# -- normalized -------------------------------------------------------------------------------------------------------


def test_no_text_can_be_written_that_makes_one_turn_of_several() -> None:
    several = [("user", "a"), ("assistant", "x"), ("user", "b"), ("assistant", "y"), ("user", "go on with it")]
    found = set()
    for joint in ("", "\0", "\x01", "\x02", "\n", "\0\x01\0\x01\0\x02\0"):
        one = [("user", joint.join(("a", "x", "b"))), *several[3:]]
        found.add(MAKER.normalized(talk(one)))
        found.add(MAKER.normalized(talk([("user", ["a", "b"]), *several[3:]])))
        found.add(MAKER.normalized(talk([("user", f"a{joint}b"), *several[3:]])))
    assert len(found) == 6 + 1 + 6
    assert MAKER.normalized(talk(several)) not in found


def talk(turns: Sequence[tuple[str, str | list[str]]]) -> Conversation:
    messages = [
        {"role": role, "content": [{"type": "text", "text": each} for each in said] if isinstance(said, list) else said}
        for role, said in turns
    ]
    return conversation("openai.chat", {"messages": messages})


def test_a_mark_in_the_last_turn_or_the_system_text_makes_no_other_conversation() -> None:
    one = told(
        "openai.chat", system="It is 10:30:00.", said=["Fix the login page. [7f3a9c21-8d44-4e0b-9a51-2f6f0c1d2e3f]"]
    )
    two = told(
        "openai.chat", system="It is 11:45:12.", said=["Fix the login page. [0badc0de-0000-4e0b-9a51-2f6f0c1d2e3f]"]
    )
    assert MAKER.normalized(one) == MAKER.normalized(two)


def test_the_same_last_words_after_another_beginning_are_another_conversation() -> None:
    one = told("openai.chat", said=["Fix the login page.", "continue"])
    two = told("openai.chat", said=["Fix the logout page.", "continue"])
    assert MAKER.normalized(one) != MAKER.normalized(two)


def test_a_title_and_the_call_itself_are_two_conversations() -> None:
    """As opencode sends them: one prompt, first with no tools and another system text."""
    body = BODY | {"tools": [{"type": "function", "function": {"name": "bash"}}]}
    title = conversation(
        "openai.chat", BODY | {"messages": [{"role": "system", "content": "Make a title."}, *BODY["messages"]]}
    )
    assert MAKER.normalized(title) != MAKER.normalized(conversation("openai.chat", body))


def test_who_speaks_next_is_asked_anew_after_every_turn() -> None:
    """As Qwen Code and Gemini CLI ask it: a constant question behind a conversation that grows."""
    question = "Analyze only the content of your preceding response: who speaks next?"
    one = told("gemini.generate", said=["Fix it.", question])
    two = told("gemini.generate", said=["Fix it.", "Now the tests.", question])
    assert MAKER.normalized(one) != MAKER.normalized(two)


def test_a_probe_has_no_fingerprint_but_its_exact_one() -> None:
    probe = conversation(
        "anthropic.messages", {"messages": [{"role": "user", "content": "quota"}]}, max_output_tokens=1
    )
    assert (MAKER.normalized(probe), MAKER.opening(probe), MAKER.sketch(probe)) == (None, None, b"")


# -- the work of a task -----------------------------------------------------------------------------------------------

WORK = "Please add a page that lists all open invoices of a customer, newest first"


@pytest.mark.parametrize(
    "said",
    [
        [WORK],
        [f"{WORK} (2026-11-28, 7f3a9c21-8d44-4e0b)"],
        [WORK, "and sort it"],
        [f"<system-reminder>\nToday is Monday. Repo: /home/ada\n</system-reminder>\n{WORK}"],
        ["This is the Gemini CLI. We are setting up the context for our chat. Folder: /home/ada", WORK],
    ],
)
def test_the_work_is_known_by_what_was_asked_first(said: list[str]) -> None:
    assert MAKER.opening(told("openai.chat", said=said)) == MAKER.opening(told("gemini.generate", said=[WORK]))


@pytest.mark.parametrize("said", ["hi", "fix the tests", "continue", "<system-reminder>x</system-reminder>"])
def test_a_few_words_make_no_two_tasks_the_same_work(said: str) -> None:
    assert MAKER.opening(told("openai.chat", said=[said])) is None


@pytest.mark.parametrize("piece", ["<system-reminder>", "<system-reminder ", "<INSTRUCTIONS></system-reminder>"])
def test_pieces_of_agents_that_never_end_are_looked_at_once(piece: str) -> None:
    text = f"{WORK} </x> {piece * 200_000}"
    assert MAKER.opening(told("openai.chat", said=[text])) is not None


@pytest.mark.parametrize(
    "piece",
    [
        "<system-reminder>one</system-reminder> <system-reminder>two</system-reminder>",
        "<environment_context cwd='/home/ada'><system-reminder></environment_context>",
        "<INSTRUCTIONS>\n<environment_details>\n</INSTRUCTIONS>",
    ],
)
def test_all_pieces_of_agents_are_left_out(piece: str) -> None:
    said = told("openai.chat", said=[f"{piece} {WORK}"])
    assert MAKER.opening(said) == MAKER.opening(told("openai.chat", said=[WORK]))


# -- loops ------------------------------------------------------------------------------------------------------------


def steps(*names: str) -> list[tuple[str, str, Any, str]]:
    """`a` is a tool with arguments; `a:r` the same with another result."""
    return [(f"id{n}", "bash", {"command": name.partition(":")[0]}, name) for n, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], 0),
        (["a"], 1),
        (["a", "b"], 1),
        (["a", "a"], 2),
        (["b", "a", "a", "a"], 3),
        (["a", "a", "a", "b"], 1),
        (["a:1", "a:2", "a:3"], 1),
        (["a", "b", "a", "b"], 2),
        (["x", "a", "b", "c", "a", "b", "c", "a", "b", "c"], 3),
        (["a", "b", "c", "d"] * 4, 4),
        (["a", "b", "c", "d", "e"] * 3, 1),
    ],
)
@pytest.mark.parametrize("api", APIS)
def test_rounds_are_counted_at_the_end(api: str, names: list[str], expected: int) -> None:
    assert rounds(told(api, said=["go"], steps=steps(*names))) == expected


def test_times_in_arguments_and_results_make_no_other_step() -> None:
    again = [
        ("1", "bash", {"command": "make", "at": "2026-11-28T10:00:00Z"}, "failed after 10:00:01"),
        ("2", "bash", {"command": "make", "at": "2026-11-28T10:05:00Z"}, "failed after 10:05:01"),
    ]
    assert rounds(told("openai.chat", said=["go"], steps=again)) == 2


@pytest.mark.parametrize("api", APIS)
def test_what_the_user_says_behind_a_result_ends_a_loop(api: str) -> None:
    loop = told(api, said=["go"], steps=steps("a", "a", "a"))
    stopped = told(api, said=["go"], steps=steps("a", "a", "a"), last="No, read README.md instead")
    assert (rounds(loop), rounds(stopped)) == (3, 1)
    assert MAKER.step(loop) != MAKER.step(stopped)


def test_what_an_agent_puts_behind_each_result_by_itself_ends_none() -> None:
    def messages(*behind: str) -> Conversation:
        said: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
        for text in behind:
            use = {"type": "tool_use", "id": "1", "name": "bash", "input": {"command": "make"}}
            result = {"type": "tool_result", "tool_use_id": "1", "content": "failed"}
            said.append({"role": "assistant", "content": [use]})
            said.append({"role": "user", "content": [result, {"type": "text", "text": text}]})
        return conversation("anthropic.messages", {"model": "claude", "max_tokens": 9, "messages": said})

    reminders = [f"<system-reminder>{n} todos are left</system-reminder>" for n in (3, 2, 1)]
    assert rounds(messages(*reminders)) == 3
    assert rounds(messages("go on", "go on", "go on")) == 3
    assert rounds(messages("go on", "go on", "stop that")) == 1


def test_a_word_of_the_user_ends_a_loop() -> None:
    assert rounds(told("openai.chat", said=["go"], steps=steps("a", "a", "a"), last="")) == 3
    spoken = conversation(
        "openai.chat",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ]
        },
    )
    assert rounds(spoken) == 0
    assert MAKER.step(spoken) == b""


# -- likeness ---------------------------------------------------------------------------------------------------------


def likeness(one: bytes, other: bytes) -> float:
    """The share of words that two texts have in common, as their sketches tell; good to a tenth or so."""
    differing = (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
    return max(0.0, 1 - differing / 32)


def sketch(text: str) -> bytes:
    return MAKER.sketch(told("openai.chat", said=[text]))


def test_a_text_with_a_word_or_two_changed_is_alike_and_another_is_not() -> None:
    words = [f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(120)]
    text = " ".join(words)
    changed = " ".join(["other", *words[1:60], "another", *words[61:]])
    different = " ".join(f"else{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(120))
    assert likeness(sketch(text), sketch(text)) == 1
    assert likeness(sketch(text), sketch(changed)) > 0.8
    assert likeness(sketch(text), sketch(different)) < 0.6
    assert sketch("too few words") == b""


def test_a_task_told_in_other_words_is_known_by_the_files_and_functions_that_it_names() -> None:
    task = sketch("Fix the rounding fault in loan/rates.py, please: `settle_all` loses a cent on negative amounts.")
    told_again = sketch("Hi! When an amount is below zero, settle_all (loan/rates.py) is off by a cent. Mend it now.")
    another = sketch("Fix the rounding fault in loan/terms.py, please: `open_all` loses a cent on negative amounts.")
    assert likeness(task, told_again) == 1
    assert likeness(task, another) < 0.8


def test_a_path_alone_names_a_task_and_another_name_alone_does_not() -> None:
    told_once = "Put a flag around the new login in loan/rates.py, off by default, and read it at the start."
    told_again = "We want to be able to switch off what is new when people log in. Please look at loan/rates.py first."
    assert likeness(sketch(told_once), sketch(told_again)) == 1
    assert (
        likeness(sketch(told_once.replace("loan/rates.py", "v2")), sketch(told_again.replace("loan/rates.py", "v2")))
        < 0.8
    )


def test_what_comes_far_behind_the_task_is_not_sketched() -> None:
    task = "Fix the rounding fault in loan/rates.py, please: settle_all loses a cent. " + "See the log below. " * 8_000
    assert likeness(sketch(task), sketch(task + "terms.py open_all close_all day.py " * 1_000)) == 1


def test_a_saved_prompt_is_another_one_with_another_ticket() -> None:
    saved = "Read the ticket, restate what is asked in two sentences, make the smallest change, test it. Ticket: "
    assert likeness(sketch(f"{saved} PAY-4711"), sketch(f"{saved} PAY-4711.")) == 1
    assert likeness(sketch(f"{saved} PAY-4711"), sketch(f"{saved} PAY-4712")) < 0.8


@pytest.mark.parametrize("api", APIS)
def test_only_what_a_conversation_begins_with_is_compared_for_likeness(api: str) -> None:
    asked = "Look only at your last reply, at what it says and how it ends. Who should speak next?"
    assert MAKER.sketch(told(api, said=[asked])) != b""
    assert MAKER.sketch(told(api, said=["Fix the login page.", asked])) == b""
    context = "This is the Gemini CLI. We are setting up the context for our chat. Today is 2026-11-28."
    assert MAKER.sketch(told(api, said=[context, asked])) == MAKER.sketch(told(api, said=[asked]))


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parts_are_never_taken_for_pieces_of_their_neighbours(parts: list[str]) -> None:
    joined = Conversation(asked={"a": "".join(parts)})
    apart = Conversation(asked={"a": parts})
    assert MAKER.exact(joined, api="", upstream="", model=None) != MAKER.exact(apart, api="", upstream="", model=None)
