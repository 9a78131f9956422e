"""A cluster of several machines, each in namespaces of its own, with all that a real one has: the longest first."""

import shutil
import sys
from pathlib import Path

import pytest
from chaos import can_isolate, isolated
from hosts import MAKE_BRIDGE
from record_checks import check_twins
from services import POSTGRES

HERE = Path(__file__).parent
SSH = ("ssh", "sshd", "rsync", "ssh-keygen", "pgrep")
HANGS_SECONDS = 1800
"""Far more than any scenario takes beside another one on a slow day."""
NO_SSH = [program for program in SSH if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not can_isolate(*MAKE_BRIDGE), reason="network namespaces (unshare and ip, as root) are not to be had"
    ),
]


def play(scenario, directory):
    """Run a scenario in namespaces of its own; it is given up in the end, although each of its waits has an end too."""
    done = isolated([sys.executable, HERE / scenario, directory], seconds=HANGS_SECONDS)
    logs = [f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(directory.glob("*.log"))]
    assert done.returncode == 0, "\n".join([*logs, done.stdout[-3000:], done.stderr[-4000:]])
    return done.stdout


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed")
def test_a_search_on_three_machines_loses_two_of_them_and_nothing_else(tmp_path):
    play("lost_nodes.py", tmp_path)
    check_twins(tmp_path / "three")


@pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), reason="Slurm or munge is not installed"
)
def test_the_batch_scripts_take_a_search_from_sbatch_to_its_end_through_a_requeue_and_in_an_array(tmp_path):
    play("batch.py", tmp_path)


def test_a_search_that_is_a_job_is_stopped_gone_on_with_and_its_winner_retrained(tmp_path):
    play("job_life.py", tmp_path)


def test_what_is_wrong_with_a_cluster_is_said_before_anything_is_queued(tmp_path):
    play("refusals.py", tmp_path)


def test_rays_autoscaler_brings_the_nodes_that_trials_need_and_takes_them_away_again(tmp_path):
    play("autoscale.py", tmp_path)


@pytest.mark.long
@pytest.mark.skipif(bool(NO_SSH), reason=f"not installed: {', '.join(NO_SSH)}")
def test_ray_up_starts_three_machines_and_a_search_outlives_their_head(tmp_path):
    play("ray_up.py", tmp_path)
