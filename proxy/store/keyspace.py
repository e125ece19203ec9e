"""The name of every key in the store.

All keys of an org carry the hash tag `{cm:NN}`, NN the org hashed into 64 shards. So one script may use them all, also
in a Cluster, and there are never more than 64 streams of records.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache

from .packing import Packed, packed, packed_text

SHARDS = 64
"""Enough to spread over the nodes of a large Cluster, few enough to read all streams at once. Part of the key names,
so it can never change for a store that is in use."""

IDENTITY = "callmeter:identity"
"""Hash: which ledger and which secret belong to this store."""

ROLLING = "rolling"
"""Stands in key names for the window of a rolling counter, which has one key for all time."""

ORGS_REMEMBERED = 4096

LATER_ID_CHARS_MAX = 200
"""Providers' ids are far shorter. A longer one is hashed, so that a provider cannot make our keys grow."""


@lru_cache(maxsize=ORGS_REMEMBERED)
def shard_of(org: str) -> int:
    """The shard of an org, 0 to 63; the same in every process and version."""
    return zlib.crc32(org.encode()) % SHARDS


class ShardKeys:
    """The keys of one shard."""

    __slots__ = ("drafts", "epoch", "holds", "packed_records", "packed_shared", "prefix", "records")

    def __init__(self, shard: int) -> None:
        self.prefix = f"{{cm:{shard:02d}}}:"
        self.epoch = self.prefix + "epoch"
        """String: the name of the epoch. Missing: the store was emptied and takes nothing."""
        self.holds = self.prefix + "holds"
        """Sorted set: call_id -> when its hold expires, ms by the clock of the store."""
        self.drafts = self.prefix + "drafts"
        """Hash: call_id -> the draft of its record (JSON), and `call_id:takes` -> what it takes of its counters."""
        self.records = self.prefix + "records"
        """Stream: the records, on their way to the ledger. Fields: e epoch, v revision, r record (JSON)."""
        self.packed_shared = packed((self.epoch, self.holds, self.drafts)).data
        self.packed_records = packed((self.records,)).data

    def to_reserve(self, call_id: str) -> Packed:
        """The first keys of reserve.lua."""
        return Packed(4, self.packed_shared + packed_text(self.settled(call_id).encode()))

    def to_settle(self, call_id: str) -> Packed:
        """The first keys of settle.lua."""
        return Packed(5, self.packed_shared + packed_text(self.settled(call_id).encode()) + self.packed_records)

    def settled(self, call_id: str) -> str:
        """String `asked:shift:nusd:tokens:calls`, the store's memory of a settled call. `asked` is the highest revision
        a worker has settled (0: none, the sweeper gave the call up as lost), `shift` how many rows the sweeper wrote
        before; the rest is what the call's counters were charged."""
        return f"{self.prefix}settled:{call_id}"

    def spent(self, org: str, counter: str, window: str) -> str:
        """What settled calls came to in a window (its start in ms). A string; of a rolling window (`ROLLING`) a hash:
        start of a sub-bucket -> what was spent in it, `sum` -> the sum of those that count since `from`."""
        return f"{self.prefix}spent:{counter}:{window}:{org}"

    def held(self, org: str, counter: str, window: str) -> str:
        """String: what running calls hold."""
        return f"{self.prefix}held:{counter}:{window}:{org}"

    def seeded(self, org: str, counter: str, window: str, name: str) -> str:
        """String: the amount that was added to a counter under this name, so that it is added once."""
        return f"{self.prefix}seeded:{name}:{counter}:{window}:{org}"

    def twins(self, counter: str, place: str) -> str:
        """Hash: fingerprint -> the calls that had it, of one rule and those it compares, for one stretch of time."""
        return f"{self.prefix}twins:{counter}:{place}"

    def row(self, counter: str) -> str:
        """String: the steps of a loop rule, or the sketches of a `similar` one, each with its call."""
        return f"{self.prefix}row:{counter}"

    def answer(self, name: str) -> str:
        """String: when a call's answer was kept, its call_id, and the answer, encrypted."""
        return f"{self.prefix}answer:{name}"

    def leader(self, name: str) -> str:
        """String: the call_id of the running call that will give an answer."""
        return f"{self.prefix}leader:{name}"

    def later(self, upstream: str, later_id: str) -> str:
        """String: the record (JSON) of the call whose usage a later retrieval of `later_id` will show."""
        if len(later_id) > LATER_ID_CHARS_MAX:
            later_id = hashlib.sha256(later_id.encode()).hexdigest()
        return f"{self.prefix}later:{upstream}:{later_id}"

    def shown(self, batch_call_id: str) -> str:
        """String: when items of a batch were shown first, in ms."""
        return f"{self.prefix}shown:{batch_call_id}"


KEYS = tuple(ShardKeys(shard) for shard in range(SHARDS))
