"""What is wrong gets one clear line that names the thing, the right exit code, and leaves nothing half-made."""

from __future__ import annotations

from pathlib import Path

from tests.support.stack import Stack


def line(stack: Stack, *words: str | Path) -> tuple[int, str]:
    """Exit code and the one line."""
    done = stack.run(*words)
    assert done.stderr.startswith("moln: "), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_an_expression_is_pointed_at(stack: Stack) -> None:
    code, text = line(stack, "vm", "create", "--no-net", "--requirement", "FREE_MEMORY > & 3")
    assert code == 2
    assert text.splitlines()[1:] == ["  FREE_MEMORY > & 3", "                ^"]
    assert stack.read("vm", "list") == []


def test_an_image_that_is_none_is_refused(stack: Stack, folder: Path) -> None:
    (folder / "letter.qcow2").write_text("Dear Anna,\n" * 100)
    code, text = line(stack, "image", "create", "letter", "--path", folder / "letter.qcow2", "--format", "qcow2")
    assert code in (1, 2)
    assert "letter" in text
    assert stack.run("image", "show", "letter").returncode == 4


def test_an_unknown_image_or_network_is_named(stack: Stack) -> None:
    code, text = line(stack, "vm", "create", "--image", "nowhere")
    assert (code, "nowhere" in text) == (4, True)
    code, text = line(stack, "vm", "create", "--net", "nowhere")
    assert (code, "nowhere" in text) == (4, True)


def test_networks_with_faults_are_refused(stack: Stack) -> None:
    code, text = line(stack, "net", "create", "n", "--cidr", "10.99.0.0/24", "--bridge", "a-name-that-is-too-long")
    assert (code, "bridge" in text) == (2, True)
    words = ("--range", "10.99.0.10,20", "--range", "10.99.0.15,20")
    code, text = line(stack, "net", "create", "n", "--cidr", "10.99.0.0/24", *words)
    assert (code, "overlap" in text) == (2, True)
    code, text = line(stack, "net", "create", "n", "--cidr", "10.99.0.0/24", "--range", "10.98.0.1,5")
    assert code == 2
    assert "n" not in stack.moln("net", "list", "-o", "name").split()


def test_a_full_network_refuses(stack: Stack) -> None:
    stack.moln("net", "create", "narrow", "--cidr", "10.99.1.0/24", "--range", "10.99.1.10,2")
    stack.moln("vm", "create", "a", "--net", "narrow", "--memory", "64M", "--count", "2", "--wait")
    code, text = line(stack, "vm", "create", "b", "--net", "narrow", "--memory", "64M")
    assert code == 5
    assert "narrow" in text
    stack.moln("vm", "terminate", "--filter", "name=a-*", "--hard", "--yes", "--wait")
    stack.moln("net", "delete", "narrow", "--yes")


def test_a_vm_that_fits_nowhere_says_so_and_wait_exits_3(stack: Stack) -> None:
    stack.moln("vm", "create", "big", "--no-net", "--memory", "15T")
    code, text = line(stack, "vm", "wait", "big", "--timeout", "2s")
    assert code == 3
    assert "NO_HOST_FITS" in text
    assert "PENDING" in text


def test_a_wrong_token_is_refused(stack: Stack) -> None:
    done = stack.run_as({"MOLN_ENDPOINT": stack.endpoint, "MOLN_TOKEN": "wrong"}, "vm", "list")
    assert done.returncode == 5
    assert "token" in done.stderr


def test_a_verb_that_the_state_forbids_names_the_states(stack: Stack) -> None:
    stack.moln("vm", "create", "web", "--no-net", "--memory", "64M", "--hold")
    code, text = line(stack, "vm", "poweroff", "web")
    assert code == 5
    assert "HELD" in text
    assert "RUNNING" in text


def test_a_host_in_use_is_not_deleted(stack: Stack) -> None:
    stack.moln("vm", "create", "web", "--no-net", "--memory", "64M", "--host", "sim-1", "--wait")
    code, text = line(stack, "host", "delete", "sim-1", "--yes")
    assert code == 5
    assert "sim-1" in text
