"""Reads the Dockerfile as far as the tests look into it: stages, and what these inherit."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "Dockerfile"

_FROM = re.compile(r"(?P<parent>\S+)(?: AS (?P<name>\S+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Instruction:
    keyword: str
    value: str


@dataclass(frozen=True, slots=True)
class Stage:
    """`instructions` begin with those of the stage that this one is built from."""

    name: str
    image: str
    instructions: list[Instruction] = field(default_factory=list)

    def values(self, keyword: str) -> list[str]:
        return [step.value for step in self.instructions if step.keyword == keyword]

    def environment(self) -> dict[str, str]:
        pairs = [pair for value in self.values("ENV") for pair in shlex.split(value)]
        return dict(pair.split("=", 1) for pair in pairs)

    def command(self) -> list[str]:
        """CMD in exec form. Raises ValueError for the shell form."""
        return _exec_form(self.values("CMD")[-1])

    def health_command(self) -> list[str]:
        """What HEALTHCHECK runs, empty where it is switched off."""
        value = self.values("HEALTHCHECK")[-1]
        return [] if value == "NONE" else _exec_form(value.partition("CMD ")[2])

    def copied(self) -> list[str]:
        """The paths of the build context that COPY takes."""
        words = [
            [word for word in shlex.split(value) if not word.startswith("--")]
            for value in self.values("COPY")
        ]
        return [source for line in words for source in line[:-1]]


def stages() -> dict[str, Stage]:
    """Every stage by its name, in the order of the file."""
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for step in _instructions(PATH.read_text()):
        if step.keyword == "FROM":
            match = _FROM.fullmatch(step.value)
            assert match is not None, f"cannot read FROM {step.value}"
            assert match["name"], f"a stage without a name: {step.value}"
            parent = found.get(match["parent"])
            image = parent.image if parent else match["parent"]
            inherited = list(parent.instructions) if parent else []
            stage = found[match["name"]] = Stage(match["name"], image, inherited)
        else:
            assert stage is not None, "an instruction stands before the first FROM"
            stage.instructions.append(step)
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            keyword, _, value = line.strip().partition(" ")
            yield Instruction(keyword.upper(), value.strip())


def _exec_form(text: str) -> list[str]:
    words = json.loads(text)
    assert isinstance(words, list)
    assert all(isinstance(word, str) for word in words)
    return words
