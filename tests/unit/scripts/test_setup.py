"""`make setup`: what it decides, without installing anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import setup, system_packages
from scripts.system_packages import Distribution, SetupError

DEBIAN_12 = Distribution("debian", "12", "Debian GNU/Linux 12 (bookworm)")


def test_os_release_is_read() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n# comment\nVERSION_ID="12"\n'
    assert system_packages.parse_os_release(text) == DEBIAN_12


@pytest.mark.parametrize(("name", "version"), [("debian", "12"), ("debian", "13"), ("ubuntu", "24.04")])
def test_supported_distributions_have_their_packages(name: str, version: str) -> None:
    names = system_packages.wanted(Distribution(name, version, name), system_python=True)
    assert {"etcd-server", "qemu-system-x86", "libvirt-daemon", "python3-venv"} <= set(names)
    assert not [package for package in names if package.startswith(("linux-image", "linux-headers"))]


def test_another_system_gets_one_clear_line() -> None:
    with pytest.raises(
        SetupError, match=r"^Fedora 40 is not supported: moln needs Debian 12, Debian 13 or Ubuntu 24.04"
    ):
        system_packages.wanted(Distribution("fedora", "40", "Fedora 40"), system_python=True)


def test_an_old_python_gets_one_clear_line() -> None:
    with pytest.raises(SetupError, match=r"^/usr/bin/python3 is Python 3.10: moln needs 3.11"):
        setup.check_python((3, 10), "/usr/bin/python3")


def test_only_installed_packages_count() -> None:
    lines = ["ii  etcd-server", "rc  xorriso", "un  mtools"]
    assert system_packages.missing(["etcd-server", "xorriso", "mtools", "cpio"], lines) == ["xorriso", "mtools", "cpio"]


@pytest.mark.parametrize(
    ("is_root", "has_sudo", "may_ask", "prefix"),
    [
        (True, False, False, []),
        (False, True, True, ["sudo"]),
        (False, True, False, ["sudo", "-n"]),
        (False, False, True, None),
    ],
)
def test_roots_rights_come_from_where_they_can(
    is_root: bool, has_sudo: bool, may_ask: bool, prefix: list[str] | None
) -> None:
    assert system_packages.root_prefix(is_root=is_root, has_sudo=has_sudo, may_ask=may_ask) == prefix


def test_only_daemons_that_moln_starts_itself_are_disabled() -> None:
    new = ["etcd.service", "libvirtd.socket", "virtlogd.socket", "getty@tty1.service", "ssh.service"]
    assert system_packages.units_to_disable(new) == ["etcd.service", "libvirtd.socket", "virtlogd.socket"]


def test_enabled_units_are_found_by_their_links(folder: Path) -> None:
    wants = folder / "multi-user.target.wants"
    wants.mkdir()
    (wants / "etcd.service").symlink_to("/lib/systemd/system/etcd.service")
    assert system_packages.enabled_units(folder) == {"etcd.service"}


def test_a_policy_that_was_there_before_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = folder / "policy-rc.d"
    monkeypatch.setattr(system_packages, "POLICY", policy)
    with system_packages.daemons_kept_stopped([]):
        assert policy.stat().st_mode & 0o111
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 0\n")
    with system_packages.daemons_kept_stopped([]):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_policy_is_removed_when_the_installation_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = folder / "policy-rc.d"
    monkeypatch.setattr(system_packages, "POLICY", policy)
    with pytest.raises(OSError, match="apt"), system_packages.daemons_kept_stopped([]):
        raise OSError("apt broke")
    assert not policy.exists()


def test_questions_are_for_people_at_a_terminal() -> None:
    assert setup.may_ask({}, is_terminal=True)
    assert not setup.may_ask({}, is_terminal=False)
    assert not setup.may_ask({"CI": "true"}, is_terminal=True)
    assert system_packages.is_yes("")
    assert not system_packages.is_yes("n")


def test_only_what_is_installed_renews_the_environment() -> None:
    base = '[project]\nname = "moln"\n'
    stamp = setup.python_stamp(base, Path("/a"), "3.11.7")
    assert stamp == setup.python_stamp(base + "[tool.ruff]\nline-length = 99\n", Path("/a"), "3.11.7")
    assert stamp != setup.python_stamp(base + 'dependencies = ["x"]\n', Path("/a"), "3.11.7")
    assert stamp != setup.python_stamp(base, Path("/a"), "3.12.0")


def test_set_up_needs_nothing_but_the_standard_library() -> None:
    for module in (setup, system_packages):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        roots = {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        roots |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        assert not roots & {"click", "rich", "grpc", "grpc_tools", "google", "services", "yaml"}
