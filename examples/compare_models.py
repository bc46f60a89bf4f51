"""Which model suits your images: python examples/compare_models.py ir/ vis/ nano cnn"""

import sys

from edgefuse.evaluate import evaluate, named, summarise


def main(ir: str, vis: str, *models: str) -> None:
    result = evaluate(ir, vis, [named(model) for model in models or ("nano", "maximum")])
    for model, means in summarise(result).items():
        print(model, ", ".join(f"{name} {mean.total:.3f}" for name, mean in means.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
