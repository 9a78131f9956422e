"""What a cluster may answer as a job is submitted: a server that speaks as Ray's Jobs API stands in for the head."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from fer_search.errors import InvalidInput
from fer_search.jobs import client
from fer_search.jobs.client import Cluster

NO_AGENT = "No available agent to submit job, please try again later."


@pytest.fixture
def head(monkeypatch):
    """A head that refuses as many jobs as `head.refusals` says, each with its text, before it takes one."""
    monkeypatch.setattr(client, "RECONNECT_SECONDS", 0.01)
    refusals: list[str] = []
    taken: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            there = {"rayVersion": ray.__version__, "pythonVersion": client.platform.python_version()}
            version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""}
            self._answer(200, json.dumps(version if self.path == "/api/version" else {"data": there}))

        def do_POST(self):
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if refusals:
                self._answer(500, refusals.pop(0))
                return
            taken.append(job)
            self._answer(200, json.dumps({"job_id": job["submission_id"], "submission_id": job["submission_id"]}))

        def _answer(self, status, text):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.refusals, server.taken = refusals, taken
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def submit(head, directory):
    cluster = Cluster(f"http://127.0.0.1:{head.server_port}")
    cluster.submit("a.module", ["b"], working_dir=directory, job="j", run="r", environment={}, resources={})


def test_a_job_is_offered_again_until_the_head_has_its_agent(head, tmp_path):
    head.refusals += [NO_AGENT] * 3
    submit(head, tmp_path)
    (job,) = head.taken
    assert (job["submission_id"], job["entrypoint"], job["metadata"]["run"]) == ("j", "python -m a.module b", "r")


@pytest.mark.parametrize("refusal", [NO_AGENT, "Traceback:\n  File ...\nOSError: no space left"])
def test_a_cluster_that_does_not_take_a_job_is_named_with_its_own_last_line(head, tmp_path, monkeypatch, refusal):
    monkeypatch.setattr(client, "AGENT_SECONDS", 0.0)
    head.refusals += [refusal] * 100
    with pytest.raises(InvalidInput, match="job: must be taken by the cluster, got ") as caught:
        submit(head, tmp_path)
    assert refusal.splitlines()[-1][:25] in str(caught.value)
    assert not head.taken
