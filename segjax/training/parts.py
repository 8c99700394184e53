"""The parts of a network: learning rate, weight decay and freezing by name.

Options name parts in one of three ways:

* a group: `encoder`, `aux` (the auxiliary head), `head` (all the rest), or `classifier` (the layers
  of the head that make the logits);
* a kind: `kernel`, `bias` (of convolutions) or `norm` (scale and bias of normalisations);
* any other name is a regular expression for the path of a parameter or of a module that holds it,
  from the start to the end of a name: `pyramid`, `encoder/stage[23]_.*`, `head/classifier/bias`.

Groups and kinds come before modules of the same name: in PSPNet, whose layers after the encoder are
`pyramid` and `head`, the name `head` means both, and `head/.*` the module.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import optax
from flax.traverse_util import flatten_dict

from segjax.training import optim
from segjax.training.frozen import Frozen, map_by_path
from segjax.training.schedules import Schedule

GROUPS = ("encoder", "head", "aux", "classifier")
KINDS = ("kernel", "bias", "norm")
# More names than these are shortened in the table.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array of a model's parameters, and how it is trained.

    Attributes:
      path: "encoder/stage2_block1/conv1/conv/kernel".
      size: number of values.
      group: "encoder", "head" or "aux".
      kind: "kernel", "bias" or "norm".
      classifier: whether its layer makes the logits.
      stage: of an encoder, 0 = the stem; else None.
      rate: factor on the learning rate.
      decay: factor on the weight decay.
      frozen: whether it is left as it is.
    """

    path: str
    size: int
    group: str
    kind: str
    classifier: bool
    stage: int | None
    rate: float = 1.0
    decay: float = 1.0
    frozen: bool = False

    @property
    def module(self) -> str:
        return self.path.rpartition("/")[0]

    def is_in(self, name: str) -> bool:
        """Whether the parameter belongs to the part of that name."""
        if name == "classifier":
            return self.classifier
        if name in GROUPS or name in KINDS:
            return name in (self.group, self.kind)
        return re.match(rf"(?:{name})(?:/|$)", self.path) is not None


@dataclasses.dataclass(frozen=True)
class Row:
    """Parameters that are trained alike: a row of the table of parts.

    Attributes:
      part: "encoder", or the modules of it.
      kinds: "kernel" or "bias, norm".
      parameters: number of values.
      learning_rate: of `optim.learning_rate` and the parameter's factor; the schedule comes on top.
      weight_decay: of `optim.weight_decay` and the parameter's factor.
      frozen: if so, the two are 0.
    """

    part: str
    kinds: str
    parameters: int
    learning_rate: float
    weight_decay: float
    frozen: bool


@dataclasses.dataclass(frozen=True)
class Parts:
    """All parameters of a model, each with its factors; see `read_parts`."""

    parameters: tuple[Parameter, ...]
    norms: frozenset[str] = frozenset()

    @property
    def frozen(self) -> Frozen:
        return Frozen(frozenset(p.path for p in self.parameters if p.frozen), self.norms)

    @property
    def plain(self) -> bool:
        """Whether all parameters have one rate, none is frozen, and kernels alone decay, or all."""
        return all(p.rate == 1 and not p.frozen for p in self.parameters) and (
            all(p.decay == 1 for p in self.parameters) or self._kernels_decay
        )

    @property
    def _kernels_decay(self) -> bool:
        return all(p.decay == (p.kind == "kernel") for p in self.parameters)

    def make_optimizer(
        self, config: Mapping[str, Any], schedule: Schedule
    ) -> optax.GradientTransformation:
        """The optimiser of `config.optim`, in which each parameter has its rate and decay.

        Rates and decays that no option changes leave its state as it is without this module.
        Otherwise the parameters of one decay factor have a rule (and its state) of their own,
        frozen ones have none, and factors on the rate multiply the rule's update: that is what
        torch does with one learning rate for each parameter group. Gradients are clipped before,
        by the norm over all that is trained.

        Raises:
          ValueError: as `optim.make_optimizer`.
        """
        if self.plain:
            decay_mask = optim.kernels_only if self._kernels_decay else None
            return optim.make_optimizer(config, schedule, decay_mask)
        optim.make_optimizer(config, schedule)  # checks the options as the config has them
        rates = {p.path: p.rate for p in self.parameters}
        labels = {p.path: "frozen" if p.frozen else f"decay {p.decay}" for p in self.parameters}
        rules = {
            f"decay {p.decay}": optim.make_optimizer(
                {**config, "weight_decay": config["weight_decay"] * p.decay, "clip_norm": 0.0},
                schedule,
                None,
            )
            for p in self.parameters
            if not p.frozen
        }
        if self.frozen.params:
            rules["frozen"] = optax.set_to_zero()
        chain = [optax.partition(rules, lambda params: _by_path(labels, params))]
        if config["clip_norm"]:
            chain.insert(0, optax.clip_by_global_norm(config["clip_norm"]))
        if any(rate != 1 for rate in rates.values()):

            def scaled(updates, _):
                return jax.tree.map(lambda u, rate: u * rate, updates, _by_path(rates, updates))

            chain.append(optax.stateless(scaled))
        return optax.chain(*chain)

    def rows(self, config: Mapping[str, Any]) -> list[Row]:
        """The table of parts: how each is trained under `config.optim`."""
        rows = []
        for group in ("encoder", "head", "aux"):
            own = [p for p in self.parameters if p.group == group]
            own.sort(key=lambda p: p.stage or 0)
            for alike in _groups(own, lambda p: p.frozen or (p.rate, p.decay)):
                names = {
                    kind: _names(_modules(alike, kind), _modules(own, kind), group)
                    for kind in {p.kind for p in alike}
                }
                # Kinds of the same modules share a row.
                for of in _groups(alike, lambda p, names=names: names[p.kind]):
                    rows.append(_row(names[of[0].kind], of, config))
        return rows


def read_parts(config: Mapping[str, Any], model: nn.Module, variables: Mapping[str, Any]) -> Parts:
    """What the options `optim.lr_scale`, `optim.layer_decay`, `optim.decay_scale` and
    `train.freeze` make of each parameter.

    Factors of several names that a parameter has multiply. With `layer_decay` d, the last stage of
    the encoder has d times the rate of the head, each stage before d times that of its successor,
    and the stem the least (Bao et al., "BEiT", ICLR 2022 (arXiv 2106.08254), section 3.3, layer by
    layer; here stage by stage).

    A batch norm is frozen if all of its parameters are, or if it has none and its module's are.

    Args:
      config: the whole config.
      model: of which the names of classifiers are known.
      variables: "params" and, where there are any, "batch_stats", as arrays or shapes.

    Raises:
      ValueError: naming the option, for a name that matches no parameter, a factor out of range,
        an option for a part that is frozen, or a model of which all is frozen.
    """
    optimizer, freeze = config["optim"], _split_names(config["train"]["freeze"])
    rates = factors("optim.lr_scale", optimizer["lr_scale"], above=True)
    decays = factors("optim.decay_scale", optimizer["decay_scale"])
    layer_decay = optimizer["layer_decay"]
    parameters = parameters_of(model, variables["params"])
    for option, names in (
        ("optim.lr_scale", rates),
        ("optim.decay_scale", decays),
        ("train.freeze", freeze),
    ):
        # The default of decay_scale names kinds that a network may lack.
        may_lack = KINDS if option == "optim.decay_scale" else ()
        for name in names:
            _check_name(option, name, parameters, name in may_lack)
    stages = sorted({p.stage for p in parameters if p.stage is not None})

    def trained(p: Parameter) -> Parameter:
        below = 0 if p.stage is None else len(stages) - stages.index(p.stage)
        return dataclasses.replace(
            p,
            rate=math.prod(f for name, f in rates.items() if p.is_in(name)) * layer_decay**below,
            decay=math.prod(f for name, f in decays.items() if p.is_in(name)),
            frozen=any(p.is_in(name) for name in freeze),
        )

    parameters = [trained(p) for p in parameters]
    _check_frozen(parameters, rates, decays, layer_decay, freeze)
    frozen = {p.path for p in parameters if p.frozen}
    norms = {path.rpartition("/")[0] for path in flatten_dict(_stats(variables), sep="/")}
    own = {norm: _nearest(norm, parameters) for norm in norms if frozen}
    return Parts(
        tuple(parameters),
        frozenset(norm for norm, paths in own.items() if paths and paths <= frozen),
    )


def parameters_of(model: nn.Module, params: Any) -> list[Parameter]:
    """The parameters of a model with the names of their parts, at factors of 1.

    The group and the encoder's stage come from the names of modules: `encoder` (or `encoder2_1`),
    `aux_head`; in an encoder `stem`, `stage2_block1`, `conv2_1`. The layers that make the logits
    are called "classifier", or as the attribute `classifiers` of the model's class says.

    Args:
      params: arrays or shapes.
    """
    flat = flatten_dict(params, sep="/")
    classifiers = getattr(model, "classifiers", ("classifier",))

    def parameter(path: str, shape: tuple[int, ...]) -> Parameter:
        module = path.rpartition("/")[0]
        kind = "kernel" if len(shape) > 1 else "bias"
        top = path.partition("/")[0]
        group = next((g for g in ("encoder", "aux") if top.startswith(g)), "head")
        return Parameter(
            path=path,
            size=math.prod(shape),
            group=group,
            kind="norm" if f"{module}/scale" in flat else kind,
            classifier=group == "head" and module.rpartition("/")[2] in classifiers,
            stage=_stage(path.removeprefix("encoder")) if group == "encoder" else None,
        )

    return [parameter(path, array.shape) for path, array in flat.items()]


def factors(option: str, value: str | Mapping[str, float], above: bool = False) -> dict[str, float]:
    """Reads an option such as "head=10,bias=2", or the mapping that it stands for.

    Args:
      option: its name.
      above: whether factors must be above 0.

    Raises:
      ValueError: naming the option, if it cannot be read, names a part twice, or has a factor that
        is no number in range.
    """
    pairs: Iterable[Any] = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, str):
        items = [item.strip() for item in value.split(",") if item.strip()]
        pairs = [(name.strip(), factor) for name, _, factor in (i.rpartition("=") for i in items)]
    result: dict[str, float] = {}
    for name, factor in pairs:
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if not name or name in result:
            raise ValueError(
                f"{option}={value!r}; use PART=FACTOR,PART=FACTOR with each part once, such as "
                "head=10,bias=2"
            )
        if not 0 <= number < math.inf or (above and number == 0):
            frozen = ", and train.freeze for a part that is not to learn" if above else ""
            least = "a number above 0" if above else "a number of 0 or more"
            raise ValueError(f"{option}: {name}={factor}; use {least}{frozen}")
        result[name] = number
    return result


def _split_names(freeze: str | Sequence[str]) -> tuple[str, ...]:
    """The names of `train.freeze`; the command line makes one text of "encoder,norm"."""
    texts = (freeze,) if isinstance(freeze, str) else freeze
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _check_name(option: str, name: str, parameters: Sequence[Parameter], may_lack: bool) -> None:
    """Raises ValueError for a name that matches no parameter or is no regular expression."""
    try:
        if may_lack or any(p.is_in(name) for p in parameters):
            return
        problem = "matches no parameter"
    except re.error as error:
        problem = f"is no name of a part and no regular expression ({error})"
    known = [n for n in (*GROUPS, *KINDS) if any(p.is_in(n) for p in parameters)]
    modules = dict.fromkeys(p.path.partition("/")[0] for p in parameters)
    modules = [m for m in modules if m not in known]
    raise ValueError(
        f"{option}: {name!r} {problem}; the parts of this model are {', '.join(known)}, its "
        f"modules {', '.join(modules)}, and regular expressions choose among paths such as "
        f"{parameters[0].path}"
    )


def _check_frozen(
    parameters: Sequence[Parameter],
    rates: Mapping[str, float],
    decays: Mapping[str, float],
    layer_decay: float,
    freeze: Sequence[str],
) -> None:
    """Raises ValueError if an option would train what is frozen, or nothing is left to train."""
    names = ",".join(freeze)
    if all(p.frozen for p in parameters):
        raise ValueError(f"train.freeze={names} freezes all of the model; leave a part to train")
    options = [("optim.lr_scale", f"{name}={f:g}", name) for name, f in rates.items()]
    options += [("optim.decay_scale", f"{name}={f:g}", name) for name, f in decays.items() if f]
    options += [("optim.layer_decay", f"{layer_decay:g}", "encoder")] * (layer_decay != 1)
    for option, text, name in options:
        if all(p.frozen for p in parameters if p.is_in(name)) and freeze:
            raise ValueError(
                f"{option}: {text} trains what train.freeze={names} freezes; remove one of the two"
            )


def _stage(path: str) -> int:
    """The stage of an encoder's parameter, from the path below the encoder: 0 for "/stem1/...", 2
    for "/stage2_block1/..." and for "2_1/..." of `encoder2_1`."""
    first = path.lstrip("/").partition("/")[0]
    number = re.search(r"\d+", first)
    return int(number[0]) if number and not first.startswith("stem") else 0


def _nearest(norm: str, parameters: Sequence[Parameter]) -> set[str]:
    """The parameters of a normalisation; of the module around it if it has none."""
    while norm:
        if own := {p.path for p in parameters if p.path.startswith(f"{norm}/")}:
            return own
        norm = norm.rpartition("/")[0]
    return {p.path for p in parameters}


def _stats(variables: Mapping[str, Any]) -> Any:
    return variables.get("batch_stats", {})


def _by_path(values: Mapping[str, Any], tree: Any) -> Any:
    """The values of the paths of a tree's leaves, as a tree of its structure."""
    return map_by_path(lambda path, _: values[path], tree)


def _groups(
    parameters: Iterable[Parameter], key: Callable[[Parameter], Any]
) -> list[list[Parameter]]:
    """The parameters in groups of one key, in the order of the first of each."""
    groups: dict[Any, list[Parameter]] = {}
    for p in parameters:
        groups.setdefault(key(p), []).append(p)
    return list(groups.values())


def _row(names: str, parameters: Sequence[Parameter], config: Mapping[str, Any]) -> Row:
    first = parameters[0]
    return Row(
        part=names,
        kinds=", ".join(kind for kind in KINDS if any(p.kind == kind for p in parameters)),
        parameters=sum(p.size for p in parameters),
        learning_rate=0.0 if first.frozen else config["learning_rate"] * first.rate,
        weight_decay=0.0 if first.frozen else config["weight_decay"] * first.decay,
        frozen=first.frozen,
    )


def _modules(parameters: Iterable[Parameter], kind: str) -> list[str]:
    return [p.module for p in parameters if p.kind == kind]


def _names(chosen: Sequence[str], all_of: Sequence[str], group: str) -> str:
    """The shortest names that say which modules of a group are chosen: the group itself if all of
    its modules are, else the outermost modules whose own modules are all chosen."""
    if set(chosen) == set(all_of):
        return group
    names: dict[str, None] = {}
    others = set(all_of) - set(chosen)
    for module in chosen:
        steps = module.split("/")
        prefixes = ["/".join(steps[: n + 1]) for n in range(len(steps))]
        outer = (p for p in prefixes if not any(f"{o}/".startswith(f"{p}/") for o in others))
        names[next(outer)] = None
    # The plain name is that of the group.
    listed = [f"{name}/.*" if name == group else name for name in names]
    if len(listed) > _SHOWN:
        return f"{listed[0]} ... {listed[-1]} ({len(listed)} modules)"
    return ", ".join(listed)
