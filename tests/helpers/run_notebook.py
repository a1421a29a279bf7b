"""Runs the code cells of a notebook as the `__main__` of a fresh process, as a kernel does.

What a notebook defines then belongs to `__main__` and to no file. The value of a cell's last line is shown,
as HTML where it has `_repr_html_`. Usage: python run_notebook.py NOTEBOOK
"""

import ast
import json
import sys
from pathlib import Path


def run_cell(source, where):
    """Run one cell in this module's namespace, and show the value of its last line."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), globals())
    if last is not None:
        value = eval(compile(ast.Expression(last.value), where, "eval"), globals())
        print(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))


def run_notebook(path):
    """Run all code cells in order."""
    for number, cell in enumerate(json.loads(Path(path).read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            run_cell("".join(cell["source"]), f"{path}, cell {number}")


if __name__ == "__main__":
    run_notebook(sys.argv[1])
