"""A recipe goes into the text of a configuration; everything else of the text stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli

from qgate.config.rewrite import with_recipe, write_recipe
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
# What we ship.
schema_version = 1

[models.a]   # the small one
loader = "x"
weights = "${WEIGHTS}/a.pt"

[models.a.quantization]
backend = "fbgemm"  # runs everywhere
activation = { observer = "percentile", percentile = 99.9, reduce_range = "auto" } # clips
ignored_scope = ["head.*"]

# The limits.
[models.a.thresholds.map]
max_drop = 0.01
"""


def recipe_of(text: str) -> Any:
    return tomli.loads(text)["models"]["a"]["quantization"]


def test_comments_and_all_other_lines_stay() -> None:
    text = with_recipe(TEXT, "a", {"backend": "fused", "bias_correction": True})

    changed = [line for line in text.splitlines() if line not in TEXT.splitlines()]
    assert changed == ['backend = "fused"  # runs everywhere', "bias_correction = true"]
    assert [line for line in TEXT.splitlines() if line not in text.splitlines()] == [
        'backend = "fbgemm"  # runs everywhere'
    ]


def test_an_observer_changes_with_its_options_and_keeps_the_range() -> None:
    text = with_recipe(TEXT, "a", {"activation": {"observer": "mse", "percentile": None, "power": 2.4}})

    assert recipe_of(text)["activation"] == {"observer": "mse", "power": 2.4, "reduce_range": "auto"}
    assert "# clips" in text


def test_a_key_that_is_none_goes() -> None:
    assert "ignored_scope" not in recipe_of(with_recipe(TEXT, "a", {"ignored_scope": None}))


@pytest.mark.parametrize(
    "text",
    ['[models.a]\nloader = "x"\n', 'models.a.loader = "x"\n', 'models = { a = { loader = "x" } }\n'],
)
def test_a_model_without_a_recipe_gets_one(text: str) -> None:
    written = with_recipe(text, "a", {"backend": "fused", "activation": {"observer": "mse", "power": None}})

    assert tomli.loads(written)["models"]["a"] == {
        "loader": "x",
        "quantization": {"backend": "fused", "activation": {"observer": "mse"}},
    }


def test_nothing_to_change_touches_no_file(tmp_path: Path) -> None:
    write_recipe(tmp_path / "missing.toml", "a", {})

    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_an_error_that_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is to say \{'backend': 'fused'\}"):
        write_recipe(tmp_path, "a", {"backend": "fused"})


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_recipe_goes_into_a_model_that_another_table_parts(order: tuple[int, ...]) -> None:
    parts = ('[models.a]\nloader = "x"\n', "[qgate]\nseed = 1\n", "[models.a.thresholds.map]\nmax_drop = 0.1\n")
    text = "".join(parts[index] for index in order)

    changed = with_recipe(text, "a", {"backend": "fused"})

    assert recipe_of(changed) == {"backend": "fused"}
    assert all(line in changed for line in text.splitlines())


def test_line_ends_permissions_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "shared.toml", tmp_path / "qgate.toml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    path.chmod(0o600)
    link.symlink_to(path)

    write_recipe(link, "a", {"backend": "fused"})

    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == TEXT.replace('"fbgemm"', '"fused"').replace("\n", "\r\n").encode()


@pytest.mark.parametrize("text", ["[models.b]\n", "[models.a\n", "\xff"])
def test_a_file_that_has_changed_meanwhile_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "qgate.toml").write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"has changed since it was read .*'backend': 'fused'"):
        write_recipe(tmp_path / "qgate.toml", "a", {"backend": "fused"})
