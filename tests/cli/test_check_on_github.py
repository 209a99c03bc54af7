from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_project import MISSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["table", "json"])
def test_limits_are_annotated_and_the_summary_is_appended(
    project: Folder,
    qgate: Qgate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    flags: tuple[str, ...],
) -> None:
    summary = tmp_path_factory.mktemp("github") / "summary.md"
    summary.write_text("# Earlier\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    project.configure(MISSED)
    line = 1 + project.text("qgate.toml").splitlines().index("lower_bound = 1.5")

    outcome = qgate("check", *flags)

    assert outcome.code == 1
    (annotation,) = [line for line in outcome.err.splitlines() if line.startswith("::")]
    assert annotation.startswith(f"::error file=qgate.toml,line={line},title=qgate%3A toy%3A accuracy lower_bound::")
    assert "::" not in outcome.out
    assert summary.read_text(encoding="utf-8").startswith("# Earlier\n### qgate: FAILED, 1 of 2 limits not held")
