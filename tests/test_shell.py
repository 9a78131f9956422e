"""The command line in a shell: what TAB offers, how commands end, what is printed where there is no terminal."""

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import typer

from fer_search.journal import FILE_NAME, Journal
from fer_search.printing import finish_race, finish_search
from fer_search.races import RaceResult
from fer_search.search_result import SearchResult
from fer_search.terminal import progress
from fer_search.tuning.race import Standing
from fer_search.tuning.space_file import read_space

# As the console script does: the name that the shell knows the program by.
PROGRAM = "import sys; sys.argv[0] = 'fer-search'; from fer_search.cli import main; main()"
COMMAND = [sys.executable, "-c", PROGRAM]


@pytest.fixture
def place(tmp_path):
    """A directory with two runs, something else between them, and a third run elsewhere."""
    for name in ("runs/first", "runs/second", "elsewhere/third"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "settings.json").touch()
    (tmp_path / "runs" / "mlruns").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    return tmp_path


def offered(place, *words, **environment):
    """What bash offers for the last of the words."""
    protocol = {"COMP_WORDS": " ".join(["fer-search", *words]), "COMP_CWORD": str(len(words))}
    own = {key: value for key, value in os.environ.items() if key != "FER_SEARCH_RUNS"}
    done = subprocess.run(
        COMMAND,
        cwd=place,
        env={**own, **protocol, "_FER_SEARCH_COMPLETE": "complete_bash", **environment},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_tab_offers_commands_options_and_the_runs_that_are_there(place):
    assert offered(place, "ret") == ["retrain"]
    assert "--quiet" in offered(place, "resume", "--q")
    assert offered(place, "resume", "") == ["first", "second"]
    assert offered(place, "simulate", "se") == ["second"]
    assert offered(place, "search", "space.toml", "--warm-start", "f") == ["first"]


def test_tab_looks_for_runs_where_the_command_would(place):
    assert offered(place, "resume", "--runs", "elsewhere", "") == ["third"]
    assert offered(place, "resume", "", FER_SEARCH_RUNS="elsewhere") == ["third"]
    (place / "fer_search.toml").write_text('runs = "elsewhere"\n')
    assert offered(place, "resume", "") == ["third"]
    assert offered(place, "resume", "--runs", "nowhere", "") == []


def test_a_space_file_is_left_to_the_shell_which_knows_files(place):
    assert offered(place, "search", "sp") == []


@pytest.mark.parametrize(
    ("variables", "colours", "plain"),
    [
        ({"TERM": "xterm-256color"}, True, False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, True),
    ],
)
def test_a_terminal_gets_colours_unless_it_asks_for_none(tmp_path, variables, colours, plain):
    text = in_a_terminal(["--help"], tmp_path, variables)
    assert "Usage" in text
    assert any(f"\x1b[{code}" in text for code in ("31", "32", "33", "34", "35", "36", "1;3")) == colours
    assert ("\x1b" not in text) == plain


def in_a_terminal(arguments, directory, variables):
    controller, terminal = pty.openpty()
    own = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=terminal,
        stderr=terminal,
        cwd=directory,
        env={**own, "COLUMNS": "100", **variables},
    )
    os.close(terminal)
    text = b""
    try:
        while piece := os.read(controller, 4096):
            text += piece
    except OSError:  # how Linux says that the other end was closed
        pass
    assert process.wait(timeout=60) == 0
    return text.decode()


def test_colours_that_are_forced_into_a_file_bring_no_screen_that_draws_itself_again(tmp_path):
    code = "from fer_search.terminal import err\nwith err.status('working'): err.print('[red]a line[/]')"
    variables = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert "\x1b[31ma line\x1b[0m\n" in done.stderr
    assert not re.search(r"\x1b\[\d*[A-HJK]", done.stderr), "it moves the cursor, or erases"
    assert "working" not in done.stderr


def cpu_seconds(pid):
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_any_command_with_130_and_no_traceback(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "data", "synth", "faces.csv", "--num-faces", "1000000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    with process:
        try:
            deadline = time.monotonic() + 60
            while cpu_seconds(process.pid) < 4:  # all is loaded: Python forgets a signal that comes as a module is
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said.strip()) == (130, "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def searched(tmp_path):
    """Makes a search of trials of one epoch that ended so."""

    def make(*states):
        directory = tmp_path / "s"
        search = {"metric": "score", "num_trials": len(states), "scheduler": "none"}
        table = {"search": search, "space": {"x": {"low": 0.0, "high": 9.0}}}
        space = read_space(
            table, source=directory, defaults={"x": 0.0, "epochs": 1}, check=lambda values: [], metrics=["score"]
        )
        journal = Journal(directory / FILE_NAME)
        for number, state in enumerate(states):
            journal.trial_started(number, {"x": float(number), "epochs": 1})
            if state == "COMPLETE":
                journal.epoch_ended(number, 1, {"score": 0.5})
            if state != "RUNNING":
                journal.trial_ended(number, state, "diverged: the loss is nan" if state == "FAIL" else "")
        return SearchResult(directory, {}, space, list(journal.trials.values()))

    return make


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (("COMPLETE", "FAIL"), 0),
        (("FAIL", "FAIL"), 1),
        (("COMPLETE", "RUNNING"), 130),
    ],
)
def test_a_search_ends_with_0_where_a_trial_came_to_the_end_1_where_none_did_and_130_before(searched, states, code):
    assert exit_code(finish_search, searched(*states), as_json=True, quiet=True) == code


@pytest.mark.parametrize(
    ("failed", "finished", "code"), [((False, True), True, 0), ((True, True), True, 1), ((False, False), False, 130)]
)
def test_a_race_ends_with_0_where_somebody_came_to_the_end_1_where_nobody_did_and_130_before(failed, finished, code):
    standings = [Standing(number, (0.5,) * 3, 0.0, 0.5, lost) for number, lost in enumerate(failed)]
    assert exit_code(finish_race, RaceResult(standings, finished), name="s", as_json=True) == code


def exit_code(function, *arguments, **settings):
    try:
        function(*arguments, **settings)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def test_quiet_leaves_results_and_warnings_and_no_hint_what_to_do_next(searched, capsys, caplog):
    finish_search(searched("COMPLETE"), as_json=False, quiet=True)
    quiet = capsys.readouterr()
    assert progress(quiet=True) is None
    logger = logging.getLogger("fer_search.searches")
    with caplog.at_level(logging.DEBUG, logger="root"):
        logger.info("how it goes")
        logger.warning("what is wrong")
    assert caplog.messages == ["what is wrong"]
    finish_search(searched("COMPLETE"), as_json=False, quiet=False)
    loud = capsys.readouterr()
    assert quiet.out == loud.out
    assert (quiet.err, "next: fer-search race s" in loud.err) == ("", True)
    assert progress(quiet=False) is not None


def test_a_trial_that_was_there_before_a_resumption_is_shown_with_its_length(searched, capsys):
    directory = searched("RUNNING").directory
    told = progress(quiet=False, begun=directory)
    values = {"val_accuracy": 0.5, "train_loss": 1.0, "images_per_second": 9.0}
    told({"event": "epoch_ended", "trial": 0, "epoch": 1, "metrics": values})
    assert capsys.readouterr().err.startswith("trial   0  epoch   1/1  val_accuracy 0.5")
