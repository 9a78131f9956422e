"""The pictures of docs/images, made anew: `make screenshots`, with Chromium.

A small search on the embedded faces is raced, its winner trained and exported; then pictures are taken of what a person
sees of it: MLflow's pages in a real browser, the report, and the terminal. `--runs` keeps the search for the next time.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image
from rich.console import Console

from fer_search import workflow
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_events
from fer_search.live import SearchScreen
from fer_search.report_leaderboard import leaderboard_table, parameters_table
from fer_search.report_stages import race_table
from fer_search.runs import read_json
from fer_search.tracking_links import LINKS, TRAINING

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
NAME = "first"
SECONDS = 120.0
SETTLING_SECONDS = 4.0
"""How long a page that shows its text may still draw its charts."""
COLUMNS = 104
NUM_COLORS = 128
"""Of a picture, which is less than half as large that way."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="where the search is, or is to be; default: nowhere for long")
    parser.add_argument("--output", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    if shutil.which("chromium") is None:
        parser.error("chromium must be installed")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        runs = arguments.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (runs / NAME / "report").exists():
            make_search(runs)
        port = stack.enter_context(served(runs))
        asyncio.run(take_pictures(runs, f"http://127.0.0.1:{port}", arguments.output))


def make_search(runs: Path) -> None:
    space = ROOT / "search_spaces" / "smoke.toml"
    for command in (
        ("search", space, "--name", NAME, "--trials", 8, "fit_fraction=0.5"),
        ("race", NAME, "--top", 2, "--seeds", 3),
        ("retrain", NAME, "--epochs", 15),
        ("export", NAME),
        ("report", NAME),
    ):
        subprocess.run([sys.executable, "-m", "fer_search", *map(str, command), "--runs", str(runs)], check=True)


@contextmanager
def served(runs: Path):
    """Serve the runs by `fer-search ui` while the block runs, and give the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "fer_search", "ui", "--runs", str(runs), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline, "the UI did not come up"
            time.sleep(0.5)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the server has workers
        server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


async def take_pictures(runs: Path, server: str, output: Path) -> None:
    links = read_json(runs / NAME / LINKS)
    experiment = links["trials"].partition("?")[0]
    result = workflow.read_search(NAME, runs=runs)
    best = links["compare"].partition("%22")[2].partition("%22")[0]
    with tempfile.TemporaryDirectory() as scratch:
        pages = terminal_pages(runs, Path(scratch))
        async with browser() as page:
            for name, (path, height) in pages.items():
                await page.picture(path.as_uri(), output / f"{name}.png", text="", width=1100, height=height)
            await page.call("Page.navigate", url=server)
            await page.evaluate("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            for name, url, text, height in (
                ("mlflow_trials", links["trials"], f"trial {result.leaderboard()[0].number:05d}", 900),
                ("mlflow_charts", links["charts"], "Parallel", 1000),
                ("mlflow_search", links["run"], "The best trials", 1700),
                ("mlflow_compare", links["compare"], "Parallel Coordinates", 1000),
                ("mlflow_trial", f"{experiment}/{best}/model-metrics?{TRAINING}", "epoch_seconds", 900),
                ("mlflow_registry", f"#/models/fer_search?{TRAINING}", "champion", 600),
            ):
                await page.picture(f"{server}/{url}", output / f"{name}.png", text=text, width=1440, height=height)
            report = runs / NAME / "report" / "report.html"
            await page.picture(
                report.resolve().as_uri(), output / "report.png", text="Summary", width=1000, height=1100
            )
    for picture in sorted(output.glob("*.png")):
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")  # noqa: T201


def terminal_pages(runs: Path, scratch: Path) -> dict[str, tuple[Path, int]]:
    """Write the screen of a search in its middle, and its comparison, as pages; return each with its height."""
    result = workflow.read_search(NAME, runs=runs)
    halfway = scratch / NAME
    halfway.mkdir()
    shutil.copy(runs / NAME / "settings.json", halfway)
    events = [event for event, _ in read_events(runs / NAME / JOURNAL)]
    last = max(
        place for place, event in enumerate(events[: round(0.7 * len(events))]) if event["event"] == "epoch_ended"
    )
    events = events[: last + 1]
    (halfway / JOURNAL).write_text("".join(json.dumps(event) + "\n" for event in events))
    screen = SearchScreen(halfway, since=events[0]["time"]).render(events[-1]["time"])
    rows = result.rows()
    compared = [
        leaderboard_table(rows, result.space, title=f"{NAME}: {len(rows)} of {result.space.num_trials} trials"),
        parameters_table(rows, next(row for row in rows if row["trial"] == 0)),
        race_table(result.standings(), title=f"{NAME}: race"),
    ]
    shown = {"terminal_search": ("fer-search search", [screen]), "terminal_compare": ("fer-search compare", compared)}
    return {name: terminal_page(scratch / f"{name}.html", *each) for name, each in shown.items()}


def terminal_page(path: Path, title: str, parts: list[Any]) -> tuple[Path, int]:
    console = Console(record=True, width=COLUMNS, file=Path("/dev/null").open("w"), force_terminal=True)  # noqa: SIM115
    for place, part in enumerate(parts):
        console.print(*([""] if place else []), part)
    drawing = console.export_svg(title=f"{title} {NAME}")
    width, height = (float(number) for number in drawing.partition('viewBox="0 0 ')[2].partition('"')[0].split())
    path.write_text(f"<body style='margin:0;background:white'>{drawing}</body>", encoding="utf-8")
    return path, round(1100 * height / width)


class Page:
    """A tab of the browser, told over its DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.number = socket, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            answer = await self.socket.receive_json()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=expression))["result"].get("value")

    async def picture(self, url: str, path: Path, *, text: str, width: int, height: int) -> None:
        """Write what the page at `url` shows once it holds `text`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Page.navigate", url="about:blank")  # or another part of the same page is not loaded anew
        await self.call("Page.navigate", url=url)
        deadline = time.monotonic() + SECONDS
        while not await self.evaluate(f"!!document.body && document.body.innerText.includes({json.dumps(text)})"):
            assert time.monotonic() < deadline, f"{url} does not show {text!r}"
            await asyncio.sleep(0.5)
        await self.evaluate("[...document.querySelectorAll('button,a')].find(e => e.innerText == 'Show more')?.click()")
        await asyncio.sleep(SETTLING_SECONDS)
        taken = await self.call("Page.captureScreenshot", format="png")
        with Image.open(io.BytesIO(base64.b64decode(taken["data"]))) as image:
            image.convert("RGB").quantize(NUM_COLORS).save(path, optimize=True)


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en-GB",
                   "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            chosen, deadline = Path(profile, "DevToolsActivePort"), time.monotonic() + SECONDS
            while not chosen.exists():
                assert time.monotonic() < deadline, "chromium did not come up"
                await asyncio.sleep(0.2)
            port = chosen.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    tab = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
