"""What runs a service: settings, loops, background tasks, signals, readiness, clocks. It knows no service's work."""

from services.common.runtime.background import Background
from services.common.runtime.clock import Clock, ManualClock, SystemClock
from services.common.runtime.listen import Address, TlsFiles, check_address, tls_files
from services.common.runtime.loop import Backoff, Loop
from services.common.runtime.service import Run, run_service
from services.common.runtime.settings import SettingsError, load_settings, option, render_settings

__all__ = [
    "Address",
    "Background",
    "Backoff",
    "Clock",
    "Loop",
    "ManualClock",
    "Run",
    "SettingsError",
    "SystemClock",
    "TlsFiles",
    "check_address",
    "load_settings",
    "option",
    "render_settings",
    "run_service",
    "tls_files",
]
