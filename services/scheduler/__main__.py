"""`python -m services.scheduler [--config FILE]`: the scheduler's process."""

from __future__ import annotations

import sys

from services.common.runtime import run_service
from services.common.store import StoreError
from services.scheduler.app import main
from services.scheduler.settings import SchedulerSettings

if __name__ == "__main__":
    sys.exit(run_service("scheduler", SchedulerSettings, main, expected=(StoreError,)))
