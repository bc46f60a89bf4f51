"""All that edgefuse says to people, to be reread: `python -m tests.support.messages [WORD]`.

Errors, log lines, what commands print, and help texts, each with its place; with a word, those that hold it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEAKERS = {
    "say",
    "print",
    "echo",
    "warning",
    "info",
    "error",
    "debug",
    "exception",
    "warn_once",
    "log",
    "mark_lost",
}
HELP = {"Option", "Argument", "setting", "Setting", "Finding"}


def messages(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every message, with `{…}` for what is filled in."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SPEAKERS | HELP or name.endswith("Error"):
                for part in (*node.args, *(keyword.value for keyword in node.keywords)):
                    if text := _text(part):
                        yield f"{path.relative_to(ROOT)}:{part.lineno}", text


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) and " " in node.value else ""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{…}" for part in node.values)
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ""


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    for place, text in messages(ROOT / "edgefuse"):
        if word in text:
            print(f"{place}: {text}")
