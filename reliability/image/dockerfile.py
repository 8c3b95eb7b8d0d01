"""The instructions of a Dockerfile, as far as this project's uses them."""

import json
import re
import shlex
from dataclasses import dataclass, field

KNOWN = ("FROM", "COPY", "ENV", "WORKDIR", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its ``name``, its ``flags`` (``--from=uv`` is from -> uv) and the rest of its ``text``."""

    name: str
    flags: dict[str, str]
    text: str

    def words(self) -> list[str]:
        """The words of the text, or of the JSON array that it is."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


@dataclass
class Stage:
    """What lies between one FROM and the next.

    Attributes:
        image: that it begins with.
        name: by which others copy from it; may be empty.
        steps: its instructions in order, without FROM.
    """

    image: str
    name: str
    steps: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction:
        """The last instruction of a name. Raises IndexError if there is none."""
        return [step for step in self.steps if step.name == name][-1]


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile. Raises ValueError for an instruction that is not KNOWN."""
    stages: list[Stage] = []
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", without_comments).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        if name not in KNOWN:
            raise ValueError(f"{name} is not one of {', '.join(KNOWN)}: {line}")
        flags = {}
        while match := re.match(r"\s*--([a-z-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        if name == "FROM":
            image, _, called = rest.strip().partition(" AS ")
            stages.append(Stage(image, called.strip()))
        else:
            stages[-1].steps.append(Instruction(name, flags, rest.strip()))
    return stages
