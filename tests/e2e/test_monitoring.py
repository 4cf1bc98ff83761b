"""A real Prometheus on a live stack: targets found by themselves, every query of every panel and rule has data."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dashboards import BOARDS, panels
from tests.support.eventually import eventually_sync
from tests.support.real import programs, real_part
from tests.support.stack import Stack, a_stack

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
GUESTS = 4
PATIENCE = 90.0
"""Two scrapes, then the rules, then the rules that rest on those."""
COMPARED = re.compile(r"^(?P<query>.+) (?:<|>|==) [0-9.e]+$", re.DOTALL)


class Watched:
    """A stack and its Prometheus."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        (child,) = [each for each in stack.read("dev", "status")[0]["processes"] if each["name"] == "prometheus"]
        self.address: str = child["addresses"]["http"]
        self.pid: int = child["pid"]

    def get(self, path: str, **parameters: str) -> Any:
        """Prometheus's answer."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, query: str) -> list[Any]:
        """What a query finds now."""
        found: list[Any] = self.get("query", query=query)["result"]
        return found

    def wait_for(self, query: str) -> None:
        """Until the query finds something that is a number."""
        eventually_sync(lambda: self.has_number(query), what=f"data of {query}", within=PATIENCE)

    def has_number(self, query: str) -> bool:
        """Whether the query finds something that is a number."""
        return any(each["value"][1] != "NaN" for each in self.series(query))

    def work(self, guests: int) -> None:
        """Guests are created, one after the other, so that what is counted grows from scrape to scrape."""
        for number in range(guests):
            self.stack.moln("vm", "create", "web", "--memory", "64M", "--no-net", "--wait")
            counted = f"moln_api_vm_start_seconds_count > {number}"
            eventually_sync(functools.partial(self.series, counted), what="it is counted", within=PATIENCE)


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of one of the deployed files."""
    groups = yaml.safe_load((DEPLOY / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Three simulated hosts with guests, and Prometheus."""
    real_part("Prometheus", programs("prometheus", "promtool"))
    hurry = {"MOLN_HOSTAGENT_STATS_INTERVAL_S": "1"}
    with a_stack("--sim-hosts", "3", "--no-real-host", "--monitoring", environment=hurry) as stack:
        found = Watched(stack)
        eventually_sync(lambda: len(found.series('up{job="moln"} == 1')) == 5, what="all is scraped", within=PATIENCE)
        found.work(GUESTS)
        yield found


def test_every_process_is_found_and_scraped(watched: Watched) -> None:
    wanted = {"api", "scheduler", "netsvc", "imagesvc", "hostagent"}

    def are_up() -> bool:
        return {each["metric"]["service"] for each in watched.series('up{job="moln"} == 1')} == wanted

    eventually_sync(are_up, what="all are up", within=PATIENCE)


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_every_panel_has_data(watched: Watched, name: str) -> None:
    """Nothing is left out: what has no data on a healthy cloud with running guests would be a dead panel."""
    for panel in panels(BOARDS[name]):
        for query, _ in panel.queries:
            watched.wait_for(query.replace("$host", ".+").replace("$domain", ".+"))


def test_every_recording_rule_records(watched: Watched) -> None:
    for rule in rules("rules.yml"):
        watched.wait_for(rule["record"])


def test_every_alert_compares_something_that_is_there_and_is_quiet_on_a_healthy_cloud(watched: Watched) -> None:
    """An alert itself finds nothing while all is well; what it compares must be there."""
    for rule in rules("alerts.yml"):
        compared = COMPARED.match(rule["expr"].strip())
        assert compared is not None, rule["expr"]
        watched.wait_for(compared["query"])
    states = {
        rule["name"]: (rule["state"], rule.get("lastError", ""))
        for group in watched.get("rules")["groups"]
        for rule in group["rules"]
        if rule["type"] == "alerting"
    }
    assert states == {rule["alert"]: ("inactive", "") for rule in rules("alerts.yml")}


def test_promtool_finds_no_fault_with_the_metrics_of_any_process(watched: Watched) -> None:
    watched.wait_for('up{service="hostagent"} == 1')
    targets = watched.get("targets", state="active")["activeTargets"]
    assert len(targets) == 5
    for target in targets:
        with urllib.request.urlopen(target["scrapeUrl"], timeout=10) as answer:
            text = answer.read()
        found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (found.returncode, found.stdout + found.stderr) == (0, b""), target["scrapeUrl"]


def test_the_series_of_a_vm_end_with_it_and_top_shows_the_others(watched: Watched) -> None:
    name = "moln_vm_info"
    eventually_sync(lambda: len(watched.series(name)) == GUESTS, what="all guests have series", within=PATIENCE)
    vms = watched.stack.read("vm", "list")
    watched.stack.moln("vm", "terminate", str(vms[0]["id"]), "--hard", "--yes", "--wait")
    eventually_sync(lambda: len(watched.series(name)) == GUESTS - 1, what="its series end", within=PATIENCE)

    def top() -> list[Any]:
        shown = watched.stack.read("top", "--once")
        return [vm for vm in shown["vms"] if vm["id"] != vms[0]["id"] and vm.get("usage", {}).get("cpu_percent")]

    eventually_sync(lambda: len(top()) == GUESTS - 1, what="top shows the others", within=PATIENCE)


def test_who_took_how_much_is_told_of_vms_that_live_and_of_those_that_are_gone(watched: Watched) -> None:
    stack = watched.stack
    stack.moln("vm", "create", "brief", "--memory", "64M", "--no-net", "--wait")
    vm_id = stack.read("vm", "show", "brief")["id"]
    stack.moln("vm", "terminate", "brief", "--hard", "--yes", "--wait")
    history = stack.read("vm", "history", str(vm_id))
    assert [stay["host"].startswith("sim-") for stay in history["stays"]] == [True]
    assert history["stays"][0]["running_seconds"] > 0

    def told() -> dict[int, Any]:
        return {record["vm_id"]: record for record in stack.read("accounting")["records"]}

    living = [vm["id"] for vm in stack.read("vm", "list")]
    assert {vm_id, *living} <= told().keys()
    eventually_sync(lambda: told()[living[0]].get("cpu_used_core_hours"), what="samples are in it", within=PATIENCE)
    assert stack.moln("accounting", "-o", "csv").startswith("owner_id,owner,vm_id,")


def test_the_end_of_the_stack_is_the_end_of_its_prometheus(watched: Watched) -> None:
    assert Path(f"/proc/{watched.pid}").exists()
    watched.stack.down()
    assert not Path(f"/proc/{watched.pid}").exists()
