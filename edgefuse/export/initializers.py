"""The constants of a graph."""

import onnx

__all__ = ["drop_unread"]


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the constants that no node of a graph without subgraphs reads, in place.

    ONNX Runtime does so, too, but warns of each.
    """
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
