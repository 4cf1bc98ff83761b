"""`python -m services.netsvc [--config FILE]`: netsvc's process."""

from __future__ import annotations

import sys

from services.common.runtime import run_service
from services.common.store import StoreError
from services.netsvc.app import main
from services.netsvc.settings import NetsvcSettings

if __name__ == "__main__":
    sys.exit(run_service("netsvc", NetsvcSettings, main, expected=(StoreError,)))
