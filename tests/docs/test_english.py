"""Every sentence of the package, its pages and its help reads as plain English."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

from audiodd_jax.commands import main
from audiodd_jax.flags import COMMANDS

REPOSITORY = Path(__file__).parents[2]
ROOTS = (
    "README.md",
    "BUILD_NOTES.md",
    "audiodd_jax",
    "launch",
    "experiments",
    ".ci",
)

# Translated idioms, and what a native engineer would write in their place.
PHRASES = {
    r"to be had": "available",
    r"t(?:old|ell|ells|elling) \w*\s?apart": "distinguish",
    r"by heart": "overfits, memorises",
    r"likewise": "also, in the same way",
    r"sa(?:id|ys?) so": "reports, logs",
    r"goes on": "continues, resumes",
    r"of those(?= (?:that|who|which|of|with|in)(?!\w)|[,.;:)]|$)": "name the things",
    r"of theirs": "user-supplied",
    r"of one's own": "your own",
    r"(?:which|what|that|it|they) (?:is|are|was|were) there": "existing, available",
    r"asked for": "requested",
    r"as \w+(?: -m)? ha(?:s|ve) it": "as in",
    r"has not(?= (?:an?|the|it|any)(?!\w)|[,;.])": "lacks, does not match",
    r"had bought|(?:who|that|functions?|which) (?:buys?|bought)|buys": "acquires",
    r"(?:if|where|unless|when) there (?:is|are|was|were) (?:one|none|any)": "if given",
    r"there (?:is|are) none": "not found",
    r"(?:is|are|was|were) none": "does not exist",
    r"(?:is|are|was|were) not there": "missing",
    r"than there (?:is|are)": "than available",
    r"without a word": "silently",
    r"beside": "next to, alongside",
    r"all but(?! (?:one|two|the))": "almost, except",
    r"as of an?": "say it directly",
    r"such as it is": "as is",
    r"lies? in \$": "is stored in",
    r"(?:functions?|methods?|programs?) (?:buys?|asks?|had to)": "not persons",
    r"have ?\d[\d.]* %|has ?\d[\d.]* %": "reaches, scores",
    r"want of": "lack of",
    r"worth having": "useful",
    r"\ban? (?:process|task|task|player|line|row|word|pair) a\b": "per",
    r"\b(?:clips|labels|seconds|steps|s|spectrograms|samples|images|\d+) an? "
    r"(?:class|word|step|pair|round|turn|case|trial)\b": "per class",
    r"(?:\w+ of (?:the |a |an |its |their )?){4}\w+": "a chain of 'of'",
    r"whose [^.;:]{0,60} whose": "a chain of 'whose'",
    r"what it (?:is|was) (?:of|by)": "say it directly",
}
FIRST_WORDS = re.compile(r"(?:What|Of|Whether|Which|Whose)\b")
BARE_OF = re.compile(r"^\s+\*{0,2}`*\w+`*(?: \([^)]*\))?: of ", re.MULTILINE)
# Where a pattern is meant: the text's file and words of the text.
ALLOWED: tuple[tuple[str, str], ...] = (
    ("experiments/budget_table.py", "of train (%)"),  # a column of published files
)

_PATTERN = {
    re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE): better
    for words, better in PHRASES.items()
}


class Text(NamedTuple):
    """Words that a reader meets, and where."""

    file: str
    line: int
    kind: str
    words: str


def python_texts(name, source):
    """Docstrings, comments and strings of more than one word."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node):
            constant = node.body[0].value
            docstrings.add(constant)
            yield Text(name, constant.lineno, "docstring", constant.value)
    for node in ast.walk(tree):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_string and node not in docstrings and " " in node.value.strip():
            yield Text(name, node.lineno, "string", node.value)
    previous = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("#: ")
        if (
            previous
            and previous.line + previous.words.count("\n") + 1 == token.start[0]
        ):
            previous = previous._replace(words=f"{previous.words}\n{words}")
            continue
        if previous:
            yield previous
        previous = Text(name, token.start[0], "comment", words)
    if previous:
        yield previous


def notebook_texts(name, source):
    """The prose and the code of a notebook's cells."""
    for number, cell in enumerate(json.loads(source)["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield Text(name, number, "page", text)
        else:
            code = re.sub(r"^([!%])", r"# \1", text, flags=re.MULTILINE)
            yield from python_texts(name, code)


def page_texts(name, source):
    """The paragraphs of a page, without code blocks and link targets."""
    blocked = re.sub(
        r"^```.*?^```",
        lambda block: "\n" * block[0].count("\n"),
        source,
        flags=re.MULTILINE | re.DOTALL,
    )
    blocked = re.sub(r"\]\([^)]*\)", "]", blocked)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", blocked):
        if paragraph.strip():
            yield Text(name, line, "page", paragraph)
        line += paragraph.count("\n")


READERS = {
    ".py": python_texts,
    ".md": page_texts,
    ".html": page_texts,
    ".j2": page_texts,
    ".js": page_texts,
    ".txt": page_texts,
    ".sh": page_texts,
    ".sbatch": page_texts,
    ".ipynb": notebook_texts,
    "": page_texts,  # .ci/run
}


def files(root):
    """Files of a root that have words for readers."""
    path = REPOSITORY / root
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file for file in found if file.is_file() and file.suffix in READERS]


def hits(texts):
    """One line per pattern that a text matches."""
    for text in texts:
        words = re.sub(r"\s+", " ", text.words).strip()
        found = {pattern.search(words): better for pattern, better in _PATTERN.items()}
        found.pop(None, None)
        if text.kind == "docstring" and (first := FIRST_WORDS.match(words)):
            found[first] = "begin with a verb or a noun"
        if text.kind == "docstring" and (bare := BARE_OF.search(text.words)):
            found[bare] = "a description needs a noun"
        if text.kind == "string" and (bare := re.match(r"of (?=[a-z])", text.words)):
            found[bare] = "a description needs a noun"
        for match, better in found.items():
            if any(f == text.file and p in words for f, p in ALLOWED):
                continue
            start = max(match.start() - 40, 0)
            shown = re.sub(r"\s+", " ", match.string[start : match.end() + 30])
            yield f"{text.file}:{text.line}: …{shown}…  ({better})"


def all_hits(root):
    """Every hit below a root."""
    for file in files(root):
        name = str(file.relative_to(REPOSITORY))
        yield from hits(READERS[file.suffix](name, file.read_text()))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_translated_idioms(command, capsys):
    main.main([command, "--help"])
    found = list(hits(page_texts("help", capsys.readouterr().out)))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("root", ROOTS)
def test_no_translated_idioms(root):
    found = list(all_hits(root))
    assert not found, "\n" + "\n".join(found)


def test_the_patterns_are_found_and_plain_sentences_are_not():
    """A check of the check: each kind of text, with and without an idiom."""
    code = '''
def split(clips):
    """What is there for the tests.

    Args:
      clips: of the dataset.
    """
    # Clips are told apart
    # by their names.
    raise ValueError("there is none of the name")
'''
    lines = {hit.split(":")[1] for hit in hits(python_texts("x.py", code))}
    assert lines == {"3", "8", "10"}
    page = "Plain prose.\n\nThe report\nsays so.\n\n```\nbeside\n```\n"
    (found,) = hits(page_texts("x.md", page))
    assert found.startswith("x.md:3: ")
    plain = 'def split(clips):\n    """Splits clips by their names."""\n'
    assert not list(hits(python_texts("x.py", plain)))
