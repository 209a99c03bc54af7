"""Kill gates at random moments, and look at what they leave.

A copy of the digits example is gated by `pytest --qgate`, and its whole process group killed (SIGKILL): every second
run at a moment drawn from the whole length of a run, the others while they write the artifact, the results or the
blessed results, or just after. Every tenth run starts without any of the three files. After each kill each file must be
the one from before, byte for byte, or a new one that loads; at the end a run that nobody disturbs must pass, and leave
none of the temporary files that the killed ones left.

    python benchmarks/kill.py --kills 50 --output kill.json

Exits with 1 where a file is damaged or lost, or the last run fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from rich.console import Console
from rich.table import Table

from qgate import QGateError, load_artifact
from qgate.blessed import load_blessed
from qgate.files import write_atomically
from qgate.results import load_results

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Wait = Callable[[subprocess.Popen[bytes]], None]

ROOT = Path(__file__).parents[1]
FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "artifact": (".qgate/artifacts/digits.pt", load_artifact),
    "results": (".qgate/results.json", load_results),
    "blessed": ("qgate-blessed.json", load_blessed),
}
COMMAND = (sys.executable, "-m", "pytest", "--qgate", "--qgate-update-blessed", "-v", "-p", "no:cacheprovider")
STEP_ENDED = re.compile(r"^digits: ([^:]+?)(?: \(\d+\))?: [\d.]+ s$", re.MULTILINE)  # a line of `pytest -v`
LONGEST_RUN = 300.0  # seconds
LONGEST_WRITE = 0.006  # seconds: they took 4 to 8 ms
CLEAN_START_EVERY = 10
STALE = 2 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Kill:
    """One kill: where it was aimed and where it fell, and what each file was then."""

    aim: str
    seconds: float
    last_step: str
    found: dict[str, str]
    temporaries: list[str]
    is_judged: bool | None

    @property
    def has_damage(self) -> bool:
        """Say whether a file is neither the old one nor a whole new one."""
        return any(state.startswith(("damaged", "lost")) for state in self.found.values())


@dataclass
class Project:
    """A copy of the digits example, and the output of the run that is under way."""

    folder: Path
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.folder.parent / "output.txt"
        shutil.copytree(ROOT / "examples" / "digits", self.folder / "examples" / "digits")
        text = (ROOT / "qgate.toml").read_text(encoding="utf-8")
        text = re.sub(r"max_seconds\s*=.*", "max_seconds = 3", text)
        # Three seconds of timing beside other work settle little, and speed is not what this is about.
        text = re.sub(r"(speedup\]\s*lower_bound\s*=).*", r"\1 0.1", text)
        text = text.replace("schema_version = 1", 'schema_version = 1\n[qgate]\non_inconclusive = "warn"')
        (self.folder / "qgate.toml").write_text(text, encoding="utf-8")

    def path(self, name: str) -> Path:
        """Give the path of one of FILES."""
        return self.folder / FILES[name][0]

    def contents(self) -> dict[str, bytes | None]:
        """Read the files as they are; None where there is none."""
        return {name: self.path(name).read_bytes() if self.path(name).exists() else None for name in FILES}

    def temporaries(self, names: tuple[str, ...] = tuple(FILES)) -> Iterator[Path]:
        """List the temporary files beside files."""
        for name in names:
            path = self.path(name)
            if path.parent.is_dir():
                found = (entry for entry in os.scandir(path.parent) if entry.name.startswith(f".{path.name}."))
                yield from (Path(entry.path) for entry in found)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        environment.pop("CI", None)  # nothing is blessed there
        with self.output.open("wb") as output:
            return subprocess.Popen(  # noqa: S603  # our own interpreter
                COMMAND, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def last_step(self) -> str:
        """Name the last step that the run said it had ended."""
        steps = STEP_ENDED.findall(self.output.read_text(encoding="utf-8", errors="replace"))
        return steps[-1] if steps else "nothing"


def main() -> int:
    """Kill, look, print a table; 1 where there is damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder, "project"))
        length = unharmed(project)
        print(f"undisturbed run: {length:.1f} s", flush=True)
        kills = []
        for found in all_kills(project, options.kills, moments(project, options.seed, length)):
            report(found)
            kills.append(found)
        code, left = last_run(project)
    show(kills, code, left)
    if options.output:
        document = {"exit_code": code, "left": left, "kills": [asdict(kill) for kill in kills]}
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())
    return int(code != 0 or left > 0 or any(kill.has_damage for kill in kills))


def unharmed(project: Project) -> float:
    """Time a run that nobody disturbs, in seconds."""
    begin = time.perf_counter()
    if project.start().wait(LONGEST_RUN) != 0:
        sys.exit(project.output.read_text(encoding="utf-8"))
    return time.perf_counter() - begin


def is_being_written(project: Project, name: str, known: Collection[Path] = ()) -> bool:
    """Say whether there is a temporary file beside a file, other than the known ones."""
    return any(path not in known for path in project.temporaries((name,)))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for what may last a millisecond, or for the run's end."""
    while process.poll() is None and not condition():
        time.sleep(1e-4)


def all_kills(project: Project, number: int, moments: Iterator[tuple[str, Wait]]) -> Iterator[Kill]:
    """Kill `number` runs; one that ended before its moment does not count."""
    count = 0
    while count < number:
        if count % CLEAN_START_EVERY == CLEAN_START_EVERY - 1:
            for name in FILES:
                project.path(name).unlink(missing_ok=True)
        found = kill(project, *next(moments))
        if found:
            count += 1
            yield found


def moments(project: Project, seed: int, length: float) -> Iterator[tuple[str, Wait]]:
    """Give moments to kill at, without end: what each is aimed at, and what waits for it."""
    rng = random.Random(seed)  # noqa: S311  # moments, no secrets
    while True:
        for name in FILES:
            yield "any moment", partial(wait_for_moment, rng.uniform(0, length))
            yield f"writing of {name}", partial(wait_for_write, project, name, rng.uniform(0, LONGEST_WRITE))


def wait_for_moment(seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Let a run go on for so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def wait_for_write(project: Project, name: str, seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Let a run go on until it writes a file, and then for so long; `sleep` would be too coarse."""
    known = set(project.temporaries((name,)))
    wait_until(partial(is_being_written, project, name, known), process)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def kill(project: Project, aim: str, wait: Wait) -> Kill | None:
    """Start a run, kill its process group when `wait` returns, and look; None where it had ended."""
    before, known = project.contents(), set(project.temporaries())
    begin = time.perf_counter()
    process = project.start()
    wait(process)
    seconds = time.perf_counter() - begin
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = {name: state(project.path(name), before[name], FILES[name][1]) for name in FILES}
    left = sorted({path.name for path in project.temporaries()} - {path.name for path in known})
    return Kill(aim, seconds, project.last_step(), found, left, is_judged(project))


def state(path: Path, before: bytes | None, load: Callable[[Path], object]) -> str:
    """Say what a file is now: none, old, new, lost, or damaged and how."""
    if not path.exists():
        return "none" if before is None else "lost"
    if path.read_bytes() == before:
        return "old"
    try:
        load(path)
    except QGateError as error:
        return f"damaged: {error}"
    return "new"


def is_judged(project: Project) -> bool | None:
    """Say whether the results are of the artifact that is there; None where one of them is missing."""
    if not (project.path("artifact").exists() and project.path("results").exists()):
        return None
    artifact = load_results(project.path("results")).models["digits"].artifact
    return artifact is not None and hashlib.sha256(project.path("artifact").read_bytes()).hexdigest() == artifact.sha256


def report(kill: Kill) -> None:
    """Print one kill."""
    found = ", ".join(f"{name} {state}" for name, state in kill.found.items())
    left = f"; left {' '.join(kill.temporaries)}" if kill.temporaries else ""
    print(f"{kill.aim}: {kill.seconds:.2f} s, after {kill.last_step}: {found}{left}", flush=True)


def last_run(project: Project) -> tuple[int, int]:
    """Run undisturbed, days later; give the exit code and how many temporary files there are then."""
    for path in project.temporaries():
        days_ago = path.stat().st_mtime - STALE
        os.utime(path, (days_ago, days_ago))
    code = project.start().wait(LONGEST_RUN)
    if code:
        print(project.output.read_text(encoding="utf-8"))
    for name, (_, load) in FILES.items():
        load(project.path(name))
    return code, len(list(project.temporaries()))


def show(kills: list[Kill], code: int, left: int) -> None:
    """Print where kills fell, and what was found."""
    table = Table("file", "kills during its writing", "old", "new", "none yet", "damaged or lost", box=None)
    for name, (path, _) in FILES.items():
        states = Counter(kill.found[name].split(":")[0] for kill in kills)
        writing = sum(any(Path(path).name in left for left in kill.temporaries) for kill in kills)
        counts = (writing, states["old"], states["new"], states["none"], states["damaged"] + states["lost"])
        table.add_row(name, *map(str, counts))
    console = Console(width=100)
    console.print(table)
    steps = Counter(kill.last_step for kill in kills)
    print("last step that had ended:", ", ".join(f"{step} {count}" for step, count in steps.items()))
    unjudged = sum(kill.is_judged is False for kill in kills)
    print(f"artifact that is not the one of the results: {unjudged} of {len(kills)}")
    print(f"temporary files left by {len(kills)} kills: {sum(len(kill.temporaries) for kill in kills)}")
    print(f"undisturbed run afterwards: exit code {code}, temporary files left: {left}")


if __name__ == "__main__":
    sys.exit(main())
