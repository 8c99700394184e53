"""The source lines that an instruction of a compiled program comes from."""

import dataclasses
import re
from collections.abc import Mapping

from segjax.accelerators.hlo import Instruction


@dataclasses.dataclass(frozen=True)
class Frame:
    """A call in the traced program: the file with its path, and the function's qualified name."""

    file: str
    function: str


class Frames:
    """The calls behind each instruction, read from the tables at the head of the text."""

    def __init__(self, text: str):
        files = _names(text, "FileNames", "FunctionNames")
        functions = _names(text, "FunctionNames", "FileLocations")
        locations = {
            number: Frame(files[file], functions[function])
            for number, file, function in _rows(text, r"file_name_id=(\d+) function_name_id=(\d+)")
        }
        self._calls: Mapping[int, tuple[Frame, int]] = {
            number: (locations[location], parent - 1)  # XLA prints the parent's number plus one
            for number, location, parent in _rows(
                text, r"file_location_id=(\d+) parent_frame_id=(\d+)"
            )
        }

    def of(self, instruction: Instruction) -> tuple[Frame, ...]:
        """The calls, the innermost first; () if the compiler lost them."""
        match = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        number = int(match[1]) if match else 0
        frames = []
        while number in self._calls:
            frame, number = self._calls[number]
            frames.append(frame)
        return tuple(frames)


def _names(text: str, first: str, last: str) -> dict[int, str]:
    begin, end = text.find(f"\n{first}\n"), text.find(f"\n{last}\n")
    rows = re.findall(r'^(\d+) "(.*)"$', text[begin:end], re.MULTILINE)
    return {int(number): name for number, name in rows}


def _rows(text: str, fields: str) -> list[tuple[int, ...]]:
    rows = re.findall(rf"^(\d+) \{{{fields}", text, re.MULTILINE)
    return [tuple(map(int, row)) for row in rows]
