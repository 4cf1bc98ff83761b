"""Settings: defaults, file, environment, and what is said about faults."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from services.common.runtime import (
    Address,
    SettingsError,
    TlsFiles,
    check_address,
    load_settings,
    option,
    render_settings,
    tls_files,
)


@dataclass(frozen=True)
class Sample:
    """Settings with a field of every kind."""

    port: int = option(2632, "Port to listen at.")
    pause: float = option(2.5, "Pause between rounds.", unit="s")
    is_open: bool = option(False, "Whether anyone may come.")
    endpoints: tuple[str, ...] = option(("127.0.0.1:2379",), "Where etcd listens.")
    folder: Path = option(Path("/var/lib/moln"), "Where files go.")
    tls: Path | None = option(None, "TLS certificate.")
    form: Literal["text", "json"] = option("text", "Form of the logs.")


def load(environ: dict[str, str] | None = None, file: Path | None = None) -> Sample:
    return load_settings(Sample, "sample", file=file, environ=environ or {})


def test_the_environment_goes_before_the_file_and_the_file_before_defaults(folder: Path) -> None:
    file = folder / "sample.toml"
    file.write_text('port = 1\npause = 3\nendpoints = ["a:1", "b:2"]\n')
    settings = load({"MOLN_SAMPLE_PORT": "7", "MOLN_OTHER_PORT": "8", "MOLN_SAMPLE_CONFIG": str(file)}, file)
    assert settings == Sample(port=7, pause=3.0, endpoints=("a:1", "b:2"))


def test_every_kind_can_come_from_the_environment() -> None:
    settings = load(
        {
            "MOLN_SAMPLE_IS_OPEN": "yes",
            "MOLN_SAMPLE_ENDPOINTS": "a:1, b:2",
            "MOLN_SAMPLE_FOLDER": "/x",
            "MOLN_SAMPLE_TLS": "/c.pem",
            "MOLN_SAMPLE_FORM": "json",
        }
    )
    assert settings == Sample(
        is_open=True, endpoints=("a:1", "b:2"), folder=Path("/x"), tls=Path("/c.pem"), form="json"
    )
    assert load({"MOLN_SAMPLE_TLS": ""}).tls is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MOLN_SAMPLE_PORT", "abc", "MOLN_SAMPLE_PORT: 'abc' is not a whole number"),
        ("MOLN_SAMPLE_IS_OPEN", "maybe", "MOLN_SAMPLE_IS_OPEN: 'maybe' is not true or false"),
        ("MOLN_SAMPLE_FORM", "xml", "MOLN_SAMPLE_FORM: 'xml' is not one of text, json"),
        ("MOLN_SAMPLE_PROT", "1", r"MOLN_SAMPLE_PROT: unknown setting \(did you mean port\?\)"),
    ],
)
def test_a_fault_in_the_environment_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load({variable: value})


def test_all_faults_of_a_file_are_named_at_once(folder: Path) -> None:
    file = folder / "sample.toml"
    file.write_text('port = "x"\nnothing_like_it = 1\n')
    with pytest.raises(
        SettingsError, match=r"port: 'x' is not a whole number; .*nothing_like_it: unknown setting; there"
    ):
        load(file=file)


def test_a_file_that_is_missing_or_no_toml_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match="absent.toml: cannot be read: No such file"):
        load(file=folder / "absent.toml")
    (folder / "bad.toml").write_text("port = = 1")
    with pytest.raises(SettingsError, match=r"bad.toml: not TOML: .*line 1"):
        load(file=folder / "bad.toml")


def test_the_rendered_file_holds_every_option_and_means_the_defaults(folder: Path) -> None:
    text = render_settings(Sample, "sample")
    assert "# Pause between rounds. In s." in text
    assert "# Variable: MOLN_SAMPLE_PAUSE" in text
    active = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    file = folder / "all.toml"
    file.write_text(active)
    assert set(tomllib.loads(active)) == set(Sample.__dataclass_fields__)
    assert load(file=file) == Sample()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:2632", Address("127.0.0.1", 2632)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:1", Address("localhost", 1)),
        ("unix:/run/x.sock", Address(path="/run/x.sock")),
    ],
)
def test_local_addresses_need_no_tls(text: str, address: Address) -> None:
    assert check_address(text, None, what="listen") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "node-1:1", "10.0.0.1:1"])
def test_other_addresses_need_tls(text: str) -> None:
    with pytest.raises(SettingsError, match="give TLS files, or listen on 127.0.0.1"):
        check_address(text, None, what="listen")
    assert str(check_address(text, TlsFiles(Path("c"), Path("k")), what="listen")) == text


@pytest.mark.parametrize("text", ["", "2632", "host:", ":1", "host:99999", "host:x"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="is not an address: write"):
        check_address(text, None, what="listen")


def test_half_of_a_pair_of_tls_files_is_refused() -> None:
    assert tls_files(None, None) is None
    assert tls_files(Path("c"), Path("k")) == TlsFiles(Path("c"), Path("k"))
    with pytest.raises(SettingsError, match="belong together"):
        tls_files(Path("c"), None)
