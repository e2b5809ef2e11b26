"""What can go wrong, as types. `rpc/status.py` turns each into its gRPC code.

    StorageError
      Invalid       a field is missing or makes no sense
      NotFound      no such volume, snapshot, pool or path
      Conflict      it exists, but is different
      InUse         attached, mounted or published elsewhere
      NotStaged     the volume isn't staged where the call says
      OutOfRange    the size can't be met
      NoSpace       the pool or the I/O budget is full
      Unsupported   the request makes sense, but not here
      Busy          another call holds this volume; try again
      Unknown       a deadline passed and the outcome is not known
      Unready       a tool, module, node or API server is away for now
        ToolFailed  a program ended with an error
      Lost          the bytes that the record promises are not there
      Foreign       the bytes that are there are not what the record promises

Anything else that is raised is a bug. A message is one line: the verb, the object, the reason, the numbers, and what
to do next. What a caller sent is quoted, and cut.
"""

LONGEST_QUOTE = 128


def quoted(text: str) -> str:
    """Return what a caller sent as messages show it: in quotes, on one line, cut after 128 characters."""
    return repr(text) if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]!r}..."


class StorageError(Exception):
    """Stand for every failure that a caller can be told about."""


class Invalid(StorageError):
    """Say that a field is missing or makes no sense. The message names the field and its value."""


class NotFound(StorageError):
    """Say that there is no such volume, snapshot, pool or path."""


class Conflict(StorageError):
    """Say that the object exists, but is different from what was asked for."""


class InUse(StorageError):
    """Say that the volume is attached, mounted or published elsewhere."""


class NotStaged(StorageError):
    """Say that the volume isn't staged, or not where the call says."""


class OutOfRange(StorageError):
    """Say that the size asked for can't be met."""


class NoSpace(StorageError):
    """Say that a pool, or the I/O budget of a disk, is full."""


class Unsupported(StorageError):
    """Say that the request makes sense, but not with this driver or on this node."""


class Busy(StorageError):
    """Say that another call holds this volume, or that the work goes on: the caller should ask again."""


class Unknown(StorageError):
    """Say that a deadline passed while the outcome is not known."""


class Unready(StorageError):
    """Say that something needed is away for now: a tool, a kernel module, a node, an API server."""


class ToolFailed(Unready):
    """Say that a program ended with an error. The message carries its last words."""

    def __init__(self, program: str, returncode: int, stderr: str) -> None:
        """Keep the exit status, since callers such as fsck give it a meaning."""
        said = " ".join(stderr.split())[-400:] or "it said nothing"
        super().__init__(f"{program} failed with status {returncode}: {said}")
        self.returncode = returncode


class Lost(Unready):
    """Say that the bytes that a record promises are not there. They are never made anew."""


class Foreign(Unready):
    """Say that what is there is not what the record promises: another pool, another image, other contents."""
