"""Nothing that is read can run code, and services stay in their folder (docs/security.md)."""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest

from instseg_ros.errors import InputError
from instseg_ros.ros.saving import confined_path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("instseg_ros", "launch", "scripts") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_MODULES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {
    "compile", "eval", "exec", "os.popen", "os.system", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load", "torch.load",
    "torch.save", "yaml.full_load", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
}


def hazards(source: str) -> list[str]:
    """What in a module could run code out of a file or a string, as `line: what`."""
    tree, found = ast.parse(source), []
    names: dict[str, str] = {}  # what a name in the module stands for: np -> numpy, load -> numpy.load
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            for one in node.names:
                whole = f"{module}{one.name}"
                names[one.asname or one.name.split(".")[0]] = whole if one.asname or module else one.name.split(".")[0]
                if whole.split(".")[0] in FORBIDDEN_MODULES:
                    found.append(f"{node.lineno}: imports {whole}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        called = names.get(first, first) + dot + rest
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in FORBIDDEN_CALLS:
            found.append(f"{node.lineno}: {called}")
        elif called == "numpy.load" and given.get("allow_pickle") != "False":
            found.append(f"{node.lineno}: numpy.load without allow_pickle=False")
        elif given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            found.append(f"{node.lineno}: {called} with a pickle or a shell")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import torch\ntorch.load('x')", "from torch import load as read\nread('x')",
        "import numpy as np\nnp.load('x')", "import numpy\nnumpy.load('x', allow_pickle=True)", "import numpy as np\nnp.savez('x', allow_pickle=1)",
        "import yaml\nyaml.load('x', yaml.Loader)", "eval('1')", "import os\nos.system('ls')", "import subprocess as s\ns.run('ls', shell=True)",
    ],
)
def test_hazards_are_seen(source):
    assert hazards(source)


@pytest.mark.parametrize(
    "source",
    ["import numpy as np\nnp.load('x', allow_pickle=False)", "import yaml\nyaml.safe_load('x')", "net.eval()", "import re\nre.compile('x')"],
)
def test_safe_calls_pass(source):
    assert hazards(source) == []


def test_the_package_runs_nothing_that_it_reads():
    assert len(SOURCES) > 100
    assert {str(path.relative_to(ROOT)): found for path in SOURCES if (found := hazards(path.read_text()))} == {}


@pytest.fixture
def folder(tmp_path):
    """A save_dir with links out of it, within it and in a circle."""
    root = tmp_path / "maps"
    (root / "inner").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "out.ply").symlink_to(tmp_path / "elsewhere.ply")
    (root / "in").symlink_to(root / "inner")
    (root / "circle").symlink_to(root / "circle")
    (root / "circle.ply").symlink_to(root / "circle.ply")
    return root


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "/", "../x.ply", "inner/../../x.ply", "in/../../x.ply", "/etc/x.ply", "//etc/x.ply", "out/x.ply", "out/maps/../x.ply",
        "out.ply", "a\0b.ply", "\ud800.ply", "../maps2/x.ply",
    ],
)
def test_paths_elsewhere_are_refused(folder, path):
    with pytest.raises(InputError, match="save_dir"):
        confined_path(folder, path)


@pytest.mark.parametrize("path", ["circle.ply", "circle/x.ply"])
def test_links_in_a_circle_lead_nowhere(folder, path):
    with pytest.raises((InputError, OSError)):  # Python 3.13 says so only when the file is opened
        confined_path(folder, path).open("wb")


@pytest.mark.parametrize("path", ["x", "x.pkl", "x.ply.sh", "x.PLY", ".ply", "inner"])
def test_other_suffixes_are_refused(folder, path):
    with pytest.raises(InputError, match="must end in"):
        confined_path(folder, path)


@pytest.mark.parametrize(
    "path, lands", [("x.ply", "x.ply"), ("new/deep/x.npz", "new/deep/x.npz"), ("in/x.ply", "inner/x.ply"), ("inner/../x.instseg", "x.instseg"),
                    ("~/x.ply", "~/x.ply")],
)
def test_paths_inside_are_taken(folder, path, lands):
    assert confined_path(folder, path) == folder / lands


def test_an_absolute_path_inside_is_taken_and_a_linked_folder_is_followed(folder, tmp_path):
    assert confined_path(folder, str(folder / "x.ply")) == folder / "x.ply"
    assert confined_path(tmp_path / "maps" / "in", "x.ply") == folder / "inner" / "x.ply"


def test_the_policy_has_the_form_that_sros_2_reads():
    """As sros2's policy.xsd says: elements, their attributes, and what stands in them."""
    children = {
        "policy": {"enclaves"}, "enclaves": {"enclave"}, "enclave": {"profiles"}, "profiles": {"profile"}, "profile": {"topics", "services"},
        "topics": {"topic"}, "services": {"service"}, "topic": set(), "service": set(),
    }
    attributes = {
        "policy": {"version"}, "enclave": {"path"}, "profile": {"ns", "node"}, "topics": {"publish", "subscribe"}, "services": {"reply", "request"},
    }
    builder = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    policy = ElementTree.parse(ROOT / "config" / "sros2_policy.xml", builder).getroot()
    assert (policy.tag, policy.attrib) == ("policy", {"version": "0.2.0"})
    enclaves = policy.find("enclaves")
    assert enclaves is not None and {str(one.tag) for one in enclaves} == {"enclave"}, "ros2 security takes a comment there for an enclave"
    assert [one.get("path") for one in enclaves] == [f"/instseg_ros/{name}" for name in ("segmenter", "fusion", "operator")]
    for element in policy.iter():
        if isinstance(element.tag, str):
            assert {one.tag for one in element if isinstance(one.tag, str)} <= children[element.tag]
            assert set(element.attrib) <= attributes.get(element.tag, set())
            if element.tag in ("topics", "services"):
                assert set(element.attrib.values()) == {"ALLOW"} and len(element)
            if element.tag in ("topic", "service"):
                assert (element.text or "").strip() == element.text and set(element.text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_/~")
