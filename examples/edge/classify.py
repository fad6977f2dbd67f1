"""Classify a picture with a file that `adjcompress export` wrote: needs onnxruntime, numpy and Pillow, nothing else.

    pip install onnxruntime numpy pillow
    python classify.py model.onnx picture.jpg

Class names, sizes and normalisation are read from the file. With `--preprocess` the file normalises by itself.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def pixels(path: Path, preprocessing: dict) -> np.ndarray:
    """The picture as the network was trained to see it: uint8 (1, H, W, 3), the central square of `image_size` pixels."""
    size, shorter = preprocessing["image_size"], preprocessing["resize"] or preprocessing["image_size"]
    try:
        picture: Image.Image = Image.open(path)
        picture.load()
    except OSError as error:
        sys.exit(f"{path} cannot be read as a picture: {error}")
    if picture.mode.startswith("I;16"):  # 16 bits a channel: the upper 8
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    picture = picture.convert("RGB")
    scale = shorter / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))[None]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("Usage: python classify.py model.onnx picture.jpg")
    try:
        session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own types have no base of their own
        sys.exit(f"{sys.argv[1]} cannot be loaded: {error}")
    told = session.get_modelmeta().custom_metadata_map
    if "adjcompress.classes" not in told:
        sys.exit(f"{sys.argv[1]} does not name its classes: it was not written by adjcompress export.")
    classes, preprocessing = json.loads(told["adjcompress.classes"]), json.loads(told["adjcompress.preprocessing"])
    images = pixels(Path(sys.argv[2]), preprocessing)
    (image_input,) = session.get_inputs()
    if image_input.type != "tensor(uint8)":
        mean, std = (np.array(preprocessing[name], np.float32) for name in ("mean", "std"))
        images = ((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    (logits,) = session.run(None, {image_input.name: images})
    likely = np.exp(logits[0] - logits[0].max())
    likely /= likely.sum()
    for index in likely.argsort()[::-1][:5]:
        print(f"{likely[index]:6.1%}  {classes[index]}")


if __name__ == "__main__":
    main()
