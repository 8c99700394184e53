"""The error for data that a user can mend."""

from collections.abc import Sequence


class DataError(ValueError):
    """A file, folder, class list or `config.data` option that is wrong; its text is
    `found; remedy`.

    Attributes:
      found: the file or option, and what is wrong with it.
      remedy: what to do, such as "use an intact image file".
    """

    def __init__(self, found: str, remedy: str):
        super().__init__(found, remedy)  # both, or the error would not pickle
        self.found, self.remedy = found, remedy

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


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
    return DataError(separator.join(lines), "--mode=doctor reports each of them in full")
