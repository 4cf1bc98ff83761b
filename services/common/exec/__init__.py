"""Other programs, by argument vector and within limits, never through a shell.

`run_program` runs a tool to its end; `Script` keeps a driver running that speaks lines of JSON; `run_script` has one
handle a single request. What a script says and hears: docs/driver-protocol.md.
"""

from services.common.exec.folder import ScriptFolder
from services.common.exec.oneshot import run_script
from services.common.exec.program import CommandError, Completed, Limits, run_program
from services.common.exec.script import Script
from services.common.exec.trouble import ScriptError, ScriptLimits, ScriptMetrics

__all__ = [
    "CommandError",
    "Completed",
    "Limits",
    "Script",
    "ScriptError",
    "ScriptFolder",
    "ScriptLimits",
    "ScriptMetrics",
    "run_program",
    "run_script",
]
