"""Identical refusals in a row are one record with a count."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.record import Record
from proxy.edge import folding
from proxy.edge.folding import RefusalFolder
from tests.support.store import eventually


def refused(number: int, **fields: str) -> Record:
    told = {"user": "ada", "key_id": "k1", "refusal": "body_invalid", **fields}
    return Record(call_id=f"{number:032}", at_ms=number, result="refused", status=400, **told)  # type: ignore[arg-type]


class Written:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, record: Record) -> None:
        await self.go.wait()
        self.records.append(record)

    @property
    def counts(self) -> list[int]:
        return [record.count for record in self.records]


async def test_the_first_is_written_at_once_and_its_repeats_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "FOLD_S", 0.02)
    written = Written()
    folder = RefusalFolder(written)
    for number in range(10):
        await folder.add(refused(number))
    assert written.counts == [1]
    await eventually(lambda: written.counts == [1, 9])
    assert written.records[1].call_id == refused(1).call_id, "the id that the first of them was told"
    await folder.add(refused(11))
    assert written.counts == [1, 9, 1], "after a pause the next one is written at once again"
    await folder.close()


@pytest.mark.parametrize("field", ["user", "key_id", "task", "upstream", "api", "model_asked", "refusal", "rule"])
async def test_refusals_that_differ_are_written_one_by_one(field: str) -> None:
    written = Written()
    folder = RefusalFolder(written)
    await folder.add(refused(1))
    await folder.add(refused(2, **{field: "other"}))
    assert written.counts == [1, 1]
    await folder.close()


async def test_what_is_folded_is_written_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "FOLD_S", 0.02)
    written = Written()
    folder = RefusalFolder(written)
    for number in range(3):
        await folder.add(refused(number))
    await folder.close()
    assert written.counts == [1, 2]


async def test_a_record_on_its_way_to_the_store_is_not_cut_when_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "FOLD_S", 0.01)
    written = Written()
    folder = RefusalFolder(written)
    for number in range(3):
        await folder.add(refused(number))
    written.go.clear()
    await eventually(lambda: not folder._waiting)  # the repeats are being written
    closing = asyncio.create_task(folder.close())
    await asyncio.sleep(0.01)
    written.go.set()
    await closing
    assert written.counts == [1, 2]


async def test_when_too_many_differ_they_are_written_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "FOLDS_MAX", 2)
    monkeypatch.setattr(folding, "FOLD_S", 0.01)
    written = Written()
    folder = RefusalFolder(written)
    for number in range(4):
        for _ in range(2):
            await folder.add(refused(number, task=str(number)))
    assert written.counts == [1] * 6, "two of each of the last two, one of each of the others"
    await folder.close()
    assert sum(written.counts) == 8
