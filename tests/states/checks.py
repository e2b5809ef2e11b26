"""What must hold after every step, whatever the step was."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from qos.limits import UNLIMITED
from tests.states.driver import Code
from tests.states.things import MADE, thing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_driver.records import History
    from tests.states.driver import A, Driver, View
    from tests.states.model import Key, Model
    from tests.states.things import Thing


SECONDS = 5.0
Listing = csi.ListVolumesRequest | csi.ListSnapshotsRequest


def look(driver: Driver) -> tuple[dict[Key, Thing], dict[str, View]]:
    """Return all that is there, by records and by the kernels of all nodes."""
    views = {node: driver.view(node) for node in driver.nodes}
    records: list[A] = [*driver.store.all(Volume), *driver.store.all(Snapshot)]
    return {(record.KIND, record.spec.name): thing_of(record, views) for record in records}, views


def records(driver: Driver) -> dict[str, object]:
    """Return what all records want and what happened to them; what was only seen is left out."""
    found: list[A] = [*driver.store.all(Volume), *driver.store.all(Snapshot)]
    return {record.id: (record.spec, record.generation, record.status.history) for record in found}


class Checks:
    """Hold what has to be remembered from one step to the next."""

    def __init__(self, driver: Driver, model: Model) -> None:
        self._driver = driver
        self._model = model
        self._histories: dict[tuple[str, str], History] = {}

    def all(self, things: Mapping[Key, Thing], views: Mapping[str, View], page: int) -> None:
        """Check everything. `page` is the size of the pages to list by."""
        assert self._driver.faults() == []
        self._no_strays(things, views)
        self._history()
        for thing in things.values():
            if self._driver.up(thing.node):
                self._agrees(thing)
        self._contents()
        self._lists(page)
        self._capacity()

    def _no_strays(self, things: Mapping[Key, Thing], views: Mapping[str, View]) -> None:
        """See that all that lies in a pool, is attached, mapped, mounted or limited belongs to a record."""
        for node, view in views.items():
            assert view.strays == ()
            known = {thing.id for thing in things.values() if thing.node == node}
            assert set(view.images) <= known
            assert set(view.devices) <= known

    def _history(self) -> None:
        """See that history never falls back, as long as it is the same record."""
        records: list[A] = [*self._driver.store.all(Volume), *self._driver.store.all(Snapshot)]
        now = {(record.KIND, record.id): record.status.history for record in records}
        for key, history in now.items():
            older = self._histories.get(key)
            same = older is not None and (not older.made or older.made == history.made)
            assert not (older and same and history.falls_back_from(older)), (older, history)
        self._histories = now

    def _agrees(self, thing: Thing) -> None:
        """See that record and kernel agree where the agent runs."""
        if thing.phase != MADE:
            return
        assert thing.image == thing.size, repr(thing)
        if thing.up is not None and not thing.up.size:
            assert not thing.up.shown
        elif thing.up is not None:
            assert thing.up.size == thing.size, repr(thing)
            half_staged = not thing.up.shown and thing.up.limits == UNLIMITED
            assert half_staged or thing.up.limits == self._model.limits(thing.qos), repr(thing)

    def _contents(self) -> None:
        for node in self._driver.nodes:
            found = self._driver.contents(node)
            for record_id, blocks in (found or {}).items():
                known = self._model.contents.get(record_id)
                assert blocks in (self._model.cuts.get(record_id, [{}]) if known is None else [known]), record_id

    def _lists(self, page: int) -> None:
        """See that ListVolumes and ListSnapshots show what the model has, by id, page by page."""
        listed = [thing for thing in self._model.things.values() if thing.listed]
        volumes = {self._model.id("volume", name) for kind, name in self._model.things if kind == "volume"}
        by_page = self._pages("ListVolumes", csi.ListVolumesRequest(max_entries=page), page)
        ids = [entry.volume.volume_id for entry in by_page]
        assert ids == sorted(thing.id for thing in listed if thing.id in volumes)
        found = {entry.volume.volume_id: entry.volume.capacity_bytes for entry in by_page}
        for thing in listed:
            if thing.id in volumes and self._driver.up(thing.node):
                assert found[thing.id] == thing.size
        cuts = self._pages("ListSnapshots", csi.ListSnapshotsRequest(max_entries=page), page)
        assert [(entry.snapshot.snapshot_id, entry.snapshot.size_bytes) for entry in cuts] == sorted(
            (thing.id, thing.size) for thing in listed if thing.id not in volumes
        )

    def _pages(self, rpc: str, request: Listing, size: int) -> list[Any]:
        """Return what is listed, page by page, none of which is larger than it may be."""
        entries: list[Any] = []
        while True:
            answer = self._driver.call(rpc, request)
            assert answer.code is Code.OK, answer
            assert not size or len(answer.message.entries) <= size
            entries += answer.message.entries
            request.starting_token = answer.message.next_token
            if not answer.message.next_token:
                return entries

    def _capacity(self) -> None:
        """See that what is left is what the pool has, less what was promised; and that GetCapacity says so."""
        left = {node: self._model.left(node) for node in self._driver.nodes}
        assert min(left.values()) >= 0
        for node in self._driver.nodes:
            if self._driver.up(node) and self._driver.left(node) is not None:
                # An agent that could not know whether a record went looks again a moment later.
                right = partial(self._has_left, node, left[node])
                wait_for(f"{node} has {left[node]} bytes left", right, Deadline(SECONDS))
        if all(self._driver.up(node) for node in self._driver.nodes):
            want = (sum(left.values()), max(left.values()))
            # A hint that was on its way may come late, and be put right a moment after.
            wait_for(f"GetCapacity says {want}", lambda: self._said() == want, Deadline(SECONDS))

    def _has_left(self, node: str, size: int) -> bool:
        return self._driver.left(node) == size

    def _said(self) -> tuple[int, int]:
        answer = self._driver.call("GetCapacity", csi.GetCapacityRequest())
        return answer.message.available_capacity, answer.message.maximum_volume_size.value
