"""A Ray cluster of two workers: results are those of this process alone, also where a worker is killed."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sharded_project import Sharded

if TYPE_CHECKING:
    from collections.abc import Iterator

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install pytest-qgate[ray]")

RAY = '[qgate.executor]\nname = "ray"\n'


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
        patch.setenv("RAY_worker_niceness", "0")  # else whatever else runs comes first
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def project(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharded]:
    path = sys.path.copy()
    folder = Sharded(tmp_path_factory.mktemp("ray"))
    folder.write("driver", str(os.getpid()))
    yield folder
    sys.path[:] = path
    sys.modules.pop("sharded", None)


@pytest.fixture(scope="module")
def local(project: Sharded) -> dict[str, Any]:
    return project.outcome()


def test_two_workers_give_what_this_process_gives(project: Sharded, local: dict[str, Any]) -> None:
    assert project.outcome(RAY) == local
    assert any(note.startswith('executor "ray": 2 processes on ') for note in project.run(RAY).notes)


def test_a_task_that_no_node_has_room_for_is_refused(project: Sharded) -> None:
    verdicts = project.run("num_threads = 3\n" + RAY).verdicts

    assert {verdict.status for verdict in verdicts} == {"error"}
    assert all(
        "a task takes 3 CPUs, as [qgate] num_threads says, and no node of the Ray cluster has more than 2; lower"
        in said
        for said in (verdict.message for verdict in verdicts)
    )


def test_a_killed_worker_costs_nothing_but_its_shard(project: Sharded, local: dict[str, Any]) -> None:
    project.write("die-2-50", "1")  # hashed, then dead while it is evaluated

    assert project.outcome(RAY) == local
    assert not (project.root / "die-2-50").exists()


def test_a_sample_that_kills_every_worker_ends_the_run_in_one_line(
    project: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qgate_ray.executor._RETRIES", 0)
    project.write("die-2-99", "-1")

    verdicts = project.run(RAY).verdicts

    (project.root / "die-2-99").unlink()
    assert {verdict.status for verdict in verdicts} == {"error"}
    assert all("a shard's worker died" in verdict.message and "\n" not in verdict.message for verdict in verdicts)
