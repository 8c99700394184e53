"""Writes optim.npz: what torch's optimisers and learning-rate schedules do.

Only this script needs torch; the tests read the file it leaves behind.

    pip install torch
    python -m benchmarks.goldens.make_optim

`gradients` [6, 2, 3] are drawn, and so is the `kernel` [2, 3] to start from. `optimizer/<case>` is
the kernel after each step [6, 2, 3]; the rate is 0.1, and 0.01 from the fourth step on, which tells
a momentum of steps from one of gradients. `schedule/<case>` are the rates of the steps 0, 1, ...
"""

from pathlib import Path

import numpy as np
import torch
from torch.optim import lr_scheduler as S

STEPS = 6
# NAdam's beta1 is constant where its momentum decay is fast.
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, dict(momentum=0.9, weight_decay=0.05)),
    "nesterov": (torch.optim.SGD, dict(momentum=0.9, weight_decay=0.05, nesterov=True)),
    "adam": (torch.optim.Adam, dict(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05)),
    "adamw": (torch.optim.AdamW, dict(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05)),
    "adadelta": (torch.optim.Adadelta, dict(rho=0.9, eps=1e-2, weight_decay=0.05)),
    "nadam": (
        torch.optim.NAdam,
        dict(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05, momentum_decay=1e9),
    ),
    "rmsprop": (torch.optim.RMSprop, dict(alpha=0.9, eps=1e-3, weight_decay=0.05)),
    "rmsprop_momentum": (
        torch.optim.RMSprop,
        dict(alpha=0.9, eps=1e-3, weight_decay=0.05, momentum=0.9),
    ),
}
# Steps of the run, and the scheduler of an optimiser whose rate is 0.2.
SCHEDULES = {
    "poly": (20, lambda o: S.PolynomialLR(o, total_iters=20, power=0.9)),
    "step": (20, lambda o: S.MultiStepLR(o, milestones=[12, 17], gamma=0.1)),
    "cosine": (20, lambda o: S.CosineAnnealingLR(o, T_max=20, eta_min=0.01)),
    "cosine_restarts": (28, lambda o: S.CosineAnnealingWarmRestarts(o, 4, 2, eta_min=0.01)),
    "exponential": (20, lambda o: S.ExponentialLR(o, gamma=0.8)),
    # Its peak is at pct_start * total_steps - 1 = 5, its end at total_steps - 1 = 20.
    "one_cycle": (
        20,
        lambda o: S.OneCycleLR(
            o, 0.2, total_steps=21, pct_start=6 / 21, div_factor=10, final_div_factor=100
        ),
    ),
    "linear_warmup": (
        20,
        lambda o: S.SequentialLR(
            o,
            [
                S.LinearLR(o, start_factor=0.01, total_iters=5),
                S.PolynomialLR(o, total_iters=15, power=0.9),
            ],
            milestones=[5],
        ),
    ),
    "constant_warmup": (
        20,
        lambda o: S.SequentialLR(
            o,
            [
                S.ConstantLR(o, factor=0.01, total_iters=5),
                S.PolynomialLR(o, total_iters=15, power=0.9),
            ],
            milestones=[5],
        ),
    ),
}


def path_of(name: str, kernel: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    cls, options = OPTIMIZERS[name]
    leaf = torch.nn.Parameter(torch.tensor(kernel))
    optimizer, path = cls([leaf], lr=0.1, **options), []
    for i, gradient in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = 0.1 if i < STEPS // 2 else 0.01
        leaf.grad = torch.tensor(gradient)
        optimizer.step()
        path.append(leaf.detach().numpy().copy())
    return np.stack(path)


def rates_of(name: str) -> np.ndarray:
    steps, make = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((2, 3)).astype(np.float32)
    gradients = rng.standard_normal((STEPS, 2, 3)).astype(np.float32)
    arrays = {"kernel": kernel, "gradients": gradients}
    arrays |= {f"optimizer/{name}": path_of(name, kernel, gradients) for name in OPTIMIZERS}
    return arrays | {f"schedule/{name}": rates_of(name) for name in SCHEDULES}


if __name__ == "__main__":
    arrays = make()
    path = Path(__file__).parents[2] / "tests" / "goldens" / "optim.npz"
    np.savez_compressed(path, **arrays)
    size = path.stat().st_size
    print(f"{path.name}: {len(arrays)} arrays, {size} bytes, torch {torch.__version__}")
