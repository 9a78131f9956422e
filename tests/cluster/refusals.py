"""A cluster of two machines on which things are wrong: each is said before anything is queued.

Run in namespaces of its own: refusals.py DIRECTORY.
"""

import http.server
import json
import sys
import threading
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from hosts import Host, make_network
from services import ROOT, fer_search, make_token, start_node, wait_for_dashboard, wait_until_up

from fer_search.data.fer2013_csv import write_csv
from fer_search.data.synthetic import synthesize

SPACE = ROOT / "search_spaces" / "smoke.toml"
DISK = "200m"
"""The size of the worker's own disk."""


class Scene:
    """The two machines, and what is asked of them."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.runs = directory, directory / "runs"
        self.token = make_token(directory)
        self.head, self.worker = Host(0, "head"), Host(1, "worker")
        self.faces = directory / "faces.csv"
        self.jobs_before: list[str] = []
        write_csv(synthesize(60), self.faces)

    def refused(
        self, *expected: str, options: tuple[object, ...] = (), token: Path | None = None, address: str = ""
    ) -> None:
        """Submit a search that must be refused for the reasons that are expected, and leave nothing behind."""
        where = ["--address", address] if address else []
        command = ["search", SPACE, "--name", "x", "--runs", self.runs, *options]
        done = fer_search(self.head, token or self.token, "submit", *where, *command)
        print(done.stderr, flush=True)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stderr.replace("must hold no", "")
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        for each in expected:
            assert any(each in line for line in lines), (each, done.stderr)
        assert self.jobs() == self.jobs_before
        assert not (self.runs / "x").exists()

    def jobs(self) -> list[str]:
        return [job["id"] for job in json.loads(fer_search(self.head, self.token, "list", "--json").stdout)]

    def on_worker(self, *command: object) -> None:
        self.worker.run(*command, check=True, capture_output=True)


def main(directory: Path) -> None:
    make_network()
    scene = Scene(directory)
    scene.runs.mkdir()
    start_node(scene.head, directory, scene.token, "head", cpus=1)
    wait_for_dashboard(scene.head)
    start_node(scene.worker, directory, scene.token, "worker", scene.head.address, cpus=1, disk=DISK)
    wait_until_up(scene.worker, directory)
    assert len(nodes(scene)) == 2
    scene.jobs_before = scene.jobs()
    wrong_addresses_and_tokens(scene)
    other_versions(scene)
    too_large(scene)
    storage(scene)
    data_and_tracking(scene)
    credentials(scene)
    scene.refused("must be a field of the recipe", options=("epoch=3",))
    full_disk(scene)


def nodes(scene: Scene) -> list[dict]:
    done = fer_search(scene.head, scene.token, "doctor", "--json")
    return json.loads(done.stdout)["nodes"] if done.returncode == 0 else []


def wrong_addresses_and_tokens(scene: Scene) -> None:
    wrong = scene.directory / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("0" * 64)
    scene.refused("token: must be the cluster's own", token=wrong)
    scene.refused("must be the address of Ray's Jobs API", address="http://127.0.0.1:9")
    scene.refused("must be the address of Ray's Jobs API", address=f"{scene.head.address}:6379")
    scene.refused("must be the address of Ray's Jobs API", address=f"http://{scene.head.address}:6379")


def other_versions(scene: Scene) -> None:
    """A head that is of another version, as its own answers say; there can be no real one beside the installed one."""

    class Head(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            version = {"version": "4", "ray_version": "2.9.0", "ray_commit": "", "session_name": ""}
            metadata = {"result": True, "msg": "", "data": {"rayVersion": "2.9.0", "pythonVersion": "3.8.1"}}
            body = json.dumps(metadata if "metadata" in self.path else version).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("10.77.0.1", 8265), Head)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scene.refused("Ray: must be", "got '2.9.0'", "Python: must be", "got '3.8'", address="http://10.77.0.1:8265")
    server.shutdown()


def too_large(scene: Scene) -> None:
    """A search whose trials fit on no node and whose checkpoints on no disk here."""
    scene.refused(
        "gpus per trial: must be at most 0, the most of any node, got 1.0",
        "cpus per trial: must be at most 1, the most of any node, got 7",
        "must have",
        "GB free, which the checkpoints of this search may take",
        options=("--gpus-per-trial", 1, "--cpus-per-trial", 7, "--trials", 10_000_000),
    )


def storage(scene: Scene) -> None:
    """The directory of the runs is another one on the worker, then one that may only be read."""
    node = f"node {scene.worker.address}: runs: {scene.runs} must be a writable directory, the same on every node"
    scene.on_worker("mount", "-t", "tmpfs", "tmpfs", scene.runs)
    scene.refused(node)
    scene.on_worker("umount", scene.runs)
    scene.on_worker("mount", "--bind", scene.runs, scene.runs)
    scene.on_worker("mount", "-o", "remount,bind,ro", scene.runs)
    scene.refused(f"{node}, got 'Read-only file system'")
    scene.on_worker("umount", scene.runs)


def data_and_tracking(scene: Scene) -> None:
    """The data is not there on the worker, and no MLflow server where one should be; then it is other data."""
    elsewhere = scene.directory / "elsewhere"
    elsewhere.mkdir()
    here = scene.directory / "data"
    here.mkdir()
    write_csv(synthesize(60, seed=1), here / "faces.csv")
    scene.on_worker("mount", "--bind", elsewhere, here)
    node = f"node {scene.worker.address}: data: must be readable on every node"
    uri = f"http://{scene.head.address}:5999"
    silent = f"node {scene.head.address}: tracking: {uri} must answer"
    scene.refused(node, silent, options=("--data", here / "faces.csv", "--tracking-uri", uri))
    write_csv(synthesize(60, seed=2), elsewhere / "faces.csv")
    scene.refused("data: must have the fingerprint", options=("--data", here / "faces.csv"))
    scene.on_worker("umount", here)


def credentials(scene: Scene) -> None:
    scene.refused("must hold no credentials", options=("--data", "s3://key:secret@bucket/faces.csv"))
    scene.refused("must hold no password", options=("--tracking-uri", "http://me:secret@10.77.0.1:5000"))


def full_disk(scene: Scene) -> None:
    """The worker's own disk is full: Ray itself can no longer start anything there."""
    filler = scene.worker.sockets / "filler"
    scene.on_worker("sh", "-c", f"dd if=/dev/zero of={filler} bs=64k; true")
    scene.refused(f"node {scene.worker.address}:")
    scene.on_worker("rm", filler)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
