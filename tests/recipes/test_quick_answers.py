"""Help and mistakes in the configuration are answered without the libraries that take seconds to load."""

from __future__ import annotations

import json
import sys

import pytest

from tests.processes import ROOT, finished

SLOW = ("torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "matplotlib", "scipy")
QUICKSTART = "recipes/configs/quickstart.yaml"
CHAT = "recipes/configs/lab_llm.yaml"
MODEL = ("--model", "builtin:tiny-encoder")
POOL = ("--pool", "x.csv", "--toward", "1", "--output", "out")

# Program -> command lines with a mistake that is found without data and model, and what is said of it.
MISTAKES: dict[str, list[tuple[list[str], str]]] = {
    "recipes/adv_finetune.py": [
        ([QUICKSTART, "attack.stepz=3"], "did you mean attack.steps?"),
        ([QUICKSTART, "training.steps=-1"], "training.steps must be"),
        ([CHAT, "objective.partz=[]"], "objective.parts"),
        (["recipes/configs/mnist_cnn.yaml", "threat.norm=l7"], "threat.norm must be"),
        (["none.yaml"], "configuration file none.yaml"),
    ],
    "recipes/evaluate.py": [
        ([QUICKSTART, "evaluation.rowz=5", *MODEL, "--output", "out"], "did you mean evaluation.rows?"),
        ([QUICKSTART, "--model", "a=", "--output", "out"], "--model a="),
    ],
    "recipes/attack.py": [
        ([QUICKSTART, "threat.norm=l7", *MODEL], "threat.norm must be"),
        ([QUICKSTART, *MODEL, "--rows", "0"], "--rows must be at least 1"),
        ([QUICKSTART, *MODEL, "--attack", "none"], "--attack none is not among"),
        (["recipes/configs/mnist_cnn.yaml", *MODEL, "--picture", "x.jpg"], "--picture must name a PNG file"),
    ],
    "recipes/minimal_loop.py": [(["--steps", "many"], "invalid int value: 'many'")],
    "scripts/ratio_sweep.py": [
        ([CHAT, "training.stepz=3", "--output", "out"], "did you mean training.steps?"),
        ([CHAT, "--output", "out", "--seeds", "one"], "--seeds must be numbers"),
        ([QUICKSTART, "--output", "out"], "needs a config with task: chat"),
    ],
    "scripts/bench_search.py": [
        ([CHAT, "training.stepz=3", "--model", "x"], "did you mean training.steps?"),
        ([QUICKSTART, "--model", "x"], "CONFIG must be of a chat model"),
    ],
    "scripts/bench_panel.py": [
        ([QUICKSTART, "evaluation.rowz=5", "--model", "x"], "did you mean evaluation.rows?"),
        ([QUICKSTART, "--model", "x", "--without", "none"], "--without must be one of several attacks"),
        ([CHAT, "--model", "x"], "it is of a chat model"),
    ],
    "scripts/harmless_rows.py": [
        (["recipes/configs/guard_minilm.yaml", "data.nam=x", *POOL], "did you mean data.name?"),
        (["recipes/configs/guard_minilm.yaml", *POOL, "--rows", "0"], "--rows and --words must be at least 1"),
        ([QUICKSTART, *POOL], "harmless rows join data.train of classifiers of text, from files"),
        ([CHAT, *POOL], "harmless rows join data.train of classifiers of text, from files"),
    ],
    "scripts/frontier.py": [],
    "scripts/side_by_side.py": [],
    "scripts/harmbench_rows.py": [],
}
# In one process, whose modules only become more: what each command line ends with, and what is loaded by then.
CALLS = """
import contextlib, io, json, runpy, sys
program, slow, calls = json.loads(sys.argv[1])
sys.path.insert(0, program.rpartition("/")[0])
told = []
for words in calls:
    sys.argv = [program, *words]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    told.append([code, said.getvalue(), [name for name in slow if name in sys.modules]])
print(json.dumps(told))
"""


@pytest.mark.parametrize("program", MISTAKES)
def test_help_and_mistakes_do_not_wait_for_libraries(program: str) -> None:
    calls = [["--help"], *(words for words, _ in MISTAKES[program])]
    ended = finished([sys.executable, "-c", CALLS, json.dumps([program, SLOW, calls])])
    assert ended.returncode == 0, ended.stdout
    helped, *refused = json.loads(ended.stdout.splitlines()[-1])
    assert helped[0] in (0, None) and "usage: " in helped[1] and not helped[2], helped
    for (code, said, loaded), (words, expected) in zip(refused, MISTAKES[program], strict=True):
        assert code not in (0, None) and expected in f"{code}\n{said}", (words, code, said)
        assert not loaded, (words, loaded)


def test_every_recipe_and_every_script_that_reads_a_configuration_is_called() -> None:
    paths = [*(ROOT / "recipes").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    reading = [path for path in paths if path.parent.name == "recipes" or "load_config" in path.read_text("utf-8")]
    called = {path.relative_to(ROOT).as_posix() for path in reading}
    assert called <= set(MISTAKES), called - set(MISTAKES)


def test_the_package_alone_loads_none_of_them() -> None:
    script = f"import json, sys, textadv; print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))"
    assert json.loads(finished([sys.executable, "-c", script]).stdout) == []
