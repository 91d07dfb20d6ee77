"""The state of a run as bytes and back: plain containers, arrays, and objects of the classes that are asked for.

What pickle would do, without its power to run what it reads: an object is the name of its class, which must be among
those that the reader names, and its attributes. A snapshot is the sha256 of the rest, a tree in msgpack, and the arrays
behind it; so one that was cut off or changed is refused, and arrays are copied once.
"""

import hashlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from math import prod
from typing import Any, cast

import msgpack
import numpy as np

from kbdfl.errors import DataError

_MAGIC = b"kbdfl snapshot 1\n"
_ARRAY, _OBJECT, _INTEGER, _TUPLE, _SET, _DICT, _DEQUE = range(1, 8)
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


def pack(state: Any, *, classes: Sequence[type] = ()) -> bytes:
    """`state` as bytes. Raises DataError for an object of a class that is not among `classes`."""
    arrays: list[np.ndarray] = []
    tree = _pack(state, {cls: cls.__qualname__ for cls in classes}, arrays)
    parts: list[bytes | memoryview] = [len(tree).to_bytes(8, "little"), tree]
    parts += [array.data.cast("B") for array in arrays]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([_MAGIC, digest.digest(), *parts])


def unpack(data: bytes, *, classes: Sequence[type] = ()) -> Any:
    """What was packed. Raises DataError unless `data` is a whole snapshot of these `classes`."""
    start = len(_MAGIC) + 32
    body = memoryview(data)[start:]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise DataError("the snapshot is damaged: it does not have the sha256 that it names")
    ends = 8 + int.from_bytes(body[:8], "little")
    return _unpack(body[8:ends], {cls.__qualname__: cls for cls in classes}, _Reader(body[ends:]))


class _Reader:
    """The arrays behind the tree, in the tree's order."""

    def __init__(self, rest: memoryview) -> None:
        self._rest, self._at = rest, 0

    def next(self, dtype: np.dtype, shape: Sequence[int], *, writeable: bool) -> np.ndarray:
        count = prod(shape)
        array = np.frombuffer(self._rest, dtype, count, self._at).reshape(shape).copy()
        self._at += count * dtype.itemsize
        array.setflags(write=writeable)
        return array


def _pack(value: Any, names: dict[type, str], arrays: list[np.ndarray]) -> bytes:
    """The tree; its arrays go to `arrays`, each where the tree is read to it."""

    def extended(code: int, *content: Any) -> msgpack.ExtType:
        return msgpack.ExtType(code, _pack(list(content), names, arrays))

    def special(value: Any) -> Any:
        kind = type(value)
        if isinstance(value, np.ndarray):
            fields = value.dtype.descr if value.dtype.names else value.dtype.str
            arrays.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
            described = [list(field) for field in fields] if isinstance(fields, list) else fields
            return extended(_ARRAY, described, list(value.shape), value.flags.writeable)
        if isinstance(value, np.generic):
            return value.item()
        if kind is tuple:
            return extended(_TUPLE, *value)
        if kind in (set, frozenset):
            return extended(_SET, *sorted(value))
        if kind is deque:
            return extended(_DEQUE, value.maxlen, list(value))
        if kind in (dict, OrderedDict, Counter, defaultdict):
            name = "dict" if kind is defaultdict else kind.__name__
            return extended(_DICT, name, [each for pair in value.items() for each in pair])
        if kind is int:
            return msgpack.ExtType(_INTEGER, str(value).encode())
        if kind in names:
            return extended(_OBJECT, names[kind], _attributes(value))
        raise DataError(f"a snapshot must not hold a {kind.__name__}")

    def plain(value: Any) -> Any:
        """Containers whose kind msgpack would not keep, and integers that it cannot hold."""
        kind = type(value)
        if kind is list:
            return [plain(each) for each in value]
        if value is None or kind in (bool, str, bytes, float):
            return value
        if kind is int and -(1 << 63) <= value < 1 << 64:
            return value
        return special(value)

    return cast(bytes, msgpack.packb(plain(value), use_bin_type=True))


def _unpack(data: bytes | memoryview, classes: dict[str, type], arrays: _Reader) -> Any:
    def special(code: int, content: bytes) -> Any:
        if code == _INTEGER:
            return int(content)
        parts = _unpack(content, classes, arrays)
        if code == _ARRAY:
            fields, shape, writeable = parts
            dtype = np.dtype([tuple(field) for field in fields] if isinstance(fields, list) else fields)
            return arrays.next(dtype, shape, writeable=writeable)
        if code == _TUPLE:
            return tuple(parts)
        if code == _SET:
            return set(parts)
        if code == _DEQUE:
            return deque(parts[1], maxlen=parts[0])
        if code == _DICT:
            pairs = iter(parts[1])
            return _MAPPINGS[parts[0]](dict(zip(pairs, pairs, strict=True)))
        name, attributes = parts
        if code != _OBJECT or name not in classes:
            raise DataError(f"the snapshot holds an unknown {name!r:.80}")
        return _object(classes[name], attributes)

    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=special)


def _attributes(value: Any) -> dict[str, Any]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    slots = [name for name in slots if name != "__weakref__"]
    return {name: getattr(value, name) for name in slots} if slots else dict(vars(value))


def _object(cls: type, attributes: dict[str, Any]) -> Any:
    value: Any = object.__new__(cls)
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)  # frozen ones too
    return value
