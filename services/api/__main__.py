"""`python -m services.api`: one api process."""

from __future__ import annotations

import sys

from services.api.app import main
from services.api.settings import Settings
from services.common.runtime.service import run_service
from services.common.store import StoreError

if __name__ == "__main__":
    sys.exit(run_service("api", Settings, main, expected=(StoreError,)))
