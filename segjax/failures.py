"""What a user is told of an error that ends a command."""

import errno
import json
import re
import traceback

# Errors that a user can cause; their message says what to do.
_EXPECTED = (ValueError, OSError, ArithmeticError)
# Errors of the language and its library, whose messages do not say what they are about.
_VAGUE = (UnicodeError, json.JSONDecodeError, OverflowError, ZeroDivisionError, FloatingPointError)
_LESS_MEMORY = "use fewer data.workers, a smaller data.cache_mb or a smaller batch"
_MORE_PROCESSES = (
    "raise ulimit -u (of a container, its limit of processes), or use fewer data.workers"
)
_REMEDIES = {
    errno.ENOSPC: "make room there, in the workdir, in /tmp ($TMPDIR) or in /dev/shm, which "
    "data.workers=0 does without; df -h lists what is left",
    errno.EDQUOT: "your quota is used up: make room, or use another folder",
    errno.EMFILE: "raise ulimit -n, or use fewer data.workers",
    errno.ENFILE: "the whole machine has no more: end other programs",
    errno.EAGAIN: _MORE_PROCESSES,
    errno.ENOMEM: _LESS_MEMORY,
}
# What Python says of a value of another type.
_TYPES = (
    (re.compile(r"invalid literal for int\(\).*", re.DOTALL), "use a whole number"),
    (re.compile(r"could not convert string to float.*", re.DOTALL), "use a number"),
    (re.compile(r"\('Non-boolean argument.*", re.DOTALL), "use True or False"),
)


def of_flag(message: str) -> str:
    """absl's message about a flag's value, in one line."""
    message = " ".join(message.split()).removeprefix("flag ")
    for pattern, remedy in _TYPES:
        message = pattern.sub(remedy, message)
    return message


def explained(error: BaseException) -> str | None:
    """The message for the user; None for an error that is a bug of ours.

    One that does not say what it is about (an OSError without a file, a memory that ran out) gets
    the function of segjax where it arose, and what to do.
    """
    text = str(error).strip()
    if isinstance(error, MemoryError):
        return f"{text or 'memory ran out'}, in {_place(error)}; {_LESS_MEMORY}"
    if isinstance(error, RecursionError):
        return f"too deeply nested, in {_place(error)}; see the files that are read there"
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text:
        return (
            f"the memory of the device ran out ({text.splitlines()[0]}); use a smaller "
            "train.batch_size or crop, more of train.accumulate, train.remat=blocks, for an "
            "evaluation a smaller train.eval_batch_size or --batch_size; --mode=plan counts"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return f"{text}; {_MORE_PROCESSES}"
    if isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror or text
        known = error.filename is not None
        found = f"{error.filename}: {reason}" if known else f"{reason}, in {_place(error)}"
        return "; ".join(filter(None, (found, _REMEDIES.get(error.errno))))
    if isinstance(error, _EXPECTED) and (isinstance(error, _VAGUE) or not text):
        return f"{text or type(error).__name__}, in {_place(error)}"
    return text if isinstance(error, _EXPECTED) else None


def _place(error: BaseException) -> str:
    """The innermost function of segjax that the error left."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [f"{f.f_globals.get('__name__')}.{f.f_code.co_qualname}" for f in frames]
    ours = [name for name in names if name.startswith("segjax.")]
    return (ours or names or ["segjax"])[-1]
