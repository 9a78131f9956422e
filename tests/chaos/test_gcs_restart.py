"""Ray's control store (GCS) is killed and started again; with its state in Redis the search does not notice."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from chaos import ADDRESS, HEAD, can_isolate, isolated, processes

from fer_search.journal import FILE_NAME, read_events, read_journal

TOY = Path(__file__).resolve().parents[1] / "tuning" / "toy.py"
REDIS = f"{HEAD}:6400"


@pytest.mark.cluster
@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
@pytest.mark.skipif(not can_isolate(), reason="network namespaces (unshare and ip, as root) are missing")
def test_a_search_goes_on_when_the_control_store_is_restarted_from_redis(tmp_path):
    done = isolated([sys.executable, __file__, tmp_path], seconds=480)
    logs = [f"{log}:\n{log.read_text()[-3000:]}" for log in sorted(tmp_path.glob("*.log"))]
    assert done.returncode == 0, "\n".join([done.stderr[-3000:], *logs])
    events = [event for event, _ in read_events(tmp_path / FILE_NAME)]
    epochs = [(event["trial"], event["epoch"]) for event in events if event["event"] == "epoch_ended"]
    assert len(set(epochs)) == len(epochs)
    trials = read_journal(tmp_path / FILE_NAME)
    assert len(trials) == 3
    assert all(trial.ended for trial in trials)
    assert "FAIL" not in {trial.state for trial in trials}


def main(directory: Path) -> None:
    """Run the toy search, in namespaces of its own, and kill the control store in the middle."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has room for 107 bytes
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_REDIS_ADDRESS": REDIS}
    ray = Path(sys.executable).with_name("ray")
    with (directory / "redis.log").open("w") as log:
        subprocess.Popen(["redis-server", "--port", REDIS.split(":")[1], "--bind", HEAD, "--save", ""], stdout=log)
    start = ["start", "--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=2", f"--temp-dir={sockets}"]
    with (directory / "ray.log").open("w") as log:
        subprocess.run([ray, *start, "--include-dashboard=false"], check=True, env=environment, stdout=log, stderr=log)
    with (directory / "driver.log").open("w") as log:
        command = [sys.executable, TOY, directory, "3", "0.3", ADDRESS]
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while sum(event["event"] == "epoch_ended" for event, _ in read_events(directory / FILE_NAME)) < 3:
            assert driver.poll() is None, "the search ended before anything was killed"
            time.sleep(0.05)
        (store,) = processes(lambda words: words[0].endswith(b"/gcs_server"))
        command = Path(f"/proc/{store}/cmdline").read_bytes().decode().split("\0")[:-1]
        variables = dict(each.split("=", 1) for each in Path(f"/proc/{store}/environ").read_text().split("\0") if each)
        os.kill(store, signal.SIGKILL)
        time.sleep(3)
        subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        code = driver.wait()
    shutil.rmtree(sockets, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
