"""The house style, read from the source: layers, sizes, names, forbidden constructs, and the README's tree.

Every test collects all offending places as `file:line what is wrong` before it fails. The layer table is the fenced
`layers` list of docs/architecture.md; there is no second copy.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

import pytest

from tests.style import (
    PACKAGE,
    ROOT,
    Check,
    Source,
    branches_by_kind,
    dangerous_calls,
    dotted,
    epsilon_parameters,
    function_length,
    functions,
    global_seeding,
    imports,
    loop_variables_after_loop,
    missing_docstrings,
    parse,
    restricted_imports,
    sources,
    suppressed_bug_rules,
    unsafe_literals,
)

ARCHITECTURE = "docs/architecture.md"

FILE_LINES = 400
FILE_LINES_OF = {"textadv/training/trainer.py": 300}
FUNCTION_LINES = 60
SHORT_FUNCTION_LINES = 40
SHORT_FUNCTION_SHARE = 0.9

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
# SafeLoader, SafeDumper: YAML is made stricter by subclassing them, there is no other way.
FRAMEWORK_BASES = {"Protocol", "NamedTuple", "TypedDict", "Generic", "Enum", "IntEnum", "StrEnum", "Flag", "str"}
FRAMEWORK_BASES |= {"Module", "BaseModel", "Metric", "SafeLoader", "SafeDumper"}


def library() -> list[Source]:
    found = sources(PACKAGE)
    assert found, f"no source under {PACKAGE}/"
    return found


def fail_with(places: list[str]) -> None:
    assert not places, "\n" + "\n".join(dict.fromkeys(places))


LIBRARY_CHECKS: list[Check] = [branches_by_kind, global_seeding, epsilon_parameters, missing_docstrings]
EVERYWHERE_CHECKS: list[Check] = [
    restricted_imports,
    dangerous_calls,
    unsafe_literals,
    suppressed_bug_rules,
    loop_variables_after_loop,
]

# (check, file, a line that must be reported, a line that must not)
SAMPLES: list[tuple[Check, str, str, str]] = [
    (restricted_imports, "textadv/values/losses.py", "from transformers import AutoModel", "import torch"),
    (restricted_imports, "textadv/training/trainer.py", "def f():\n    import datasets.config", "import evaluation"),
    (restricted_imports, "textadv/attacks/x.py", "from textadv import config", "from textadv.values import batch"),
    (
        restricted_imports,
        "textadv/training/trainer.py",
        "from textadv.config.run import RunSection",
        "from textadv.training.mixing import config",
    ),
    (restricted_imports, "recipes/x.py", "import transformers", "from textadv.tasks.text.config import RunConfig"),
    (restricted_imports, "scripts/lab/x.py", "import datasets", "import transformers"),
    (restricted_imports, "scripts/x.py", "import transformers", "from scripts.lab.model import lab_llama"),
    (dangerous_calls, "textadv/x.py", "eval(text)", "model.eval()"),
    (unsafe_literals, "textadv/x.py", "torch.load(p, weights_only=False)", "torch.load(p, weights_only=True)"),
    (unsafe_literals, "textadv/x.py", "def f(*, allow_pickle=True): ...", "def f(*, allow_pickle=False): ..."),
    (unsafe_literals, "textadv/x.py", "trust_remote_code: bool = True", "trust_remote_code: bool = False"),
    (global_seeding, "textadv/x.py", "torch.manual_seed(0)", "torch.Generator().manual_seed(0)"),
    (global_seeding, "textadv/x.py", "np.random.seed(0)", "np.random.default_rng(0)"),
    (global_seeding, "textadv/x.py", "accelerate.utils.set_seed(0)", "generator.manual_seed(0)"),
    (epsilon_parameters, "textadv/x.py", "def f(epsilon): ...", "def f(radius, eps): ..."),
    (branches_by_kind, "textadv/attacks/x.py", "isinstance(a.space, Hidden | Several)", "ThreatModel(Pixels(), ball)"),
    (branches_by_kind, "textadv/attacks/x.py", "type(space) is Pixels", "space.is_picture"),
    (branches_by_kind, "textadv/objectives/x.py", "place == Embeddings()", "place == threat.space"),
    (branches_by_kind, "textadv/values/x.py", "match s:\n    case Ablation(): ...", "isinstance(x, Tensor)"),
    (branches_by_kind, "textadv/values/losses.py", "logits.dim() == 2", "x.reshape(*[1] * (x.dim() - 1))"),
    (branches_by_kind, "textadv/attacks/x.py", "3 > batch.logits.ndim", "3 > batch.count"),
    (branches_by_kind, "textadv/attacks/x.py", "len(logits.shape) != 2", "logits.shape == labels.shape"),
    (missing_docstrings, "textadv/x.py", '"""M."""\ndef f(): ...', '"""M."""\ndef _f(): ...'),
    (suppressed_bug_rules, "textadv/x.py", "x = 1  # no" + "qa: F821", "x = 1  # no" + "qa: E501"),
    (suppressed_bug_rules, "textadv/x.py", "x = 1  # no" + "qa", "x = 1"),
    (
        loop_variables_after_loop,
        "textadv/x.py",
        "def f(xs):\n    for x in xs:\n        pass\n    return x",
        "def f(xs):\n    for x in xs:\n        pass\n    return [x for x in xs]",
    ),
]


@pytest.mark.parametrize("check", LIBRARY_CHECKS, ids=lambda check: check.__name__)
def test_library_files(check: Check) -> None:
    fail_with([place for source in library() for place in check(source)])


@pytest.mark.parametrize("check", EVERYWHERE_CHECKS, ids=lambda check: check.__name__)
def test_library_recipe_and_script_files(check: Check) -> None:
    fail_with([place for source in [*library(), *sources("recipes", "scripts")] for place in check(source)])


@pytest.mark.parametrize(("check", "path", "bad", "good"), SAMPLES, ids=lambda value: getattr(value, "__name__", None))
def test_checks_see_what_they_forbid(check: Check, path: str, bad: str, good: str) -> None:
    assert list(check(parse(path, bad)))
    assert not list(check(parse(path, good)))


# ---- layers and cycles


def layer_ranks() -> dict[str, int]:
    """Layer -> position in the fenced `layers` list; layers joined by `/` share a position."""
    text = (ROOT / ARCHITECTURE).read_text(encoding="utf-8")
    block = re.search(r"^```layers\n(.*?)^```", text, flags=re.M | re.S)
    assert block, f"{ARCHITECTURE} has no fenced list ```layers"
    steps = [step.split("/") for step in block[1].split("->")]
    return {name.strip(): rank for rank, names in enumerate(steps) for name in names}


def test_a_module_imports_only_from_earlier_layers() -> None:
    ranks = layer_ranks()
    places = []
    for source in library():
        if source.layer == "":
            continue
        if source.layer not in ranks:
            places.append(f"{source.path}:1 belongs to no layer of {ARCHITECTURE}")
            continue
        for node, name in imports(source):
            target = name.split(".")[1] if name.startswith(f"{PACKAGE}.") else None
            if target in ranks and ranks[target] > ranks[source.layer]:
                places.append(source.at(node, f"layer {source.layer} imports from the later layer {target}"))
    fail_with(places)


def test_every_layer_of_the_architecture_exists() -> None:
    layers = {source.layer for source in library()}
    fail_with(
        [f"{ARCHITECTURE} lists {name}, which is not in {PACKAGE}/" for name in layer_ranks() if name not in layers]
    )


def find_cycles(graph: dict[str, set[str]]) -> list[str]:
    """One line per module that can reach itself, with a shortest way round."""
    cycles = []
    for start in sorted(graph):
        frontier, seen = [[start]], {start}
        while frontier:
            way = frontier.pop(0)
            if start in graph[way[-1]]:
                cycles.append(" -> ".join([*way, start]))
                break
            fresh = sorted(graph[way[-1]] - seen)
            seen |= set(fresh)
            frontier += [[*way, name] for name in fresh]
    return cycles


def test_find_cycles_names_the_way_round() -> None:
    assert find_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b", "c -> b -> c"]


def imported_module(name: str, modules: set[str]) -> str:
    """textadv.values.batch.Batch -> textadv.values.batch: the longest beginning of `name` that is a module, else ""."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def test_no_import_cycles() -> None:
    found = library()
    modules = {source.module for source in found}
    graph = {s.module: {imported_module(name, modules) for _, name in imports(s)} - {"", s.module} for s in found}
    fail_with(find_cycles(graph))


# ---- sizes and names


def test_files_are_short() -> None:
    places = []
    for source in [*library(), *sources("recipes", "scripts", "tests")]:
        limit, lines = FILE_LINES_OF.get(source.path, FILE_LINES), len(source.text.splitlines())
        if lines > limit:
            places.append(f"{source.path}:{limit + 1} has {lines} lines, the limit is {limit}")
    fail_with(places)


def test_functions_are_short() -> None:
    files = [*library(), *sources("recipes", "scripts")]
    measured = [(source, node, function_length(node)) for source in files for node in functions(source.tree)]
    long = [
        (size, source.at(node, f"{node.name} has {size} lines"))
        for source, node, size in measured
        if size >= SHORT_FUNCTION_LINES
    ]
    fail_with([f"{place}, the limit is {FUNCTION_LINES}" for size, place in long if size > FUNCTION_LINES])
    share = 1 - len(long) / len(measured)
    assert share >= SHORT_FUNCTION_SHARE, f"{share:.0%} of the functions are under {SHORT_FUNCTION_LINES}: {long}"


def test_no_file_is_a_drawer() -> None:
    folders = [ROOT / name for name in (PACKAGE, "recipes", "scripts", "tests")]
    paths = sorted(path.relative_to(ROOT) for folder in folders for path in folder.rglob("*"))
    fail_with([f"{path}:1 name what is in it" for path in paths if path.stem in FORBIDDEN_NAMES])


# ---- inheritance


def is_configuration_base(source: Source, node: ast.ClassDef, kinds: set[str]) -> bool:
    """A direct BaseModel without fields in a configuration layer: it only sets how strict the schema is."""
    has_fields = any(isinstance(part, ast.AnnAssign) for part in node.body)
    return source.layer.startswith("config") and "BaseModel" in kinds and not has_fields


def sections(found: list[Source], bases: set[str]) -> set[str]:
    """Every class that inherits from the configuration's base model, through others or not: a section."""
    classes = [node for source in found for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    known: set[str] = set()
    while True:
        more = {node.name for node in classes if {base_name(base) for base in node.bases} & (bases | known)} - known
        if not more:
            return known
        known |= more


def allowed_bases(found: list[Source]) -> set[str]:
    """Framework kinds, exceptions, the project's own Protocols, the configuration's base model and its sections."""
    allowed = FRAMEWORK_BASES | {
        name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
    }
    models: set[str] = set()
    for source in found:
        for node in (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)):
            kinds = {base_name(base) for base in node.bases}
            if "Protocol" in kinds:
                allowed.add(node.name)
            if is_configuration_base(source, node, kinds):
                models.add(node.name)
    return allowed | models | sections(found, models)


def base_name(base: ast.expr) -> str:
    """nn.Module -> Module, Generic[T] -> Generic."""
    return dotted(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2]


def concrete_inheritance(found: list[Source]) -> list[str]:
    allowed = allowed_bases(found)
    return [
        source.at(node, f"{node.name} inherits from {base_name(base)}: use a function or a Protocol")
        for source in found
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if base_name(base) not in allowed
    ]


def test_no_inheritance_from_concrete_classes() -> None:
    fail_with(concrete_inheritance(library()))


def test_concrete_inheritance_is_seen() -> None:
    text = "class A: ...\nclass P(Protocol): ...\nclass E(ValueError): ...\nclass B(P): ...\nclass C(A): ..."
    places = concrete_inheritance([parse("textadv/x.py", text)])
    assert [place.split()[0:2] for place in places] == [["textadv/x.py:5", "C"]]


def test_a_section_may_inherit_from_a_section_and_from_nothing_else_that_carries_code() -> None:
    model = "class Section(BaseModel):\n    model_config = 1\n"
    text = "class T(Section):\n    a: int\nclass U(T): ...\nclass A: ...\nclass V(U, A): ..."
    places = concrete_inheritance([parse("textadv/config/types.py", model), parse("textadv/tasks/x.py", text)])
    assert [place.split()[0:2] for place in places] == [["textadv/tasks/x.py:5", "V"]]
    outside = concrete_inheritance([parse("textadv/attacks/x.py", model + text)])
    assert [place.split()[1] for place in outside] == ["T", "U", "V", "V"]


# ---- README


def tree_entries(readme: str) -> dict[str, int]:
    """Path -> line number for each entry of the fenced tree under "## Layout"; a folder ends in `/`."""
    lines = readme.splitlines()
    start = next((n for n, line in enumerate(lines) if re.match(r"##+ Layout\b", line)), None)
    assert start is not None, "README.md has no section Layout"
    fences = [n for n, line in enumerate(lines) if n > start and line.startswith("```")]
    assert len(fences) >= 2, "README.md has no fenced tree under Layout"
    entries: dict[str, int] = {}
    folders: list[tuple[int, str]] = []
    for number in range(fences[0] + 1, fences[1]):
        line = re.sub(r"[│├└─]", " ", lines[number])
        indent = len(line) - len(line.lstrip())
        folders = [(depth, path) for depth, path in folders if depth < indent]
        parent = folders[-1][1] if folders else ""
        for name in leading_names(line):
            entries[parent + name] = number + 1
            if name.endswith("/"):
                folders.append((indent, parent + name))
    return entries


def leading_names(line: str) -> Iterator[str]:
    """The file and folder names that a line of the tree opens with; the description follows."""
    for word in line.split():
        if not re.fullmatch(r"[\w.*/-]+/|[\w.*/-]*\.\w+|\.[\w/-]+|LICENSE|Makefile", word):
            return
        yield word


def test_tree_entries_reads_nested_lines() -> None:
    tree = "Makefile  LICENSE  .ci/run\na/  folder\n  b.py c.x.json   e.g. two\n  d/\n    *.yaml  all\ne.md  x"
    tree = f"## Layout\n```\n{tree}\n```\n"
    assert list(tree_entries(tree)) == [
        "Makefile",
        "LICENSE",
        ".ci/run",
        "a/",
        "a/b.py",
        "a/c.x.json",
        "a/d/",
        "a/d/*.yaml",
        "e.md",
    ]


def test_readme_tree_is_the_tree() -> None:
    readme = ROOT / "README.md"
    assert readme.is_file(), "README.md is missing"
    entries = tree_entries(readme.read_text(encoding="utf-8"))
    places = [f"README.md:{line} {name} does not exist" for name, line in entries.items() if not exists(name)]
    package = ROOT / PACKAGE
    must = [f"{PACKAGE}/{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [*package.glob("*.py"), *(ROOT / "recipes").glob("*.py"), *(ROOT / "scripts").glob("*.*")]
    must += [path.relative_to(ROOT).as_posix() for path in files]
    fail_with(places + [f"README.md:1 the tree lacks {name}" for name in sorted(must) if name not in entries])


def exists(entry: str) -> bool:
    found = list(ROOT.glob(entry.rstrip("/")))
    return bool(found) and (not entry.endswith("/") or all(path.is_dir() for path in found))


# ---- deviations


def stating(source: Source) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public objectives, what makes one from an attack, and losses."""
    for node in source.tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            calls = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__call__"]
            protocol = any(dotted(base) == "Protocol" for base in node.bases)
            if not protocol and any(ast.unparse(call.returns or call) == "Iterator[Term]" for call in calls):
                yield node
        elif source.path == f"{PACKAGE}/values/losses.py" or ast.unparse(node.returns or node) == "Consistency":
            yield node


def undeviating(source: Source) -> Iterator[str]:
    for node in stating(source):
        if not re.search(r"^ *Deviations: \S", ast.get_docstring(node) or "", flags=re.M):
            yield source.at(node, f"{node.name} has no line `Deviations: ...` in its docstring")


def test_every_objective_and_loss_says_where_it_leaves_its_paper() -> None:
    wanted = [source for source in library() if source.layer in ("objectives", "values")]
    named = [node.name for source in wanted for node in stating(source)]
    assert {"Away", "FreeLB", "Mart", "Retain", "smart", "trades", "dlr"} <= set(named) and len(named) > 25
    fail_with([place for source in wanted for place in undeviating(source)])
    assert list(undeviating(parse(f"{PACKAGE}/values/losses.py", 'def f():\n    """One."""')))
    assert not list(
        undeviating(parse(f"{PACKAGE}/values/losses.py", 'def f():\n    """One.\n\n    Deviations: none.\n    """'))
    )
