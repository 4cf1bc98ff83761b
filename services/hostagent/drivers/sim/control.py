"""Commands to the simulator at run time, as lines appended to a file (`<state>/sim/control`). Reads and obeys; no more.

`set start_latency_s 0.5` · `crash VM` · `shutdown VM` · `vanish VM` · `reboot HOST` (all by id) · `disconnect SECONDS`
(the agent's stream) · `silence HOST …` (these hosts stay off the stream) · `speak` (they are back)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from services.common.obs.logs import get_logger
from services.hostagent.drivers.ports import End
from services.hostagent.drivers.sim.driver import SimDriver
from services.hostagent.drivers.sim.knobs import with_setting

_ENDS = {"crash": End.CRASHED, "shutdown": End.SHUT_DOWN, "vanish": End.VANISHED}


class Stream(Protocol):
    """What commands do to the agent's stream."""

    def drop(self, seconds: float) -> None:
        """Ends it for that long."""
        ...


class Control:
    """Follows the file from where it ended when the agent started; `step` is called by a loop."""

    def __init__(
        self, file: Path, driver: SimDriver, stream: Stream, silent_hosts: set[int], rebooted: Callable[[int], None]
    ) -> None:
        self._file, self._driver, self._stream = file, driver, stream
        self._silent_hosts, self._rebooted = silent_hosts, rebooted
        self._offset = file.stat().st_size if file.exists() else 0
        self._log = get_logger("control")

    async def step(self) -> None:
        """Obeys the lines that have been added since. A line that cannot be obeyed is logged."""
        try:
            size = self._file.stat().st_size
        except FileNotFoundError:
            return
        if size <= self._offset:
            self._offset = size
            return
        with self._file.open("rb") as lines:
            lines.seek(self._offset)
            added = lines.read()
        whole, _, _ = added.rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.decode(errors="replace").splitlines():
            self._obey(line)

    def _obey(self, line: str) -> None:
        try:
            self._do(line.split())
        except (ValueError, IndexError, KeyError) as err:
            self._log.warning("command not understood", line=line, error=str(err))
        else:
            self._log.info("command obeyed", line=line)

    def _do(self, words: list[str]) -> None:
        match words:
            case ["set", name, value]:
                self._driver.knobs = with_setting(self._driver.knobs, name, value)
            case [("crash" | "shutdown" | "vanish") as how, vm_id]:
                self._end(int(vm_id), _ENDS[how])
            case ["reboot", host_id]:
                self._driver.reboot(int(host_id))
                self._rebooted(int(host_id))
                self._stream.drop(0.0)  # the new boot id is said with the next hello
            case ["disconnect", seconds]:
                self._stream.drop(float(seconds))
            case ["silence", *host_ids]:
                self._silent_hosts.update(int(host_id) for host_id in host_ids)
                self._stream.drop(0.0)
            case ["speak"]:
                self._silent_hosts.clear()
                self._stream.drop(0.0)
            case []:
                return
            case _:
                raise ValueError("no such command")

    def _end(self, vm_id: int, end: End) -> None:
        running = [guest for guest in self._driver.guests if guest.vm_id == vm_id and guest.is_running]
        if not running:
            raise ValueError(f"VM {vm_id} runs on none of these hosts")
        for guest in running:
            self._driver.end(guest.host_id, vm_id, end)
