"""Other programs, run by argument vector within limits: time, output, memory, CPU. Never through a shell."""

from services.common.exec.program import CommandError, Completed, Limits, run_program

__all__ = ["CommandError", "Completed", "Limits", "run_program"]
