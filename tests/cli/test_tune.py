"""`qgate tune`: a recipe that suits the data is found, written and judged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import tomli

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

# How near the logits are to a target; a float32 prediction can be one.
NEARNESS = """
import qgate


class Nearness(qgate.MeanMetric):
    name = "nearness"

    def score(self, prediction, target):
        return float(-(prediction - target).abs().max())


@qgate.hookimpl
def qgate_register_metrics():
    return [Nearness]


@qgate.hookimpl
def qgate_pseudo_label(prediction):
    return prediction
"""
# One pixel of some pictures is far off, which a range from the least to the greatest value must cover.
OUTLIER = """

def with_outlier():
    images = torch.rand(48, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    images[[7, 19, 33], 0, 0, 0] = 60.0
    return [(image, None) for image in images]


def judged():
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return list(zip(images, model()[0].eval()(images)))
"""
LIMIT = "[models.toy.thresholds.nearness] # of logits\nmax_drop = 0.003\n"


@pytest.fixture
def outlier(project: Folder) -> Folder:
    project.write("conftest.py", NEARNESS)
    project.write("toy.py", project.text("toy.py") + OUTLIER)
    project.configure(LIMIT)
    text = project.text("qgate.toml").replace('calibration = { factory = "toy:data", num_samples = 8 }', CALIBRATION)
    project.write("qgate.toml", text.replace('evaluation = { factory = "toy:data" }', EVALUATION))
    text = project.text("qgate.toml").replace('calibrator = "first_ones"\n', "")
    project.write("qgate.toml", text)
    return project


CALIBRATION = 'calibration = { factory = "toy:with_outlier" }'
EVALUATION = 'evaluation = { factory = "toy:judged" }'


def test_the_observer_that_ignores_an_outlier_is_found_written_and_judged(outlier: Folder, qgate: Qgate) -> None:
    before = outlier.text("qgate.toml")
    assert qgate("check").code == 1  # minmax, as the file says

    outcome = qgate("tune")

    assert outcome.code == 0, outcome.out
    recipe = tomli.loads(outlier.text("qgate.toml"))["models"]["toy"]["quantization"]
    assert recipe["activation"]["observer"] != "minmax"
    assert "[models.toy.thresholds.nearness] # of logits" in outlier.text("qgate.toml")
    assert before.splitlines()[0] in outlier.text("qgate.toml")
    assert (
        outlier.results()["models"]["toy"]["quantization"]["activation"]["observer"] == recipe["activation"]["observer"]
    )
    assert "qgate: PASSED" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_after_an_interruption_what_was_tried_is_not_tried_again(outlier: Folder) -> None:
    command = [sys.executable, "-m", "qgate", "tune"]
    process = subprocess.Popen(command, cwd=outlier.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    store = outlier.root / ".qgate" / "tune" / "toy.json"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (store.exists() and len(json.loads(store.read_text())["trials"]) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    tried = json.loads(store.read_text())["trials"]

    again = subprocess.run([*command, "--json"], cwd=outlier.root, capture_output=True, check=False)

    attempts = json.loads(again.stdout)["tuned"]["toy"]["attempts"]
    assert len(attempts) > len(tried) > 1
    assert [attempt["seconds"] for attempt in attempts[: len(tried)]] == [trial["seconds"] for trial in tried.values()]


def test_what_depends_on_other_limits_is_tried_anew(outlier: Folder, qgate: Qgate) -> None:
    first = json.loads(qgate("tune", "--json").out)["tuned"]["toy"]["attempts"]
    same = json.loads(qgate("tune", "--json").out)["tuned"]["toy"]["attempts"]
    outlier.write("qgate.toml", outlier.text("qgate.toml").replace("0.003", "0.004"))
    other = json.loads(qgate("tune", "--json").out)["tuned"]["toy"]["attempts"]

    known = {attempt["seconds"] for attempt in first}
    assert known & {attempt["seconds"] for attempt in same}
    assert not known & {attempt["seconds"] for attempt in other}


def test_a_configuration_that_cannot_be_written_is_found_before_the_search(
    outlier: Folder, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qgate.outputs.check_writable", refuse)

    outcome = qgate("tune")

    assert (outcome.code, outcome.out) == (4, "")
    assert "qgate.toml: cannot be written: Permission denied" in outcome.err
    assert not (outlier.root / ".qgate" / "tune").exists()


# Nothing ever comes in by a channel of `second`, whose great weights leave little of the others.
SPOILT = """

class Spoilt(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3)
        self.first.weight.data[3] = self.first.bias.data[3] = 0
        self.second.weight.data[:, 3] = 12.0

    def forward(self, image):
        return self.third(self.second(self.first(image).relu()).relu())


def spoilt():
    torch.manual_seed(0)
    return Spoilt().eval(), torch.rand(1, 3, 32, 32)
"""


def test_a_layer_that_no_other_recipe_saves_is_kept_float(outlier: Folder, qgate: Qgate) -> None:
    outlier.write("toy.py", outlier.text("toy.py").replace("model()[0]", "spoilt()[0]") + SPOILT)
    config = outlier.text("qgate.toml").replace('"toy:model"', '"toy:spoilt"').replace("0.003", "0.03")
    outlier.write("qgate.toml", config)

    outcome = qgate("tune")

    assert outcome.code == 0, outcome.out
    recipe = tomli.loads(outlier.text("qgate.toml"))["models"]["toy"]["quantization"]
    assert recipe.get("fallback") == {"max_layers": 3}, outcome.out
    assert outlier.results()["models"]["toy"]["quantization"]["fallback"]["layers"]


def test_without_a_plugin_that_knows_the_predictions_it_is_an_error(outlier: Folder, qgate: Qgate) -> None:
    outlier.write("conftest.py", NEARNESS.replace("return prediction\n", "return None\n"))

    assert "no plugin can turn a prediction of type Tensor into a target" in qgate("tune").err


UNSURE = """

def nan(int8, real):
    return (int8 - real).sum() * float("nan")


def unsure():
    import qgate

    net, example = model()
    return qgate.LoadedModel(net.eval(), (example,), distillation_loss=nan)
"""


def test_a_distance_that_is_no_number_is_a_failure_and_not_a_draw(outlier: Folder, qgate: Qgate) -> None:
    outlier.write("toy.py", outlier.text("toy.py") + UNSURE)
    text = outlier.text("qgate.toml").replace('factory = "toy:model"', 'factory = "toy:unsure"')
    outlier.write("qgate.toml", text)

    outcome = qgate("tune", "--json")

    attempts = json.loads(outcome.out)["tuned"]["toy"]["attempts"]
    failures = {attempt["failure"] for attempt in attempts}
    assert failures == {"the loader's distillation_loss is nan for int8's raw outputs"}


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_a_budget_must_be_a_number_of_minutes(project: Folder, qgate: Qgate, minutes: str) -> None:
    outcome = qgate("tune", "--minutes", minutes)

    assert (outcome.code, outcome.out) == (4, "")
