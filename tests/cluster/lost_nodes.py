"""A search on three machines, submitted as a job; one is killed, one is cut off, and it goes on to its end.

Run in namespaces of its own: lost_nodes.py DIRECTORY. What it finds out is asserted here, while all of it runs.
"""

import base64
import json
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from hosts import Host, make_network
from mlflow import MlflowClient
from record_checks import check_record
from services import (
    PASSWORD,
    ROOT,
    USER,
    answer,
    fer_search,
    make_token,
    start_mlflow,
    start_node,
    until,
    wait_for_dashboard,
    wait_until_up,
)

from fer_search.journal import FILE_NAME, read_events

NAME = "three"
TRIALS = 12
EPOCHS = 9
RECIPE = (f"epochs={EPOCHS}", "fit_fraction=0.2", "validation_fraction=0.05", "batch_size=16")
FIRST_PORT = 6379
DOCUMENTED = {*range(FIRST_PORT, FIRST_PORT + 8), *range(FIRST_PORT + 10, FIRST_PORT + 510)}
"""As in SECURITY.md."""


def main(directory: Path) -> None:
    make_network()
    uri = start_mlflow(directory)
    check_mlflow_is_closed(uri)
    token = make_token(directory)
    head, one, two = hosts = [Host(number, name) for number, name in enumerate(("head", "one", "two"))]
    start_node(head, directory, token, "head", cpus=1)
    wait_for_dashboard(head)
    for host in (one, two):
        start_node(host, directory, token, "worker", head.address, cpus=1)
    for host in (one, two):
        wait_until_up(host, directory)
    places = ["--runs", directory, "--tracking-uri", uri]
    check_that_all_is_well(head, token, places, directory)
    command = ["search", ROOT / "search_spaces" / "smoke.toml", "--name", NAME, "--trials", TRIALS, *places, *RECIPE]
    submitted = fer_search(head, token, "submit", "--no-follow", *command)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    seen = set()

    def trained_everywhere():
        seen.update(host.name for host in hosts if any("Trainable" in line for line in host.command_lines()))
        return len(seen) == len(hosts)

    until(trained_everywhere, what="a trial on every host")
    check_ports(hosts, token)
    check_no_secret_shows(hosts, token, directory)
    epochs = wait_for_epochs(directory, 6)
    say(f"{epochs} epochs: {two.name} is killed")
    two.kill()
    epochs = wait_for_epochs(directory, epochs + 4)
    say(f"{epochs} epochs: {one.name} is cut off")
    one.cut()
    followed = fer_search(head, token, "logs", job, "--follow")
    assert followed.returncode == 0, followed.stdout[-3000:] + followed.stderr
    say(f"ended: {followed.stdout.count('COMPLETE')} lines of complete trials")
    os.environ |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    check_record(directory / NAME, MlflowClient(uri))
    retried = [event for event in events(directory) if event["event"] == "trial_retried"]
    assert retried, "no trial was on a host that was lost"
    assert all(event.get("node_lost") for event in retried), retried
    for path in (directory / NAME).rglob("*.json*"):
        assert PASSWORD not in path.read_text()
    assert PASSWORD not in followed.stdout
    check_listing(head, token, job)


def say(line: str) -> None:
    print(line, flush=True)


def events(directory: Path) -> list[dict]:
    return [event for event, _ in read_events(directory / NAME / FILE_NAME)]


def wait_for_epochs(directory: Path, count: int) -> int:
    def number():
        return sum(event["event"] == "epoch_ended" for event in events(directory))

    until(lambda: number() >= count, what=f"{count} epochs")
    return number()


def check_mlflow_is_closed(uri: str) -> None:
    """Without a password, or called by a name that it was not given, the server tells nothing."""
    url = f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"
    password = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    assert answer(url) == 401
    assert answer(url, password) == 200
    assert answer(url, {**password, "Host": "elsewhere.example"}) == 403


def check_that_all_is_well(head: Host, token: Path, places: list[object], directory: Path) -> None:
    """All nodes are up, as the doctor sees them."""
    done = fer_search(head, token, "doctor", *places, "--data", "synthetic", "--json")
    (directory / "doctor.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["nodes"]) == 3


def check_ports(hosts: list[Host], token: Path) -> None:
    """Only documented ports are open to others, and what speaks HTTP there wants the token."""
    for host in hosts:
        found = set(json.loads(os.popen(shlex.join([sys.executable, str(HERE / "scan.py"), host.address])).read()))
        say(f"{host.name}: open {sorted(found)}")
        assert found, f"{host.name} has no open port at all: the scan does not work"
        assert found <= DOCUMENTED
    agent = f"http://{hosts[1].address}:{FIRST_PORT + 5}/api/job_agent/jobs/x/logs"
    assert answer(agent) == 401
    assert answer(agent, {"Authorization": f"Bearer {token.read_text()}"}) not in (401, 403, None)
    assert answer(f"http://{hosts[0].address}:8265/api/version") is None


def check_no_secret_shows(hosts: list[Host], token: Path, directory: Path) -> None:
    """Neither token nor password is on a command line, where every user of a machine sees it, nor in a log."""
    shown = [line for host in hosts for line in host.command_lines()] + os.popen("ps -eo args -ww").read().splitlines()
    assert any("ray" in line for line in shown)
    shown += [line for log in directory.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
    for secret in (token.read_text(), PASSWORD):
        assert not [line for line in shown if secret in line]


def check_listing(head: Host, token: Path, job: str) -> None:
    """The job is listed with its run, and its status is to be had from afar."""
    (listed,) = [each for each in json.loads(fer_search(head, token, "list", "--json").stdout) if each["id"] == job]
    assert (listed["run"], listed["status"]) == (NAME, "SUCCEEDED")
    there = fer_search(head, token, "status", NAME, "--address", "http://127.0.0.1:8265", "--runs", "/nowhere")
    assert "/nowhere: name: must be that of a search or a training there" in there.stdout, there.stdout
    assert there.returncode == 2


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
