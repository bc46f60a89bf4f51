"""Model files in every form that an export can have, made quickly."""

from pathlib import Path

from edgefuse.export.end_to_end import cast_at_ends, wrap
from edgefuse.export.graph import engines_for, make_spec, save_graph
from edgefuse.export.quantize import quantize
from edgefuse.export.verify import network_feed
from edgefuse.train.checkpoint import load_checkpoint, restore_model


def export_form(trace, weights, name, graph, size, precision, pair, out: Path, tensorrt=False):
    """Write a network's file without comparing it; int8 is calibrated on a cut of one pair.

    Returns:
        The network, and for which engines the file is arranged.
    """
    checkpoint = load_checkpoint(weights / f"{name}.safetensors")
    model = restore_model(checkpoint)
    spec = make_spec(checkpoint, model, size, precision, graph=graph)
    made = trace(model, spec)
    if precision == "int8":
        ir, vis = (image[10:58, 20:84] if size else image[20:44, 32:64] for image in pair)
        quantize(made, [network_feed(ir, vis, spec)], 30.0)
    if spec.end_to_end:
        wrap(made, spec)
        if tensorrt:
            cast_at_ends(made)
    save_graph(made, spec, out)
    return model, engines_for(made)
