"""What spec/csi.proto says, by its descriptors: every method, every field below a message, every secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory

from csi_driver.rpc import csi_pb2 as csi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
    from google.protobuf.message import Message

METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in csi.DESCRIPTOR.services_by_name.values() for method in service.methods
}
SERVICES = {"Controller", "GroupController", "Node"}
OFFERED = [name for name, method in METHODS.items() if method.containing_service.name in SERVICES]
"""The methods of the services that this driver has and that take input."""


def path_of(method: MethodDescriptor) -> str:
    """Return a method's name on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def new(descriptor: Descriptor) -> Any:  # noqa: ANN401 - any message
    """Return an empty message."""
    return message_factory.GetMessageClass(descriptor)()


def fields(descriptor: Descriptor, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldDescriptor]]:
    """Yield every field of a message and of those in it, with the names on the way. Entries of maps are no messages."""
    for field in descriptor.fields:
        names = (*above, field.name)
        yield names, field
        if field.message_type and not is_map(field):
            yield from fields(field.message_type, names)


def is_map(field: Any) -> bool:  # noqa: ANN401 - protobuf's types don't agree with one another
    """Return whether a field is a map of texts, as all maps of CSI are."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def is_secret(field: Any) -> bool:  # noqa: ANN401 - the same
    """Return whether a field may hold a secret: by its option, or, for mount_flags, by the specification's text."""
    return bool(field.GetOptions().Extensions[csi.csi_secret]) or field.name == "mount_flags"


def plant(message: Message, names: tuple[str, ...], secret: str) -> None:
    """Put a secret into the field that these names lead to; lists on the way get an entry when they have none."""
    for name in names[:-1]:
        inner = getattr(message, name)
        message = (inner[0] if len(inner) else inner.add()) if hasattr(inner, "add") else inner
    last = getattr(message, names[-1])
    if hasattr(last, "append"):
        last.append(secret)
    else:
        last["key"] = secret
