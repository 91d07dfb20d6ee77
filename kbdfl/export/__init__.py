"""From parameters to a keyboard: the ONNX step graph, the bundle around it, the predictor that runs it.

Importing this package loads neither onnx nor onnxruntime; `bundle` needs onnx to write only, `predictor`
needs onnxruntime.
"""
