"""A cloud's word that it is about to take this machine: Google's, Amazon's and Azure's way of giving it.

All three answer on an address of the machine's own, without credentials that could be lost.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

GOOGLE = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
AMAZON = "http://169.254.169.254/latest/meta-data/spot/instance-action"
AZURE = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
_DMI = Path("/sys/class/dmi/id")
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
"""What every machine of Azure's has as its chassis; its vendor's name is on other people's machines too."""
_MOST = 64 * 1024
"""Bytes of an answer that are read."""
_TAKEN = {"Preempt": "preempted", "Terminate": "deleted", "Redeploy": "moved", "Reboot": "restarted"}
"""Azure's events that end what runs there; a `Freeze` of seconds does not."""

Ask = Callable[[float], str]
"""Given seconds of patience: what is about to happen to the machine, or an empty text.

Raises:
    OSError: no answer.
    ValueError: an answer that is none.
"""


def nearest(machine: Path = _DMI) -> str | None:
    """Where the cloud that this machine belongs to gives notice; None on any other machine."""
    product, vendor, chassis = (_read(machine / name) for name in ("product_name", "sys_vendor", "chassis_asset_tag"))
    if "Google" in product:
        return GOOGLE
    if "Amazon EC2" in vendor:
        return AMAZON
    return AZURE if _AZURE_TAG in chassis else None


def asker(url: str) -> Ask:
    """How to ask there: Amazon's and Azure's by their paths, Google's (`TRUE`, as plain text) everywhere else."""
    path = urlsplit(url).path
    if path.endswith("/spot/instance-action"):
        return _Amazon(url)
    if path.endswith("/metadata/scheduledevents"):
        return _Azure(url)
    return lambda seconds: "preempted" if _get(url, seconds, {"Metadata-Flavor": "Google"}).upper() == "TRUE" else ""


class _Amazon:
    """Version 2 of the metadata service: a token first, which ends with its time. No notice is a 404."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token: str | None = None

    def __call__(self, seconds: float) -> str:
        if self._token is None:
            self._token = self._new_token(seconds)
        try:
            said = json.loads(_get(self._url, seconds, {"X-aws-ec2-metadata-token": self._token}))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            if error.code == 401:  # the next question comes with another one
                self._token = None
            raise
        action = said.get("action") if isinstance(said, Mapping) else None
        if action not in ("terminate", "stop", "hibernate"):
            raise ValueError(f"no action in {said!r:.100}")
        return f"spot {action} at {said.get('time')}"

    def _new_token(self, seconds: float) -> str:
        parts = urlsplit(self._url)
        place = f"{parts.scheme}://{parts.netloc}/latest/api/token"
        return _get(place, seconds, {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}, method="PUT")


class _Azure:
    """Events of every machine that was started together with this one; ours are those that name it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name: str | None = None

    def __call__(self, seconds: float) -> str:
        said = json.loads(_get(self._url, seconds, {"Metadata": "true"}))
        events = said.get("Events") if isinstance(said, Mapping) else None
        if not isinstance(events, list):
            raise ValueError(f"no list of events in {said!r:.100}")
        for event in events:
            kind = event.get("EventType") if isinstance(event, Mapping) else None
            if kind in _TAKEN and event.get("EventStatus") in ("Scheduled", "Started"):
                named = event.get("Resources") or []
                if not named or self._ours(seconds) in named:
                    return f"{_TAKEN[kind]}, not before {event.get('NotBefore') or 'now'}"
        return ""

    def _ours(self, seconds: float) -> str:
        if self._name is None:
            parts = urlsplit(self._url)
            place = f"{parts.scheme}://{parts.netloc}/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            self._name = _get(place, seconds, {"Metadata": "true"})
        return self._name


def _get(url: str, seconds: float, headers: Mapping[str, str], method: str = "GET") -> str:
    # Not through a proxy: the address is the machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    with opener.open(request, timeout=seconds) as answer:
        return str(answer.read(_MOST).decode("utf-8").strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
