"""Few functions need the whole configuration."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "audiodd_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST = 40


def takes_config(annotation):
    """Returns whether an annotation is ``Config``, alone or in a union."""
    match annotation:
        case ast.Constant(value=str(text)):
            return takes_config(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, right=right):
            return takes_config(left) or takes_config(right)
        case ast.Subscript(slice=inner):
            return takes_config(inner)
        case ast.Name(id="Config") | ast.Attribute(attr="Config"):
            return True
    return False


def config_parameters(module):
    """Returns ``line function(parameter)`` of each parameter typed ``Config``."""
    return [
        f"{module.relative_to(PACKAGE)}:{node.lineno} {node.name}({parameter.arg})"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for parameter in ast.walk(node.args)
        if isinstance(parameter, ast.arg) and takes_config(parameter.annotation)
    ]


def test_few_functions_take_the_whole_configuration():
    """The others take the group of settings that they need."""
    found = [parameter for module in MODULES for parameter in config_parameters(module)]
    assert len(found) <= MOST, "\n".join(found)
