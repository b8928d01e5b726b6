"""Documents to ask about: this repository's, and the descriptions of the installed packages.

    python examples/rag/documents.py build/rag/documents

Of the packages, those that adjoin itself requires; each becomes one Markdown file with its name,
its summary and the beginning of its description.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_CHARACTERS = 5_000
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOISE = re.compile(
    r"<!--.*?-->"  # comments
    r"|^\s*\.\. (image|figure|raw|\|).*(\n[ \t]+\S.*)*"  # pictures of reStructuredText
    r"|\[?!\[[^\]]*\]\([^)]*\)(\]\([^)]*\))?"  # pictures of Markdown, badges among them
    r"|</?[a-zA-Z][^>]*>"  # HTML
    r"|^(\|[^|\n]+\|[ \t]*)+$"  # badges of reStructuredText
    r"|^\.\. _.*$",  # its link targets
    re.DOTALL | re.MULTILINE,
)


def required_packages() -> Iterator[Distribution]:
    """What adjoin requires, its extras included, as far as it is installed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [requirement for each in lists for requirement in each]
    names = {match[0].lower() for each in requirements if (match := _REQUIREMENT.match(each))}
    for name in sorted(names):
        try:
            yield distribution(name)
        except PackageNotFoundError:
            continue


def description(package: Distribution) -> str:
    """The package as one Markdown document."""
    metadata = package.metadata.json
    name, summary, body = (str(metadata.get(key, "")) for key in ("name", "summary", "description"))
    text = re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", body)).strip()
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rpartition("\n")[0]
    return f"# {name}\n\n{name} {package.version}: {summary}\n\n{text}\n"


def collect(target: Path) -> int:
    """Write the documents into ``target``, replacing what is there; returns how many."""
    shutil.rmtree(target, ignore_errors=True)
    packages, own = target / "packages", target / "adjoin"
    packages.mkdir(parents=True)
    own.mkdir()
    for package in required_packages():
        name = package.metadata["Name"].lower()
        (packages / f"{name}.md").write_text(description(package), encoding="utf-8")
    # not the README: it shows these questions with their answers
    for file in [REPOSITORY / "ARCHITECTURE.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]:
        name = "-".join(file.relative_to(REPOSITORY).parts)
        shutil.copyfile(file, own / name)
    return sum(1 for _ in target.rglob("*.md"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/rag/documents.py FOLDER")
    folder = Path(sys.argv[1])
    print(f"{collect(folder)} documents in {folder}")
