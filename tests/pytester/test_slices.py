from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from toy_project import Project

# A name that holds whatever a node id, a shell, a marker expression or XML could stumble over.
ODD = "a::b/c[d]\\n=%,'\\\"`$ü"

BY_CLASS = f'''import numpy


class ByClass(Accuracy):
    name = "by_class"
    names = {{"plain": {{0, 1}}, "{ODD}": {{2, 3}}}}

    def update(self, sample_id, prediction, target):
        super().update(sample_id, prediction, target)
        self.targets = [*getattr(self, "targets", []), target]

    def compute(self, weights, where=None):
        return super().compute(weights * self._within(where))

    def slices(self):
        return {{"class": list(self.names)}}

    def support(self, where=None):
        return int(self._within(where).sum())

    def _within(self, where):
        names = self.names[where["class"]] if where else {{0, 1, 2, 3}}
        return numpy.array([float(target in names) for target in self.targets])


'''
TABLES = f"""
[models.toy.thresholds.by_class]
max_drop = 0.9

[[models.toy.thresholds.by_class.slices]]
where = {{ class = "plain" }}
min_samples = 1
lower_bound = {{plain}}

[[models.toy.thresholds.by_class.slices]]
where = {{ class = "{ODD}" }}
min_samples = 1
lower_bound = {{odd}}
"""
ODD_ITEM = "by_class.lower_bound[class=a%3A%3Ab/c%5Bd%5D%0A%3D%25%2C%27%22%60%24ü]"


@pytest.fixture
def sliced(project: Project) -> Project:
    data = project.text("toy.py").replace("labels.tolist()", "[index % 4 for index in range(12)]")
    project.write("toy.py", data)
    plugin = project.text("conftest.py").replace("return [Accuracy]", "return [Accuracy, ByClass]")
    head, separator, tail = plugin.partition("class FirstOnes")
    project.write("conftest.py", head + BY_CLASS + separator + tail)
    configure(project, plain=0.0, odd=0.0)
    return project


def configure(project: Project, **bounds: float) -> None:
    project.configure(TABLES.replace("{plain}", str(bounds["plain"])).replace("{odd}", str(bounds["odd"])))


def test_each_limit_of_a_slice_is_an_item(sliced: Project) -> None:
    result = sliced.run("--qgate", "--collect-only", "-q")

    assert result.outlines[:3] == [
        "qgate.toml::toy::by_class.max_drop",
        "qgate.toml::toy::by_class.lower_bound[class=plain]",
        f"qgate.toml::toy::{ODD_ITEM}",
    ]


def test_a_slice_fails_alone_and_is_found_again(sliced: Project) -> None:
    configure(sliced, plain=0.0, odd=1.5)
    line = 1 + sliced.text("qgate.toml").splitlines().index("lower_bound = 1.5")

    first = sliced.run("--qgate", "--junitxml=junit.xml")
    again = sliced.run("--qgate", "--lf")

    first.assert_outcomes(passed=2, failed=1)
    first.stdout.fnmatch_lines([f"qgate.toml:{line}: *"])
    again.assert_outcomes(failed=1, deselected=2)
    cases = {case.get("name"): case for case in ET.parse(sliced.root / "junit.xml").iter("testcase")}  # noqa: S314  # ours
    properties = {item.get("name"): item.get("value") for item in cases[ODD_ITEM].iter("property")}
    (found,) = [
        item
        for item in sliced.results()["models"]["toy"]["metrics"]["by_class"]["limited_slices"]
        if item["where"]["class"] != "plain"
    ]
    assert float(properties["qgate.measured"] or "") == found["candidate"]
    assert int(properties["qgate.support"] or "") == found["support"] == 6
    assert properties["qgate.status"] == "failed"


def test_the_node_id_of_a_failure_can_be_pasted_into_a_shell(sliced: Project) -> None:
    configure(sliced, plain=0.0, odd=1.5)
    (line,) = [line for line in sliced.run("--qgate").outlines if line.startswith("FAILED ")]
    node_id = re.sub(r"^FAILED (.*?\]).*", r"\1", line)
    assert shlex.split(f"'{node_id}'") == [node_id]

    result = sliced.run("--qgate", node_id)

    result.assert_outcomes(failed=1)


def test_workers_know_slices_apart(sliced: Project) -> None:
    pytest.importorskip("xdist")
    configure(sliced, plain=1.5, odd=0.0)

    result = sliced.pytester.runpytest_subprocess("--qgate", "-n2")

    result.assert_outcomes(passed=2, failed=1)
    (failed,) = [v for v in sliced.results()["models"]["toy"]["verdicts"] if v["status"] != "passed"]
    assert failed["slice"] == {"class": "plain"}
