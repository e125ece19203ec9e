"""Anthropic message batches: made by one call, and shown with usage, item by item, by a later one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from .anthropic_usage import read_usage
from .errors import name_of_error
from .reader import BodyInvalid
from .reading import Item, Reading
from .values import NAME_CHARACTERS_MAX, decode, inline_bytes, mapping, output_limit, text


class _Params(msgspec.Struct):
    model: str
    max_tokens: int | None = None


class _Request(msgspec.Struct):
    params: _Params


def read_batch(call: Call, fields: Mapping[str, Any]) -> Call:
    """Completes the call that makes a batch: `choices` is how many requests it holds, `model` their model.

    A batch over several models names them all, in order and joined by commas: no price is known for such a name,
    so that the dearest is assumed until the results tell; and a rule against one of them still meets it.
    """
    requests = fields.get("requests")
    try:
        if isinstance(requests, msgspec.Raw):
            made = msgspec.json.decode(requests, type=list[_Request])
        else:
            made = msgspec.convert(requests, list[_Request])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BodyInvalid(
            f"The body of `{call.route}` has no list `requests` of which each entry has `params` with a `model`; "
            "send one entry for each message of the batch."
        ) from error
    models = sorted({request.params.model for request in made if request.params.model})
    if not models:
        raise BodyInvalid(
            f"The body of `{call.route}` names no model; send at least one entry with `params` and a `model` in it."
        )
    call.model = ",".join(models)
    if len(call.model) > NAME_CHARACTERS_MAX:
        raise BodyInvalid(f"The batch in the body of `{call.route}` names too many models; make a batch for each.")
    call.later = True
    call.choices = len(made)
    limits = [output_limit(request.params.max_tokens) for request in made]
    call.max_output_tokens = max((limit for limit in limits if limit is not None), default=None)
    call.inline_bytes = inline_bytes(requests)
    return call


class BatchReader:
    """Reads what the batch endpoints answer: the batch itself, or its results as lines of JSON."""

    def __init__(self, call: Call) -> None:
        self.reading = Reading(outcome_of=call.retrieves)
        self._made_here = call.later
        self._lines = call.route.endswith("/results")

    def event(self, name: str, data: bytes) -> None:
        """One line of results. Each ends the answer as far as it knows: what a cut hides is fetched again."""
        line = decode(data)
        if not isinstance(line, dict):
            return
        if "custom_id" not in line:
            self._batch(line)
            return
        self.reading.complete = True
        item_id = text(line, "custom_id")
        if item_id is not None:
            self.reading.items.append(_item(item_id, mapping(line.get("result"))))

    def answer(self, body: bytes) -> None:
        """A whole batch object, or all the lines at once."""
        if not self._lines:
            self._batch(mapping(decode(body)))
            return
        for line in body.splitlines():
            if line.strip():
                self.event("", line)

    def _batch(self, batch: Mapping[str, Any]) -> None:
        reading = self.reading
        if not batch:
            return
        reading.complete = True
        if "error" in batch:
            reading.error = name_of_error(mapping(batch.get("error")))
            return
        reading.upstream_call_id = text(batch, "id")
        if self._made_here:
            reading.later = reading.upstream_call_id


def _item(item_id: str, result: Mapping[str, Any]) -> Item:
    """One result. Only those that succeeded are billed; the others say why not."""
    kind = text(result, "type")
    if kind != "succeeded":
        error = mapping(mapping(result.get("error")).get("error")) or mapping(result.get("error"))
        return Item(item_id=item_id, usage=None, error=text(error, "type") or kind or "error")
    message = mapping(result.get("message"))
    model = text(message, "model")
    usage, _ = read_usage(mapping(message.get("usage")), model)
    return Item(item_id=item_id, usage=usage, model=model, upstream_call_id=text(message, "id"))
