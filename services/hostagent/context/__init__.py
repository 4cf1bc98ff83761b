"""What a guest reads on its first boot: an ISO labelled CONTEXT, in OpenNebula's form.

`variables` turns a VM's order into names and values, `script` renders them for a shell, `iso` writes the disk.
"""

from services.hostagent.context.iso import build_iso
from services.hostagent.context.script import ContextError, render_script
from services.hostagent.context.variables import variables_of

__all__ = ["ContextError", "build_iso", "render_script", "variables_of"]
