"""`sluice serve`: the server, from its first object to its last signal."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
from typing import TYPE_CHECKING

import structlog

from csi_driver import __version__
from csi_driver.assemble import AgentSide, ControllerSide, Machine, enforcement, keep_udev_away, open_store, tiers_of
from csi_driver.cli.alone import sign_programs
from csi_driver.host.statelock import StateLock
from csi_driver.metrics import Metrics
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.group import Group
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.node import Node
from csi_driver.rpc.server import Server

if TYPE_CHECKING:
    from csi_driver.config import Config

log = structlog.get_logger(__name__)

GARBAGE = 10_000
"""How many new objects make a collection; Python's own 700 are those of two calls."""
LOOK_SECONDS = 1.0


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Limits, mounts and devices stay when the server goes."""
    started = time.monotonic()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with contextlib.ExitStack() as at_end:
        start(config, at_end, ended)
        # What is there by now stays: no collection needs to look at it again, and calls leave hardly any cycles.
        gc.freeze()
        gc.set_threshold(GARBAGE)
        log.info("ready", endpoint=config.endpoint, node=config.node_id, ms=round((time.monotonic() - started) * 1000))
        # Not for ever: a signal that the kernel gives to another thread doesn't wake this one, where its handler runs.
        while not ended.wait(LOOK_SECONDS):
            pass
        log.info("stopping; limits, mounts and devices stay")


def start(config: Config, at_end: contextlib.ExitStack, ended: threading.Event) -> None:
    """Start everything, what others need first; `at_end` stops it in the opposite order."""
    tiers = tiers_of(config)
    metrics = Metrics()
    store = open_store(config)
    at_end.callback(store.close)
    if config.role != "controller":
        at_end.callback(StateLock(config.state).release)
    machine = Machine(metrics.program)
    at_end.callback(machine.dead_man.close)
    if resumed := machine.freezer.resume_all():
        log.warning("resumed devices that a cut left suspended", devices=resumed)
    if config.role != "controller":
        sign_programs(config.state, machine, at_end)
    enforce = enforcement(config, machine)
    node = controller = group = None
    if config.role in {"all", "node"}:
        keep_udev_away(machine)
        side = AgentSide(config, store, machine, enforce)
        side.agent.start()
        at_end.callback(side.agent.stop)
        side.trimming.start()
        at_end.callback(side.trimming.stop)
        side.measuring.start()
        at_end.callback(side.measuring.stop)
        metrics.watch(side.pools, side.trimming, side.measuring, store)
        node = Node(side.staging, side.publishing, side.growing, config.node_id, config.topology_key)
    if config.role in {"all", "controller"}:
        verbs = ControllerSide(config, store, tiers)
        at_end.callback(verbs.waiting.close)
        controller = Controller(verbs.volumes, verbs.snapshots, config.topology_key)
        group = Group(verbs.groups)
    enforce.start()
    at_end.callback(enforce.stop)
    at_end.callback(metrics.serve(config.metrics, store, enforce))
    identity = Identity(config.driver_name, __version__, lambda: not ended.is_set())
    server = Server(config.endpoint, metrics.rpc, identity, controller, node, group)
    server.start()
    at_end.callback(server.stop)
