"""Names, paths and messages that would break a careless report, and a result that is full of one of them."""

from __future__ import annotations

from typing import Any

from qgate.results import ModelResult, Result, Verdict

HOSTILE = (
    "<script>alert(1)</script>",
    "</details><img src=x onerror=alert(1)>",
    "a \"quoted\" 'name' & &lt;entity&gt; &#64;",
    "two\nlines\r\nand\rmore\n\n# heading\n| a | b |",
    "a|b||c\\|d\\",
    "`code` ``more`` ```\nfence\n```",
    "*bold* _slanted_ ~~gone~~ [link](http://x.y) ![image](z) <http://x.y>",
    "[bold red]markup[/bold red] [/] [link=x]y[/link] \\[bold]",
    "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \x9b31m \a\b\x00\x7f",
    "\N{GRINNING FACE} \N{FAMILY}\N{ZERO WIDTH JOINER}\N{BOY} \u4e2d\u6587 \u0301e\u0301",
    "\N{RIGHT-TO-LEFT OVERRIDE}drawkcab\N{LINE SEPARATOR}\N{NEXT LINE}\N{ZERO WIDTH NO-BREAK SPACE}",
    "\ud800 lone \udfff",
    "::error file=x,line=1::y %0A %25 , : ]]> --> <!-- ",
    "GH-1 gh-2 https://github.com/o/r/issues/3 ftp://x.y/GH-4 www.x.y WWW.x.y mailto://a.b",
    "@everyone #1 $x$ $(id) ; rm -rf",
    "   leading and trailing   ",
    "- item\n1. item\n> quote\n---\n===",
    "",
    "x" * 300,
    "many words of one name " * 13,
    "@" * 300,
    "\N{PILE OF POO}" * 300,
    "\n" * 300,
    "|" * 300,
)


def hostile_result(text: str, **changes: Any) -> Result:
    """Give a result in which every text that a user, a plugin or a file chose is `text`."""
    figures = {"baseline": 0.5, "candidate": 0.4, "drop": 0.1, "drop_interval": [0.05, 0.15], "support": 40}
    of_metric = {**figures, "samples": 12, "higher_is_better": True, "unit": text}
    metrics: dict[str, Any] = {
        text or "map": {
            **of_metric,
            "slices": {text or "class": {text: figures, "other": {**figures, "drop": 0.02}}},
            "limited_slices": [{**of_metric, "where": {"class": text}}],
            "not_comparable": text,
            "noisiest": [{"layer": text, "snr": 3.0}],
            "ignored_scope": [text],
            "ignored_scope_by": text,
        },
        "speedup": {
            "baseline": 0.002,
            "candidate": 0.001,
            "value": 2.0,
            "interval": [1.9, 2.1],
            "baseline_form": text,
            "forms": {text: 0.002, "int8": 0.001},
            "unsettled_because": text,
            "slowest": [{"layer": text, "float32": 0.001, "int8": 0.0005}],
        },
    }
    verdicts = (
        Verdict(text or "map", "max_drop", 0.01, 0.1, "failed", text, interval=(0.05, 0.15), line=3),
        Verdict(text or "map", "max_drop", 0.2, 0.1, "passed", slice={"class": text}, interval=(0.05, 0.15), line=4),
        Verdict("speedup", "lower_bound", 2.05, 2.0, "inconclusive", text, interval=(1.9, 2.1), line=5),
        Verdict("size_reduction", "lower_bound", 0.7, None, "error", text, line=6),
    )
    model = ModelResult(
        quantization={"approach": text, "backend": text},
        artifact=None,
        num_evaluation_samples=12,
        metrics=metrics,
        verdicts=verdicts,
        seconds={"load": 0.5, text: 1.0, "total": 2.0},
        notes=(text,),
        conditions={"data_sha256": text, "seed": 0},
        kernels={text: 3},
    )
    environment = {"cpu": text, "isa": [text], "torch": text, "git_commit": text, "num_threads": 1}
    values: dict[str, Any] = {
        "qgate_version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "config_sha256": text,
        "environment": environment,
        "models": {text: model},
        "config_path": text,
        "not_judged": (text, "net: map max_drop"),
    }
    return Result(**values | changes)
