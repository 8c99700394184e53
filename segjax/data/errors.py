"""The error for data that a user can mend."""

from collections.abc import Sequence

_LONGEST = 1000  # characters of each part of a message


class DataError(ValueError):
    """A file, folder, class list or `config.data` option that is wrong; its text is
    `found; remedy`, in one line, whatever names and values of the data it holds.

    Attributes:
      found: the file or option, and what is wrong with it.
      remedy: what to do, such as "use an intact image file".
    """

    def __init__(self, found: str, remedy: str):
        found, remedy = self._shown(found), self._shown(remedy)
        super().__init__(found, remedy)  # both, or the error would not pickle
        self.found, self.remedy = found, remedy

    @staticmethod
    def _shown(text: str) -> str:
        return in_a_line(text, _LONGEST)

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


class _DataErrors(DataError):
    """Several, a line each."""

    @staticmethod
    def _shown(text: str) -> str:
        return text


def in_a_line(text: str, longest: int) -> str:
    """A text without what moves a cursor or ends a line, and without the middle of a long one."""
    if len(text) > longest:
        text = f"{text[: longest * 3 // 4]} ... {text[-longest // 4 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_data_error(error: Exception) -> DataError:
    """The error itself, or for one of another kind its text with a general remedy."""
    if isinstance(error, DataError):
        return error
    return DataError(str(error), "mend the sample or leave it out")


def joined(errors: Sequence[DataError], heading: str = "", shown: int = 10) -> DataError:
    """Several errors as one: the heading, a line for each of the first `shown`, the number of the
    others, and a remedy only where it occurs first. One error without a heading stays as it is."""
    if len(errors) == 1 and not heading:
        return errors[0]
    lines, remedies = [heading] if heading else [], set()
    for error in errors[:shown]:
        lines.append(error.found if error.remedy in remedies else str(error))
        remedies.add(error.remedy)
    if len(errors) > shown:
        lines.append(f"and {len(errors) - shown} more")
    separator = "\n  " if heading else "\n"
    return _DataErrors(separator.join(lines), "--mode=doctor reports each of them in full")
