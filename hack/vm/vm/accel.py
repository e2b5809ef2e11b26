"""KVM or TCG: found out by booting, since /dev/kvm may be there and not carry a kernel."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from .attend import Attendant, Ending
from .host import step
from .job import Job, make_job_disk
from .machine import Hardware, running

if TYPE_CHECKING:
    from .cache import Cache
    from .image import Image
    from .qemu import Emulator

KVM = Path("/dev/kvm")
# A KVM that emulates every kernel instruction would boot some day, later than TCG.
PROBE_LIMIT = 30.0


def choose_accelerator(cache: Cache, emulator: Emulator, image: Image) -> str:
    """Return "kvm" if the image boots under it on this machine, else "tcg"; tried once per boot of the machine."""
    try:
        with KVM.open("r+b", buffering=0):
            pass
    except OSError:
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    place = {"boot": boot, "qemu": emulator.version}
    verdict = cache.root / "kvm.json"
    try:
        known = json.loads(verdict.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get("place") != place:
        with step("finding out whether KVM works here", 10):
            known = {"place": place, "works": _boots(cache, emulator, image)}
        fresh = verdict.with_suffix(f".{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(known))
        fresh.rename(verdict)
    return "kvm" if known["works"] else "tcg"


def _boots(cache: Cache, emulator: Emulator, image: Image) -> bool:
    job = Job(nonce=secrets.token_hex(8), argv=("true",), environment={})
    with cache.run_folder() as folder:
        hardware = Hardware("kvm", make_job_disk(folder, job))
        with running(emulator, image, hardware) as machine:
            attendant = Attendant(machine, job.nonce, {})
            ending = attendant.attend(PROBE_LIMIT, boot_limit=PROBE_LIMIT)
    return ending is Ending.REPORTED and attendant.record.status == 0
