"""A recorder that does on the CPU what CUDA graphs do on a GPU, and refuses what they refuse."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape:
    """Notes every operation of a work with the tensors that it read and wrote; a replay does them on the same tensors.

    Plain numbers stay those of the capture, nothing of Python runs again, and asking for a value is refused. Nothing is
    changed by capturing.

    Attributes:
        captures, replays: how many there were.
    """

    def __init__(self):
        self.captures = self.replays = 0

    def run(self, work):
        return work()

    def capture(self, work):
        with _Noting() as noted:
            result = work()
        noted.take_back()
        self.captures += 1

        def replay():
            self.replays += 1
            noted.again()
            return result

        return replay


class _Noting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._calls = []
        self._found = {}
        self._made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted while capturing\n(it asks for a value)")
        kwargs = kwargs or {}
        for one in _tensors((args, kwargs)):
            if id(one) not in self._made:
                self._found.setdefault(id(one), (one, one.clone()))
        out = func(*args, **kwargs)
        self._made |= {id(one): one for one in _tensors(out) if id(one) not in self._found}
        if not func.is_view:
            self._calls.append((func, args, kwargs, out))
        return out

    @torch.no_grad()
    def take_back(self):
        for tensor, value in self._found.values():
            tensor.copy_(value)
        self._found.clear()

    @torch.no_grad()
    def again(self):
        for func, args, kwargs, out in self._calls:
            for old, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if old is not new:
                    old.copy_(new)


def _tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
