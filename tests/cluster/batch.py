"""Slurm for real on machines of its own, and the shipped batch scripts from sbatch to a finished search.

Run in namespaces of its own: batch.py DIRECTORY.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from hosts import OUTSIDE, Host, make_network
from services import BIN, CLUSTER, ENVIRONMENT, ROOT, until

from fer_search.journal import FILE_NAME, read_events, read_journal

CPUS = 2
OWN_DISK = "/var/tmp"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL")
QUICK = "fit_fraction=0.1 validation_fraction=0.05 batch_size=16"


class Slurm:
    """A controller here, and a daemon on each host."""

    def __init__(self, directory: Path, hosts: list[Host]) -> None:
        self.directory, self.hosts = directory, hosts
        self.settings, self.runs = directory / "slurm", directory / "runs"
        self.settings.mkdir()
        (self.settings / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.settings / "slurm.conf").write_text(self._configuration())
        self.environment = {**ENVIRONMENT, "SLURM_CONF": str(self.settings / "slurm.conf")}

    def _configuration(self) -> str:
        here = self.settings
        nodes = [f"NodeName={host.name} NodeAddr={host.address} CPUs={CPUS} RealMemory=4000" for host in self.hosts]
        return "\n".join(
            [
                "ClusterName=test",
                f"SlurmctldHost=controller({OUTSIDE})",
                "SlurmUser=root",
                f"AuthInfo=socket={here}/munge.socket,cred_expire=10",
                "ProctrackType=proctrack/linuxproc",
                "TaskPlugin=task/none",
                "SelectType=select/cons_tres",
                "SelectTypeParameters=CR_CPU",
                "ReturnToService=2",
                f"StateSaveLocation={here}/state",
                f"SlurmdSpoolDir={here}/spool_%n",
                f"SlurmctldPidFile={here}/controller.pid",
                f"SlurmdPidFile={here}/%n.pid",
                *nodes,
                "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            ]
        )

    def start(self) -> None:
        (self.settings / "state").mkdir()
        key = self.settings / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        munge = ["--socket", "--key-file", "--pid-file", "--log-file", "--seed-file"]
        places = ["munge.socket", "munge.key", "munge.pid", "munge.log", "munge.seed"]
        options = [f"{option}={self.settings / place}" for option, place in zip(munge, places, strict=True)]
        subprocess.run(["munged", "--force", "--num-threads=2", *options], check=True)
        self._log("controller", ["slurmctld", "-D"])
        for host in self.hosts:
            log = self.directory / f"{host.name}.log"
            host.start(log, "slurmd", "-D", "-N", host.name, env=self.environment)
        until(lambda: self.run("sinfo", "-h", "-o", "%T %D").stdout.split() == ["idle", "2"], what="Slurm")

    def _log(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("w") as log:
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def run(self, *command: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(list(map(str, command)), env=self.environment, text=True, capture_output=True)

    def submit(self, *words: object, **variables: object) -> str:
        """Submit a script from the checkout, as its own head says, and return the job's number."""
        sized = ["--parsable", f"--cpus-per-task={CPUS}", "--gpus-per-node=0", f"--chdir={self.directory}"]
        environment = {**self.environment, "FER_SEARCH_HOME": str(ROOT), "VENV": str(BIN.parent), "SCRATCH": OWN_DISK}
        environment |= {name: str(value) for name, value in variables.items()}
        done = subprocess.run(
            ["sbatch", *sized, *map(str, words)], cwd=ROOT, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def search(self, name: str, *words: str, options: str) -> str:
        """Submit search.sbatch with `words` for sbatch; the search is called `name`."""
        script, space = CLUSTER / "slurm" / "search.sbatch", ROOT / "search_spaces" / "smoke.toml"
        given = {"RUNS": self.runs, "SPACE": space, "OPTIONS": f"{options} {QUICK}"}
        return self.submit(*words, script, NAME=name, **given)

    def state(self, job: str) -> str:
        shown = self.run("scontrol", "-o", "show", "job", job).stdout
        return re.search(r"JobState=(\w+)", shown)[1]

    def reach(self, job: str, state: str, *, what: str) -> None:
        """Wait until a job is in a state; one that has ended in another will not come to it."""

        def reached() -> bool:
            found = self.state(job)
            assert found == state or found not in ENDED, f"{what}: {job} is {found}"
            return found == state

        until(reached, what=what)


def main(directory: Path) -> None:
    make_network()
    subprocess.run(["hostname", "controller"], check=True)
    hosts = [Host(number, name) for number, name in enumerate(("n1", "n2"))]
    for host in hosts:
        host.run("mount", "-t", "tmpfs", "tmpfs", OWN_DISK, check=True)
    slurm = Slurm(directory, hosts)
    slurm.start()
    over_both_nodes(slurm)
    time_is_up(slurm)
    several_spaces(slurm)


def epochs(run: Path) -> list[tuple[int, int]]:
    events = [event for event, _ in read_events(run / FILE_NAME)]
    return [(event["trial"], event["epoch"]) for event in events if event["event"] == "epoch_ended"]


def most_at_once(run: Path) -> int:
    """Return how many trials ran at the same time at the most."""
    running: set[int] = set()
    most = 0
    for event, _ in read_events(run / FILE_NAME):
        if event["event"] in ("trial_started", "trial_resumed"):
            running.add(event["trial"])
        elif event["event"] in ("trial_paused", "trial_ended"):
            running.discard(event["trial"])
        most = max(most, len(running))
    return most


def check_finished(run: Path, trials: int) -> None:
    """All trials ended, none of them failed, and every epoch is there once."""
    found = read_journal(run / FILE_NAME)
    assert len(found) == trials
    assert all(trial.ended and trial.state != "FAIL" for trial in found)
    assert len(set(epochs(run))) == len(epochs(run)) == sum(len(trial.epochs) for trial in found)


def check_nothing_is_left(slurm: Slurm) -> None:
    """Neither tokens nor Ray's files, nor any process of Ray."""
    assert not list(slurm.runs.glob(".slurm_*"))
    left = [host.run("ls", OWN_DISK, capture_output=True).stdout for host in slurm.hosts]
    assert left == ["", ""], left
    lines = [line for host in slurm.hosts for line in host.command_lines()]
    assert not [line for line in lines if re.search("raylet|gcs_server|ray::", line)]


def over_both_nodes(slurm: Slurm) -> None:
    """A search is on both nodes, shows its token to nobody, and leaves nothing behind."""
    runs = slurm.runs
    job = slurm.search("both", "--nodes=2", options="--trials 6 epochs=3")
    seen: set[str] = set()

    def trained_on_both():
        assert slurm.state(job) in ("PENDING", "CONFIGURING", "RUNNING"), slurm.state(job)
        seen.update(host.name for host in slurm.hosts if any("Trainable" in line for line in host.command_lines()))
        return len(seen) == 2

    until(trained_on_both, what="trials on both nodes")
    (token,) = runs.glob(f".slurm_{job}_*/token")
    assert token.stat().st_mode & 0o077 == 0
    assert token.parent.stat().st_mode & 0o077 == 0
    secret = token.read_text()
    assert len(secret) == 64
    assert not [line for host in slurm.hosts for line in host.command_lines() if secret in line]
    for host in slurm.hosts:
        assert host.run("stat", "-c", "%a", f"{OWN_DISK}/fer_search_{job}", capture_output=True).stdout == "700\n"
    slurm.reach(job, "COMPLETED", what="the end of the job")
    check_finished(runs / "both", 6)
    check_nothing_is_left(slurm)
    print("over both nodes: done", flush=True)


def time_is_up(slurm: Slurm) -> None:
    """Slurm's warning lets the epochs end, the job goes back into the queue and then goes on where it was."""
    runs = slurm.runs
    job = slurm.search("twice", "--nodes=1", "--output=twice.log", options="--trials 4 epochs=9")
    until(lambda: len(epochs(runs / "twice")) >= 3, what="three epochs")
    before = len(epochs(runs / "twice"))
    assert slurm.run("scancel", "--batch", "--signal=USR1", job).returncode == 0
    slurm.reach(job, "PENDING", what="the job in the queue again")
    at_requeue = epochs(runs / "twice")
    assert len(at_requeue) >= before
    check_nothing_is_left(slurm)
    assert "SIGINT: each trial stops after the epoch that it is in" in (slurm.directory / "twice.log").read_text()
    slurm.reach(job, "COMPLETED", what="the end of the job that goes on")
    assert epochs(runs / "twice")[: len(at_requeue)] == at_requeue
    assert len(epochs(runs / "twice")) > len(at_requeue)
    check_finished(runs / "twice", 4)
    print("time is up: done", flush=True)


def several_spaces(slurm: Slurm) -> None:
    """The tasks of an array are searches of a space each, side by side."""
    runs = slurm.runs
    spaces = []
    for name in ("one", "two"):
        path = slurm.directory / f"{name}.toml"
        path.write_text((ROOT / "search_spaces" / "smoke.toml").read_text())
        spaces.append(path)
    options = f"--trials 2 epochs=2 {QUICK}"
    script = CLUSTER / "slurm" / "array.sbatch"
    asked = ["--array=0-1", "--cpus-per-task=1"]  # a node has more, and an embedded Ray would take it all
    job = slurm.submit(*asked, script, *spaces, NAME="a", RUNS=runs, OPTIONS=options)
    for task in range(2):
        slurm.reach(f"{job}_{task}", "COMPLETED", what=f"the end of {job}_{task}")
    for name in ("a_one", "a_two"):
        check_finished(runs / name, 2)
        assert most_at_once(runs / name) == 1
    check_nothing_is_left(slurm)
    print("several spaces: done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
