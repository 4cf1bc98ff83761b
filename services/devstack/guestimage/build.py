"""Builds the demo guest's image from packages of the distribution, or takes the same one from the cache.

Drives the other modules of this folder; holds no knowledge of formats itself. Needs no root and no privilege.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from services.devstack.guestimage import disk, initramfs, programs
from services.devstack.guestimage.commands import find_program, run
from services.devstack.guestimage.errors import GuestImageError
from services.devstack.guestimage.modules import ModuleTree
from services.devstack.guestimage.packages import Package, default_cache, kernel_packages, unpacked

# Words of the guest's init script: "base" is always loaded, the others where such a controller is found.
MODULE_GROUPS = {
    "base": ("virtio_pci", "virtio_blk", "virtio_net", "isofs", "button", "evdev"),
    "late": ("virtio_rng", "virtio_console", "virtio_balloon"),
    "ide": ("ata_piix", "sr_mod", "sd_mod"),
    "scsi": ("virtio_scsi", "sr_mod", "sd_mod"),
}
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=3 panic=10 mitigations=off no_timer_check tsc=reliable "
    "random.trust_cpu=on net.ifnames=0 cryptomgr.notests"
)
_SYSLINUX_CONFIGURATION = f"""\
DEFAULT moln
PROMPT 0
TIMEOUT 0
LABEL moln
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND {KERNEL_ARGUMENTS}
"""


def build_guest_image(output: Path, cache: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Writes the image (qcow2) to `output` and returns it; replaces what is there in one step.

    The image is kept in the cache under a name made from all that goes into it, so that a second call takes moments and
    no network. Raises GuestImageError, which names what is missing and the remedy.
    """
    cache = cache or default_cache()
    kernel, extras = kernel_packages(), programs.packages()
    kept = cache / "guests" / f"moln-guest-{_fingerprint([*kernel, *extras])}.qcow2"
    if not kept.is_file():
        say(f"building the demo guest from {kernel[0].name} {kernel[0].version}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=kept.parent) as work:
            _build(Path(work), kernel, extras, cache).rename(kept)
    _copy(kept, output)
    return output


def boot_files(cache: Path | None = None) -> dict[str, bytes]:
    """The demo guest's kernel (`vmlinuz`) and initial RAM disk (`initrd.gz`), for booting it directly."""
    return _boot_files([unpacked(package, cache or default_cache()) for package in kernel_packages()])


def _boot_files(roots: list[Path]) -> dict[str, bytes]:
    return {"vmlinuz": _kernel(roots), "initrd.gz": _initramfs(ModuleTree(roots))}


def _build(work: Path, kernel: list[Package], extras: list[Package], cache: Path) -> Path:
    roots = [unpacked(package, cache) for package in kernel]
    state = work / "state"
    state.mkdir()
    if extras:
        programs.install(
            state / programs.GUEST_FOLDER.rpartition("/")[2], [unpacked(package, cache) for package in extras]
        )
    files = {**_boot_files(roots), "syslinux.cfg": _SYSLINUX_CONFIGURATION.encode()}
    raw = disk.write_disk(work, files, state)
    image = work / "guest.qcow2"
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, image)
    return image


def _kernel(roots: list[Path]) -> bytes:
    for root in roots:
        for found in sorted(root.glob("boot/vmlinuz-*")):
            return found.read_bytes()
    raise GuestImageError(f"no kernel (boot/vmlinuz-*) in {roots[0].name}")


def _initramfs(modules: ModuleTree) -> bytes:
    busybox = Path(find_program("busybox"))
    applets = run("busybox", "--list").decode().split()
    groups = {group: modules.closure(names) for group, names in MODULE_GROUPS.items()}
    return initramfs.build(busybox.read_bytes(), applets, groups)


def _fingerprint(packages: list[Package]) -> str:
    """Changes when a package, BusyBox, or anything in this folder changes."""
    digest = hashlib.sha256()
    for package in packages:
        digest.update(f"{package.folder_name}\n".encode())
    digest.update(Path(find_program("busybox")).read_bytes())
    for file in sorted(_own_files(), key=str):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _own_files() -> list[Path]:
    with resources.as_file(resources.files(__package__)) as folder:
        return [*folder.glob("*.py"), *folder.glob("guest/*")]


def _copy(source: Path, target: Path) -> None:
    """A copy beside the target first, so that a reader never sees half an image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent) as work:
        shutil.copyfile(source, Path(work) / "image").rename(target)
