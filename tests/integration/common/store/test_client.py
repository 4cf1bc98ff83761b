"""The ways to an etcd: sockets, several members of which some are down, TLS, its own authentication."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.store import Refused, StoreSettings, StoreUnavailable
from services.common.store.etcd.endpoints import target_of
from tests.integration.common.store.things import create, opened, value_of
from tests.support.etcd import EtcdServer
from tests.support.ports import free_port
from tests.support.real import programs, real_part


def etcdctl(etcd: EtcdServer, *words: str) -> None:
    """Runs etcd's own client."""
    real_part("etcdctl", programs("etcdctl"))
    subprocess.run(
        ["etcdctl", f"--endpoints=127.0.0.1:{etcd.port}", *words],
        env={**os.environ, "ETCDCTL_API": "3"}, check=True, capture_output=True, timeout=30,
    )  # fmt: skip


async def test_members_that_are_down_are_left_out() -> None:
    etcd = EtcdServer(on_port=True)
    try:
        etcd.start()
        places = (f"127.0.0.1:{free_port()}", etcd.endpoint, f"localhost:{free_port()}")
        async with opened(etcd.settings, endpoints=places) as store:
            await store.commit(create(1))
            assert value_of(store, 1) == 1
    finally:
        etcd.close()


async def test_a_name_is_an_endpoint_too() -> None:
    etcd = EtcdServer(on_port=True)
    try:
        etcd.start()
        async with opened(etcd.settings, endpoints=(f"http://localhost:{etcd.port}",)) as store:
            await store.commit(create(1))
    finally:
        etcd.close()


async def test_a_user_is_let_in_by_the_password_also_after_the_tokens_were_lost() -> None:
    etcd = EtcdServer(on_port=True)
    try:
        etcd.start()
        etcdctl(etcd, "user", "add", "root:sesame")
        etcdctl(etcd, "user", "grant-role", "root", "root")
        etcdctl(etcd, "auth", "enable")
        async with opened(etcd.settings, user="root", password="sesame") as store:
            await store.commit(create(1))
            etcd.kill()
            etcd.start()
            await store.commit(create(2))
            await store.process.tick()
        for user, password in (("root", "wrong"), ("", "")):
            with pytest.raises(Refused):
                async with opened(etcd.settings, user=user, password=password):
                    pass
    finally:
        etcd.close()


async def test_tls_is_mutual_where_etcd_asks_for_a_certificate(folder: Path) -> None:
    make_certificates(folder)
    server = ["--cert-file", str(folder / "etcd.crt"), "--key-file", str(folder / "etcd.key")]
    flags = [*server, "--client-cert-auth=true", "--trusted-ca-file", str(folder / "ca.crt")]
    port = free_port()
    urls = [f"--listen-client-urls=https://127.0.0.1:{port}", f"--advertise-client-urls=https://127.0.0.1:{port}"]
    etcd = EtcdServer(flags=[*urls, *flags], waits=False)
    try:
        etcd.start()
        settings = StoreSettings(endpoints=(f"https://127.0.0.1:{port}",), ca_file=folder / "ca.crt", open_timeout=20.0)
        shown = replace(settings, cert_file=folder / "etcd.crt", key_file=folder / "etcd.key")
        async with opened(shown) as store:
            await store.commit(create(1))
            assert value_of(store, 1) == 1
        with pytest.raises(StoreUnavailable):
            async with opened(settings, open_timeout=0.5):
                pass
    finally:
        etcd.close()


def make_certificates(folder: Path) -> None:
    """An authority and a certificate for 127.0.0.1, by openssl."""
    real_part("openssl", programs("openssl"))
    names = "subjectAltName=IP:127.0.0.1"
    usage = "extendedKeyUsage=serverAuth,clientAuth"
    new = [
        "openssl",
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-x509",
    ]
    authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority"]
    server = ["-keyout", "etcd.key", "-out", "etcd.crt", "-subj", "/CN=etcd", "-addext", names, "-addext", usage]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"]
    for words in ([*new, *authority], [*new, *server, *signed]):
        subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ((), "no endpoint"),
        (("unix:/a", "unix:/b"), "cannot be one of several"),
        (("127.0.0.1:1", "127.0.0.1"), "not of the form host:port"),
        (("127.0.0.1:1", "no.such.host.invalid:2"), "no.such.host.invalid:2"),
    ],
)
async def test_endpoints_that_mean_nothing_are_named(endpoints: tuple[str, ...], said: str) -> None:
    with pytest.raises(StoreUnavailable, match=said):
        async with opened(StoreSettings(endpoints=endpoints)):
            pass


async def test_several_members_are_one_target() -> None:
    target, _ = await target_of(("http://127.0.0.1:1", "localhost:2"))
    assert target == "ipv4:127.0.0.1:1,127.0.0.1:2"
    target, _ = await target_of(("[::1]:1", "[::1]:2"))
    assert target == "ipv6:[::1]:1,[::1]:2"
