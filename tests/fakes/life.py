"""A life of a process that a test can end at any effect: from then on nothing that it does reaches the machine."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

from csi_driver.records import Record
from csi_driver.store.base import StoreUnready
from csi_driver.store.watch import no_hook
from tests.killpoints.fuse import NOISE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi_driver.store.base import Key, Store, Wake, Watch
    from csi_driver.store.watch import Hook

R = TypeVar("R", bound=Record)


class Killed(BaseException):
    """End a thread of a killed process; no driver code may catch it for good."""


class Life:
    """Number the effects of one life, and end it when told.

    `effects` has the names of all effects so far, in order, but for those that come by the clock. `cut` = (number from
    0, "before" or "after") kills there. `unsure` is set when of one of these nobody could say whether it landed.
    `hook` is called as a Store's is, with "before" or "after" and the effect; `on_death` at a cut, and must not wait.
    """

    def __init__(self, hook: Hook = no_hook, cut: tuple[int, str] | None = None) -> None:
        self.effects: list[str] = []
        self.cut = cut
        self.dead = False
        self.unsure = False
        self.on_death: Callable[[], None] = lambda: None
        self._hook = hook
        self._changed = threading.Condition()
        self._doing: list[int] = []
        self._watches: list[_Watch] = []

    def check(self) -> None:
        """Raise Killed in a dead process."""
        if self.dead:
            raise Killed

    @contextlib.contextmanager
    def effect(self, what: str) -> Iterator[None]:
        """Do one change of the machine within; it happens as a whole or not at all."""
        me = threading.get_ident()
        with self._changed:
            self.check()
            number = -1
            if not _noise(what):
                number = len(self.effects)
                self.effects.append(what)
            self._doing.append(me)
        try:
            self._pass(number, "before", what)
            yield
            self._pass(number, "after", what)
        finally:
            with self._changed:
                self._doing.remove(me)
                self._changed.notify_all()

    def _pass(self, number: int, when: str, what: str) -> None:
        self._hook(when, what)
        with self._changed:
            here = self.cut == (number, when) and not self.dead
            if here:
                self.dead = True
                self.on_death()
        if here:
            self.kill()
        self.check()

    def spare(self) -> bool:
        """Take the cut back, and return whether that was in time."""
        with self._changed:
            self.cut = None
            return not self.dead

    def kill(self) -> None:
        """End the life: every thread of it ends at its next look at the store or at its next effect."""
        self.dead = True
        for watch in tuple(self._watches):
            watch.call(None)

    def busy(self) -> bool:
        """Return whether an effect is under way."""
        with self._changed:
            return bool(self._doing)

    def quiet(self) -> None:
        """Wait until no effect is under way any more, for the next life must not begin before."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: all(doing == me for doing in self._doing))

    def thread(self, thread: threading.Thread) -> None:
        """Let a thread of the process, which isn't started yet, end without a word when the process is killed."""
        run = thread.run

        def quietly() -> None:
            with contextlib.suppress(Killed):
                run()

        thread.run = quietly  # type: ignore[method-assign]

    def watched(self, watch: _Watch) -> None:
        """Remember whom to wake at the end."""
        self._watches.append(watch)


class _Watch:
    """Pass wakes on, as long as the process lives; who waits in a dead one is woken once more, to end."""

    def __init__(self, life: Life, wake: Wake, work: Wake | None) -> None:
        self._life = life
        self._wake = wake
        self._work = work or wake
        self.below: Watch | None = None

    def call(self, key: Key | None) -> None:
        if not self._life.dead or key is None:
            with contextlib.suppress(Killed):
                self._wake(key)

    def work(self, key: Key | None) -> None:
        if not self._life.dead:
            with contextlib.suppress(Killed):
                self._work(key)

    def close(self) -> None:
        if self.below is not None:
            self.below.close()


class LifeStore:
    """Show a Store to one life: its writes are effects, and what breaks the law of history is a fault."""

    def __init__(self, store: Store, life: Life, faults: list[str]) -> None:
        self._store = store
        self._life = life
        self._faults = faults

    def create(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Add a record."""
        with self._effect("create", record):
            return self._store.create(record, durable=durable, lend=lend)

    def get(self, kind: type[R], record_id: str) -> R | None:
        """Return the newest version."""
        self._life.check()
        return self._store.get(kind, record_id)

    def all(self, kind: type[R]) -> list[R]:
        """Return all, none stale."""
        self._life.check()
        return self._store.all(kind)

    def list(self, kind: type[R], *, after: str = "", limit: int | None = None, source: str = "") -> list[R]:
        """Return a page."""
        self._life.check()
        return self._store.list(kind, after=after, limit=limit, source=source)

    def put_spec(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Swap the spec."""
        with self._effect("put spec of", record):
            return self._store.put_spec(record, durable=durable, lend=lend)

    def put_status(self, record: R, *, durable: bool = True, wake: bool = True) -> R:
        """Swap the status."""
        with self._effect("put status of", record):
            return self._store.put_status(record, durable=durable, wake=wake)

    def mark(self, record: R) -> R:
        """Mark for deletion."""
        with self._effect("mark", record):
            return self._store.mark(record)

    def remove(self, record: Record, *, durable: bool = True) -> None:
        """Forget, in the two steps that others may see."""
        marked = self.mark(record)
        with self._effect("remove", marked):
            self._store.remove(marked, durable=durable)

    def watch(self, wake: Wake, work: Wake | None = None) -> Watch:
        """Subscribe."""
        watch = _Watch(self._life, wake, work)
        watch.below = self._store.watch(watch.call, watch.work)
        self._life.watched(watch)
        return watch

    def close(self) -> None:
        """Leave the Store open: it outlives this process."""

    @contextlib.contextmanager
    def _effect(self, verb: str, record: Record) -> Iterator[None]:
        what = f"{verb} {record.KIND} {record.id}"
        with self._life.effect(what):
            try:
                yield
            except AssertionError as error:
                self._faults.append(str(error))
                raise
            except StoreUnready:
                self._life.unsure |= not _noise(what)
                raise


def _noise(what: str) -> bool:
    return any(word in f"{what} " for word in NOISE)
