"""Messages that are wrong, made from the proto's descriptors: fields missing, hostile or foreign, at every depth.

Most fields of a message are right, so that a call gets as far as the wrong one takes it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from csi_driver.parameters import CREATE_KEYS
from tests.input import proto
from tests.input.served import IDS, NODE
from tests.input.stand import CUT, GROUP, KEY, MIB, USED
from tests.input.valid import fill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from hypothesis.strategies import DrawFn

WORDS = [
    *("", "..", ".", "/", "../../etc/passwd", "-rf", "--help", "a/b", "a b", "\0", "a\0b", "\n", "a\r\nb", "\x1b[31m"),
    *("%s%n", "{0}", "' OR 1=1 --", "\u202e", "\uffff", "٣", "x" * 128, "x" * 129, "x" * 4096, "\0" * 4096, "é" * 2048),
    *("00000000-0000-0000-0000-000000000000", IDS[USED].upper(), IDS[USED] + "\n", "{" + IDS[USED] + "}"),
    *(IDS[USED], IDS[CUT], NODE, "ext4", "1" * 4000, "-1", "1e99", "max", "0x10"),
]
NUMBERS = [-(1 << 63), -1, 0, 1, 4095, 4097, 64 * MIB, 1 << 31, 1 << 62, (1 << 63) - 1]
BOOLEANS, BYTES = st.booleans(), st.binary(max_size=64)
LARGE = st.sampled_from(NUMBERS) | st.integers(-(1 << 63), (1 << 63) - 1)
SMALL = st.sampled_from([-(1 << 31), -1, 0, 1, 7, 99, (1 << 31) - 1])
ABSENT = st.sampled_from([False, False, False, False, True])
TAILS = [
    b"\x0a\x02\xff\xfe",  # field 1, a text that isn't UTF-8
    b"\x08\x01",  # field 1 as a number
    b"\xf2\xff\xff\xff\x0f\x03new",  # a field of a later CSI
    b"\x0a\x7f",  # a text that ends before it ends
    b"\xff" * 11,
]
GOOD: dict[str, Sequence[Any]] = {
    "name": ["new", "new-2", "new-3", USED, CUT, GROUP],
    "fs_type": ["", "ext4", "xfs"],
    "mount_flags": [[], ["noatime"], ["ro", "nodev"]],
    "volume_mount_group": [""],
    "mode": [1, 2, 6, 7],
    "required_bytes": [64 * MIB, 65 * MIB, 1 << 30],
    "limit_bytes": [0, 1 << 30],
    "parameters": [{}, {"tier": "training"}, {"fsType": "ext4", "readIOPS": "500"}],
    "mutable_parameters": [{}, {"tier": "inference"}, {"writeBPS": "10Mi"}],
    "segments": [{KEY: NODE}],
    "starting_token": [""],
    "max_entries": [0, 1, 5],
}
WRONG_PATHS = "wrong paths"


class Values(dict[str, "Sequence[Any]"]):
    """Hold values by the names of fields. A failed example is readable without them."""

    def __repr__(self) -> str:
        return "..."


def requests(method: str, values: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[bytes]:
    """Return requests of a method on the wire. `values` are right ones by field, beside those that always are."""
    descriptor = proto.METHODS[method].input_type
    whole = messages(descriptor, Values({**GOOD, **values})).map(lambda message: message.SerializeToString())
    return st.builds(lambda head, tail: head + tail, whole, st.sampled_from([b""] * 40 + TAILS))


@st.composite
def messages(draw: DrawFn, descriptor: Descriptor, good: Mapping[str, Sequence[Any]], *, wrong: bool = True) -> Any:  # noqa: ANN401 - any message
    """Return a message, one or two fields of which are wrong or missing; none is when it isn't to be."""
    made = proto.new(descriptor)
    names = [field.name for field in descriptor.fields]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)) if wrong and names else []
    for group in descriptor.oneofs:
        only = draw(st.sampled_from([field.name for field in group.fields]))
        names = [name for name in names if name == only or descriptor.fields_by_name[name] not in group.fields]
    for name in dict.fromkeys((*names, *chosen)):
        field = descriptor.fields_by_name[name]
        if name in chosen:
            if not draw(ABSENT):
                fill(made, name, draw(hostile(field, good)))
        elif name in good:
            fill(made, name, draw(st.sampled_from(good[name])))
        elif field.message_type and not proto.is_map(field) and (is_needed(field) or draw(BOOLEANS)):
            inner = draw(messages(field.message_type, good, wrong=False))
            fill(made, name, [inner] if field.is_repeated else inner)
    return made


def is_needed(field: Any) -> bool:  # noqa: ANN401 - protobuf's types don't agree with one another
    """Return whether calls without this message don't get far, or it is one of several kinds."""
    return field.name.startswith(("volume_capabilit", "capacity_", "access_mode")) or field.containing_oneof is not None


def hostile(field: Any, good: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Any]:  # noqa: ANN401 - the same
    """Return wrong values of a field."""
    if proto.is_map(field):
        return maps()
    one = messages(field.message_type, good) if field.message_type else scalars(field)
    if field.name.endswith("_path"):
        one = one | st.sampled_from(good[WRONG_PATHS])
    if field.is_repeated:
        return st.one_of(st.lists(one, max_size=3), one.map(lambda value: [value] * 100))
    return one


def scalars(field: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - the same
    """Return values of a field that is no message."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return texts() if field.type == FieldDescriptor.TYPE_STRING else BYTES
        case FieldDescriptor.CPPTYPE_BOOL:
            return BOOLEANS
        case FieldDescriptor.CPPTYPE_INT64:
            return LARGE
    return SMALL


@cache
def texts() -> st.SearchStrategy[str]:
    """Return texts, most of them from attacks that are known. No absolute path: the server would make files there."""
    return st.sampled_from(WORDS) | st.text(max_size=40).filter(lambda text: not text.startswith("/"))


@cache
def maps() -> st.SearchStrategy[dict[str, str]]:
    """Return maps: known keys with wrong values, unknown keys, and too much of everything."""
    known = st.sampled_from([*sorted(CREATE_KEYS), "csi.storage.k8s.io/pvc/name"])
    some = st.dictionaries(known | texts(), texts(), max_size=3)
    return st.one_of(some, st.dictionaries(known, texts(), min_size=1, max_size=2), st.just({"x" * 200: "y" * 5000}))
