"""What a client is answered, in a form that is the same in every run: what changes by itself becomes a placeholder.

Knows HTTP and the names of keys; nothing of what is asked.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.live_server import LiveServer

DETECT = "/api/detect-vertebrae"

ANSWER_S = 120.0

ONCE = httpx.Limits(max_keepalive_connections=0)
"""A connection for each request, so that none is sent into one that the server is just closing."""

TOLD_BY_TYPE = {
    "detected_at",
    "downloaded_mb",
    "elapsed_ms",
    "instance_id",
    "job_id",
    "pid",
    "precision",
    "processing_time_ms",
    "python_version",
    "speed_mb_s",
    "total_mb",
    "uptime_s",
}
"""Keys whose values are never the same; ``timings_ms`` is told by its keys and ``eta_s`` only as being there."""

FLEETING = {"queued", "starting", "verifying", "measuring"}
"""States that last milliseconds, so that a reader of events may be too late for them."""

LEFT_OUT = {"date", "content-length"}

JSON = "application/json"

STILL_HERE = ": still here\n\n"
"""What a slow machine hears between events."""

EVENT_ID = re.compile(r"^id: [0-9a-f]{32}\.([0-9]+|last)\n", re.MULTILINE)

PATTERNS = (
    (re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}"), r"\1:<port>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b1\.2\.826\.0\.1\.3680043\.8\.498\.\d{10,}"), "<uid>"),
    # Of specks that the networks take for bone, a voxel more or less decides.
    (re.compile(r"(too small for a vertebra \(under [0-9.]+ ml\): ).*"), r"\1<labels>."),
    (re.compile(r"taken by .+ \(process \d+\)"), "taken by <program> (process <pid>)"),
)


@dataclass
class Recorder:
    """Asks, and keeps each answer under the name of its scenario. ``names`` are texts and what stands for them."""

    names: dict[str, str] = field(default_factory=dict)
    scenarios: dict[str, Any] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=ANSWER_S, trust_env=False, limits=ONCE))

    def keep(self, name: str, told: object) -> None:
        """Names are used once, so that no scenario hides another."""
        assert name not in self.scenarios, name
        self.scenarios[name] = self.steady(told)

    def ask(self, name: str, server: LiveServer, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Keep status, headers and whole body of the answer, and return the body."""
        response = self.request(server, method, path, body, **more)
        told = answer(response)
        self.keep(name, told)
        return told["body"]

    def request(self, server: LiveServer, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        options = more if body is None else {"json": body, **more}
        return self.client.request(method, server.url + path, **options)

    def detect(self, name: str, server: LiveServer, path: object, **options: object) -> Any:
        return self.ask(name, server, "POST", DETECT, {"file_path": str(path), **options})

    def events(
        self, name: str, server: LiveServer, method: str, path: str, body: object = None, *, brief: bool = False
    ) -> None:
        """Keep the statuses of an event stream in their order, the keys that each has, and the last event whole.

        ``brief``: it ends so soon that only its last event is always seen.
        """
        response = self.request(server, method, path, body, headers={"Accept": "text/event-stream"})
        told = stream(response.text)
        if brief:
            del told["statuses"], told["keys"]
        self.keep(name, {**head(response), **told})

    def steady(self, told: object, key: str = "") -> Any:
        """``told`` with placeholders for what changes by itself."""
        if key == "kernels":
            # Every processor has its own.
            return "<kernels>"
        if isinstance(told, Mapping):
            # How far a download or detection is that has not come to its end changes by itself.
            underway = "progress" in told and told.get("status") != "complete"
            return {
                name: "<progress>" if underway and name == "progress" else self.steady(value, _place(key, name))
                for name, value in told.items()
            }
        if isinstance(told, list):
            return [self.steady(value, key) for value in told]
        if key == "eta_s":
            return "<number or null>"
        if key in TOLD_BY_TYPE or key == "timings_ms":
            return f"<{type(told).__name__}>"
        return self._without_names(told) if isinstance(told, str) else told

    def _without_names(self, text: str) -> str:
        for name in sorted(self.names, key=len, reverse=True):
            # A UID may begin as a shorter one is.
            text = re.sub(re.escape(name) + r"(?!\.?\d)", lambda _, stands=self.names[name]: stands, text)
        for pattern, placeholder in PATTERNS:
            text = pattern.sub(placeholder, text)
        return text


def _place(parent: str, name: str) -> str:
    return parent if parent == "timings_ms" else name


def answer(response: httpx.Response) -> dict[str, Any]:
    """Status, headers and body; JSON that is written otherwise than without spaces is told as such."""
    told = head(response)
    if response.headers.get("content-type") != JSON or not response.content:
        return {**told, "body": _kind_of(response)}
    body = response.json()
    if response.text != json.dumps(body, ensure_ascii=False, separators=(",", ":")):
        told["form"] = "not compact"
    return {**told, "body": body}


def head(response: httpx.Response) -> dict[str, Any]:
    """Of the headers, JSON's own type is left out, as nearly all answers have it."""
    headers = {name: value for name, value in response.headers.items() if name not in LEFT_OUT}
    if headers.get("content-type") == JSON:
        del headers["content-type"]
    if "allow" in headers:
        # Where the framework names the methods, it does so in any order.
        headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))
    return {"status": response.status_code, **({"headers": headers} if headers else {})}


def _kind_of(response: httpx.Response) -> str:
    """A page's words are not recorded; a plain text is."""
    is_page = response.headers.get("content-type", "").startswith("text/html")
    return "<page>" if is_page and response.text else response.text


def stream(text: str) -> dict[str, Any]:
    """The events of a stream, summed up; a stream that is framed otherwise than the others is told as such."""
    text = text.replace(STILL_HERE, "")
    ids = EVENT_ID.findall(text)
    text = EVENT_ID.sub("", text)
    blocks = [block for block in text.split("\n\n") if block.startswith("data: ")]
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    framed = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    told: dict[str, Any] = {} if framed == text else {"form": "framed otherwise"}
    if ids != [*map(str, range(1, len(events))), "last"]:
        told["ids"] = ids
    progress = [event["progress"] for event in events]
    if progress != sorted(progress):
        told["progress"] = "falls"
    return {**told, "statuses": statuses(events), "keys": _keys(events), "last": events[-1]}


def statuses(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each that is always seen, once for every time that it begins."""
    found: list[str] = []
    for event in events:
        status = event["status"]
        if status not in FLEETING and found[-1:] != [status]:
            found.append(status)
    return found


def _keys(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The keys of each status, in their order: of its events the ones that have most, as some come in time."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event["status"] not in FLEETING and len(event) > len(found.get(event["status"], [])):
            found[event["status"]] = [*event]
    return {status: " ".join(keys) for status, keys in found.items()}
