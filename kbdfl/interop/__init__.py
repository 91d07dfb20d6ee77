"""kbdfl inside other people's frameworks: PyTorch, Flower and NVIDIA FLARE (docs/interop.md).

Each module needs the extra of its name; nothing here is imported unless it is asked for.
"""
