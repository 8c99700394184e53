"""JSON files that others made, or that were damaged: one bounded reader, one line of error."""

import collections
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from segjax.data.errors import DataError
from segjax.data.files.regular import MOST_BYTES, read_bytes

_DEEPEST = 64  # lists and objects inside one another
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a whole "
          "number", float: "a number", type(None): "null"}  # fmt: skip


def parse_json(content: bytes | str, *, strict: bool = True) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
      content: of a file, or a part of one.
      strict: whether to refuse what JSON or another reader would not bear: NaN and Infinity,
        numbers beyond float64 and int64, a key twice, lists and objects more than 64 deep, halves
        of surrogate pairs. False for large annotation files, whose readers check what they take.

    Raises:
      ValueError: with what is wrong, without the name of the file.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        if not text.strip("\0 \t\r\n"):
            raise ValueError("it is empty" if not content else "it holds no value")
        if not strict:
            return json.loads(text)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_float=_float,
            parse_int=_int,
        )
        _check_depth(value)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not of UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text in it holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        if not error.doc[error.pos :].strip():
            raise ValueError(f"it ends too early, in line {error.lineno}") from error
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{error.msg[:1].lower()}{error.msg[1:]} in {where}") from error
    except RecursionError as error:
        raise ValueError(f"more than {_DEEPEST} lists and objects lie in one another") from error


def read_json(
    path: str | os.PathLike,
    what: str,
    remedy: str,
    *,
    kind: type = dict,
    fields: Mapping[str, Any] = {},
    most_bytes: int = MOST_BYTES,
    strict: bool = True,
) -> Any:
    """The value in a JSON file.

    Args:
      path: of the file.
      what: the file should be, such as "the config of a run".
      remedy: what to do if it is not.
      kind: type of the value.
      fields: names of values that an object must have, with their form, see `need_form`.
      most_bytes: a larger file is not read.
      strict: see `parse_json`.

    Raises:
      DataError: in one line, naming the file, for whatever is wrong with it.
    """
    content = read_bytes(path, remedy, most_bytes)
    try:
        value = parse_json(content, strict=strict)
        need_type(value, kind, "it")
        for name, form in fields.items():
            if name not in value:
                raise ValueError(f"{name!r} is missing")
            need_form(value[name], form, name)
    except ValueError as error:
        raise DataError(f"{path} is not {what}: {error}", remedy) from error
    return value


def need_form(value: Any, form: Any, name: str) -> None:
    """Raises ValueError, starting with `name` and the place in it, if a value has another form.

    Args:
      form: a type or several, `object` for anything; [form] of a list's elements; {name: form} of
        what an object must hold, {str: form} of all its values.
    """
    if isinstance(form, list):
        need_type(value, list, name)
        for place, inner in enumerate(value):
            need_form(inner, form[0], f"{name}[{place}]")
    elif isinstance(form, dict):
        need_type(value, dict, name)
        for key, inner in form.items():
            for each in value if key is str else (key,):
                if each not in value:
                    raise ValueError(f"{name or 'it'} has no {each!r}")
                need_form(value[each], inner, f"{name}.{_plain(each)}".lstrip("."))
    elif form is not object:
        need_type(value, form, name)


def need_type(value: Any, types: type | tuple[type, ...], name: str) -> None:
    """Raises ValueError, starting with `name`, if a value of JSON has none of the types; a whole
    number is a float too, and a bool is no number."""
    types = types if isinstance(types, tuple) else (types,)
    own = type(value)
    if own in types or (own is int and float in types):
        return
    allowed = " or ".join(_KINDS[each] for each in types)
    raise ValueError(f"{name} is {_KINDS.get(own, own.__name__)}, not {allowed}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = collections.Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{_shown(twice)} occurs twice in one object")
    return values


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(_shown(text))


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError(f"{_shown(text)} is beyond 64 bits")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _plain(key: str) -> str:
    return key if re.fullmatch(r"[\w -]{1,40}", key) else _shown(key)


def _check_depth(value: Any) -> None:
    """Raises RecursionError for what the code behind the reader could not walk through."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return
        level = [
            child for each in level for child in (each.values() if isinstance(each, dict) else each)
        ]
    raise RecursionError
