"""The code of the product as syntax trees, parsed once for all tests of this folder."""

import ast
import functools
from pathlib import Path

CHECKOUT = next(above for above in Path(__file__).resolve().parents if (above / "pyproject.toml").exists())
PRODUCT = CHECKOUT / "termite"


@functools.cache
def product_modules() -> tuple[tuple[Path, ast.Module], ...]:
    """Return each module of the product with its file."""
    return tuple((path, ast.parse(path.read_text())) for path in sorted(PRODUCT.rglob("*.py")))


@functools.cache
def product_nodes() -> tuple[tuple[Path, ast.AST], ...]:
    """Return the parts of all modules that a test asks for, each with its file."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Call, ast.Constant)
    return tuple((path, node) for path, tree in product_modules() for node in ast.walk(tree) if isinstance(node, kinds))


def calls() -> tuple[tuple[Path, ast.Call], ...]:
    """Return all calls, each with its file."""
    return tuple((path, node) for path, node in product_nodes() if isinstance(node, ast.Call))
