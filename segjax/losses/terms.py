"""The loss of a run as text, "cross_entropy(label_smoothing=0.1) + 0.5 * lovasz_softmax".

Python's grammar without its evaluation: a sum of losses of `losses.table`, each with a factor. An
option's value is a number, True, False, None or a word, which needs no quotes.
"""

import ast
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from segjax.losses.table import ALIASES, LOSSES


class Term(NamedTuple):
    """A loss with its factor.

    Attributes:
      factor: above 0.
      name: of a row of `LOSSES`.
      options: those that are given, as (name, value).
    """

    factor: float
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def option(self, name: str) -> Any:
        """An option's value, or its default."""
        return {**LOSSES[self.name].options, **dict(self.options)}[name]


CROSS_ENTROPY = (Term(1.0, "cross_entropy"),)


@functools.cache  # a start reads them several times, and each reading traces the losses
def parse_terms(
    text: str, option: str = "loss.terms", *, head: str = "softmax"
) -> tuple[Term, ...]:
    """The terms of a loss.

    Args:
      text: see the module.
      option: of the config, named in errors.
      head: see `Loss.head`. With "sigmoid" names mean the binary losses: cross_entropy is
        binary_cross_entropy.

    Raises:
      ValueError: for what is no sum of losses, an unknown loss or option, another head's loss, or a
        value or factor out of its range.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        terms = tuple(_terms(tree.body, 1.0, head))
        for term in terms:
            _try(term)
    except (SyntaxError, RecursionError):
        problem = (
            'cannot be read; write a sum such as "cross_entropy + 0.5 * dice(smooth=1)" of '
            + ", ".join(_names(head))
        )
        raise ValueError(f"{option}={text!r} {problem}") from None
    except ValueError as error:
        raise ValueError(f"{option}={text!r}: {error}") from None
    return terms


def parse_aux_terms(text: str, *, head: str = "softmax") -> tuple[Term, ...]:
    """The terms of `loss.aux_terms`; none if it is empty, which stands for those of `loss.terms`.

    Raises:
      ValueError: as `parse_terms`.
    """
    return parse_terms(text, "loss.aux_terms", head=head) if text.strip() else ()


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """A name for each term: its loss, numbered from the second one of the same loss on."""
    names = []
    for i, term in enumerate(terms):
        number = sum(other.name == term.name for other in terms[: i + 1])
        names.append(term.name if number == 1 else f"{term.name}_{number}")
    return tuple(names)


def _terms(node: ast.expr, factor: float, head: str) -> list[Term]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _terms(left, factor, head) + _terms(right, factor, head)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            for number, rest in ((left, right), (right, left)):
                value = _number(number)
                if value is not None:
                    _check_factor(value)
                    _check_factor(factor * value)  # of many small or large ones
                    return _terms(rest, factor * value, head)
            raise ValueError(f"{ast.unparse(node)!r} has no number; use a number * a loss")
        case ast.Name(id=name):
            return [_term(factor, name, [], head)]
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            return [_term(factor, name, keywords, head)]
        case ast.Call(func=ast.Name(id=name), args=[first, *_]):
            raise ValueError(
                f"{name} is given {ast.unparse(first)!r}; use {name}(option=value), with "
                f"{_options_of(_known(name, head))}"
            )
        case ast.UnaryOp(op=ast.USub()) | ast.BinOp(op=ast.Sub()):
            raise ValueError(
                f"{ast.unparse(node)!r} subtracts; use + and factors above 0: losses are minimised"
            )
    if _number(node) is not None:
        raise ValueError(f"{ast.unparse(node)} is no loss; use a number * a loss")
    raise ValueError(
        f"{ast.unparse(node)!r} is no loss; use {', '.join(_names(head))}, with *, + and "
        "(option=value)"
    )


def _number(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _number(operand)
            return None if value is None else -value
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _number(left), _number(right)
            return None if one is None or other is None else one * other
        case ast.Name(id="nan" | "inf" as name):
            return float(name)
    return None


def _check_factor(value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"the factor {value:g}; use a number above 0")


def _names(head: str) -> list[str]:
    return [name for name, row in LOSSES.items() if row.head == head]


def _known(given: str, head: str) -> str:
    name, known = ALIASES[head].get(given, given), (*_names(head), *ALIASES[head])
    if name not in LOSSES:
        raise ValueError(f"{given!r} is unknown; known losses: {', '.join(known)}")
    if LOSSES[name].head != head:
        raise ValueError(
            f"{name} is a loss of {LOSSES[name].head} heads, but model.head={head}; use "
            f"{', '.join(known)}"
        )
    return name


def _options_of(name: str) -> str:
    return ", ".join(f"{option}={value}" for option, value in LOSSES[name].options.items())


def _term(factor: float, name: str, keywords: Sequence[ast.keyword], head: str) -> Term:
    name = _known(name, head)
    known = LOSSES[name].options
    options = {}
    for keyword in keywords:
        if keyword.arg not in known:
            given = keyword.arg or ast.unparse(keyword)
            raise ValueError(f"{name} has no option {given!r}; it has {_options_of(name)}")
        if keyword.arg in options:
            raise ValueError(f"{name} has two values of {keyword.arg}")
        options[keyword.arg] = _value(keyword, known[keyword.arg])
    return Term(factor, name, tuple(options.items()))


def _value(keyword: ast.keyword, default: Any) -> Any:
    """An option's value, of the type of its default; None is the default of optional numbers."""
    number = _number(keyword.value)
    match keyword.value:
        case ast.Constant(value=bool() | str() | None as value):
            pass
        case ast.Name(id=name) if number is None:
            value = name
        case _:
            value = number
    match default:
        case bool():
            valid, kind = isinstance(value, bool), "True or False"
        case str():
            valid, kind = isinstance(value, str), "a word"
        case int():
            kind, valid = "a whole number", False
            if number is not None and number.is_integer():
                value, valid = int(number), True
        case _:
            valid = number is not None or (default is None and value is None)
            value, kind = value if number is None else number, "a number"
    if not valid:
        raise ValueError(f"{ast.unparse(keyword)}; use {keyword.arg}={kind}")
    return value


def _try(term: Term) -> None:
    """Traces a loss with its options, for its own checks of them."""
    logits = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, 4, 4), jnp.int32)
    function = functools.partial(LOSSES[term.name].function, **dict(term.options))
    try:
        jax.eval_shape(function, logits, labels)
    except ValueError as error:
        raise ValueError(f"{term.name}: {error}") from None
