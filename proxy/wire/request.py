"""Request: the body of a request as far as it must be understood: the fields of a JSON object, or those of a form.

A JSON body is decoded one level deep only: its conversation may be megabytes of which nothing needs to be known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from .decode import DecodeError, decode_whole
from .reader import BodyInvalid
from .values import has_too_many_parts, plain, short_name

DECODED_BODY_BYTES_MAX = 64 * 1024 * 1024
"""A compressed request, once decoded: twice what a policy takes of a request by default."""

FORM_PARTS_MAX = 256
"""Parts of a form that are looked at; audio and image endpoints know a dozen fields."""

FORM_VALUE_BYTES_MAX = 4096
"""A longer value of a form is a prompt or a file; the fields that are read are words."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ESCAPED_LETTER = re.compile(rb"\\u006[45cdfCDF]")
_BOUNDARY = re.compile(r'boundary="?([^";]{1,200})"?', re.IGNORECASE)
_FORM_NAME = re.compile(rb'[;\s]name="?([^";\r\n]*)"?', re.IGNORECASE)

JsonFields = dict[str, msgspec.Raw]
"""The fields of a JSON object, each still undecoded; the functions of `values` look into them."""


class Form(msgspec.Struct, kw_only=True):
    """A multipart form: its short fields, and how many bytes of files it carries."""

    fields: dict[str, str]
    file_bytes: int


def plain_body(headers: Mapping[str, str], body: bytes) -> bytes:
    """The body without its content encoding. Raises BodyInvalid."""
    encoding = headers.get("content-encoding", "")
    if not encoding:
        return body
    try:
        return decode_whole(body, encoding, bytes_max=DECODED_BODY_BYTES_MAX)
    except DecodeError as error:
        raise BodyInvalid(
            f"The body of the request cannot be decoded ({error}); send it without `content-encoding`."
        ) from None


def json_fields(body: bytes, *, route: str, content_type: str) -> JsonFields:
    """The fields of a JSON body. Raises BodyInvalid with a sentence that says what is wrong with it."""
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text.strip():
        raise BodyInvalid(f"The body of `{route}` is empty; send a JSON object.")
    try:
        if not text.isascii():
            text.decode("utf-8")
        fields = _object.decode(text)
    except UnicodeDecodeError as error:
        raise BodyInvalid(f"The body of `{route}` is not UTF-8 (byte {error.start}); encode it as UTF-8.") from None
    except RecursionError:
        raise BodyInvalid(f"The body of `{route}` is nested too deeply to be read; send a flatter object.") from None
    except msgspec.ValidationError:
        raise BodyInvalid(f"The body of `{route}` is JSON, but not an object; send a JSON object.") from None
    except msgspec.DecodeError as error:
        if not _may_be_json(content_type):
            raise BodyInvalid(
                f"`{route}` takes a JSON object, but the request has content-type `{content_type[:100]}`; "
                "send JSON with content-type `application/json`."
            ) from None
        raise BodyInvalid(f"The body of `{route}` is not JSON: {error}; send a JSON object.") from None
    if _may_repeat_a_field(text, fields) and _may_repeat_model(text):
        _check_one_model(text, route)
    return fields


def named_model(headers: Mapping[str, str], body: bytes) -> str | None:
    """The `model` in a body of which nothing else is known, so that rules and records know it; None where it names
    none. `body` is plain. Raises BodyInvalid where a JSON object names two."""
    if is_form(headers.get("content-type", "")):
        try:
            form = read_form(body, route="", content_type=headers["content-type"])
        except BodyInvalid:
            return None
        return short_name(form.fields.get("model"))
    text = body.removeprefix(b"\xef\xbb\xbf")
    if text.lstrip()[:1] != b"{":
        return None
    try:
        fields = _object.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if _may_repeat_a_field(text, fields) and _may_repeat_model(text):
        _check_one_model(text, "this path")
    return short_name(plain(fields.get("model")))


def _may_repeat_a_field(body: bytes, fields: JsonFields) -> bool:
    """Whether the body is longer than its fields and their punctuation by enough to say something twice."""
    told = 2 + sum([len(name) + len('"":,') + len(memoryview(value)) for name, value in fields.items()])
    return len(body) - told >= len(b'"model":""')


def _may_repeat_model(body: bytes) -> bool:
    """Whether `model` may be the name of more than one field. A letter of it may hide in an escape, which no encoder of
    JSON writes for a letter."""
    return body.count(b'"model"') > 1 or (body.find(b"\\u006") >= 0 and _ESCAPED_LETTER.search(body) is not None)


def _may_be_json(content_type: str) -> bool:
    return not content_type or "json" in content_type.lower()


def _check_one_model(body: bytes, route: str) -> None:
    """Two models in one body: we would decide on one, and the provider might take the other."""

    if has_too_many_parts(body):
        raise BodyInvalid(f"The body of `{route}` holds more lists and objects than can be read; send fewer.")

    def fields_once(pairs: list[tuple[str, object]]) -> list[str]:
        return [name for name, _ in pairs]

    try:
        names = json.loads(body, object_pairs_hook=fields_once)
    except RecursionError:
        raise BodyInvalid(f"The body of `{route}` is nested too deeply to be read; send a flatter object.") from None
    except ValueError:
        # A number of thousands of digits; the parser in use before takes it.
        raise BodyInvalid(f"The body of `{route}` holds a number too long to be read; shorten it.") from None
    if names.count("model") > 1:
        raise BodyInvalid(f"The body of `{route}` names `model` twice; name it once.")


def is_form(content_type: str) -> bool:
    """Whether a body comes as a multipart form."""
    return content_type.lower().startswith("multipart/")


def read_form(body: bytes, *, route: str, content_type: str) -> Form:
    """The fields of a multipart form. Files are stepped over, not copied. Raises BodyInvalid."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BodyInvalid(f"The form sent to `{route}` has no boundary; name it in the content-type.")
    mark = b"--" + found.group(1).strip().encode("latin-1", "replace")
    fields: dict[str, str] = {}
    file_bytes = 0
    start = body.find(mark)
    for _ in range(FORM_PARTS_MAX):
        if start < 0:
            break
        start += len(mark)
        end = body.find(mark, start)
        head_end = body.find(b"\r\n\r\n", start, end if end >= 0 else len(body))
        if end < 0 or head_end < 0:
            break
        head = body[start:head_end]
        value_start, value_end = head_end + 4, max(head_end + 4, end - 2)
        name = _FORM_NAME.search(head)
        if b"filename" in head.lower():
            file_bytes += value_end - value_start
        elif name is not None and value_end - value_start <= FORM_VALUE_BYTES_MAX:
            fields[name.group(1).decode("utf-8", "replace")] = body[value_start:value_end].decode("utf-8", "replace")
        start = end
    if start < 0:
        raise BodyInvalid(f"The form sent to `{route}` does not hold its boundary; send the form whole.")
    return Form(fields=fields, file_bytes=file_bytes)
