"""Stand-ins for a GPU on a machine without one: a device of shapes only, and recorded calls.

``PretendDevice`` runs operations of the device with PyTorch's fake tensors (shapes, types and
devices, no numbers), everything on the CPU for real, and watches what crosses between the two.
``RecordedCalls`` are CUDA graphs in miniature: operations on the CPU, written down once and then
repeated on the same memory without the Python code that they came from.
"""

import weakref
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from aesearch.models.training import capture, corruptions


def tensors_of(tree):
    """All tensors in nested arguments."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class PretendDevice(FakeTensorMode):
    """A CUDA device that computes nothing: asked for numbers, it says ``answer`` everywhere.

    Attributes
    ----------
    crossings : list of str
        Operations that took tensors of both sides, or from one to the other; they wait for the
        device. An operation that cannot take both raises, as ``item()`` and ``bool()`` do.
    closed : bool
        Whether a crossing raises, as while a graph is recorded.
    answer : float
    bytes, peak_bytes : int
        Memory of the device that is in use, and the most that ever was.
    """

    def __init__(self, *, without_float64=False):
        super().__init__(allow_non_fake_inputs=True)
        self.crossings, self.closed, self.answer = [], False, 0.5
        self.bytes = self.peak_bytes = 0
        self._without_float64 = without_float64
        self._owned = set()
        self._inside = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run on whichever side the operation belongs to."""
        kwargs = kwargs or {}
        given = tensors_of((args, kwargs))
        on_device = [isinstance(tensor, FakeTensor) for tensor in given]
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target).type == "cuda"
        if not any(on_device) and not to_device:
            return func(*args, **kwargs)
        leaves = target is not None and not to_device
        if not all(on_device) or leaves:
            self._cross(str(func))
        if leaves:
            return self._answered(func, args, kwargs)
        if func is torch.ops.aten.copy_.default and not on_device[0]:
            return args[0].fill_(self.answer)
        outermost, self._inside = not self._inside, True
        try:
            found = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._inside = not outermost
        # Fake tensors take some operations apart; a device has one kernel, which keeps no parts.
        for tensor in tensors_of(found) if outermost else ():
            self._own(tensor)
        return found

    def _cross(self, what):
        self.crossings.append(what)
        if self.closed:
            raise AssertionError(f"nothing may cross while a graph is recorded, got {what}")

    def _answered(self, func, args, kwargs):
        assert func is torch.ops.aten._to_copy.default, func
        (source,) = args
        dtype = kwargs.get("dtype") or source.dtype
        value = self.answer if dtype.is_floating_point else 0
        return torch.full(source.shape, value, dtype=dtype)

    def _own(self, tensor):
        """Count the memory behind a new tensor of the device, until it is gone."""
        if self._without_float64 and tensor.dtype == torch.float64:
            raise TypeError("this device has no float64")
        storage = tensor.untyped_storage()
        if storage._cdata in self._owned:
            return
        key, size = storage._cdata, storage.nbytes()
        self._owned.add(key)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._disown, key, size)

    def _disown(self, key, size):
        self._owned.discard(key)
        self.bytes -= size


class PretendPlace:
    """Records calls on a pretended device: they may not cross, and repeating them does nothing.

    What a call had at its fullest moment stays with the recordings, which share it.
    """

    def __init__(self, device):
        self._device = device
        self._pool_bytes = 0
        self.recorded = self.replayed = 0

    def call(self, function):
        """Make the call."""
        function()

    def record(self, function):
        """Check the call as a graph would."""
        device = self._device
        device.bytes -= self._pool_bytes
        before, peak = device.bytes, device.peak_bytes
        device.closed, device.peak_bytes = True, before
        try:
            function()
        finally:
            device.closed = False
        self._pool_bytes = max(self._pool_bytes, device.peak_bytes - before)
        device.bytes += self._pool_bytes
        device.peak_bytes = max(peak, device.bytes)
        self.recorded += 1
        return self

    def replay(self):
        """Count."""
        self.replayed += 1


@contextmanager
def pretended_gpu(monkeypatch, *, captures=True, without_float64=False):
    """Let ``cuda`` be a device of shapes; gives it and the place where its calls are recorded."""
    device = PretendDevice(without_float64=without_float64)
    place = PretendPlace(device)
    monkeypatch.setattr(capture, "place_of", lambda _: place)
    if not captures:
        monkeypatch.setattr(capture, "can_capture", lambda _: False)
    corruptions._normal_quantiles.cache_clear()  # of this device they are no numbers
    try:
        with device:
            yield device, place
    finally:
        corruptions._normal_quantiles.cache_clear()


class Recording(TorchDispatchMode):
    """Operations on the CPU, to be done again on the same tensors."""

    def __init__(self):
        super().__init__()
        self._operations = []
        self._done = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Do an operation and write it down."""
        found = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        """Do all of them again; the first time they are done already, which a graph's are not."""
        for func, args, kwargs, found in self._operations if self._done else []:
            again = tensors_of(func(*args, **kwargs))
            for old, new in zip(tensors_of(found), again, strict=True):
                if old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                    old.copy_(new)
        self._done = True


class RecordedCalls:
    """A place on the CPU.

    Attributes
    ----------
    recordings : list of Recording
    """

    def __init__(self):
        self.recordings = []

    def call(self, function):
        """Make the call."""
        function()

    def record(self, function):
        """Write the call's operations down."""
        recording = Recording()
        with recording:
            function()
        self.recordings.append(recording)
        return recording
