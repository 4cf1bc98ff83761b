"""Logs and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.obs.endpoint import metrics_endpoint
from services.common.obs.logs import REQUEST_ID, configure_logs, get_logger
from services.common.obs.metrics import Metrics


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    yield
    configure_logs("test")


def test_a_line_is_a_constant_event_and_fields() -> None:
    stream = io.StringIO()
    configure_logs("api", stream=stream)
    get_logger("gateway").info("vm started", vm=7, host="node 1", ok=True)
    line = stream.getvalue()
    assert line.endswith('level=info service=api part=gateway event="vm started" host="node 1" ok=true vm=7\n')


@given(st.text())
def test_no_value_can_forge_a_line(value: str) -> None:
    stream = io.StringIO()
    configure_logs("api", stream=stream)
    get_logger("x").info("named", name=value)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_never_written(form: str) -> None:
    stream = io.StringIO()
    configure_logs("api", form="json" if form == "json" else "text", stream=stream)
    get_logger("x").info("login", user="ann", password="hunter2", join_token="abc", Authorization="Bearer xyz")
    assert not {"hunter2", "abc", "xyz"} & set(stream.getvalue().replace('"', " ").replace("=", " ").split())
    assert "ann" in stream.getvalue()


def test_the_request_id_is_on_every_line_of_its_request() -> None:
    stream = io.StringIO()
    configure_logs("api", form="json", stream=stream)
    token = REQUEST_ID.set("r-1")
    get_logger("x").info("inside")
    REQUEST_ID.reset(token)
    get_logger("x").info("outside")
    inside, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert inside["request_id"] == "r-1"
    assert "request_id" not in outside


def test_lines_below_the_level_are_not_written_and_libraries_join_in() -> None:
    stream = io.StringIO()
    configure_logs("api", level="warning", form="json", stream=stream)
    get_logger("x").info("quiet")
    logging.getLogger("somewhere").warning("a %s library", "noisy")
    (line,) = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (line["library"], line["message"]) == ("somewhere", "a noisy library")


async def test_the_endpoint_answers_and_reports_its_port() -> None:
    metrics = Metrics("test")
    metrics.counter("vms_created", "VMs.").inc(3)
    healthy = [True]
    async with (
        metrics_endpoint(metrics, "127.0.0.1", 0, is_healthy=lambda: healthy[0]) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        page = await client.get("/metrics")
        assert "moln_test_vms_created_total 3.0" in page.text
        assert "process_cpu_seconds_total" in page.text
        assert (await client.get("/healthz")).status_code == 200
        healthy[0] = False
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405
        assert (await client.head("/metrics")).text == ""


async def test_the_endpoint_survives_nonsense() -> None:
    async with metrics_endpoint(Metrics("test"), "127.0.0.1", 0) as port:
        for nonsense in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"x" * 100_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200
