"""Hooks of quantized weights on optimizers."""

from __future__ import annotations

import gc

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, register_optimizer_step_post_hook

from qexp.quant.insertion.weights import on_optimizer_step


class Listener:
    calls = 0

    def forget(self) -> None:
        type(self).calls += 1


def step() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    torch.optim.SGD([parameter], lr=0.1).step()


def test_a_model_may_be_collected_inside_a_step_of_another_one() -> None:
    """As by the garbage collector, which may run at any allocation."""
    listeners = [Listener()]
    drop = register_optimizer_step_post_hook(lambda *_: (listeners.clear(), gc.collect()))
    try:
        on_optimizer_step(listeners[0].forget)
        step()
    finally:
        drop.remove()
    assert Listener.calls == 0
    step()


def test_hooks_of_collected_objects_go_at_the_next_registration() -> None:
    count = len(_global_optimizer_post_hooks)
    for _ in range(5):
        listener = Listener()
        handle = on_optimizer_step(listener.forget)
        del listener
    assert len(_global_optimizer_post_hooks) <= count + 1
    handle.remove()
