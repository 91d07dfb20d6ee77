"""The step graph on onnxruntime: how a session is opened, and a stepper that allocates nothing a token."""

import numpy as np
import onnxruntime

from kbdfl.errors import ModelError
from kbdfl.export.bundle import Bundle
from kbdfl.text import BOS

INPUTS = ("token", "state_r", "state_c")
OUTPUTS = ("top_ids", "top_probs", "logits", "next_state_r", "next_state_c")


def open_session(bundle: Bundle, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session of the bundle's graph on the CPU. Raises ModelError when it is no step graph of its size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings about optimisations concern no user
    # On x86 before VNNI, pairs of byte products are added in 16 bits, where they may saturate: of a trained
    # model's first suggestions that changes one in seventeen. This avoids it, at a tenth of the int8 step's time.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes share no base but Exception
        raise ModelError(
            f"{bundle.folder}/model.onnx does not load: {str(error).splitlines()[0][:120]}"
        ) from None
    v, e, h = bundle.config.vocab, bundle.config.embed, bundle.config.hidden
    expected = dict(zip(INPUTS, ([1], [1, e], [1, h]), strict=True))
    expected |= dict(zip(OUTPUTS, ([1, 3], [1, 3], [1, v], [1, e], [1, h]), strict=True))
    found = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise ModelError(f"{bundle.folder}/model.onnx must be a step graph of shapes {expected}, got {found}")
    return session


class Stepper:
    """Sentences, one after another, through a session; for one thread, which may share the session.

    After `begin` and every `step` the outputs stand in `top_ids` int64 (1,3), `top_probs` float32 (1,3) and
    `logits` float32 (1,V), and are overwritten by the next step. The graph reads and writes bound buffers:
    two states take turns as its input and its output, which saves a tenth of the time of a step.
    """

    def __init__(self, session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
        config = bundle.config
        self._session = session
        self._token = np.zeros(1, np.int64)
        self.top_ids, self.top_probs = np.zeros((1, 3), np.int64), np.zeros((1, 3), np.float32)
        self.logits = np.zeros((1, config.vocab), np.float32)
        self._states = [
            (np.zeros((1, config.embed), np.float32), np.zeros((1, config.hidden), np.float32)) for _ in "ab"
        ]
        self._bindings = [self._bind(*self._states), self._bind(*reversed(self._states))]
        self._turn = 0
        self.step(BOS)
        outputs = (*self._states[1], self.top_ids, self.top_probs, self.logits)
        self._after_bos = [(array, array.copy()) for array in outputs]

    def begin(self) -> None:
        """Start a sentence: the state and the outputs after `<bos>`, the same for every sentence."""
        for array, value in self._after_bos:
            array[:] = value
        self._turn = 1

    def step(self, token: int) -> None:
        """Commit one token (0 <= token < V)."""
        self._token[0] = token
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn ^= 1

    def _bind(self, before: tuple[np.ndarray, ...], after: tuple[np.ndarray, ...]) -> onnxruntime.IOBinding:
        binding = self._session.io_binding()
        for name, array in zip(INPUTS, (self._token, *before), strict=True):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        outputs: tuple[np.ndarray, ...] = (self.top_ids, self.top_probs, self.logits, *after)
        for name, array in zip(OUTPUTS, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding
