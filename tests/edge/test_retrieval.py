"""Calls whose cost comes later: settled once, for the one who made them, by whoever retrieves them first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.admission import State, Take
from proxy.core.call import Call
from proxy.core.later import item_call_id, pending_call_id
from proxy.core.policy_file import load
from proxy.core.prices import Prices
from proxy.core.record import Record, decode
from proxy.core.usage import Usage
from proxy.desk import BOOK_FILE, load_book
from proxy.edge import retrieval
from proxy.edge.retrieval import Retrievals
from proxy.ledger.errors import LedgerUnavailable
from proxy.store.calls import CallStore
from proxy.store.counters import read_counters
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.sweeper import Sweeper
from proxy.wire.reading import Item, Reading
from tests.support.store import begin_epochs, entries, open_calls, open_client
from tests.support.takes import a_take, an_endless_take
from tests.support.worker import compiled_book

LOADED = load({"a.yaml": "upstreams: {openai: {dialect: openai, url: 'http://127.0.0.1:9', key: sk}}\n"}, {})
MADE = Record(
    call_id="1" * 32,
    at_ms=1_795_500_000_000,
    user="ada",
    key_id="k1",
    upstream="openai",
    provider="openai",
    api="openai.responses",
    model="gpt-4.1-mini",
    model_asked="gpt-4.1-mini",
    task="PAY-7",
    status=200,
    cost_nusd=None,
)
FETCHED = Record(call_id="2" * 32, at_ms=1_795_500_009_000, user="ben", key_id="k2", upstream="openai")
RETRIEVE = Call(api="openai.responses", dialect="openai", route="/v1/responses/{id}", free=True, retrieves="resp_1")
USAGE = Usage(input=10, output=4)
DONE = Reading(usage=USAGE, outcome_of="resp_1", model="gpt-4.1-mini", complete=True)


class Ledger:
    """Records as a bookkeeper has written them, by their id at the provider. Away for the first few `failures`."""

    def __init__(self, *records: Record, failures: int = 0) -> None:
        self.records = {record.upstream_call_id: record for record in records}
        self.failures = failures

    async def find(self, org: str, upstream: str, upstream_call_id: str) -> Record | None:
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable("away")
        return self.records.get(upstream_call_id)


class Retrieving:
    """Retrievals over a real store, and what they wrote to it."""

    def __init__(self, store: CallStore, store_url: str, prices: Prices) -> None:
        self.store = store
        self._store_url = store_url
        self._prices = prices
        self.use(Ledger())

    def use(self, ledger: Ledger) -> None:
        policy = LOADED.policy
        assert policy is not None
        self.retrievals = Retrievals(
            store=self.store, find_call=ledger.find, prices=lambda: self._prices, policy=lambda: policy
        )

    async def make(self, record: Record, later_id: str, taken: Sequence[Take] = ()) -> None:
        await self.retrievals.wait_for(record, later_id, taken)

    async def held(self, take: Take) -> State:
        async with open_client(self._store_url) as client:
            return (await read_counters(client, "default", [take]))[0]

    async def time_is_up(self) -> list[Record]:
        """The sweeper comes, long after it: what it gave up."""
        shard = KEYS[shard_of("default")]
        async with open_client(self._store_url) as client:
            await client.call("ZADD", shard.holds, "XX", 1, pending_call_id(MADE.call_id))
            await Sweeper(client)._sweep_shard(shard)
        return await self.settled()

    async def follow(self, record: Record, call: Call, reading: Reading) -> None:
        await self.retrievals.follow(record, call, reading)

    async def settled(self) -> list[Record]:
        async with open_client(self._store_url) as client:
            return [decode(entry.data) for entry in await entries(client)]


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    folder = tmp_path_factory.mktemp("book")
    (folder / BOOK_FILE).write_bytes(compiled_book())
    return Prices(load_book(folder), (), "assume")


@pytest.fixture
async def retrieving(store_url: str, tmp_path: Path, prices: Prices) -> AsyncIterator[Retrieving]:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store:
        yield Retrieving(store, store_url, prices)


async def test_the_first_retrieval_settles_the_answer_for_its_maker(retrieving: Retrieving) -> None:
    await retrieving.make(MADE, "resp_1")
    assert await retrieving.settled() == []
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    [settled] = await retrieving.settled()
    assert (settled.call_id, settled.revision, settled.user, settled.task) == (MADE.call_id, 2, "ada", "PAY-7")
    assert (settled.usage, settled.usage_source) == (USAGE, "reported")
    assert settled.cost_nusd == 10 * 400 + 4 * 1600


async def test_each_further_retrieval_is_the_same_revision_and_written_once(retrieving: Retrieving) -> None:
    await retrieving.make(MADE, "resp_1")
    for _ in range(3):
        await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert [(record.call_id, record.revision) for record in await retrieving.settled()] == [(MADE.call_id, 2)]


async def test_an_answer_that_is_not_ready_settles_nothing(retrieving: Retrieving) -> None:
    await retrieving.make(MADE, "resp_1")
    await retrieving.follow(FETCHED, RETRIEVE, Reading())
    assert await retrieving.settled() == []


async def test_an_answer_that_was_made_elsewhere_settles_nothing(retrieving: Retrieving) -> None:
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert await retrieving.settled() == []


async def test_an_answer_that_the_store_has_forgotten_is_found_in_the_ledger(retrieving: Retrieving) -> None:
    old = msgspec.structs.replace(MADE, upstream_call_id="resp_1")
    retrieving.use(Ledger(old))
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert [(record.call_id, record.revision) for record in await retrieving.settled()] == [(MADE.call_id, 2)]


async def test_an_answer_whose_usage_the_ledger_has_already_is_not_settled_again(retrieving: Retrieving) -> None:
    done = msgspec.structs.replace(MADE, upstream_call_id="resp_1", revision=2, usage_source="reported")
    retrieving.use(Ledger(done))
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert await retrieving.settled() == []


async def test_a_retrieval_while_store_or_ledger_are_away_is_followed_when_they_are_back(
    retrieving: Retrieving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "RETRY_S_FIRST", 0.001)
    retrieving.use(Ledger(msgspec.structs.replace(MADE, upstream_call_id="resp_1"), failures=2))
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert len(await retrieving.settled()) == 1


async def test_a_ledger_that_stays_away_is_given_up_with_a_word_in_the_log(
    retrieving: Retrieving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrieval, "RETRY_S_FIRST", 0.001)
    monkeypatch.setattr(retrieval, "RETRY_S_MAX", 0.004)
    retrieving.use(Ledger(failures=100))
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert FETCHED.call_id in caplog.text


MONEY, TOKENS = a_take("money", amount=9000, limit=10_000), a_take("tokens", amount=70, limit=100, unit="tokens")
CALLS, RUNNING = an_endless_take("calls", unit="calls"), an_endless_take("running", unit="concurrent")
TAKEN = (MONEY, TOKENS, CALLS, RUNNING)
ITEMS = [
    Item(item_id="a", usage=USAGE, model="gpt-4.1-mini", upstream_call_id="chatcmpl-a"),
    Item(item_id="b", usage=None, error="rate_limit_exceeded"),
]


async def batch_results(retrieving: Retrieving, items: list[Any], taken: Sequence[Take] = ()) -> None:
    """A batch is made, its state tells the file with the results, and the file is fetched."""
    made = msgspec.structs.replace(MADE, api="openai.batches", model=None, model_asked=None, cost_nusd=0)
    await retrieving.make(made, "batch_1", taken)
    state = Call(api="openai.batches", free=True, retrieves="batch_1")
    await retrieving.follow(FETCHED, state, Reading(files=["file-1"]))
    await retrieving.follow(FETCHED, Call(api="openai.batches", free=True, retrieves="file-1"), Reading(items=items))


async def test_each_item_of_a_batch_is_a_record_of_its_makers_at_the_price_of_batches(
    retrieving: Retrieving,
) -> None:
    await batch_results(retrieving, ITEMS)
    good, bad, batch = await retrieving.settled()
    assert (batch.call_id, batch.revision, batch.cost_nusd) == (MADE.call_id, 2, 0)
    assert (good.user, good.task, good.result, good.usage) == ("ada", "PAY-7", "ok", USAGE)
    assert good.cost_nusd == (10 * 400 + 4 * 1600) // 2
    assert good.upstream_call_id == "chatcmpl-a"
    assert (bad.result, bad.error, bad.cost_nusd, bad.usage_source) == ("failed", "rate_limit_exceeded", 0, "none")


async def test_an_item_has_the_same_id_however_often_its_results_are_fetched(
    retrieving: Retrieving,
) -> None:
    await batch_results(retrieving, ITEMS)
    await batch_results(retrieving, ITEMS)
    assert len(await retrieving.settled()) == 3


async def test_an_item_is_charged_once_also_when_its_results_are_fetched_again_much_later(
    retrieving: Retrieving, store_url: str
) -> None:
    """The store has forgotten by then which items are settled; the ledger has not."""
    await batch_results(retrieving, ITEMS, TAKEN)
    spent = await retrieving.held(MONEY)
    assert spent == State((10 * 400 + 4 * 1600) // 2, 0)
    shard = KEYS[shard_of("default")]
    async with open_client(store_url) as client:
        await client.call("DEL", *[shard.settled(item_call_id(MADE.call_id, item.item_id)) for item in ITEMS])
        await client.call("SET", shard.shown(MADE.call_id), 1)
        await batch_results(retrieving, ITEMS, TAKEN)
        assert await retrieving.held(MONEY) == spent
        again = (await entries(client))[3:]
    assert len(again) == 2
    assert all(entry.uncharged for entry in again), "it is charged where the ledger does not know it"


def test_items_of_different_batches_have_different_ids() -> None:
    ids = {item_call_id(batch, item) for batch in ("1" * 32, "2" * 32) for item in ("a", "b")}
    assert len(ids) == 4
    assert {len(made) for made in ids} == {32}


# -- what is held meanwhile ------------------------------------------------------------------------------------------


async def test_what_an_answer_will_cost_stays_held_until_it_is_shown(retrieving: Retrieving) -> None:
    await retrieving.make(MADE, "resp_1", TAKEN)
    await retrieving.make(MADE, "resp_1", TAKEN)
    assert [await retrieving.held(take) for take in TAKEN] == [State(0, 9000), State(0, 70), State(0, 0), State(0, 0)]
    await retrieving.follow(FETCHED, RETRIEVE, Reading())
    assert await retrieving.held(MONEY) == State(0, 9000)
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert await retrieving.held(MONEY) == State(10 * 400 + 4 * 1600, 0)
    assert await retrieving.held(TOKENS) == State(14, 0)
    assert await retrieving.time_is_up() == await retrieving.settled()


async def test_an_answer_that_nobody_asks_for_counts_at_what_was_held_until_somebody_does(
    retrieving: Retrieving,
) -> None:
    await retrieving.make(MADE, "resp_1", TAKEN)
    [lost] = await retrieving.time_is_up()
    assert (lost.result, lost.cost_nusd, lost.usage.tokens, lost.user, lost.task) == ("lost", 9000, 70, "ada", "PAY-7")
    assert lost.call_id != MADE.call_id
    assert [await retrieving.held(take) for take in (MONEY, TOKENS)] == [State(9000, 0), State(70, 0)]
    await retrieving.follow(FETCHED, RETRIEVE, DONE)
    assert [await retrieving.held(take) for take in (MONEY, TOKENS)] == [State(10_400, 0), State(14, 0)]
    _, shown, nothing = await retrieving.settled()
    assert (shown.call_id, shown.cost_nusd) == (MADE.call_id, 10_400)
    assert (nothing.call_id, nothing.cost_nusd) == (lost.call_id, 0)


@pytest.mark.parametrize(("word", "cost_nusd", "result"), [("failed", 0, "failed"), ("cancelled", 20_000, "ok")])
async def test_an_answer_that_ends_without_usage_is_held_no_longer(
    retrieving: Retrieving, word: str, cost_nusd: int, result: str
) -> None:
    made = msgspec.structs.replace(MADE, estimate={"input": 10, "output": 10, "later": True})
    await retrieving.make(made, "resp_1", TAKEN)
    await retrieving.follow(FETCHED, RETRIEVE, Reading(finish_reasons=[word]))
    [settled] = await retrieving.settled()
    assert (settled.cost_nusd, settled.result, settled.estimate) == (cost_nusd, result, {"input": 10, "output": 10})
    assert await retrieving.held(MONEY) == State(cost_nusd, 0)


async def test_a_batch_is_held_until_all_of_its_items_were_read(retrieving: Retrieving) -> None:
    made = msgspec.structs.replace(MADE, api="openai.batches", model=None, model_asked=None, cost_nusd=0)
    await retrieving.make(made, "batch_1", TAKEN)
    state = Call(api="openai.batches", free=True, retrieves="batch_1")
    await retrieving.follow(FETCHED, state, Reading(files=["answers", "errors"]))
    errors = Call(api="openai.batches", free=True, retrieves="errors")
    await retrieving.follow(FETCHED, errors, Reading(items=ITEMS[1:]))
    assert await retrieving.held(MONEY) == State(0, 9000)
    answers = Call(api="openai.batches", free=True, retrieves="answers")
    left = msgspec.structs.replace(FETCHED, result="client_gone")
    await retrieving.follow(left, answers, Reading(items=ITEMS[:1]))
    assert (await retrieving.held(MONEY)).held == 9000, "whoever breaks off has not seen all"
    await retrieving.follow(FETCHED, answers, Reading(items=ITEMS))
    assert await retrieving.held(MONEY) == State((10 * 400 + 4 * 1600) // 2, 0)
    assert await retrieving.held(CALLS) == State(0, 0), "an item is no call"
