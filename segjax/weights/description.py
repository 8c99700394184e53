"""What a file of segjax says of its network: the model's config, mean, std and classes."""

from collections.abc import Callable, Mapping
from typing import Any

from segjax.data.files.json_file import parse_json
from segjax.weights.reading import Refused

# Far above what a network has: a config of others must not ask for more.
_LONGEST_LIST, _LARGEST_NUMBER = 64, 2**20
_MOST_CLASSES = 2**16


def from_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text.

    Raises:
      Refused: if it is none.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise Refused(f"its {what} is no JSON ({error})") from error


def description(given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries `config`, `mean`, `std` and `classes` of a `WeightFile`, checked.

    Args:
      given: values as JSON has them; entries that are missing or None stay None, or {} for the
        config.

    Raises:
      Refused: if one is of another type than those that segjax writes, or out of its range.
    """
    config, mean, std, classes = (given.get(k) for k in ("config", "mean", "std", "classes"))
    if config is not None:
        _check(_is_config(config), "model", "a dict with name, num_classes and options", config)
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    for name, values in (("mean", mean), ("std", std)):
        numbers = _is_list(values, _is_number, _LONGEST_LIST)
        _check(values is None or numbers, name, "a list of numbers, one a channel", values)
    _check(std is None or min(std) > 0, "std", "numbers above 0", std)
    same = mean is None or std is None or len(mean) == len(std)
    _check(same, "std", "as long as the mean", std)
    named = _is_list(classes, _is_name, _MOST_CLASSES)
    _check(classes is None or named, "list of classes", "names", classes)
    if config and classes is not None:
        fits = len(classes) == config["num_classes"]
        _check(fits, "list of classes", f"num_classes={config['num_classes']} names", classes)
    return {
        "config": config or {},
        **{k: v and tuple(v) for k, v in (("mean", mean), ("std", std), ("classes", classes))},
    }


def _check(holds: bool, name: str, allowed: str, found: Any) -> None:
    if not holds:
        raise Refused(f"its {name} should be {allowed}, found {str(found)[:100]}; export it again")


def _is_list(values: Any, each: Callable[[Any], bool], longest: int) -> bool:
    return (
        isinstance(values, list | tuple) and 0 < len(values) <= longest and all(map(each, values))
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 1000


def _is_config(config: Any) -> bool:
    if not isinstance(config, dict) or not _is_name(config.get("name")):
        return False
    classes, head = config.get("num_classes"), config.get("head", "softmax")
    thresholds = config.get("threshold", [0.5])
    plain = lambda v: v is None or isinstance(v, bool) or _is_name(v) or _is_number(v)  # noqa: E731
    return (
        type(classes) is int
        and 0 < classes <= _MOST_CLASSES
        and head in ("softmax", "sigmoid")
        and _is_list(thresholds, _is_share, _MOST_CLASSES)
        and len(thresholds) in (1, classes)
        and all(plain(v) or v == [] or _is_list(v, plain, _LONGEST_LIST) for v in config.values())
    )
