"""A machine that is about to be taken, as each cloud says it: emulated on this machine, answer by answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loopback import served

from tunesmith import notice
from tunesmith.errors import StoppedError
from tunesmith.stop import Stop

ACTION = {"action": "terminate", "time": "2026-11-25T08:22:00Z"}


class Cloud(BaseHTTPRequestHandler):
    """The metadata servers of Amazon and Azure; what they say is the server's."""

    server: Any

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token" or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return self._answer(400)
        self.server.tokens.append(f"token-{len(self.server.tokens)}")
        self._answer(200, self.server.tokens[-1])

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/latest/meta-data/spot/instance-action"):
            if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens[-1:]:
                return self._answer(401)
            return self._answer(404) if self.server.action is None else self._answer(200, self.server.action)
        if self.headers.get("Metadata") != "true":
            return self._answer(400)
        if self.path.startswith("/metadata/instance/compute/name?"):
            return self._answer(200, "trainer-3")
        if self.path.startswith("/metadata/scheduledevents?api-version="):
            return self._answer(200, json.dumps({"DocumentIncarnation": 1, "Events": self.server.events}))
        self._answer(404)

    def _answer(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Any]:
    with served(Cloud) as server:
        server.tokens, server.asked, server.action, server.events = [], [], None, []
        server.amazon = server.address + "/latest/meta-data/spot/instance-action"
        server.azure = server.address + "/metadata/scheduledevents?api-version=2020-07-01"
        yield server


def event(kind: str, *resources: str, status: str = "Scheduled") -> dict[str, Any]:
    return {"EventId": "1", "EventType": kind, "ResourceType": "VirtualMachine", "Resources": list(resources),
            "EventStatus": status, "NotBefore": "Wed, 25 Nov 2026 18:29:47 GMT"}  # fmt: skip


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_a_spot_notice_of_amazon_ends_the_run(cloud: Any, action: str) -> None:
    with (
        pytest.raises(StoppedError, match=f"about to be taken .*spot {action} at 2026"),
        Stop(notice=cloud.amazon, poll_seconds=0.02) as stop,
    ):
        while len(cloud.asked) < 3:
            time.sleep(0.01)
        assert not stop.asked  # a 404 is no notice
        cloud.action = json.dumps(ACTION | {"action": action})
        time.sleep(10)
    assert cloud.tokens == ["token-0"]


def test_a_token_that_has_ended_is_replaced(cloud: Any) -> None:
    ask = notice.asker(cloud.amazon)
    assert ask(1) == ""
    cloud.tokens.append("another's")
    with pytest.raises(OSError, match="401"):
        ask(1)
    cloud.action = json.dumps(ACTION)
    assert ask(1) == "spot terminate at 2026-11-25T08:22:00Z"


@pytest.mark.parametrize("said", ["", "{", "[]", '{"action": "rebalance"}'])
def test_what_is_no_notice_of_amazon_is_none(cloud: Any, said: str) -> None:
    cloud.action = said
    with pytest.raises(ValueError):  # `Stop` tells of it, and goes on asking
        notice.asker(cloud.amazon)(1)


@pytest.mark.parametrize(
    ("kind", "said"), [("Preempt", "preempted"), ("Terminate", "deleted"), ("Redeploy", "moved"), ("Reboot", "restart")]
)
def test_a_scheduled_event_of_azure_ends_the_run(cloud: Any, kind: str, said: str) -> None:
    with (
        pytest.raises(StoppedError, match=f"about to be taken .*{said}.*not before Wed"),
        Stop(notice=cloud.azure, poll_seconds=0.02) as stop,
    ):
        while len(cloud.asked) < 3:
            time.sleep(0.01)
        assert not stop.asked
        cloud.events = [event(kind, "trainer-2", "trainer-3")]
        time.sleep(10)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event("Preempt", "trainer-2")],  # another machine of the same set
        [event("Freeze", "trainer-3")],  # seconds, and then it goes on
        [event("Preempt", "trainer-3", status="Canceled")],
        [event("Newest", "trainer-3"), "odd"],
    ],
)
def test_events_that_do_not_take_this_machine_end_nothing(cloud: Any, events: list[Any]) -> None:
    cloud.events = events
    assert notice.asker(cloud.azure)(1) == ""


def test_a_list_of_events_that_is_none_is_told(cloud: Any) -> None:
    cloud.events = None
    with pytest.raises(ValueError, match="no list of events"):
        notice.asker(cloud.azure)(1)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"product_name": "Google Compute Engine"}, notice.GOOGLE),
        ({"product_name": "g5.xlarge", "sys_vendor": "Amazon EC2"}, notice.AMAZON),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": notice._AZURE_TAG}, notice.AZURE),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Surface"}, None),
        ({}, None),
    ],
)
def test_a_machine_says_whose_it_is(files: dict[str, str], where: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert notice.nearest(tmp_path) == where
