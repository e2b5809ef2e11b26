"""Volumes: create, delete, expand, modify, list."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from csi_driver import parameters, placement
from csi_driver.controller.lookup import check_shareable, find, page, source_record
from csi_driver.controller.offers import WITHDRAWING, Offers
from csi_driver.controller.requests import DEFAULT_SIZE, SizeRange, VolumeRequest
from csi_driver.errors import Busy, Conflict, Invalid, NoSpace, OutOfRange, Unsupported
from csi_driver.ids import is_id, new_id
from csi_driver.records import SIZE_STEP, Offer, Pool, Volume, VolumeSpec
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_driver.controller.waiting import Liveness, Waiting
    from csi_driver.deadline import Deadline
    from csi_driver.records import Qos
    from csi_driver.store.base import Store
    from qos.tiers import Tier


class Volumes:
    """Serve the controller's verbs on volumes."""

    def __init__(
        self, store: Store, waiting: Waiting, liveness: Liveness, tiers: Mapping[str, Tier], scope: str
    ) -> None:
        self._store = store
        self._offers = Offers(Volume, store, waiting, liveness)
        self._tiers = tiers
        self._scope = scope

    def create(self, request: VolumeRequest, deadline: Deadline) -> Volume:
        """Return the made volume. A repeated call finds its own; raises Conflict when it asks for something else."""
        record_id = new_id(self._scope, Volume.KIND, request.name)
        record = self._store.get(Volume, record_id)
        if record is None:
            record = self._offer(record_id, request)
        else:
            _check_same(record, request)
            _check_flags(record.spec, request)
            record = self._elsewhere(record, request)
        spec = record.spec
        return self._offers.settle(record, lambda: self._pools(spec, request), deadline)

    def delete(self, volume_id: str, deadline: Deadline) -> None:
        """Delete a volume; fine when there is none. Raises InUse while somebody uses it."""
        if is_id(volume_id):
            self._offers.delete(volume_id, deadline)

    def expand(self, volume_id: str, size: SizeRange, deadline: Deadline) -> Volume:
        """Grow a volume's bytes and device. Raises NoSpace when the pool can't promise the difference."""
        while True:
            record = self._kept(volume_id)
            old = record.spec.size
            new = max(old, size.choose(old, default=old))
            if size.limit and old > size.limit:
                raise OutOfRange(
                    f"capacity_range: volume {volume_id} has {old} bytes, more than limit_bytes {size.limit}"
                )
            qos = parameters.modified(self._tiers, new, record.spec.qos, {})
            try:
                record = self._store.put_spec(record.with_spec(size=new, qos=qos), lend=True) if new > old else record
            except Stale:
                continue
            try:
                return self._offers.follow(record, deadline)
            except NoSpace:
                self._shrink_wish(volume_id, new)
                raise

    def modify(self, volume_id: str, mutable: Mapping[str, str], deadline: Deadline) -> Volume:
        """Change the keys of the I/O budget that are given, all or none, and wait until they are in force."""
        while True:
            record = self._kept(volume_id)
            size, before = _wanted_size(record), record.spec.qos
            qos = parameters.modified(self._tiers, size, record.spec.qos, mutable)
            try:
                record = self._store.put_spec(record.with_spec(size=size, qos=qos), lend=True)
            except Stale:
                continue
            try:
                return self._offers.follow(record, deadline)
            except NoSpace:
                self._restore_qos(record, before)
                raise

    def check_parameters(self, record: Volume, given: Mapping[str, str], mutable: Mapping[str, str]) -> None:
        """Raise Invalid unless the volume is what these parameters, where there are any, would have made of it."""
        if given and dict(given) != dict(record.spec.parameters):
            raise Invalid(f"parameters: volume {record.id} was made with others")
        if mutable and parameters.modified(self._tiers, record.spec.size, record.spec.qos, mutable) != record.spec.qos:
            raise Invalid(f"mutable_parameters: volume {record.id} has others")

    def get(self, volume_id: str) -> Volume:
        """Return a volume that was made and isn't being deleted. Raises NotFound."""
        return find(self._store, Volume, volume_id)

    def _kept(self, volume_id: str) -> Volume:
        """Return a volume that nobody wants gone. Raises NotFound, Busy."""
        record = self.get(volume_id)
        if record.spec.absent:
            raise Busy(f"volume {volume_id} is being deleted, and only its users keep it; ask again")
        return record

    def page(self, after: str, limit: int) -> tuple[list[Volume], str]:
        """Return up to `limit` volumes (0: all) behind the token `after`, and the next token, "" at the end."""
        return page(self._store, Volume, after, limit)

    def conditions(self, records: Sequence[Volume]) -> list[str]:
        """Say of each volume what is wrong with it, or with its pool; "" for nothing."""
        troubles = {
            pool.id: f"pool {pool.spec.name}: {pool.status.abnormal}"
            for pool in self._store.list(Pool)
            if pool.status.abnormal and not pool.status.guard
        }
        accepted = [record.status.history.accepted for record in records]
        return [
            record.status.seen.abnormal or (troubles.get(offer.pool, "") if offer else "")
            for record, offer in zip(records, accepted, strict=True)
        ]

    def capacity(
        self, given: Mapping[str, str], node: str | None, fs_type: str, *, block: bool
    ) -> tuple[int, int, int]:
        """Return the bytes left in all suiting pools, in the roomiest one, and the smallest size of such a volume.

        A pool whose disks can't give the floor has none for it, so that the scheduler looks elsewhere.
        """
        asked = {**given, **({"fsType": fs_type} if fs_type else {})}
        want = parameters.wanted(self._tiers, DEFAULT_SIZE, asked, {})
        nodes = frozenset({node}) if node is not None else frozenset[str]()
        wish = placement.Wish(floor=want.qos.floor, pool_name=want.pool, nodes=nodes, thick=want.thick)
        pools = self._store.list(Pool)
        left = [placement.left(pool, wish) for pool in pools if not placement.suits(pool, wish)]
        smallest = SIZE_STEP if block else parameters.SMALLEST[want.file_system.type]
        return sum(left), max(left, default=0), smallest

    def _offer(self, record_id: str, request: VolumeRequest) -> Volume:
        spec = self._wanted(request)
        _check_flags(spec, request)
        first = self._pools(spec, request)[0]
        offered = dataclasses.replace(spec, offer=Offer(1, first.spec.node, first.id))
        try:
            # Whoever accepts it makes it durable too; before that nothing is promised.
            return self._store.create(Volume(record_id, offered), durable=False, lend=True)
        except Stale:
            raise Busy(f"volume {request.name!r} is being created by another call; ask again") from None

    def _wanted(self, request: VolumeRequest) -> VolumeSpec:
        source = source_record(self._store, request.source) if request.source else None
        if source is not None:
            check_shareable(source)
        source_size = source.status.history.size if source else 0
        if "fsType" in request.parameters:
            parameters.check_file_system(request.parameters["fsType"], "fsType")
        fs_type = request.fs_type or (source.status.history.format_done if source else "")
        asked = {**request.parameters, **({"fsType": fs_type} if fs_type else {})}
        want = parameters.wanted(self._tiers, DEFAULT_SIZE, asked, request.mutable)
        if want.thick and source is not None:
            raise Unsupported(
                f"tier: {want.qos.tier} makes thick volumes, which share no bytes, so that none is made from a "
                f"{source.KIND}; name another tier, or no source"
            )
        smallest = SIZE_STEP if request.block else parameters.SMALLEST[want.file_system.type]
        if 0 < request.size.required < source_size:
            raise OutOfRange(
                f"capacity_range: {request.size.required} bytes can't hold the source of {source_size} bytes"
            )
        size = request.size.choose(max(smallest, source_size), default=source_size or DEFAULT_SIZE)
        return VolumeSpec(
            name=request.name,
            size=size,
            sector_size=source.status.history.sector_size if source else want.sector_size,
            source=request.source,
            qos=parameters.modified(self._tiers, size, want.qos, {}),
            file_system=want.file_system,
            parameters=dict(request.parameters),
            claim=want.claim,
            thick=want.thick,
        )

    def _pools(self, spec: VolumeSpec, request: VolumeRequest) -> list[Pool]:
        pool_id = ""
        if spec.source:
            accepted = source_record(self._store, spec.source).status.history.accepted
            pool_id = accepted.pool if accepted else ""
        wish = placement.Wish(
            size=spec.size,
            floor=spec.qos.floor,
            pool_name=str(spec.parameters.get("pool", "")),
            pool_id=pool_id,
            nodes=request.nodes,
            preferred=request.preferred,
            thick=spec.thick,
        )
        pools = placement.order(self._store.list(Pool), wish)
        if spec.source and not any(pool.status.clones for pool in pools):
            raise Unsupported(f"pool {pools[0].spec.name} can't copy by reference: give it a size, or a folder on XFS")
        return pools

    def _elsewhere(self, record: Volume, request: VolumeRequest) -> Volume:
        """Move an offer that nobody accepted when the retry's topology has no longer its node."""
        history, offer = record.status.history, record.spec.offer
        if not request.nodes or offer is None or offer.node in request.nodes:
            return record
        if history.accepted and not history.gone:
            raise Conflict(f"volume {record.spec.name!r} exists on node {offer.node}, outside the topology asked for")
        if history.gone:
            return record
        try:
            return self._offers.reoffer(record, self._pools(record.spec, request))
        except Stale:
            raise Busy(f"volume {record.id} is being placed; ask again") from None
        except WITHDRAWING:
            if self._offers.withdrawn(record):
                raise
            raise Busy(f"volume {record.id} is being placed; ask again") from None

    def _restore_qos(self, refused: Volume, before: Qos) -> None:
        """Take a modification back whose floor was refused, so that nothing of it is done later."""
        while (record := self._store.get(Volume, refused.id)) is not None and record.spec.qos == refused.spec.qos:
            try:
                self._store.put_spec(record.with_spec(qos=before))
            except Stale:
                continue
            return

    def _shrink_wish(self, volume_id: str, refused: int) -> None:
        """Take an expansion back that the pool refused, so that nothing of it is done later."""
        while (record := self._store.get(Volume, volume_id)) is not None and record.spec.size == refused:
            old = record.status.history.size
            if old >= refused:
                return
            qos = parameters.modified(self._tiers, old, record.spec.qos, {})
            try:
                self._store.put_spec(record.with_spec(size=old, qos=qos))
            except Stale:
                continue


def _check_flags(spec: VolumeSpec, request: VolumeRequest) -> None:
    """Raise Invalid for mount flags that a stage of the volume would refuse."""
    for flags in request.mount_flags:
        parameters.check_mount_options(spec.file_system.type, flags, "volume_capabilities: mount_flags")


def _wanted_size(record: Volume) -> int:
    """Return the size that is still wanted: not one that the pool has refused, though its caller never heard so."""
    error = record.status.seen.error
    refused = error is not None and error.error == NoSpace.__name__ and error.about >= record.generation
    return record.status.history.size if refused else record.spec.size


def _check_same(record: Volume, request: VolumeRequest) -> None:
    """Raise Conflict when a volume of this name was asked for with other words. Its source may be gone since."""
    old = record.spec
    other = [
        name
        for name, same in {
            "capacity_range": request.size.holds(old.size),
            "parameters": old.parameters == request.parameters,
            "volume_content_source": old.source == request.source,
            "volume_capabilities": request.block or request.fs_type in {"", old.file_system.type},
        }.items()
        if not same
    ]
    if other:
        raise Conflict(f"volume {old.name!r} exists as {record.id} with other {', '.join(other)}")
