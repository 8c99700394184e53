"""What the processes of a run tell each other outside of compiled programs.

Texts go through the key-value store of `jax.distributed`, so that any thread may send and wait
while the devices compute. Each exchange has a name of its own, used once, the same in all.
"""

import jax

# As long as Orbax waits for a slow disk. A process that died ends the wait earlier: then
# `jax.distributed` ends this one.
_LONGEST_S = 1200


def gather(name: str, text: str) -> list[str]:
    """The texts of all processes, in their order; the same list in each.

    Raises:
      ConnectionError: naming the process that did not send one.
    """
    if jax.process_count() == 1:
        return [text]
    _send(name, text)
    return [_receive(name, process) for process in range(jax.process_count())]


def from_first(name: str, text: str) -> str:
    """The text of process 0, in each process; what the others pass is not read.

    Raises:
      ConnectionError: in the others, if process 0 sends none.
    """
    if jax.process_index() == 0:
        if jax.process_count() > 1:
            _send(name, text)
        return text
    return _receive(name, 0)


def _send(name: str, text: str) -> None:
    store().key_value_set(_key(name, jax.process_index()), text)


def _receive(name: str, process: int) -> str:
    try:
        return store().blocking_key_value_get(_key(name, process), _LONGEST_S * 1000)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"process {process} did not answer: {reason}") from error


def _key(name: str, process: int) -> str:
    return f"segjax/{name}/{process}"


def store():
    """The client of the key-value store, of which each process has one."""
    # There is no public name for it; Orbax and Flax take it from here too.
    return jax._src.distributed.global_state.client
